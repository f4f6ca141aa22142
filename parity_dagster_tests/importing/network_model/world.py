"""The network's side of the model: every change it makes, what it ever showed, and the events that tell of it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from parity_dagster.identifiers import is_valid_rkey
from parity_dagster.models import Pair
from parity_dagster.sample_network import DIALECTS, LIKE, ODD_KINDS, POST, SampleNetwork
from parity_dagster.sample_network.wrong_archives import WRONG_ARCHIVES
from parity_dagster_tests.importing.network_model.mappers import SKIPPED, is_wanted
from parity_dagster_tests.imports import DAMAGED_IN_LISTS, ONLY_IN_LISTS, listed

NSIDS = (POST, LIKE)
HOSTS = ("pds-1", "pds-2", "pds-3")
MOST_ACCOUNTS = 8
ODD = sorted(name for name, kind in ODD_KINDS.items() if kind.storable is not None and name not in ("wide", "big"))
ODD_BOTH_WAYS = sorted({*ODD} - ONLY_IN_LISTS - DAMAGED_IN_LISTS - {"bad-rkey"})
"""Those that are the same by list and by repository."""
FAULTS: list[dict[str, Any]] = [
    {"kind": "503"}, {"kind": "500"}, {"kind": "cut"}, {"kind": "reset"}, {"kind": "html"}, {"kind": "truncated-json"},
    {"kind": "long-length"}, {"kind": "bad-utf8"}, {"kind": "429", "seconds": 0},
    {"kind": "refuse-cursor", "with_cursor": True}, {"kind": "404"},
    {"kind": "400", "message": "Could not find repo: x"}, {"kind": "latency", "seconds": 0.05},
]  # fmt: skip
WRITES = ("write", "write", "write", "update", "update", "update", "delete", "delete", "put_again")
CHANGES = (
    *WRITES, "write_odd", "write_unwanted", "delete_everything", "add_account", "migrate", "set_status", "disturb",
    "disturb", "disturb_lookups", "forget_revisions", "settle_down", "toggle_host",
)  # fmt: skip
ARCHIVE_CHANGES = ("disturb_archives", "disturb_archives", "rotate_key")
"""What more can happen where repositories are read as a whole."""
ARCHIVE_FAULTS: list[dict[str, Any]] = [
    {"kind": "501"}, {"kind": "404"}, {"kind": "503"}, {"kind": "cut", "size": 300}, {"kind": "html"}, {"kind": "500"},
    {"kind": "429", "seconds": 0}, {"kind": "400", "name": "InvalidRequest"}, {"kind": "latency", "seconds": 0.05},
]  # fmt: skip


class Version(NamedTuple):
    """What a record was at some time."""

    cid: str | None
    may_be_absent: bool
    """Deleted, or nothing that has to be in the table."""


class Event(NamedTuple):
    """A commit of one operation, as the firehose tells it."""

    pair: Pair
    rkey: str
    version: int
    """Index in the record's history."""
    rev: str
    cid: str | None
    value: bytes | None
    """None: the record was deleted."""


DELETED = Version("deleted", True)


