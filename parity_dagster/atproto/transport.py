"""The one way out: an httpx transport that reaches public servers only, with aiohttp's sockets beneath.

Everything that could lead a request elsewhere is switched off: redirects, cookies, proxies of the environment.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from parity_dagster.atproto.http import CONNECT_TIMEOUT, IDLE_TIMEOUT, PlainRequest
from parity_dagster.atproto.ssrf import check_address, check_url
from parity_dagster.errors import BlockedEndpoint, MalformedAnswer
from parity_dagster.threads import DaemonThreads, beside_the_loop

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which Node servers close theirs."""
MOST_REFUSED = 10
"""Connections refused for one request because something unread waits in them."""
MAX_HEADERS = 100
"""Header fields of one answer, each of at most 8,190 bytes (aiohttp's default)."""

# Outcome of the address check for each connection attempt of the current request. The sockets are made in
# tasks that aiohttp starts, which inherit this context; their exceptions do not always come through.
_attempts: ContextVar[list[BlockedEndpoint | None]] = ContextVar("_attempts")


@functools.cache
def _authorities() -> ssl.SSLContext:
    """certifi's, or those of SSL_CERT_FILE; read once, which takes a while."""
    return httpx.create_ssl_context()


# I17
class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests to public servers, and to nobody else.

    What a request is checked for: https to a public-looking name on port 443, and at the socket, when the connection is
    made, that the address is public; so neither a server's DID document nor its DNS can lead a request inwards. What it
    does not do: follow redirects, keep cookies, read proxies or credentials from the environment. `ImportService` uses
    one unless it is given another `transport`; it also serves `httpx.AsyncClient(transport=GuardedTransport())`, whose
    limits of size and time are then the client's.

    Args:
        allow_private: contact http and private addresses too, as `PARITY_ALLOW_PRIVATE_HOSTS` does.
        resolver: where addresses of names come from (aiohttp's interface), the system's resolver if None; whatever it
            answers, an address that is not public is not connected to.
    """

    def __init__(self, *, allow_private: bool = False, resolver: AbstractResolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._authorities: ssl.SSLContext | None = None
        self._reading = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request as it is, and answer with its response's head; the body is read from its stream.

        Args:
            request: any httpx request; the `timeout` in its extensions can shorten the time for connecting and reading.

        Raises:
            BlockedEndpoint: the URL, or every address its host has, must not be contacted.
            MalformedAnswer: what came is not HTTP.
            httpx.TransportError: no connection, a cut or a silent one.
        """
        url = request.text if isinstance(request, PlainRequest) else str(request.url)
        check_url(url, allow_private=self._allow_private)
        attempts: list[BlockedEndpoint | None] = []
        _attempts.set(attempts)
        if url.startswith("https:") and self._authorities is None:
            await self._read_authorities()
        session = self._session or self._open_session()
        timeout = _timeout(request.extensions.get("timeout"))
        try:
            response = await session.request(
                request.method,
                URL(url, encoded=True),  # checked above, and sent as it was checked
                headers=[
                    (name.decode("ascii"), value.decode())
                    for name, value in request.headers.raw
                    if name.lower() not in _AIOHTTPS_OWN
                ],
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=timeout,
                ssl=self._authorities or True,
            )
        except _FAILURES as exc:
            refused = [attempt for attempt in attempts if attempt]
            if refused and len(refused) == len(attempts):
                raise BlockedEndpoint(str(refused[0])) from exc
            raise _renamed(exc, request, timeout, httpx.ConnectError) from exc
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response, request, timeout))

    async def aclose(self) -> None:
        """Close every connection; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _read_authorities(self) -> None:
        # the first requests come many at a time, and need not read it each
        async with self._reading:
            if self._authorities is None:
                self._authorities = await beside_the_loop(_authorities)

    def _open_session(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=0,  # callers limit how many requests are in flight
            keepalive_timeout=KEEP_ALIVE,
            ttl_dns_cache=300,
            resolver=self._resolver or SystemResolver(),
            socket_factory=self._open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            max_headers=MAX_HEADERS,
        )
        return self._session

    def _open_socket(self, addr_info: tuple[Any, ...]) -> socket.socket:
        # The last moment before a connection: what is checked here is what is connected to, so a name that
        # changes its address between two look-ups gains nothing.
        family, kind, protocol, _, address = addr_info
        if not self._allow_private:
            try:
                check_address(address[0])
            except BlockedEndpoint as exc:
                _attempts.get().append(exc)
                raise OSError(str(exc)) from exc
        _attempts.get().append(None)
        return socket.socket(family=family, type=kind, proto=protocol)


_AIOHTTPS_OWN = frozenset({b"content-length", b"transfer-encoding"})
_FAILURES = (aiohttp.ClientError, OSError, ValueError)


class _Body(httpx.AsyncByteStream):
    """A body as it arrives, compressed if it was sent so."""

    def __init__(
        self, response: aiohttp.ClientResponse, request: httpx.Request, timeout: aiohttp.ClientTimeout
    ) -> None:
        self._response = response
        self._request = request
        self._timeout = timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = self._response.content.readany
        try:
            while chunk := await read():
                yield chunk
        except _FAILURES as exc:
            raise _renamed(exc, self._request, self._timeout, httpx.ReadError) from exc

    async def aclose(self) -> None:
        # A connection that was not read to its end is closed by it, the others are used again.
        self._response.release()
        await self._response.wait_for_close()


def _renamed(
    exc: Exception, request: httpx.Request, timeout: aiohttp.ClientTimeout, usual: type[httpx.NetworkError]
) -> httpx.TransportError | MalformedAnswer:
    """What a failure of aiohttp is called here."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(f"no connection within {timeout.sock_connect:g} s", request=request)
    if isinstance(exc, aiohttp.ServerTimeoutError):
        return httpx.ReadTimeout(f"silent for {timeout.sock_read:g} s", request=request)
    if isinstance(exc, aiohttp.ClientResponseError):
        return MalformedAnswer(f"not an HTTP answer: {exc.message}")
    if isinstance(exc, aiohttp.ServerDisconnectedError):  # its text may be the repr of half an answer
        return httpx.ReadError("the server closed the connection", request=request)
    return usual(str(exc) or type(exc).__name__, request=request)


def _timeout(asked: dict[str, float | None] | None) -> aiohttp.ClientTimeout:
    """Of what is asked for and what is usual, the shorter."""
    return _clipped(asked.get("connect"), asked.get("read")) if asked else _clipped(None, None)


@lru_cache(maxsize=64)
def _clipped(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        sock_connect=CONNECT_TIMEOUT if connect is None else min(connect, CONNECT_TIMEOUT),
        sock_read=IDLE_TIMEOUT if read is None else min(read, IDLE_TIMEOUT),
    )


class _Connector(aiohttp.TCPConnector):
    """A pool whose connections have nothing to say before they are asked.

    What a server sends while its connection is idle would be taken for the answer to the next question, and every
    later answer for the one after it; on a host of many accounts that mixes them up.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        for _ in range(MOST_REFUSED):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("answers before it is asked")


class SystemResolver(AbstractResolver):
    """getaddrinfo in threads of its own: names that time out do not occupy the event loop's few threads."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(32, "parity-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look up every address of `host` (aiohttp's `AbstractResolver` says what comes back)."""
        lookup = functools.partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, lookup)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(addr[0]), port=port, family=fam, proto=proto, flags=numeric)
            for fam, _, proto, _, addr in infos
        ]

    async def close(self) -> None:
        """Drop look-ups that wait; those under way end by themselves."""
        self._threads.shutdown()
