"""The sample network as it is: who lives there, what they wrote, and how each host behaves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.blocks import make_cid, record_block
from parity_dagster.sample_network.content import PROFILE, encode, make_value
from parity_dagster.sample_network.generated import Generated
from parity_dagster.sample_network.odd import ODD_KINDS, make_odd
from parity_dagster.sample_network.paging import KeptPages
from parity_dagster.sample_network.population import Population, Status
from parity_dagster.sample_network.repo import Record
from parity_dagster.sample_network.request_log import RequestLog

Records = int | Sequence[Mapping[str, Any]]


class SampleNetwork(Population):
    """An AT Protocol network in memory.

    Args:
        hosts: number of PDSes, named `pds-1`, `pds-2`…
        clock: microseconds since the epoch, for revisions that tell the time; by default each write is a second after
            the one before.
    """

    def __init__(
        self, *, hosts: int = 1, seed: int = 1, keep_log: int = 100_000, clock: Callable[[], int] | None = None
    ) -> None:
        super().__init__(hosts=hosts, seed=seed, clock=clock)
        self.log = RequestLog(keep_log)
        self.kept_pages: KeptPages | None = None

    def add_account(
        self,
        collections: Mapping[str, Records] | None = None,
        *,
        host: str | None = None,
        did: str | None = None,
        handle: str | None = None,
        status: Status = "active",
    ) -> str:
        """Add an account with records.

        Args:
            collections: NSID → number of records to make up, or the values themselves.
            host: name of its PDS; by default the hosts take turns.
        """
        with self.lock:
            given = dict(collections or {})
            counts = {nsid: wanted for nsid, wanted in given.items() if isinstance(wanted, int) and nsid != PROFILE}
            did = self.settle(counts, host, did, handle, status)
            for nsid, wanted in given.items():
                if not isinstance(wanted, int):
                    for value in wanted:
                        self.put_record(did, nsid, value)
                elif nsid == PROFILE and wanted:
                    self.put_record(did, nsid, self._profile(did), rkey="self")
        return did

    def _profile(self, did: str) -> dict[str, Any]:
        rng = random.Random(f"{self.seed}/{did}")  # noqa: S311 -- sample content
        return make_value(PROFILE, rng, did=did, created_at="2023-04-24T09:00:00.000Z")

    def put_record(
        self,
        did: str,
        nsid: str,
        value: Mapping[str, Any] | bytes | Record | None = None,
        *,
        rkey: str | None = None,
    ) -> str:
        """Create or replace a record.

        Args:
            value: the value, its exact JSON bytes, or a whole `Record`; None makes one up.
            rkey: record key; by default a new TID greater than all others.
        """
        with self.lock:
            repo = self.accounts[did].repo
            if isinstance(value, Record):
                record = value
            else:
                rkey = rkey or repo.next_rkey()
                if value is None:
                    value = Generated(did, nsid, 10**6).record(int(make_cid(rkey.encode())[-6:], 36) % 10**6)[1]
                encoded = value if isinstance(value, bytes) else encode(dict(value))
                record = Record(rkey, make_cid(record_block(encoded)), encoded)
            repo.put(nsid, record)
            self.seen.add(nsid, did)
            return record.rkey

    update_record = put_record

    def delete_record(self, did: str, nsid: str, rkey: str) -> bool:
        """Delete a record."""
        with self.lock:
            return self.accounts[did].repo.delete(nsid, rkey)

    def add_odd(self, did: str, nsid: str, kinds: Iterable[str] | None = None) -> dict[str, str]:
        """Add odd records to a collection: one of each of some kinds, or of all in `odd.ODD_KINDS`."""
        with self.lock:
            repo = self.accounts[did].repo
            made = {}
            for kind in ODD_KINDS if kinds is None else kinds:
                record = make_odd(kind, did, nsid, repo.next_rkey())
                repo.put(nsid, record)
                self.seen.add(nsid, did)
                made[record.rkey] = kind
            return made

    def records(self, did: str, nsid: str) -> dict[str, tuple[str | None, bytes]]:
        """Return the truth about a collection: rkey → (cid, value bytes), odd records included."""
        with self.lock:
            held = self.accounts[did].repo.collection(nsid)
            return {} if held is None else dict(held.records())

    def odd_records(self, did: str, nsid: str) -> dict[str, str]:
        """Return rkey → kind of the odd records of a collection."""
        with self.lock:
            own = self.accounts[did].repo.writable(nsid).own
            return {rkey: record.odd for rkey, record in own.items() if record.odd}

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of records per (did, collection) that holds any."""
        with self.lock:
            repos = [account.repo for account in self.accounts.values()]
            return {(repo.did, nsid): repo.count(nsid) for repo in repos for nsid in repo.nsids()}

    def rev(self, did: str) -> str:
        """Return the revision of an account's repository, a TID that grows with every write."""
        with self.lock:
            return self.accounts[did].repo.rev

    def set_clock(self, did: str, *, ahead: float = 0.0) -> str:
        """Let an account's revisions go on from now, as its host's clock, so many seconds ahead, has it.

        Until then they are of a year ago.
        """
        with self.lock:
            repo = self.accounts[did].repo
            repo.set_clock(int((time.time() + ahead) * 1_000_000))
            return repo.rev

    def behave(self, *, host: str = "", did: str = "", collection: str = "", **changes: Any) -> Behaviour:
        """Change how the network, a host, or the answers about an account or a pair behave.

        The narrowest scope that was set is in force alone; one set for the first time starts from what was in
        force there. Counters of its faults start anew.

        Args:
            host: a host's name, `plc` and `relay` included; "" is every host.
            did: requests about this account only.
            collection: and this collection only.
            changes: fields of `Behaviour`; `dialect="cocoon"` starts from one of `DIALECTS`.

        Raises:
            ValueError: a field, dialect or value that does not exist.
            KeyError: no such host.
        """
        if host:
            self.host(host)
        with self.lock:
            return self.scopes.adjust(host, did, collection, changes)

    def behave_normally(self) -> None:
        """Let everything behave as the reference PDS again."""
        with self.lock:
            self.scopes.clear()
