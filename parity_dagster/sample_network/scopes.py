"""Which behaviour is in force for a request, and what has been counted under it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

from parity_dagster.sample_network.behaviour import DIALECTS, REFERENCE, Behaviour, Fault, change


@dataclass(slots=True)
class Scope:
    """A behaviour in force, with what it has counted so far.

    Attributes:
        behaviour: what is in force.
        pages: pages listed under it per (did, collection).
    """

    behaviour: Behaviour
    pages: dict[tuple[str, str], int] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _hit: dict[int, int] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=random.Random)
    _windows: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chance.seed(self.behaviour.seed)

    def fault(self, method: str, cursor: str | None) -> Fault | None:
        """Decide which fault hits a request of an XRPC method, or `did`, and count it."""
        for number, fault in enumerate(self.behaviour.faults):
            if fault.method and fault.method != method and not method.endswith("." + fault.method):
                continue
            if fault.with_cursor is not None and fault.with_cursor != bool(cursor):
                continue
            seen = self._seen[number] = self._seen.get(number, 0) + 1
            if seen <= fault.skip or (fault.every and (seen - fault.skip) % fault.every):
                continue
            if fault.probability and self._chance.random() >= fault.probability:
                continue
            if fault.times is not None and self._hit.get(number, 0) >= fault.times:
                continue
            self._hit[number] = self._hit.get(number, 0) + 1
            return fault
        return None

    def delay(self) -> float:
        """Return the seconds that this answer is held back."""
        behaviour = self.behaviour
        return behaviour.latency + (self._chance.uniform(0, behaviour.jitter) if behaviour.jitter else 0.0)

    def take(self, bucket: str, limit: int) -> tuple[int, float]:
        """Count a request against a rate limit.

        Args:
            bucket: what has a window of its own: a host, or one method of it.
            limit: requests in a window.

        Returns:
            Requests left in this window (negative: refuse this one) and the epoch second at which it ends.
        """
        now = time.time()
        ends, used = self._windows.get(bucket, (0.0, 0))
        if now >= ends:
            ends, used = now + self.behaviour.rate_window, 0
        self._windows[bucket] = ends, used + 1
        return limit - used - 1, ends


class Scopes:
    """The behaviours in force.

    The narrowest scope that was set is in force alone: pair, account, collection, host, network (in that
    order, and one bound to a host before one that holds everywhere).
    """

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str, str], Scope] = {}
        self._everywhere = Scope(REFERENCE)

    def set(self, host: str, did: str, collection: str, behaviour: Behaviour) -> None:
        """Put a behaviour in force; counters start anew."""
        if host or did or collection:
            self._scopes[host, did, collection] = Scope(behaviour)
        else:
            self._everywhere = Scope(behaviour)

    def adjust(self, host: str, did: str, collection: str, changes: dict[str, Any]) -> Behaviour:
        """Put a changed copy of the behaviour that is in force in force.

        Args:
            changes: fields of `Behaviour`; `dialect` starts from one of `DIALECTS`.

        Raises:
            ValueError: a field, dialect or value that does not exist.
        """
        rest = dict(changes)
        dialect = rest.pop("dialect", None)
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"no dialect is called {dialect!r}; there are {', '.join(DIALECTS)}")
        start = DIALECTS[dialect] if dialect else self.find(host, did, collection).behaviour
        behaviour = change(start, rest)
        self.set(host, did, collection, behaviour)
        return behaviour

    def find(self, host: str, did: str = "", collection: str = "") -> Scope:
        """Return the scope in force for a request."""
        if self._scopes:
            for key in (
                (host, did, collection),
                ("", did, collection),
                (host, did, ""),
                ("", did, ""),
                (host, "", collection),
                ("", "", collection),
                (host, "", ""),
            ):
                scope = self._scopes.get(key)
                if scope is not None:
                    return scope
        return self._everywhere

    def clear(self) -> None:
        """Let everything behave as the reference PDS."""
        self._scopes.clear()
        self._everywhere = Scope(REFERENCE)