class World:
    """A sample network, all versions of its records, and the events that nobody has been told of yet."""

    def __init__(
        self, rng: random.Random, *, has_firehose: bool, has_mapper: bool, may_lie: bool, has_archives: bool
    ) -> None:
        self.network = SampleNetwork(hosts=len(HOSTS), clock=lambda: time.time_ns() // 1000)
        self.has_firehose = has_firehose
        self.has_mapper = has_mapper
        self.may_lie = may_lie
        self.has_archives = has_archives
        self.lock = threading.RLock()
        self.dialects = {host: rng.choice(sorted(DIALECTS)) for host in HOSTS}
        self.history: defaultdict[Pair, dict[str, list[Version]]] = defaultdict(dict)
        self.events: defaultdict[str, deque[Event]] = defaultdict(deque)
        self.silent: Counter[Pair] = Counter()
        """Changes of a pair that no event tells of."""
        self.down: set[str] = set()
        self.mute: set[str] = set()
        """Hosts that do not tell revisions, or not always."""
        self.lying: set[str] = set()
        """Hosts whose revisions are ahead."""
        self.ever_inactive: set[str] = set()
        self.ever_lied: set[str] = set()
        self.changes = 0
        self.calm()
        for number, host in enumerate(HOSTS):
            self._add_account({POST: 7 * number, LIKE: 25}, host)

    def __str__(self) -> str:
        kinds = {"firehose": self.has_firehose, "mapper": self.has_mapper, "lies": self.may_lie}
        kinds["archives"] = self.has_archives
        return f"{', '.join(name for name, is_there in kinds.items() if is_there) or 'plain'}; {self.dialects}"

    # What a network does by itself.

    def change(self, rng: random.Random, kinds: tuple[str, ...] = CHANGES) -> str:
        """One change drawn from some kinds."""
        name = rng.choice((*kinds, *ARCHIVE_CHANGES) if self.has_archives and kinds is CHANGES else kinds)
        with self.lock:
            getattr(self, name)(rng)
            self.changes += 1
            for did, account in self.network.accounts.items():
                if account.host.name in self.lying:
                    self.ever_lied.add(did)
                if account.repo.status != "active":
                    self.ever_inactive.add(did)
        return name

    def add_account(self, rng: random.Random) -> None:
        if len(self.network.accounts) < MOST_ACCOUNTS:
            self._add_account({POST: rng.randrange(45), LIKE: rng.choice([0, 1, 20, 25])}, rng.choice(HOSTS))

    def write(self, rng: random.Random) -> None:
        pair = self._any_pair(rng)
        for _ in range(rng.randint(1, 12)):
            self._put(rng, pair)

    def write_unwanted(self, rng: random.Random) -> None:
        """What a mapper skips or refuses."""
        pair = self._any_pair(rng)
        for _ in range(rng.randint(1, 6)):
            self._put(rng, pair, {"text": f"{rng.choice(('skip', 'bad'))} {time.monotonic_ns()}"})

    def write_odd(self, rng: random.Random) -> None:
        pair = self._any_pair(rng)
        for rkey, kind in self.network.add_odd(
            *pair, [rng.choice(ODD_BOTH_WAYS if self.has_archives else ODD)]
        ).items():
            cid = None if kind == "null-cid" else self.network.records(*pair)[rkey][0]
            self.history[pair].setdefault(rkey, []).append(Version(cid, not ODD_KINDS[kind].storable))
        self._miss(pair)

    def update(self, rng: random.Random) -> None:
        pair = self._any_pair(rng)
        rkeys = sorted(self.network.records(*pair).keys() - self.network.odd_records(*pair).keys())
        if rkeys:
            word = rng.choice(("changed", "changed", "changed", "bad", "skip"))
            self._put(rng, pair, {"text": f"{word} {time.monotonic_ns()}"}, rng.choice(rkeys))

    def put_again(self, rng: random.Random) -> None:
        """A record whose key was deleted before."""
        pair = self._any_pair(rng)
        past = self.history[pair].items()
        if gone := sorted(rkey for rkey, versions in past if versions[-1] is DELETED and len(versions) > 1):
            self._put(rng, pair, {"text": f"again {time.monotonic_ns()}"}, rng.choice(gone))

    def delete(self, rng: random.Random) -> None:
        pair = self._any_pair(rng)
        rkeys = sorted(self.network.records(*pair))
        for rkey in rng.sample(rkeys, min(len(rkeys), rng.randint(1, 3))):
            self._delete(rng, pair, rkey)

    def delete_everything(self, rng: random.Random) -> None:
        pair = self._any_pair(rng)
        for rkey in list(self.network.records(*pair)):
            self._delete(rng, pair, rkey)

    def migrate(self, rng: random.Random) -> None:
        did, host = rng.choice(self.network.dids), rng.choice(HOSTS)
        if self.network.accounts[did].host.name != host:
            self.network.migrate(did, host, old=rng.choice(["deactivated", "gone"]))

    def set_status(self, rng: random.Random) -> None:
        status: Any = rng.choice(["active", "active", "deactivated", "takendown", "suspended"])
        self.network.set_status(rng.choice(self.network.dids), status)

    def disturb(self, rng: random.Random) -> None:
        fault = {"method": "listRecords", "skip": rng.randrange(6), "times": rng.randint(1, 3)} | rng.choice(FAULTS)
        self.network.behave(host=rng.choice(HOSTS), faults=[fault])

    def disturb_archives(self, rng: random.Random) -> None:
        """Archives are not there, cut, or wrong; the lists are as ever."""
        host = rng.choice(HOSTS)
        if rng.random() < 0.5:
            self.network.behave(host=host, archive=rng.choice(["", *sorted(WRONG_ARCHIVES)]))
        else:
            fault = {"method": "getRepo", "times": rng.randint(1, 3)} | rng.choice(ARCHIVE_FAULTS)
            self.network.behave(host=host, faults=[fault])

    def rotate_key(self, rng: random.Random) -> None:
        self.network.rotate_key(rng.choice(self.network.dids))

    def disturb_lookups(self, rng: random.Random) -> None:
        host, method = rng.choice([("plc", "did"), ("pds-1", "getRepoStatus"), ("pds-2", "getLatestCommit")])
        self.network.behave(host=host, faults=[{"kind": "503", "method": method, "times": rng.randint(1, 3)}])
        if method == "getLatestCommit":
            self.mute.add(host)

    def forget_revisions(self, rng: random.Random) -> None:
        """A host without getLatestCommit, or one that is wrong about it."""
        host = rng.choice(HOSTS)
        if self.may_lie and rng.random() < 0.5:
            self.network.behave(host=host, rev_ahead=rng.choice([3600.0, 72_000.0, -3600.0]))
            self.lying.add(host)
        else:
            self.network.behave(host=host, sync_methods=False)
            self.mute.add(host)

    def settle_down(self, rng: random.Random) -> None:
        if rng.random() < 0.5:
            self.calm()

    def toggle_host(self, rng: random.Random) -> None:
        name = rng.choice(HOSTS)
        if name in self.down:
            self.bring_up()
        elif not self.down:
            self.network.take_down_host(name)
            self.down.add(name)

    # What a test has it do.

    def calm(self) -> None:
        """Let every host speak its dialect and nothing fail."""
        self.network.behave_normally()
        self.mute.clear()
        self.lying.clear()
        for host, dialect in self.dialects.items():
            self.network.behave(host=host, dialect=dialect, jitter=0.003)

    def bring_up(self) -> None:
        """Let hosts that are down serve again."""
        for name in self.down:
            self.network.bring_up_host(name)
        self.down.clear()

    def write_refused(self, rng: random.Random, count: int) -> list[tuple[Pair, str]]:
        """Records of one pair that the mapper refuses as long as it is strict."""
        pair = Pair(rng.choice(self.network.dids), POST)
        with self.lock:
            return [(pair, self._put(rng, pair, {"text": f"bad {time.monotonic_ns()}"})) for _ in range(count)]

    def delete_one(self, rng: random.Random, pair: Pair, rkey: str) -> None:
        """Delete a record, if it is still there."""
        with self.lock:
            if rkey in self.network.records(*pair):
                self._delete(rng, pair, rkey)

    def is_mute(self, did: str) -> bool:
        """Whether the account's host does not tell its revision."""
        return self.network.accounts[did].host.name in self.mute

    def truth(self, pair: Pair, *, is_strict: bool) -> dict[str, tuple[str | None, Any]]:
        """What the table has to hold of a pair."""
        found = listed(self.network, *pair)
        if not self.has_mapper or pair.collection != POST:
            return found
        return {rkey: record for rkey, record in found.items() if is_wanted(record[1], is_strict=is_strict)}

    def entries(self, pair: Pair) -> int:
        """Number of different entries of the list: two that are equal byte for byte, and have no key, are one."""
        held = self.network.accounts[pair.did].repo.writable(pair.collection)
        records = [record for rkey in held.records() if (record := held.get(rkey))]
        return len({record.as_entry(*pair) for record in records})

    def skipped(self, pair: Pair) -> int:
        """Number of records that the mapper does not want."""
        if not self.has_mapper or pair.collection != POST:
            return 0
        return sum(str(value.get("text")).startswith(SKIPPED) for _, value in listed(self.network, *pair).values())

    def _any_pair(self, rng: random.Random) -> Pair:
        return Pair(rng.choice(self.network.dids), rng.choice(NSIDS))

    def _add_account(self, counts: Mapping[str, int], host: str) -> None:
        did = self.network.add_account(counts, host=host)
        for nsid in NSIDS:
            pair = Pair(did, nsid)
            for rkey, (cid, _) in self.network.records(*pair).items():
                self.history[pair][rkey] = [Version(cid, False)]

    def _put(self, rng: random.Random, pair: Pair, value: dict[str, Any] | None = None, rkey: str | None = None) -> str:
        rkey = self.network.put_record(*pair, value, rkey=rkey)
        cid, body = self.network.records(*pair)[rkey]
        is_refused = value is not None and self.has_mapper and not is_wanted(value, is_strict=True)
        may_be_absent = (is_refused and pair.collection == POST) or not is_valid_rkey(rkey)
        self._note(rng, pair, rkey, Version(cid, may_be_absent), body)
        return rkey

    def _delete(self, rng: random.Random, pair: Pair, rkey: str) -> None:
        self.network.delete_record(*pair, rkey)
        self._note(rng, pair, rkey, DELETED, None)

    def _note(self, rng: random.Random, pair: Pair, rkey: str, version: Version, value: bytes | None) -> None:
        past = self.history[pair].setdefault(rkey, [])
        past.append(version)
        # A consumer misses some events; not those of hosts that tell no revision, where no import can make up for it.
        if self.has_firehose and (self.is_mute(pair.did) or rng.random() < 0.95):
            event = Event(pair, rkey, len(past) - 1, self.network.rev(pair.did), version.cid, value)
            self.events[pair.did].append(event)
        else:
            self._miss(pair)

    def _miss(self, pair: Pair) -> None:
        """No event tells of a change, and what was on its way before is lost with it: events come in order."""
        self.silent[pair] += 1
        self.silent.update(event.pair for event in self.events.pop(pair.did, ()))
