"""Whatever transport requests go through: bounded, and its failures are errors of ours."""

from __future__ import annotations

import asyncio
import gzip
import os
import ssl
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parity_dagster.atproto.http import CHUNKS_AT_ONCE, HttpResponse
from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.transport import GuardedTransport
from parity_dagster.errors import (
    BlockedEndpoint,
    HostUnreachable,
    MalformedAnswer,
    ParityError,
    SettingsError,
    TransportFailed,
)
from parity_dagster.settings import load_settings
from parity_dagster_tests.atproto.test_http import PAGE, RawServer, response

LIMIT = 2**16
URL = "https://pds.example.com/xrpc/x"


class Own(httpx.AsyncBaseTransport):
    """A transport of a user's own, which does whatever a test wants."""

    def __init__(self, handle: Callable[[httpx.Request], Awaitable[Any]]) -> None:
        self.handle = handle
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self.handle(request)
        return response

    async def aclose(self) -> None:
        self.closed += 1


class Stream(httpx.AsyncByteStream):
    """A body that a test writes."""

    def __init__(self, chunks: Callable[[], AsyncIterator[Any]], close: Callable[[], Awaitable[None]] | None = None):
        self.chunks = chunks
        self.close = close
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def aclose(self) -> None:
        self.closed += 1
        if self.close:
            await self.close()


def ask(transport: Any, *, timeout: float = 5.0, max_bytes: int = LIMIT, url: str = URL) -> HttpResponse:
    async def work() -> HttpResponse:
        network = open_network(load_settings(), transport)
        try:
            return await network.xrpc.http.get(url, {"cursor": "a b"}, max_bytes=max_bytes, timeout=timeout)
        finally:
            await network.aclose()

    return asyncio.run(work())


def answering(made: Callable[[], Any]) -> Own:
    async def handle(request: httpx.Request) -> Any:
        return made()

    return Own(handle)


def streaming(
    chunks: Callable[[], AsyncIterator[Any]], *, close: Callable[[], Awaitable[None]] | None = None, **headers: str
) -> tuple[Own, Stream]:
    stream = Stream(chunks, close)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return answering(lambda: httpx.Response(200, headers=fields, stream=stream)), stream


async def of(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


# --- what it is asked, and what it may answer


def test_a_transport_in_the_place_of_ours_is_asked_with_whole_httpx_requests_and_closed() -> None:
    seen: list[httpx.Request] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"a": 1}, headers={"RateLimit-Limit": "7"})

    own = Own(handle)
    answer = ask(own)
    assert (answer.status, answer.body, answer.headers["ratelimit-limit"]) == (200, b'{"a":1}', "7")
    (request,) = seen
    assert isinstance(request, httpx.Request)
    assert (request.method, str(request.url), request.content) == ("GET", URL + "?cursor=a+b", b"")
    assert request.url.params["cursor"] == "a b"
    assert request.headers["host"] == "pds.example.com"
    assert request.headers["user-agent"].startswith("parity_dagster")
    assert set(request.extensions["timeout"]) == {"connect", "read", "write", "pool"}
    assert own.closed == 1


@pytest.mark.parametrize(
    "made",
    [
        lambda: httpx.Response(200, content=PAGE),
        lambda: httpx.Response(200, content=gzip.compress(PAGE), headers={"content-encoding": "gzip"}),
        lambda: httpx.Response(200, stream=httpx.ByteStream(PAGE)),
        lambda: httpx.Response(200, stream=Stream(lambda: of(PAGE[:9], b"", PAGE[9:]))),
        lambda: httpx.Response(200, stream=Stream(lambda: of(bytearray(PAGE)))),
        lambda: httpx.Response(200, content=of(*(PAGE[n : n + 7] for n in range(0, len(PAGE), 7)))),
        lambda: httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=Stream(lambda: of(*_cut(gzip.compress(PAGE))))
        ),
    ],
    ids=["content", "gzipped content", "byte stream", "stream", "bytearray", "tiny chunks", "gzipped stream"],
)
def test_every_form_of_an_httpx_response_is_read(made: Callable[[], httpx.Response]) -> None:
    answer = ask(answering(made), max_bytes=len(PAGE))
    assert answer.body == PAGE
    assert type(answer.body) is bytes
    with pytest.raises(MalformedAnswer, match=r"^pds\.example\.com: .* larger than"):
        ask(answering(made), max_bytes=len(PAGE) - 1)


