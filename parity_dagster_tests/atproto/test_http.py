"""The HTTP client against servers that misbehave on the wire."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings, strategies as st

from parity_dagster.atproto.gunzip import MAX_MEMBERS, Gunzip
from parity_dagster.atproto.http import HttpClient, HttpResponse
from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.transport import MAX_HEADERS
from parity_dagster.errors import HostUnreachable, MalformedAnswer
from parity_dagster.settings import load_settings

PAGE = b'{"records":[' + b",".join(b'{"n":%d}' % n for n in range(10_000)) + b"]}"
LIMIT = 2**20


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RawServer:
    """Answers each request with whatever bytes a test wants to see on the wire."""

    def __init__(self, answer: Callable[[str, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._answer = answer
        self.url = ""
        self.requests: list[str] = []
        self.connections = 0
        self.sent_all = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(request)
                try:
                    await self._answer(request, writer)
                    await writer.drain()
                except ConnectionError:
                    self.sent_all = False
                    raise
        writer.close()


@asynccontextmanager
async def talking(
    answer: bytes | Callable[[str, asyncio.StreamWriter], Awaitable[None]], **overrides: object
) -> AsyncIterator[tuple[HttpClient, RawServer]]:
    async def fixed(request: str, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    raw = RawServer(fixed if isinstance(answer, bytes) else answer)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = open_network(load_settings(allow_private_hosts=True, **overrides)).xrpc.http
    try:
        yield client, raw
    finally:
        await client.aclose()
        server.close()


def fetch(
    answer: bytes | Callable[[str, asyncio.StreamWriter], Awaitable[None]],
    *,
    max_bytes: int = LIMIT,
    timeout: float | None = 5,
) -> HttpResponse:
    async def scenario() -> HttpResponse:
        async with talking(answer) as (client, raw):
            return await client.get(raw.url + "/xrpc/x", max_bytes=max_bytes, timeout=timeout)

    return asyncio.run(scenario())


def then_close(data: bytes) -> Callable[[str, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


def gzipped(body: bytes, data: bytes | None = None) -> bytes:
    return response(gzip.compress(body) if data is None else data, "Content-Encoding: gzip")


# --- answers that nobody asked for


def test_what_a_server_sends_while_its_connection_is_idle_is_nobodys_answer() -> None:
    async def scenario() -> None:
        pushed = asyncio.Event()

        async def answer(request: str, writer: asyncio.StreamWriter) -> None:
            path = request.split()[1]

            def push() -> None:
                writer.write(response(b"pushed after " + path.encode()))
                pushed.set()

            writer.write(response(path.encode()))
            asyncio.get_running_loop().call_later(0.02, push)

        async with talking(answer) as (client, raw):
            for path in ("/a", "/b", "/c"):
                pushed.clear()
                assert (await client.get(raw.url + path, max_bytes=LIMIT)).body == path.encode()
                await pushed.wait()
                await asyncio.sleep(0.05)
            assert raw.connections == 3

    asyncio.run(scenario())


def test_a_connection_without_surprises_is_used_again() -> None:
    async def scenario() -> None:
        async with talking(response(b"{}")) as (client, raw):
            for _ in range(3):
                await client.get(raw.url + "/", max_bytes=LIMIT)
                await asyncio.sleep(0.02)
            assert raw.connections == 1

    asyncio.run(scenario())


# --- what arrives


def test_a_page_arrives_byte_for_byte_with_status_and_headers() -> None:
    answer = fetch(response(PAGE, "RateLimit-Limit: 3000", "Content-Type: application/json"))
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.headers["ratelimit-limit"] == answer.headers["RateLimit-Limit"] == "3000"


def test_a_gzipped_page_arrives_decompressed() -> None:
    assert fetch(gzipped(PAGE)).body == PAGE


def test_a_gzipped_page_in_several_members_arrives_whole() -> None:
    parts = [PAGE[:1000], b"", PAGE[1000:50_000], PAGE[50_000:]]
    assert fetch(gzipped(PAGE, b"".join(map(gzip.compress, parts)))).body == PAGE


def test_an_empty_body_that_claims_to_be_gzipped_is_empty() -> None:
    assert fetch(gzipped(b"", b"")).body == b""


@pytest.mark.parametrize("encoding", ["identity", "GZIP", "x-gzip"])
def test_the_names_of_an_encoding_are_read_as_the_http_spec_says(encoding: str) -> None:
    body = PAGE if encoding == "identity" else gzip.compress(PAGE)
    assert fetch(response(body, f"Content-Encoding: {encoding}")).body == PAGE


def test_a_chunked_page_and_a_page_ended_by_closing_arrive_whole() -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PAGE[:7], PAGE[7:60_000], PAGE[60_000:]))
    assert fetch(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n").body == PAGE
    assert fetch(then_close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PAGE)).body == PAGE


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("400 Bad Request", b"<html><h1>nginx</h1></html>"),
        ("502 Bad Gateway", b"\xff\xfe\x00 not text"),
        ("200 OK", b"not json"),
        ("429 Too Many Requests", b""),
        ("599 What", b"\0\0"),
    ],
)
def test_bodies_that_are_not_json_are_handed_over_as_they_are(status: str, body: bytes) -> None:
    answer = fetch(response(body, status=status))
    assert (answer.status, answer.body) == (int(status[:3]), body)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def scenario() -> None:
        for status in (
            "301 Moved",
            "302 Found",
            "303 See Other",
            "307 Temporary",
            "308 Permanent",
            "300 Choices",
        ):
            async with (
                talking(response(b"{}")) as (_, elsewhere),
                talking(response(b"", f"Location: {elsewhere.url}/x", status=status)) as (client, raw),
            ):
                answer = await client.get(raw.url + "/xrpc/x", max_bytes=LIMIT)
                assert answer.status == int(status[:3])
                assert (len(raw.requests), elsewhere.connections) == (1, 0)

    asyncio.run(scenario())


def test_cookies_are_not_kept_and_credentials_not_sent() -> None:
    async def scenario() -> None:
        async with talking(response(b"{}", "Set-Cookie: a=b; Path=/")) as (client, raw):
            for _ in range(2):  # jars keep no cookies of addresses
                await client.get(raw.url.replace("127.0.0.1", "localhost") + "/", max_bytes=LIMIT)
            assert len(raw.requests) == 2
            for request in raw.requests:
                assert "cookie" not in request.lower()
                assert "authorization" not in request.lower()

    asyncio.run(scenario())


def test_the_request_says_who_asks_and_asks_for_gzip_only() -> None:
    async def scenario() -> None:
        async with talking(response(b"{}"), user_agent="parity (ops@example.com)") as (client, raw):
            await client.get(raw.url + "/xrpc/x", max_bytes=LIMIT)
            lines = raw.requests[0].lower().split("\r\n")
            assert lines[0] == "get /xrpc/x http/1.1"
            assert "user-agent: parity (ops@example.com)" in lines
            assert "accept-encoding: gzip" in lines

    asyncio.run(scenario())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=15, max_size=15))
def test_any_cursor_reaches_the_server_unchanged(cursors: list[str]) -> None:
    async def scenario() -> None:
        async with talking(response(b"{}")) as (client, raw):
            for cursor in [
                *cursors,
                "a+b c%2Bd&e=f#g/h?i;j",
                "2024-01-01T00:00:00Z::bafy",
                "%",
                "//",
                "\0",
                "é💩",
            ]:
                await client.get(raw.url + "/xrpc/x", {"repo": "did:web:a%3A1", "cursor": cursor}, max_bytes=LIMIT)
                sent = parse_qs(urlsplit(raw.requests[-1].split(" ")[1]).query, keep_blank_values=True)
                assert sent == {"repo": ["did:web:a%3A1"], "cursor": [cursor]}

    asyncio.run(scenario())


def test_connections_are_reused_and_not_shared_between_requests_in_flight() -> None:
    async def scenario() -> None:
        async with talking(response(PAGE)) as (client, raw):
            for _ in range(10):
                await client.get(raw.url + "/", max_bytes=LIMIT)
            assert raw.connections == 1
            answers = await asyncio.gather(*(client.get(raw.url + "/", max_bytes=LIMIT) for _ in range(50)))
            assert all(answer.body == PAGE for answer in answers)
            assert 2 <= raw.connections <= 50

    asyncio.run(scenario())


# --- too much


# I17
@pytest.mark.parametrize("how", ["content-length", "chunked", "close"])
def test_a_body_over_the_limit_is_given_up_at_the_limit(how: str) -> None:
    async def endless(request: str, writer: asyncio.StreamWriter) -> None:
        head = {
            "content-length": "Content-Length: 1000000000",
            "chunked": "Transfer-Encoding: chunked",
            "close": "Connection: close",
        }[how]
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        block = b"x" * 65_536
        for _ in range(2_000):  # 131 MB
            writer.write(b"10000\r\n" + block + b"\r\n" if how == "chunked" else block)
            await writer.drain()

    async def scenario() -> None:
        async with talking(endless) as (client, raw):
            tracemalloc.start()
            with pytest.raises(MalformedAnswer, match=r"^127\.0\.0\.1:\d+: .* larger than 1048576 bytes"):
                await client.get(raw.url + "/", max_bytes=LIMIT, timeout=20)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 6 * LIMIT
            await asyncio.sleep(0.1)
            assert not raw.sent_all  # the connection was closed, not drained

    asyncio.run(scenario())


def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    body = b"x" * 70_000
    assert fetch(response(body), max_bytes=70_000).body == body
    assert fetch(gzipped(body), max_bytes=70_000).body == body
    for answer in (response(body), gzipped(body)):
        with pytest.raises(MalformedAnswer):
            fetch(answer, max_bytes=69_999)


def test_a_gzip_bomb_is_never_inflated_beyond_the_limit() -> None:
    compressor = zlib.compressobj(9, wbits=31)
    block = b"\0" * 2**20
    bomb = b"".join(compressor.compress(block) for _ in range(128)) + compressor.flush()  # 128 MiB in 128 KiB
    tracemalloc.start()
    with pytest.raises(MalformedAnswer, match="larger than 1048576 bytes"):
        fetch(gzipped(b"", bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(bomb) * 2 + 6 * LIMIT


def test_a_bomb_in_many_small_members_is_refused_quickly() -> None:
    started = time.monotonic()
    with pytest.raises(MalformedAnswer, match="members"):
        fetch(gzipped(b"", gzip.compress(b"") * 40_000))
    assert time.monotonic() - started < 3
    assert fetch(gzipped(b"", gzip.compress(b"x") * MAX_MEMBERS)).body == b"x" * MAX_MEMBERS


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-{n}: y" for n in range(MAX_HEADERS + 50)],
        ["X: " + "y" * 20_000],
        ["X" * 20_000 + ": y"],
        [f"X-{n}: {'y' * 8000}" for n in range(5000)],
    ],
    ids=["many", "long value", "long name", "many and long"],
)
def test_a_flood_of_headers_is_refused(headers: list[str]) -> None:
    with pytest.raises((MalformedAnswer, HostUnreachable)) as caught:
        fetch(response(b"{}", *headers))
    assert len(str(caught.value)) <= 300


def test_a_usual_number_of_headers_is_accepted() -> None:
    assert fetch(response(b"{}", *(f"X-{n}: {'y' * 100}" for n in range(60)))).status == 200


def test_endless_headers_end_in_an_error() -> None:
    async def endless(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for n in range(10**9):
            writer.write(b"X-%d: y\r\n" % n * 100)
            await writer.drain()

    with pytest.raises((MalformedAnswer, HostUnreachable)):
        fetch(endless, timeout=10)


# --- too little, too slow


# I17
@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX-A: b", response(b"{}", length=10**6)])
def test_a_slow_drip_ends_at_the_wall_clock(drip: bytes) -> None:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(drip)
        while True:
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b"x")

    started = time.monotonic()
    with pytest.raises(HostUnreachable, match=r"^127\.0\.0\.1:\d+: no complete answer within 0\.5 s$"):
        fetch(answer, timeout=0.5)
    assert time.monotonic() - started < 2


def test_the_setting_limits_the_time_of_a_request_without_a_timeout_of_its_own() -> None:
    async def silent(request: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with talking(silent, request_timeout=0.3) as (client, raw):
            with pytest.raises(HostUnreachable, match=r"within 0\.3 s"):
                await client.get(raw.url + "/", max_bytes=LIMIT)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        response(PAGE, length=len(PAGE) + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc",
    ],
    ids=["nothing", "in a header", "before the body", "one byte short", "between chunks", "in a chunk"],
)
def test_a_connection_cut_in_the_middle_is_no_answer(answer: bytes) -> None:
    with pytest.raises(HostUnreachable, match=r"^127\.0\.0\.1:\d+: \w"):
        fetch(then_close(answer))


@pytest.mark.parametrize("keep", [1, 10, 12, 500, -9, -8, -4, -1])
def test_a_truncated_gzip_body_is_malformed_and_not_a_short_page(keep: int) -> None:
    with pytest.raises(MalformedAnswer, match="cut short"):
        fetch(gzipped(b"", gzip.compress(PAGE)[:keep]))


@pytest.mark.parametrize("damage", ["header", "middle", "checksum", "trailing garbage", "not gzip"])
def test_a_damaged_gzip_body_is_malformed(damage: str) -> None:
    noise = random.Random(1).randbytes(50_000)
    data = bytearray(gzip.compress(noise))
    if damage == "trailing garbage":
        data += b"garbage that is no gzip member"
    elif damage == "not gzip":
        data = bytearray(PAGE)
    else:
        data[{"header": 0, "middle": 25_000, "checksum": -6}[damage]] ^= 0xFF
    with pytest.raises(MalformedAnswer, match="gzip"):
        fetch(gzipped(b"", bytes(data)))


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br", "compress", "\x7f"])
def test_an_encoding_nobody_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises((MalformedAnswer, HostUnreachable)):
        fetch(response(PAGE, f"Content-Encoding: {encoding}"))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x00\x00\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\x1b[31mred\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header\x1b[31m\r\n\r\n",
    ],
)
def test_what_is_not_http_is_an_error_of_one_clean_line(answer: bytes) -> None:
    with pytest.raises((MalformedAnswer, HostUnreachable)) as caught:
        fetch(then_close(answer))
    message = str(caught.value)
    assert message.startswith("127.0.0.1:")
    assert message.isprintable()
    assert len(message) <= 300


def test_bytes_beyond_the_declared_length_do_not_become_the_next_answer() -> None:
    forged = response(b'{"forged":true}')

    async def scenario() -> None:
        async with talking(response(b"{}") + forged) as (client, raw):
            for _ in range(5):
                with suppress(HostUnreachable, MalformedAnswer):
                    assert (await client.get(raw.url + "/", max_bytes=LIMIT, timeout=2)).body == b"{}"

    asyncio.run(scenario())


def test_names_are_looked_up_by_the_system_unless_told_otherwise() -> None:
    async def scenario() -> None:
        async with talking(response(b"{}")) as (client, raw):
            url = raw.url.replace("127.0.0.1", "localhost")
            assert (await client.get(url + "/", max_bytes=LIMIT)).body == b"{}"
            assert f"host: {url[7:]}" in raw.requests[0].lower()

    asyncio.run(scenario())


def test_nobody_listening_and_no_such_name_say_so_in_one_line() -> None:
    async def scenario() -> None:
        async with talking(b"") as (_, raw):
            gone = raw.url
        client = open_network(load_settings(allow_private_hosts=True)).xrpc.http
        for url, host in ((gone, "127.0.0.1"), ("http://no-such-name.invalid", "no-such-name.invalid")):
            with pytest.raises(HostUnreachable, match=f"^{host}") as caught:
                await client.get(url + "/x", max_bytes=LIMIT, timeout=10)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) <= 300
        await client.aclose()

    asyncio.run(scenario())


def test_the_client_works_on_after_each_kind_of_failure() -> None:
    bad = [b"SSH-2.0\r\n\r\n", gzipped(b"", b"x"), response(b"x" * 5000), response(b"x", length=99)]

    async def scenario() -> None:
        answers = [*bad, response(b"{}")]

        async def answer(request: str, writer: asyncio.StreamWriter) -> None:
            writer.write(answers[int(request.split(" ")[1][1:])])
            await writer.drain()
            if "/3" in request.split(" ")[1]:
                writer.close()

        async with talking(answer) as (client, raw):
            for n in [0, 4, 1, 4, 2, 4, 3, 4] * 3:
                if n == 4:
                    assert (await client.get(f"{raw.url}/4", max_bytes=1000)).body == b"{}"
                else:
                    with pytest.raises((MalformedAnswer, HostUnreachable)):
                        await client.get(f"{raw.url}/{n}", max_bytes=1000, timeout=2)

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_a_client_that_works() -> None:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        if "/slow" in request:
            await asyncio.sleep(30)
        writer.write(response(b"{}"))

    async def scenario() -> None:
        async with talking(answer) as (client, raw):
            task = asyncio.create_task(client.get(raw.url + "/slow", max_bytes=LIMIT))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get(raw.url + "/", max_bytes=LIMIT)).body == b"{}"

    asyncio.run(scenario())


@given(
    st.lists(st.binary(max_size=3000) | st.integers(0, 200_000).map(bytes), max_size=5),
    st.integers(1, 40_000),
    st.integers(0, 210_000),
)
def test_gunzip_is_gzip_decompress_up_to_the_limit_however_the_bytes_are_cut(
    members: list[bytes], cut: int, limit: int
) -> None:
    expected = b"".join(members)
    data = b"".join(map(gzip.compress, members))
    gunzip, out = Gunzip(limit), b""
    for start in range(0, len(data), cut):
        out += gunzip.feed(data[start : start + cut])
        if len(out) > limit:
            break
    assert out == expected[: limit + 1]
    if len(expected) <= limit:
        gunzip.finish()
