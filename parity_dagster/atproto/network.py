"""What asks others' servers, wired in this one place: transport, HTTP, limiters, XRPC and identities."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from parity_dagster.atproto.account_lists import AccountLists
from parity_dagster.atproto.directory import PlcDirectory
from parity_dagster.atproto.identity import IdentityResolver
from parity_dagster.atproto.ratelimit import LONGEST_WAIT, HostLimiters
from parity_dagster.atproto.repo import RepoClient
from parity_dagster.atproto.xrpc import XrpcClient
from parity_dagster.errors import SettingsError
from parity_dagster.settings import Settings, load_object

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver
    from httpx import AsyncBaseTransport

    from parity_dagster.atproto.http import HttpClient

    Transport = AsyncBaseTransport | Callable[[AsyncBaseTransport], AsyncBaseTransport]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Network:
    """The network as one event loop sees it; all of it keeps to the same limits."""

    xrpc: XrpcClient
    directory: PlcDirectory
    identities: IdentityResolver
    repos: RepoClient
    lists: AccountLists

    async def aclose(self) -> None:
        """Close every connection."""
        await self.xrpc.aclose()


def open_network(
    settings: Settings,
    transport: Transport | None = None,
    *,
    resolver: AbstractResolver | None = None,
    longest_wait: float = LONGEST_WAIT,
) -> Network:
    """Wire a network for use inside one event loop; httpx and aiohttp are loaded by the first request.

    Args:
        transport: what requests go through in the place of our own transport, or what wraps ours when it is called
            with it; what the settings name if None.
        resolver: where our own transport gets the addresses of names, from the system if None.
        longest_wait: seconds that requests wait for a host that asks them to.

    Raises:
        SettingsError: `transport` is none, and makes none.
    """
    is_private = settings.allow_private_hosts
    if is_private:
        logger.warning(
            "PARITY_ALLOW_PRIVATE_HOSTS is on: any account's DID document can make this machine contact"
            " loopback and internal addresses over plain http; for demos and tests only"
        )
    xrpc = XrpcClient(
        partial(open_http, settings, transport, resolver=resolver, allow_private=is_private),
        HostLimiters(settings.host_concurrency, longest_wait),
        settings.concurrency,
    )
    if transport is not None or settings.transport:
        _ = xrpc.http  # what is wrong with it is said before any work
    directory = PlcDirectory(xrpc, settings.plc_urls, settings.plc_rate)
    identities = IdentityResolver(xrpc, directory, allow_private=is_private)
    repos = RepoClient(xrpc, max_page_bytes=settings.max_page_bytes)
    return Network(xrpc, directory, identities, repos, AccountLists(xrpc, allow_private=is_private))


def open_http(
    settings: Settings,
    transport: Transport | None = None,
    *,
    resolver: AbstractResolver | None = None,
    allow_private: bool,
) -> HttpClient:
    """The part of a network that knows no limits of hosts: enough for one server that the settings name.

    Args:
        transport: as in `open_network`.
        resolver: as in `open_network`.
        allow_private: contact http and private addresses too.
    """
    from httpx import AsyncBaseTransport

    from parity_dagster.atproto.http import HttpClient

    given: object = transport or (load_object("PARITY_TRANSPORT", settings.transport) if settings.transport else None)
    made = given
    if not isinstance(given, AsyncBaseTransport):
        from parity_dagster.atproto.transport import GuardedTransport

        made = GuardedTransport(allow_private=allow_private, resolver=resolver)
        if given is not None:
            made = _wrap(given, made) if callable(given) else given
    if not isinstance(made, AsyncBaseTransport):
        raise SettingsError(
            f"transport: {type(made).__name__} is no httpx.AsyncBaseTransport; give one, or what makes one when it is"
            " called with ours"
        )
    return HttpClient(made, allow_private=allow_private, timeout=settings.request_timeout, agent=settings.user_agent)


def _wrap(given: Callable[[AsyncBaseTransport], object], ours: AsyncBaseTransport) -> object:
    try:
        return given(ours)
    except Exception as exc:
        raise SettingsError(f"transport: {given!r} cannot be called with ours ({type(exc).__name__}: {exc})") from exc
