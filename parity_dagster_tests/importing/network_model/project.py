"""An installation that imports some of the network's accounts, and the consumer of live events beside it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from itertools import groupby

from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import Pair
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.importing.network_model.world import NSIDS, Event, World

MAPPERS = "parity_dagster_tests.importing.network_model.mappers"


class Project:
    """Settings, and which accounts are ours: projects that share a database have a state table each."""

    def __init__(self, world: World, base: Settings, number: int, of: int) -> None:
        self.world = world
        self.collections: tuple[str, ...] = NSIDS
        self.is_strict = True
        self._base, self._number, self._of = base, number, of
        self._live: ImportService | None = None
        self._sources = random.Random(number)
        self._delivering = threading.Lock()
        self.delivered: dict[tuple[Pair, str], int] = {}
        """Of each record, the version that the last event delivered told of."""
        self.told: Counter[str] = Counter()
        """Events by account."""

    @property
    def settings(self) -> Settings:
        """As they are at the moment."""
        mapper = f"{MAPPERS}:{'Strict' if self.is_strict else 'Lenient'}"
        return self._base.model_copy(
            update={
                "state_table": "parity_import_states" if self._number == 0 else f"model_states_{self._number}",
                "collections": self.collections,
                "mappers": (mapper,) if self.world.has_mapper else (),
                # each time anew: whoever goes on with what another has begun may read it in another way
                "source": self._sources.choice(("list", "repo")) if self.world.has_archives else "list",
            }
        )

    def service(self) -> ImportService:
        """A new one, as a new process would have it."""
        return ImportService(self.settings, report=False)

    @property
    def dids(self) -> list[str]:
        """Our accounts."""
        return self.world.network.dids[self._number :: self._of]

    def pairs(self) -> list[Pair]:
        """What we import."""
        return [Pair(did, nsid) for did in self.dids for nsid in self.collections]

    def change(self, *, collections: tuple[str, ...] | None = None, is_strict: bool | None = None) -> None:
        """Change settings, as a person does; a consumer is started again for that."""
        self.close()
        self.collections = self.collections if collections is None else collections
        self.is_strict = self.is_strict if is_strict is None else is_strict

    def close(self) -> None:
        """Stop the consumer."""
        with self._delivering:
            if self._live is not None:
                self._live.close()
                self._live = None

    def deliver(self, rng: random.Random | None = None) -> None:
        """Hand over what the firehose has told of our accounts, in order; with dice, perhaps not yet all of it."""
        with self._delivering:
            for did in self.dids:
                with self.world.lock:
                    queue = self.world.events[did]
                    count = len(queue) if rng is None else rng.randint(0, len(queue))
                    events = [queue.popleft() for _ in range(count)]
                self._hand_over(events)
                self.told[did] += len(events)

    def _hand_over(self, events: list[Event]) -> None:
        if self._live is None:
            self._live = self.service()
        known = [event for event in events if event.pair.collection in self.collections]
        for event in events:
            if event.pair.collection not in self.collections:
                self.world.silent[event.pair] += 1  # as docs/firehose.md has it, they are left out
        for is_deletion, group in groupby(known, lambda event: event.value is None):
            if is_deletion:
                for event in group:
                    self._live.delete_record(_uri(event), event.rev)
            else:
                self._live.upsert_records(
                    LiveRecord(_uri(event), event.rev, event.cid, event.value or b"") for event in group
                )
        self.delivered.update({(event.pair, event.rkey): event.version for event in known})


def _uri(event: Event) -> str:
    return f"at://{event.pair.did}/{event.pair.collection}/{event.rkey}"
