"""What asks strangers' servers, wired in this one place: HTTP, names, limiters, XRPC and identities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity_dagster.atproto.http import HttpClient
from parity_dagster.atproto.identity import IdentityResolver
from parity_dagster.atproto.ratelimit import LONGEST_WAIT, HostLimiters
from parity_dagster.atproto.repo import RepoClient
from parity_dagster.atproto.xrpc import XrpcClient
from parity_dagster.settings import Settings

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver


@dataclass(frozen=True, slots=True)
class Network:
    """The network as one event loop sees it; all of it keeps to the same limits."""

    http: HttpClient
    xrpc: XrpcClient
    identities: IdentityResolver
    repos: RepoClient

    async def aclose(self) -> None:
        """Close every connection."""
        await self.http.aclose()


def open_network(
    settings: Settings,
    *,
    resolver: AbstractResolver | None = None,
    longest_wait: float = LONGEST_WAIT,
    plc_rate: float | None = None,
) -> Network:
    """Wire a network for use inside one event loop; nothing is sent yet.

    Args:
        resolver: where addresses of names come from, the system's resolver if None.
        longest_wait: seconds that requests wait for a host that asks them to.
        plc_rate: look-ups per second sent to the PLC directory; see `IdentityResolver`.
    """
    http = HttpClient(settings, resolver=resolver)
    xrpc = XrpcClient(http, HostLimiters(settings.host_concurrency, longest_wait), settings.concurrency)
    identities = IdentityResolver(
        xrpc, plc_url=settings.plc_url, allow_private=settings.allow_private_hosts, plc_rate=plc_rate
    )
    return Network(http, xrpc, identities, RepoClient(xrpc, max_page_bytes=settings.max_page_bytes))
