"""Who is who in the sample network: hosts, accounts, and documents answered instead of the true ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from parity_dagster.sample_network.accounts import make_handle
from parity_dagster.sample_network.repo import Repo
from parity_dagster.sample_network.signing import PrivateKey, key_of


@dataclass(slots=True)
class Host:
    """A server of the network: a PDS, the PLC directory (`plc`), or the relay (`relay`).

    Attributes:
        name: how tests and the log call it.
        repos: repositories it serves.
        port: where it listens while (and after) the network is served; 0 before.
        address: where it listens; nobody else's but the machine's own reaches the loopback's.
        is_up: whether it accepts connections.
        documents: what a mirror of the directory answers for a DID in the place of what all answer.
    """

    name: str
    repos: dict[str, Repo]
    port: int = 0
    address: str = "127.0.0.1"
    is_up: bool = True
    documents: dict[str, FixedDocument] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Origin of the host, as DID documents name it."""
        return f"http://{self.address}:{self.port}"


@dataclass(slots=True)
class Account:
    """Who a DID is: where its document points, which repository is the true one and how often its key has changed."""

    did: str
    host: Host
    repo: Repo
    handle: str | None = None
    rotations: int = 0

    @property
    def shown_handle(self) -> str:
        """The handle in the DID document."""
        return self.handle or make_handle(self.did)

    @property
    def key(self) -> PrivateKey:
        """The key that the DID document names and that commits are signed with."""
        return key_of(self.did, self.rotations)


@dataclass(frozen=True, slots=True)
class FixedDocument:
    """An answer given for a DID instead of its document."""

    status: int
    body: bytes


class Listening(Protocol):
    """What serves a network and must hear of hosts that come and go."""

    def open_host(self, host: Host) -> None:
        """Start to accept connections for a host."""

    def close_host(self, host: Host) -> None:
        """Refuse connections to a host and cut the open ones."""
