"""Who lives in the sample network and where: hosts, accounts, their status, and documents about them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from parity_dagster.sample_network.accounts import make_did, make_handle
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.hosts import Account, FixedDocument, Host, Listening
from parity_dagster.sample_network.operations import Operations
from parity_dagster.sample_network.repo import Repo
from parity_dagster.sample_network.scopes import Scopes
from parity_dagster.sample_network.seen import SeenAccounts

Status = Literal["active", "deactivated", "takendown", "suspended", "deleted"]


class Population:
    """Hosts and accounts.

    Args:
        hosts: number of PDSes, named `pds-1`, `pds-2`…
        clock: microseconds since the epoch, for revisions that tell the time; see `Repo`.
    """

    def __init__(self, *, hosts: int, seed: int, clock: Callable[[], int] | None = None) -> None:
        self.seed = seed
        self.clock = clock
        self.lock: AbstractContextManager[bool] = threading.RLock()
        self.plc = Host("plc", {})
        self.mirrors: dict[str, Host] = {"plc": self.plc}
        self.relay = Host("relay", {})
        self.seen = SeenAccounts()
        self.hosts: dict[str, Host] = {}
        self.accounts: dict[str, Account] = {}
        self.documents: dict[str, FixedDocument] = {}
        self.server: Listening | None = None
        self.operations = Operations()
        self.scopes = Scopes()
        self._handles: dict[str, str] = {}
        for _ in range(hosts):
            self.add_host()

    @property
    def dids(self) -> list[str]:
        """All accounts, in the order they were added."""
        return list(self.accounts)

    def add_host(self, name: str | None = None, behaviour: Behaviour | None = None) -> Host:
        """Add a PDS, by default named `pds-N`; it is served at once if the network is."""
        with self.lock:
            host = Host(name or f"pds-{len(self.hosts) + 1}", {})
            self.hosts[host.name] = host
            if behaviour is not None:
                self.scopes.set(host.name, "", "", behaviour)
        if self.server is not None:
            self.server.open_host(host)
        return host

    def add_mirror(self, name: str | None = None) -> Host:
        """Add a server that has the directory, too, by default named `plc-N`; served at once if the network is."""
        with self.lock:
            mirror = Host(name or f"plc-{len(self.mirrors) + 1}", {})
            self.mirrors[mirror.name] = mirror
        if self.server is not None:
            self.server.open_host(mirror)
        return mirror

    def take_down_host(self, host: str) -> None:
        """Let a host, `plc` and `relay` included, refuse connections and cut the open ones; its port stays reserved."""
        if self.server is not None:
            self.server.close_host(self.host(host))

    def bring_up_host(self, host: str) -> None:
        """Let a host that was taken down accept connections again, on the same port."""
        if self.server is not None:
            self.server.open_host(self.host(host))

    def host(self, name: str) -> Host:
        """Return a host by name; `plc` is the directory, `relay` the relay."""
        return {**self.mirrors, "relay": self.relay}.get(name) or self.hosts[name]

    def settle(
        self, counts: Mapping[str, int], host: str | None, did: str | None, handle: str | None, status: Status
    ) -> str:
        """Add an account with generated records; `SampleNetwork.add_account` does more.

        Args:
            host: name of its PDS; by default the hosts take turns.
        """
        number = len(self.accounts)
        did = did or make_did(self.seed, number)
        home = self.hosts[host] if host else list(self.hosts.values())[number % len(self.hosts)]
        repo = Repo(did, dict(counts), self.clock)
        repo.status = status
        self.accounts[did] = Account(did, home, repo, handle)
        self.operations.note(self.accounts[did])
        self._handles[handle or make_handle(did)] = did
        home.repos[did] = repo
        for nsid, count in counts.items():
            if count:
                self.seen.add(nsid, did)
        return did

    def did_of(self, handle: str) -> str | None:
        """Return the account with a handle, or None."""
        return self._handles.get(handle)

    def set_status(self, did: str, status: Status) -> None:
        """Change an account's status on its PDS."""
        with self.lock:
            self.accounts[did].repo.status = status

    def migrate(self, did: str, new_host: str, *, old: Literal["deactivated", "gone", "stale"] = "deactivated") -> None:
        """Move an account to another PDS.

        Args:
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
            self.operations.note(account)

    def rotate_key(self, did: str) -> None:
        """Give an account another key; its document names it and its archives are signed with it from now on."""
        with self.lock:
            self.accounts[did].rotations += 1
            self.operations.note(self.accounts[did])

    def change_handle(self, did: str, handle: str) -> None:
        """Give an account another handle, which its document claims from now on."""
        with self.lock:
            self.accounts[did].handle = handle
            self._handles[handle] = did
            self.operations.note(self.accounts[did])

    def drop_repo(self, did: str) -> None:
        """Let the PDS forget an account that its DID document still points to."""
        with self.lock:
            self.accounts[did].host.repos.pop(did, None)

    def set_document(
        self, did: str, document: Mapping[str, Any] | bytes | None, *, status: int = 200, mirror: str = ""
    ) -> None:
        """Replace what is answered for a DID, by the directory or for did:web.

        Args:
            document: JSON or raw bytes; None answers the true document again.
            status: HTTP status; 410 is the directory's tombstone.
            mirror: only of this mirror of the directory, `plc` included.
        """
        with self.lock:
            documents = self.mirrors[mirror].documents if mirror else self.documents
            documents.pop(did, None)
            if document is not None:
                body = document if isinstance(document, bytes) else encode(dict(document))
                documents[did] = FixedDocument(status, body)

    def tombstone(self, did: str) -> None:
        """Let the directory answer 410, after a tombstone operation."""
        self.set_document(did, {"message": f"DID not available: {did}"}, status=410)
        if did in self.accounts:
            self.operations.note(self.accounts[did], is_tombstone=True)

    def recover(self, did: str) -> None:
        """Undo the newest operation on an account by one that nullifies it, as its owner can for three days."""
        with self.lock:
            before = self.operations.undo(did)
            account = self.accounts[did]
            account.handle, account.rotations = before.handle, before.rotations
            if before.host is not None:
                account.host = before.host
                account.host.repos[did] = account.repo
            self.set_document(did, None)