def _cut(data: bytes) -> list[bytes]:
    return [data[n : n + 11] for n in range(0, len(data), 11)]


def test_a_response_that_a_wrapper_has_read_is_taken_as_httpx_takes_it() -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        response = httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=Stream(lambda: of(gzip.compress(PAGE)))
        )
        await response.aread()
        return response

    assert ask(Own(handle), max_bytes=len(PAGE)).body == PAGE


def test_a_changed_request_is_sent_as_it_was_changed() -> None:
    class Elsewhere(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.url = request.url.copy_with(host="169.254.169.254")
            return await self.inner.handle_async_request(request)

        async def aclose(self) -> None:
            await self.inner.aclose()

    with pytest.raises(BlockedEndpoint, match=r"169\.254\.169\.254"):
        ask(Elsewhere)


def test_names_that_must_not_be_contacted_are_refused_before_any_transport_is_asked() -> None:
    own = answering(lambda: httpx.Response(200))
    for url in (
        "http://pds.example.com/x",
        "https://169.254.169.254/x",
        "https://pds.internal/x",
        "https://a.example:1/",
    ):
        with pytest.raises(BlockedEndpoint):
            ask(own, url=url)


@pytest.mark.parametrize("transport", ["a name", 7, lambda inner: None, lambda inner: "x", httpx.HTTPTransport()])
def test_what_is_no_transport_is_said_before_any_request(transport: Any) -> None:
    with pytest.raises(SettingsError, match="AsyncBaseTransport"):
        open_network(load_settings(), transport)


# --- limits


def test_a_stream_without_end_ends_at_the_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    own, stream = streaming(endless)
    with pytest.raises(MalformedAnswer, match="larger than 65536 bytes"):
        ask(own)
    assert stream.closed == 1


def test_a_stream_of_nothing_that_never_waits_ends_at_the_wall_clock() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b""

    own, stream = streaming(endless)
    began = time.monotonic()
    with pytest.raises(HostUnreachable, match=r"no complete answer within 0\.3 s"):
        ask(own, timeout=0.3)
    assert time.monotonic() - began < 5
    assert stream.closed == 1


def test_a_body_in_single_bytes_lets_others_work_meanwhile() -> None:
    async def single() -> AsyncIterator[bytes]:
        for _ in range(LIMIT):
            yield b"x"

    turns = 0

    async def work() -> None:
        nonlocal turns
        network = open_network(load_settings(), streaming(single)[0])
        asking = asyncio.create_task(network.xrpc.http.get(URL, max_bytes=LIMIT))
        while not asking.done():
            turns += 1
            await asyncio.sleep(0)
        assert (await asking).body == b"x" * LIMIT

    asyncio.run(work())
    assert turns > LIMIT / CHUNKS_AT_ONCE / 2


@pytest.mark.parametrize("place", ["request", "stream"])
def test_a_transport_that_never_answers_ends_at_the_wall_clock(place: str) -> None:
    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"a"
        await hang()

    own = Own(hang) if place == "request" else streaming(hanging)[0]
    began = time.monotonic()
    with pytest.raises(HostUnreachable, match=r"no complete answer within 0\.2 s"):
        ask(own, timeout=0.2)
    assert time.monotonic() - began < 3


def test_a_body_that_cannot_be_closed_is_left_alone() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise KeyError("close")

    for close in (hang, fail):
        began = time.monotonic()
        with pytest.raises(MalformedAnswer, match="larger"):
            ask(streaming(lambda: of(b"x" * (LIMIT + 1)), close=close)[0], timeout=20)
        assert time.monotonic() - began < 5


def test_a_bomb_from_a_transport_is_not_inflated() -> None:
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(b"\0" * 2**20) for _ in range(64)) + compressor.flush()
    with pytest.raises(MalformedAnswer, match="larger than 65536 bytes"):
        ask(streaming(lambda: of(bomb), content_encoding="gzip")[0])
    with pytest.raises(MalformedAnswer, match="content encoding 'br'"):
        ask(streaming(lambda: of(bomb), content_encoding="br")[0])


