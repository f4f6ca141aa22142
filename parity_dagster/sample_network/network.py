"""The sample network as it is: hosts, accounts, their records, and how each host behaves.

What lives here: the model that a test reads and changes, from any thread and while it is served. What must
not: HTTP (`server` and the modules it dispatches to).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from parity_dagster.sample_network.accounts import make_cid, make_did, make_handle
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.content import PROFILE, encode, make_value
from parity_dagster.sample_network.generated import Generated
from parity_dagster.sample_network.hosts import Account, FixedDocument, Host, Listening
from parity_dagster.sample_network.odd import ODD_KINDS, make_odd
from parity_dagster.sample_network.repo import Record, Repo
from parity_dagster.sample_network.request_log import RequestLog
from parity_dagster.sample_network.scopes import Scopes

Status = Literal["active", "deactivated", "takendown", "suspended", "deleted"]
Records = int | Sequence[Mapping[str, Any]]


class SampleNetwork:
    """An AT Protocol network in memory.

    Args:
        hosts: number of PDSes, named `pds-1`, `pds-2`…
        seed: of everything that is made up.
        keep_log: requests remembered one by one.
    """

    def __init__(self, *, hosts: int = 1, seed: int = 1, keep_log: int = 100_000) -> None:
        self.seed = seed
        self.lock: AbstractContextManager[bool] = threading.RLock()
        self.log = RequestLog(keep_log)
        self.plc = Host("plc", {})
        self.hosts: dict[str, Host] = {}
        self.accounts: dict[str, Account] = {}
        self.documents: dict[str, FixedDocument] = {}
        self.server: Listening | None = None
        self.scopes = Scopes()
        self._handles: dict[str, str] = {}
        for _ in range(hosts):
            self.add_host()

    @property
    def dids(self) -> list[str]:
        """All accounts, in the order they were added."""
        return list(self.accounts)

    def add_host(self, name: str | None = None, behaviour: Behaviour | None = None) -> Host:
        """Add a PDS; it is served at once if the network is.

        Args:
            name: its name, by default `pds-N`.
            behaviour: how it answers, by default as the reference PDS.
        """
        with self.lock:
            host = Host(name or f"pds-{len(self.hosts) + 1}", {})
            self.hosts[host.name] = host
            if behaviour is not None:
                self.scopes.set(host.name, "", "", behaviour)
        if self.server is not None:
            self.server.open_host(host)
        return host

    def take_down_host(self, host: str) -> None:
        """Let a host refuse connections and cut the open ones; its port stays reserved.

        Args:
            host: its name; `plc` is the directory.
        """
        if self.server is not None:
            self.server.close_host(self.host(host))

    def bring_up_host(self, host: str) -> None:
        """Let a host that was taken down accept connections again, on the same port.

        Args:
            host: its name.
        """
        if self.server is not None:
            self.server.open_host(self.host(host))

    def host(self, name: str) -> Host:
        """Return a host by name.

        Args:
            name: `plc` is the directory.

        Raises:
            KeyError: there is none.
        """
        return self.plc if name == "plc" else self.hosts[name]

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
            did: by default a did:plc from the seed.
            handle: by default one made from the DID.
            status: of the account on its PDS.

        Returns:
            The DID.
        """
        with self.lock:
            number = len(self.accounts)
            did = did or make_did(self.seed, number)
            home = self.hosts[host] if host else list(self.hosts.values())[number % len(self.hosts)]
            given = dict(collections or {})
            counts = {
                nsid: wanted for nsid, wanted in given.items() if isinstance(wanted, int) and nsid != PROFILE
            }
            repo = Repo(did, counts)
            repo.status = status
            self.accounts[did] = Account(did, home, repo, handle)
            self._handles[handle or make_handle(did)] = did
            home.repos[did] = repo
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

    def did_of(self, handle: str) -> str | None:
        """Return the account with a handle, or None.

        Args:
            handle: as in the DID document.
        """
        return self._handles.get(handle)

    def set_status(self, did: str, status: Status) -> None:
        """Change an account's status on its PDS.

        Args:
            did: the account.
            status: in the words of com.atproto.sync.getRepoStatus.
        """
        with self.lock:
            self.accounts[did].repo.status = status

    def migrate(
        self, did: str, new_host: str, *, old: Literal["deactivated", "gone", "stale"] = "deactivated"
    ) -> None:
        """Move an account to another PDS.

        Args:
            did: the account.
            new_host: name of the new PDS; the DID document names it from now on.
            old: what the old PDS does: says the account is deactivated, knows nothing, or serves what it had.
        """
        with self.lock:
            account = self.accounts[did]
            if old == "gone":
                del account.host.repos[did]
            else:
                left = account.host.repos[did] = account.repo.copy() if old == "stale" else Repo(did, {})
                left.status = "active" if old == "stale" else "deactivated"
            account.host = self.hosts[new_host]
            account.host.repos[did] = account.repo

    def drop_repo(self, did: str) -> None:
        """Let the PDS forget an account that its DID document still points to.

        Args:
            did: the account.
        """
        with self.lock:
            self.accounts[did].host.repos.pop(did, None)

    def set_document(
        self, did: str, document: Mapping[str, Any] | bytes | None, *, status: int = 200
    ) -> None:
        """Replace what is answered for a DID, by the directory or for did:web.

        Args:
            did: any DID, also one without an account.
            document: JSON or raw bytes; None answers the true document again.
            status: HTTP status; 410 is the directory's tombstone.
        """
        with self.lock:
            self.documents.pop(did, None)
            if document is not None:
                body = document if isinstance(document, bytes) else encode(dict(document))
                self.documents[did] = FixedDocument(status, body)

    def tombstone(self, did: str) -> None:
        """Let the directory answer 410, as after a tombstone operation.

        Args:
            did: the account.
        """
        self.set_document(did, {"message": f"DID not available: {did}"}, status=410)

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
            did: the account.
            nsid: the collection.
            value: the value, its exact JSON bytes, or a whole `Record`; None makes one up.
            rkey: record key; by default a new TID greater than all others.

        Returns:
            The record key.
        """
        with self.lock:
            repo = self.accounts[did].repo
            if isinstance(value, Record):
                record = value
            else:
                rkey = rkey or repo.next_rkey()
                if value is None:
                    value = Generated(did, nsid, 10**6).record(int(make_cid(rkey.encode())[-6:], 36) % 10**6)[
                        1
                    ]
                encoded = value if isinstance(value, bytes) else encode(dict(value))
                record = Record(rkey, make_cid(encoded), encoded)
            repo.put(nsid, record)
            return record.rkey

    update_record = put_record

    def delete_record(self, did: str, nsid: str, rkey: str) -> bool:
        """Delete a record.

        Args:
            did: the account.
            nsid: the collection.
            rkey: its key.

        Returns:
            Whether there was one.
        """
        with self.lock:
            return self.accounts[did].repo.delete(nsid, rkey)

    def add_odd(self, did: str, nsid: str, kinds: Iterable[str] | None = None) -> dict[str, str]:
        """Add odd records to a collection.

        Args:
            did: the account.
            nsid: the collection.
            kinds: keys of `odd.ODD_KINDS`; by default one of each.

        Returns:
            rkey → kind.
        """
        with self.lock:
            repo = self.accounts[did].repo
            made = {}
            for kind in ODD_KINDS if kinds is None else kinds:
                record = make_odd(kind, did, nsid, repo.next_rkey())
                repo.put(nsid, record)
                made[record.rkey] = kind
            return made

    def records(self, did: str, nsid: str) -> dict[str, tuple[str | None, bytes]]:
        """Return the truth about a collection: rkey → (cid, value bytes), odd records included.

        Args:
            did: the account.
            nsid: the collection.
        """
        with self.lock:
            held = self.accounts[did].repo.collection(nsid)
            return {} if held is None else dict(held.records())

    def odd_records(self, did: str, nsid: str) -> dict[str, str]:
        """Return rkey → kind of the odd records of a collection.

        Args:
            did: the account.
            nsid: the collection.
        """
        with self.lock:
            own = self.accounts[did].repo.writable(nsid).own
            return {rkey: record.odd for rkey, record in own.items() if record.odd}

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of records per (did, collection) that holds any."""
        with self.lock:
            repos = [account.repo for account in self.accounts.values()]
            return {(repo.did, nsid): repo.count(nsid) for repo in repos for nsid in repo.nsids()}

    def rev(self, did: str) -> str:
        """Return the revision of an account's repository, a TID that grows with every write.

        Args:
            did: the account.
        """
        with self.lock:
            return self.accounts[did].repo.rev

    def behave(self, *, host: str = "", did: str = "", collection: str = "", **changes: Any) -> Behaviour:
        """Change how the network, a host, or the answers about an account or a pair behave.

        The narrowest scope that was set is in force alone; one set for the first time starts from what was in
        force there. Counters of its faults start anew.

        Args:
            host: a host's name, `plc` included; "" is every host.
            did: requests about this account only.
            collection: and this collection only.
            changes: fields of `Behaviour`; `dialect="cocoon"` starts from one of `DIALECTS`.

        Returns:
            The behaviour now in force.

        Raises:
            ValueError: a field, dialect or value that does not exist.
        """
        with self.lock:
            return self.scopes.adjust(host, did, collection, changes)

    def behave_normally(self) -> None:
        """Let everything behave as the reference PDS again."""
        with self.lock:
            self.scopes.clear()
