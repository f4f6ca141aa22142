"""Requests whose answers are bounded, whatever transport they go through: bytes, inflated bytes and seconds.

Every request is an `httpx.Request` that is handed to the transport itself: httpx's client would cost as much again, for
redirects, cookies and authentication that are not wanted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlencode

import httpx

from parity_dagster.atproto.bounds import BodyTooLarge, FileFailed, TooSlow
from parity_dagster.atproto.gunzip import Gunzip
from parity_dagster.atproto.ssrf import check_url
from parity_dagster.errors import BlockedEndpoint, HostUnreachable, MalformedAnswer, ParityError, TransportFailed
from parity_dagster.text import one_line

CONNECT_TIMEOUT = 10.0
"""Seconds for one TCP connection with its TLS handshake."""
IDLE_TIMEOUT = 30.0
"""Seconds without a byte after which a body is given up."""
CLOSING_SECONDS = 1.0
"""Seconds that giving up an answer may take."""
CHUNKS_AT_ONCE = 1024
"""Chunks of a body after which others get their turn, should a transport never wait."""
SLOWEST_DOWNLOAD = 2**18
"""Bytes a second that a download has to come with, once it has taken as long as any request may."""
INFLATED_AT_ONCE = 2**12
"""Compressed bytes of a download that are taken at a time: they inflate to 4 MiB at most (zlib: 1,032 to 1)."""
MAX_REFUSAL_BYTES = 2**16
"""What is read of the body when there is nothing to download; the error's name and text are in it."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server answered.

    Attributes:
        status: HTTP status; redirects are not followed, so a 3xx arrives as it is.
        headers: header fields, looked up in any case.
        body: the body after decompression, at most the `max_bytes` asked for; empty if it went to a file.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class PlainRequest(httpx.Request):
    """A GET request whose URL is taken apart by whoever looks at it: that takes half as long as sending it does."""

    _url: httpx.URL | None = None

    def __init__(self, url: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = "GET"
        self.text = url
        self.headers = httpx.Headers(headers)
        self.extensions = {"timeout": _TIMEOUTS}
        self.stream = httpx.ByteStream(b"")
        self.read()

    @property
    def url(self) -> httpx.URL:
        """Where to; may be set, as that of any request."""
        if self._url is None:
            self._url = httpx.URL(self.text)
        return self._url

    @url.setter
    def url(self, url: httpx.URL) -> None:
        self._url, self.text = url, str(url)


_TIMEOUTS = {"connect": CONNECT_TIMEOUT, "read": IDLE_TIMEOUT, "write": IDLE_TIMEOUT, "pool": None}


class HttpClient:
    """Sends requests through a transport and reads their whole answers; used inside one running event loop.

    Args:
        transport: closed with the client.
        allow_private: what `ssrf.check_url` lets through. It is asked here, too, because a transport that somebody has
            put in the place of ours may not ask.
        timeout: wall-clock seconds of a request, its answer's body included.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, *, allow_private: bool, timeout: float, agent: str) -> None:
        self._transport = transport
        self._allow_private = allow_private
        self._timeout = timeout
        self._headers = [(b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip"), (b"User-Agent", agent.encode())]

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
            url: absolute URL; its origin is checked by `ssrf.parse_endpoint`.
            max_bytes: largest body accepted, counted after decompression.
            timeout: wall-clock seconds for everything, the body included; the client's if None.

        Raises:
            BlockedEndpoint: the URL, or every address its host has, must not be contacted.
            HostUnreachable: no connection, a cut one, or no complete answer in time.
            BodyTooLarge: a body over `max_bytes`.
            MalformedAnswer: not HTTP, or a body that does not decompress.
            TransportFailed: a transport that was given to us does not do what httpx's do.
        """
        target = f"{url}?{urlencode(params)}" if params else url
        host = check_url(target, allow_private=self._allow_private)
        return await self._send(PlainRequest(target, self._fields(host)), host, max_bytes, timeout)

    async def download(
        self, url: str, params: Mapping[str, str] | None = None, *, file: BinaryIO, max_bytes: int
    ) -> HttpResponse:
        """Send one GET request and write the body of a 2xx answer to a file; other bodies are returned.

        The time for it is the client's, and a second more for each 256 KiB that have come: an archive of a gigabyte
        may take its time, while a drip ends soon.

        Args:
            url: as with `get`.
            file: written from its start; what it holds after a failure is of no use.
            max_bytes: largest body accepted, counted after decompression; no more is written.

        Raises:
            BodyTooLarge: the body is larger than `max_bytes`, or is announced so.
            TooSlow: it has begun to come, and takes too long.
            FileFailed: `file` does not take it.
            ParityError: as with `get`.
        """
        target = f"{url}?{urlencode(params)}" if params else url
        host = check_url(target, allow_private=self._allow_private)
        return await self._send(PlainRequest(target, self._fields(host)), host, max_bytes, None, file)

    async def post(
        self, url: str, json: Any, headers: Mapping[str, str], *, max_bytes: int, timeout: float | None = None
    ) -> HttpResponse:
        """Send a JSON body; the rest is as with `get`."""
        host = check_url(url, allow_private=self._allow_private)
        fields = [*self._fields(host), *((name.encode(), value.encode()) for name, value in headers.items())]
        try:
            request = httpx.Request("POST", url, headers=fields, json=json, extensions={"timeout": _TIMEOUTS})
        except httpx.InvalidURL as exc:
            raise BlockedEndpoint(f"{host}: {exc}") from exc
        return await self._send(request, host, max_bytes, timeout)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    def _fields(self, host: str) -> list[tuple[bytes, bytes]]:
        return [(b"Host", host.encode()), *self._headers]

    # I17
    async def _send(
        self, request: httpx.Request, host: str, max_bytes: int, timeout: float | None, file: BinaryIO | None = None
    ) -> HttpResponse:
        seconds = self._timeout if timeout is None else timeout
        clock = asyncio.timeout(seconds)
        is_downloading = False
        try:
            async with clock:
                response = await self._transport.handle_async_request(request)
                try:
                    if file is None:
                        body = await _read(response, max_bytes)
                    elif is_downloading := 200 <= response.status_code < 300:
                        body = b""
                        await _save(response, file, max_bytes, clock)
                    else:
                        body = await _read(response, MAX_REFUSAL_BYTES, is_cut=True)
                except BaseException:
                    with suppress(Exception):
                        async with asyncio.timeout(CLOSING_SECONDS):
                            await response.aclose()
                    raise
                await response.aclose()
            return HttpResponse(response.status_code, response.headers, body)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and _is_cancelled():
                raise
            if clock.expired() and is_downloading:
                raise TooSlow(
                    f"{host}: no complete answer within {seconds:g} s and a second for each"
                    f" {SLOWEST_DOWNLOAD // 1024} KiB of it"
                ) from None
            if clock.expired():
                raise HostUnreachable(f"{host}: no complete answer within {seconds:g} s") from None
            raise _failure(exc, host) from exc


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end; a transport can raise the same exception on its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _read(response: httpx.Response, max_bytes: int, *, is_cut: bool = False) -> bytes:
    """The whole body, or as much of a longer one as is wanted if it is to be cut."""
    if response.is_stream_consumed:  # a transport has read it already, as httpx's own mock does, and decoded it
        if len(response.content) > max_bytes and not is_cut:
            raise _too_large(max_bytes)
        return response.content[:max_bytes]
    stream, gunzip = _open(response, max_bytes)
    chunks: list[bytes] = []
    left = max_bytes
    async for chunk in stream:
        chunks.append(gunzip.feed(chunk) if gunzip else chunk)
        left -= len(chunks[-1])
        if left < 0:
            if is_cut:
                return b"".join(chunks)[:max_bytes]
            raise _too_large(max_bytes)
        if len(chunks) == CHUNKS_AT_ONCE:
            chunks = [b"".join(chunks)]
            await asyncio.sleep(0)
    if gunzip:
        gunzip.finish()
    return chunks[0] if len(chunks) == 1 and type(chunks[0]) is bytes else b"".join(chunks)


async def _save(response: httpx.Response, file: BinaryIO, max_bytes: int, clock: asyncio.Timeout) -> None:
    """Write the body to a file, and let it take the longer the more there is of it."""
    with _file_errors():
        file.seek(0)
        file.truncate()
    if response.is_stream_consumed:
        if len(response.content) > max_bytes:
            raise _too_large(max_bytes)
        with _file_errors():
            file.write(response.content)
            file.flush()
        return
    stream, gunzip = _open(response, max_bytes)
    announced = response.headers.get("content-length", "")
    if not gunzip and announced.isdecimal() and len(announced) < 20 and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    left, until = max_bytes, clock.when()
    assert until is not None
    async for chunk in stream:
        until += len(chunk) / SLOWEST_DOWNLOAD
        clock.reschedule(until)
        # A few kilobytes can inflate to hundreds of megabytes, which are neither held nor made in one go.
        whole = len(chunk) or 1  # others get their turn after an empty one, too
        size = INFLATED_AT_ONCE if gunzip else whole
        for start in range(0, whole, size):
            piece = gunzip.feed(chunk[start : start + size]) if gunzip else chunk
            left -= len(piece)
            if left < 0:
                raise _too_large(max_bytes)
            with _file_errors():
                file.write(piece)
            await asyncio.sleep(0)
    if gunzip:
        gunzip.finish()
    with _file_errors():
        file.flush()


def _open(response: httpx.Response, max_bytes: int) -> tuple[httpx.AsyncByteStream, Gunzip | None]:
    """A body's stream, and what inflates it if it is compressed."""
    if not isinstance(response.stream, httpx.AsyncByteStream) or not isinstance(response.status_code, int):
        raise TypeError("the response has no asynchronous stream, or no status")
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise MalformedAnswer(f"content encoding {encoding[:40]!a}, though only gzip was asked for")
    return response.stream, Gunzip(max_bytes) if encoding.endswith("gzip") else None


@contextmanager
def _file_errors() -> Iterator[None]:
    """What a file raises is not to be taken for a failure of the connection."""
    try:
        yield
    except OSError as exc:
        raise FileFailed(f"the body cannot be written: {exc}") from exc


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes")


def _failure(exc: BaseException, host: str) -> ParityError:
    """What a transport's exception means for the request."""
    text = one_line(f"{host}: {str(exc) or type(exc).__name__}", 300)
    if isinstance(exc, BlockedEndpoint):
        return BlockedEndpoint(text)
    if isinstance(exc, BodyTooLarge):
        return BodyTooLarge(text)
    if isinstance(exc, FileFailed):
        return FileFailed(text)
    if isinstance(exc, MalformedAnswer | httpx.DecodingError | httpx.InvalidURL):
        return MalformedAnswer(text)
    if isinstance(exc, HostUnreachable | httpx.TransportError | OSError):
        return HostUnreachable(text)
    return TransportFailed(one_line(f"{host}: the transport fails with {type(exc).__name__}: {exc}", 300))