# --- failures


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (httpx.ConnectError("refused"), HostUnreachable, "refused"),
        (httpx.ConnectTimeout(""), HostUnreachable, "ConnectTimeout"),
        (httpx.ReadError("cut\x1b[31m\nX"), HostUnreachable, r"cut\\x1b\[31m X"),
        (httpx.RemoteProtocolError("peer closed connection"), HostUnreachable, "peer closed"),
        (httpx.ProxyError("407"), HostUnreachable, "407"),
        (ConnectionResetError("reset"), HostUnreachable, "reset"),
        (TimeoutError("their own"), HostUnreachable, "their own"),
        (httpx.DecodingError("not gzip"), MalformedAnswer, "not gzip"),
        (BlockedEndpoint("10.0.0.1 is not public"), BlockedEndpoint, "10.0.0.1"),
        (HostUnreachable("nobody"), HostUnreachable, "nobody"),
        (ValueError("odd"), TransportFailed, "ValueError: odd"),
        (KeyError("odd"), TransportFailed, "KeyError"),
        (RuntimeError("x" * 9999), TransportFailed, "RuntimeError: x"),
        (StopAsyncIteration(), TransportFailed, "StopAsyncIteration|RuntimeError"),
        (ExceptionGroup("several", [ValueError()]), TransportFailed, "ExceptionGroup"),
        (asyncio.CancelledError("nobody asked for it"), TransportFailed, "CancelledError"),
        (httpx.StreamClosed(), TransportFailed, "StreamClosed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("place", ["request", "stream"])
def test_what_a_transport_raises_is_an_error_of_ours(
    raised: BaseException, kind: type[ParityError], says: str, place: str
) -> None:
    async def fail(request: httpx.Request) -> Any:
        raise raised

    async def failing() -> AsyncIterator[bytes]:
        yield b"a"
        raise raised

    with pytest.raises(kind, match=says) as caught:
        ask(Own(fail) if place == "request" else streaming(failing)[0])
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    "made",
    [
        lambda: None,
        lambda: "a text",
        lambda: httpx.Response(200, content=iter([b"a"])),
        lambda: httpx.Response("200", stream=Stream(lambda: of(b"a"))),  # type: ignore[arg-type] # on purpose
        lambda: httpx.Response(200, stream=Stream(lambda: of("text"))),
        lambda: httpx.Response(200, stream=Stream(lambda: of(7))),
        lambda: httpx.Response(200, stream=Stream(lambda: of(None))),
    ],
    ids=["none", "text", "synchronous", "status", "text chunk", "number chunk", "none chunk"],
)
def test_what_is_no_response_is_an_error_of_the_transport(made: Callable[[], Any]) -> None:
    with pytest.raises(TransportFailed):
        ask(answering(made))


def test_whoever_cancels_a_request_gets_it_cancelled() -> None:
    async def hang(request: httpx.Request) -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        network = open_network(load_settings(), Own(hang))
        asking = asyncio.create_task(network.xrpc.http.get(URL, max_bytes=LIMIT))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(work())


# --- ours, in the hands of httpx's own client


def served(answer: bytes, work: Callable[[httpx.AsyncClient, RawServer], Awaitable[None]], **client: Any) -> None:
    async def run() -> None:
        async def fixed(request: str, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)

        raw = RawServer(fixed)
        server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
        raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = GuardedTransport(allow_private=True)
        async with httpx.AsyncClient(transport=transport, trust_env=False, **client) as asking:
            await work(asking, raw)
        server.close()

    asyncio.run(run())


