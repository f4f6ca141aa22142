"""GET requests to servers nobody vouches for.

It is aiohttp with everything switched off that could follow a redirect, keep a cookie, read a proxy from the
environment or decompress without a limit.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from parity_dagster.atproto.gunzip import Gunzip
from parity_dagster.atproto.ssrf import SystemResolver, check_address, check_url
from parity_dagster.errors import BlockedEndpoint, HostUnreachable, MalformedAnswer
from parity_dagster.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds for one TCP connection with its TLS handshake."""
IDLE_TIMEOUT = 30.0
"""Seconds without a byte after which a body is given up."""
KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which Node servers close theirs."""
MOST_REFUSED = 10
"""Connections refused for one request because something unread waits in them."""
MAX_HEADERS = 100
"""Header fields of one answer, each of at most 8,190 bytes (aiohttp's default)."""

# Outcome of the address check for each connection attempt of the current request. The sockets are made in
# tasks that aiohttp starts, which inherit this context; their exceptions do not always come through.
_attempts: ContextVar[list[BlockedEndpoint | None]] = ContextVar("_attempts")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server answered.

    Attributes:
        status: HTTP status; redirects are not followed, so a 3xx arrives as it is.
        headers: header fields, looked up in any case.
        body: the body after decompression, at most the `max_bytes` asked for.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends GET requests under the policy of `endpoints`; used inside one running event loop.

    Args:
        settings: `allow_private_hosts`, `request_timeout` and `user_agent` are read.
        resolver: where addresses of names come from, the system's resolver if None; whatever it answers,
            an address that is not public is not connected to.
    """

    def __init__(self, settings: Settings, *, resolver: AbstractResolver | None = None) -> None:
        self._allow_private = settings.allow_private_hosts
        self._timeout = settings.request_timeout
        self._headers = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": settings.user_agent}
        self._resolver = resolver
        self._tls = httpx.create_ssl_context()  # certifi's authorities, or those of SSL_CERT_FILE
        self._session: aiohttp.ClientSession | None = None
        if self._allow_private:
            logger.warning(
                "PARITY_ALLOW_PRIVATE_HOSTS is on: any account's DID document can make this machine contact"
                " loopback and internal addresses over plain http; for demos and tests only"
            )

    # I17
    async def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        *,
        max_bytes: int,
        timeout: float | None = None,
    ) -> HttpResponse:
        """Send one GET request and read the entire answer.

        Args:
            url: absolute URL; its origin is checked by `endpoints.parse_endpoint`.
            max_bytes: largest body accepted, counted after decompression.
            timeout: wall-clock seconds for everything, the body included; `request_timeout` if None.

        Raises:
            BlockedEndpoint: the URL, or every address its host has, must not be contacted.
            HostUnreachable: no connection, a cut one, or no complete answer in time.
            MalformedAnswer: not HTTP, a body over `max_bytes`, or one that does not decompress.
        """
        host = check_url(url, allow_private=self._allow_private)
        seconds = self._timeout if timeout is None else timeout
        attempts: list[BlockedEndpoint | None] = []
        _attempts.set(attempts)
        try:
            # `encoded`: checked above, and sent as it was checked
            target = URL(f"{url}?{urlencode(params)}" if params else url, encoded=True)
            session = self._session or self._open_session()
            async with asyncio.timeout(seconds), session.get(target, allow_redirects=False) as response:
                return HttpResponse(response.status, response.headers, await _read(response, max_bytes))
        except MalformedAnswer as exc:
            raise MalformedAnswer(f"{host}: {exc}") from None
        except aiohttp.ConnectionTimeoutError:
            raise HostUnreachable(f"{host}: no connection within {CONNECT_TIMEOUT:g} s") from None
        except aiohttp.ServerTimeoutError:
            raise HostUnreachable(f"{host}: silent for {IDLE_TIMEOUT:g} s") from None
        except TimeoutError:
            raise HostUnreachable(f"{host}: no complete answer within {seconds:g} s") from None
        except aiohttp.ClientResponseError as exc:
            raise MalformedAnswer(_one_line(f"{host}: not an HTTP answer: {exc.message}")) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            refused = [attempt for attempt in attempts if attempt]
            if refused and len(refused) == len(attempts):
                raise BlockedEndpoint(_one_line(f"{host}: {refused[0]}")) from exc
            what = str(exc) or type(exc).__name__
            if isinstance(exc, aiohttp.ServerDisconnectedError):
                what = "the server closed the connection"  # aiohttp's text may be the repr of half an answer
            raise HostUnreachable(_one_line(f"{host}: {what}")) from exc

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=0,  # callers limit how many requests are in flight
            keepalive_timeout=KEEP_ALIVE,
            ttl_dns_cache=300,
            resolver=self._resolver or SystemResolver(),
            ssl=self._tls,
            socket_factory=self._open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=IDLE_TIMEOUT),
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


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise MalformedAnswer(f"content encoding {encoding[:40]!a}, though only gzip was asked for")
    gunzip = Gunzip(max_bytes) if encoding.endswith("gzip") else None
    chunks: list[bytes] = []
    left = max_bytes
    async for chunk in response.content.iter_any():
        chunks.append(gunzip.feed(chunk) if gunzip else chunk)
        left -= len(chunks[-1])
        if left < 0:
            raise MalformedAnswer(f"the body is larger than {max_bytes} bytes")
    if gunzip:
        gunzip.finish()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _one_line(text: str) -> str:
    """Text from a server made fit for a log line: control characters escaped, at most 300 characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)[:300]
