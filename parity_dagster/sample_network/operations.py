"""The directory's log: every operation on a DID, in the order it was made, and `GET /export` over it."""

from __future__ import annotations

import json
import random
import time
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from parity_dagster.sample_network.accounts import make_handle
from parity_dagster.sample_network.blocks import make_cid
from parity_dagster.sample_network.hosts import Account, Host
from parity_dagster.sample_network.scopes import Scope
from parity_dagster.sample_network.signing import key_of
from parity_dagster.sample_network.wire import Answer

MOST = 1000
"""Operations in a page of the reference directory, whatever was asked for."""


class Operation(NamedTuple):
    """What an operation says of a DID.

    Attributes:
        at: milliseconds since the epoch.
        host: None is a tombstone.
    """

    at: int
    did: str
    host: Host | None
    handle: str | None
    rotations: int


class Operations:
    """The log; many operations may share a millisecond."""

    def __init__(self) -> None:
        self._log: list[Operation] = []
        self._nullified: set[int] = set()

    def __len__(self) -> int:
        return len(self._log)

    def note(self, account: Account, *, is_tombstone: bool = False) -> None:
        """Add what an account is now."""
        if account.did.startswith("did:plc:"):
            host = None if is_tombstone else account.host
            self._add(Operation(0, account.did, host, account.handle, account.rotations))

    def undo(self, did: str) -> Operation:
        """Nullify an account's newest operation by one that says what was so before, and return that one."""
        known = [number for number, one in enumerate(self._log) if one.did == did and number not in self._nullified]
        newest, before = known[-1], self._log[known[-2]]
        self._nullified.add(newest)
        self._add(before)
        return before

    def _add(self, operation: Operation) -> None:
        now = time.time_ns() // 10**6
        self._log.append(operation._replace(at=max(now, self._log[-1].at) if self._log else now))

    def export(self, query: dict[str, str], scope: Scope) -> Answer:
        """Answer `GET /export?count=…&after=…` as plc.directory does (https://web.plc.directory/api/redoc)."""
        behaviour = scope.behaviour
        try:
            count = min(int(query.get("count", MOST)), behaviour.export_page or MOST)
        except ValueError:
            count = 0
        if count < 1:
            return Answer(400, b'{"message":"Invalid count parameter"}')
        try:
            after = datetime.fromisoformat(query["after"]).timestamp() * 1000 if "after" in query else -1.0
        except ValueError:
            return Answer(500, b'{"message":"Internal Server Error"}')
        lie = behaviour.export
        if lie == "same":
            after = -1.0
        first = bisect_right(self._log, round(after), key=lambda one: one.at)
        if lie == "wide":
            count = 2 * MOST
        numbers = range(first, min(first + count, len(self._log)))
        if behaviour.export_lag:
            newest = time.time() * 1000 - behaviour.export_lag * 1000
            seen = bisect_right(self._log, newest, key=lambda one: one.at)
            numbers = range(first, max(first, min(numbers.stop, seen)))
        if lie in ("repeated", "late"):
            numbers = range(max(0, first - 50), numbers.stop)
        lines = [self._line(number, behaviour.export == "future") for number in numbers]
        return Answer(200, b"\n".join(_lie(lines, lie)), "application/jsonlines")

    def _line(self, number: int, is_future: bool) -> bytes:
        one = self._log[number]
        at = datetime.fromtimestamp(one.at / 1000, UTC) + (timedelta(days=400) if is_future else timedelta(0))
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{one.at % 1000:03d}Z"
        line = {
            "did": one.did,
            "operation": _operation(one),
            "cid": make_cid(b"%d" % number),
            "nullified": number in self._nullified,
            "createdAt": stamp,
        }
        return json.dumps(line, separators=(",", ":")).encode()


def _operation(one: Operation) -> dict[str, Any]:
    """An operation as the did:plc specification has it; some first ones are of the oldest form."""
    if one.host is None:
        return {"type": "plc_tombstone", "prev": "bafy", "sig": "none"}
    key = f"did:key:{key_of(one.did, one.rotations).multibase}"
    handle = one.handle or make_handle(one.did)
    if one.rotations == 0 and one.did[-1] in "abcd":
        return {
            "type": "create",
            "signingKey": key,
            "recoveryKey": key,
            "handle": handle,
            "service": one.host.url,
            "prev": None,
            "sig": "none",
        }
    return {
        "type": "plc_operation",
        "rotationKeys": [key],
        "verificationMethods": {"atproto": key},
        "alsoKnownAs": [f"at://{handle}"],
        "services": {"atproto_pds": {"type": "AtprotoPersonalDataServer", "endpoint": one.host.url}},
        "prev": None,
        "sig": "none",
    }


def _lie(lines: list[bytes], lie: str) -> Iterable[bytes]:
    match lie:
        case "shuffled":
            random.Random(1).shuffle(lines)  # noqa: S311 -- sample content
        case "late":  # what was given before comes again, after what is new
            return lines[50:] + lines[:50]
        case "broken":
            return [line[: len(line) // 2] if number % 7 == 3 else line for number, line in enumerate(lines)]
        case "cut" if lines:
            half = lines[: len(lines) // 2 + 1]
            return [*half[:-1], half[-1][:20]]
    return lines