def test_httpx_s_client_works_with_ours() -> None:
    async def work(client: httpx.AsyncClient, raw: RawServer) -> None:
        answer = await client.post(raw.url + "/hook?a=b%2Fc", json={"text": "ä"}, headers={"X-A": "b"})
        assert answer.json() == {"ok": True}
        assert answer.headers["x-b"] == "ü"
        head = raw.requests[0]
        lines = head.lower().split("\r\n")
        assert lines[0] == "post /hook?a=b%2fc http/1.1"
        assert {"x-a: b", "content-type: application/json", "content-length: 13"} <= set(lines)
        assert sum(line.startswith("content-length") for line in lines) == 1
        assert sum(line.startswith("host:") for line in lines) == 1

    answer = b'{"ok":true}'
    served(response(gzip.compress(answer), "Content-Encoding: gzip", "X-B: \xc3\xbc".encode("latin-1").decode()), work)


def test_a_body_that_is_streamed_is_sent_whole() -> None:
    async def work(client: httpx.AsyncClient, raw: RawServer) -> None:
        assert (await client.post(raw.url + "/", content=of(b"ab", b"c"))).status_code == 200
        head = raw.requests[0].lower()
        assert "content-length: 3" in head
        assert "transfer-encoding" not in head

    served(response(b"{}"), work)


def test_ours_sends_nothing_that_the_request_does_not_have() -> None:
    async def work(client: httpx.AsyncClient, raw: RawServer) -> None:
        request = httpx.Request("GET", raw.url + "/", headers={"host": "other.example"}, stream=httpx.ByteStream(b""))
        answer = await client.send(request)
        assert answer.status_code == 200
        assert raw.requests[0] == "GET / HTTP/1.1\r\nhost: other.example\r\n\r\n"

    served(response(b"{}"), work)


def test_httpx_s_timeouts_shorten_those_of_ours() -> None:
    async def work(client: httpx.AsyncClient, raw: RawServer) -> None:
        with pytest.raises(httpx.ReadTimeout, match=r"silent for 0\.2 s"):
            await client.get(raw.url + "/")

    served(b"HTTP/1.1 200 OK\r\n", work, timeout=0.2)


def test_failures_of_ours_are_those_of_httpx() -> None:
    async def cut(client: httpx.AsyncClient, raw: RawServer) -> None:
        with pytest.raises(MalformedAnswer, match="not an HTTP answer"):
            await client.get(raw.url + "/")

    async def refused(client: httpx.AsyncClient, raw: RawServer) -> None:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:9/")

    served(b"SSH-2.0\r\n\r\n", cut)
    served(b"", refused)


def test_ours_can_be_used_again_after_it_was_closed() -> None:
    async def work(client: httpx.AsyncClient, raw: RawServer) -> None:
        for _ in range(2):
            assert (await client.get(raw.url + "/")).status_code == 200
            await client._transport.aclose()
        assert raw.connections == 2

    served(response(b"{}"), work)


TLS = """
import asyncio, sys, httpx
from parity_dagster.atproto.transport import GuardedTransport, _authorities

async def ask():
    transport = GuardedTransport(allow_private=True)
    try:
        requests = [transport.handle_async_request(httpx.Request("GET", sys.argv[1])) for _ in range(20)]
        return [(await answer).status_code for answer in asyncio.as_completed(requests)]
    finally:
        await transport.aclose()

print(asyncio.run(ask()), _authorities.cache_info().misses)
"""


def test_a_server_proves_who_it_is_to_an_authority_that_is_read_once(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_of("127.0.0.1", authority))

    async def main() -> tuple[str, str]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(response(b"{}"))
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            return await asked(url, SSL_CERT_FILE=str(authority)), await asked(url)

    async def asked(url: str, **variables: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TLS, url),
            env={**os.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return said.decode()

    known, unknown = asyncio.run(main())
    assert known == f"{[200] * 20} 1\n"
    assert "ConnectError" in unknown.splitlines()[-1]
    assert "CERTIFICATE_VERIFY_FAILED" in unknown


def certificate_of(address: str, authority: Path) -> Path:
    """A certificate with its key, and apart from it for those who are to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    chain = authority.with_name("server.pem")
    chain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + authority.read_bytes()
    )
    return chain
