"""Answers that go to a file: bounded in bytes, time and memory, against servers that misbehave on the wire."""

from __future__ import annotations

import asyncio
import errno
import gzip
import tempfile
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import Any, BinaryIO

import httpx
import pytest

from parity_dagster.atproto.bounds import BodyTooLarge, FileFailed, TooSlow
from parity_dagster.atproto.http import MAX_REFUSAL_BYTES, SLOWEST_DOWNLOAD, HttpResponse
from parity_dagster.atproto.network import Network, open_network
from parity_dagster.atproto.ratelimit import BREAKER_FAILURES
from parity_dagster.atproto.xrpc import XrpcError
from parity_dagster.errors import BlockedEndpoint, HostUnreachable, MalformedAnswer, RateLimited, TransportFailed
from parity_dagster.settings import load_settings
from parity_dagster_tests.atproto.test_http import LIMIT, RawServer, gzipped, response, talking, then_close
from parity_dagster_tests.atproto.test_transport import answering, of, streaming

BODY = bytes(range(256)) * 2500
BLOCK = b"x" * 2**16
MIB = 2**20

Serving = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(bounded())


def download(
    answer: bytes | Serving, file: BinaryIO, *, max_bytes: int = LIMIT, timeout: float = 30.0
) -> tuple[HttpResponse, RawServer]:
    async def work() -> tuple[HttpResponse, RawServer]:
        async with talking(answer, request_timeout=timeout) as (client, raw):
            return await client.download(raw.url + "/x", {"did": "a"}, file=file, max_bytes=max_bytes), raw

    done: tuple[HttpResponse, RawServer] = run(work)
    return done


def refused(
    answer: bytes | Serving, kind: type[Exception], *, max_bytes: int = LIMIT, timeout: float = 30.0
) -> tuple[str, int]:
    """The error's text and how much has been written by then."""
    with tempfile.TemporaryFile() as file:
        with pytest.raises(kind) as caught:
            download(answer, file, max_bytes=max_bytes, timeout=timeout)
        assert type(caught.value) is kind
        return str(caught.value), file.seek(0, 2)


HEADS = {
    "chunked": "Transfer-Encoding: chunked",
    "close": "Connection: close",
    "content-length": "Content-Length: 1000000000",
}


def sending(how: str, blocks: int) -> Serving:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{HEADS[how]}\r\n\r\n".encode())
        for _ in range(blocks):
            writer.write(b"10000\r\n" + BLOCK + b"\r\n" if how == "chunked" else BLOCK)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if how == "chunked" else b"")

    return answer


def dripping(head: bytes) -> Serving:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b"x")

    return answer


# --- what arrives


@pytest.mark.parametrize(
    "answer",
    [
        response(BODY),
        gzipped(BODY),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        gzipped(b"", gzip.compress(BODY[:5]) + gzip.compress(BODY[5:])),
    ],
    ids=["plain", "gzip", "chunked", "gzip in members"],
)
def test_a_body_is_in_the_file_byte_for_byte_and_nothing_of_what_was_there_before(answer: bytes) -> None:
    file = BytesIO()
    file.write(b"old" * MIB)
    got, raw = download(answer, file)
    assert (got.status, got.body, file.getvalue()) == (200, b"", BODY)
    assert raw.requests[0].startswith("GET /x?did=a HTTP/1.1\r\n")


def test_what_is_no_success_is_returned_and_leaves_the_file_alone() -> None:
    file = BytesIO(b"old")
    got, _ = download(response(b'{"error":"RepoTakendown"}', status="400 Bad Request"), file, max_bytes=5)
    assert (got.status, got.body, file.getvalue()) == (400, b'{"error":"RepoTakendown"}', b"old")


@pytest.mark.parametrize("body", [b"y" * MIB, gzip.compress(b"y" * MIB)], ids=["plain", "gzip"])
def test_of_a_long_refusal_the_beginning_is_enough(body: bytes) -> None:
    headers = ["Content-Encoding: gzip"] if body[0] == 31 else []
    got, _ = download(response(body, *headers, status="404 Not Found"), BytesIO())
    assert (got.status, got.body) == (404, b"y" * MAX_REFUSAL_BYTES)


# --- too much


@pytest.mark.parametrize("made", [response, gzipped])
def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not(made: Callable[[bytes], bytes]) -> None:
    file = BytesIO()
    download(made(BODY), file, max_bytes=len(BODY))
    assert file.getvalue() == BODY
    text, written = refused(made(BODY), BodyTooLarge, max_bytes=len(BODY) - 1)
    assert text.endswith(f": the body is larger than {len(BODY) - 1} bytes")
    assert written < len(BODY)


# I17
@pytest.mark.parametrize("how", ["chunked", "close"])
def test_an_endless_body_is_given_up_at_the_limit_and_its_connection_closed(how: str) -> None:
    closed = asyncio.Event()

    async def endless(request: str, writer: asyncio.StreamWriter) -> None:
        try:
            await sending(how, 10**9)(request, writer)
        except ConnectionError:
            closed.set()
            raise

    async def work() -> None:
        async with talking(endless) as (client, raw):
            with tempfile.TemporaryFile() as file:
                with pytest.raises(BodyTooLarge, match=r"^127\.0\.0\.1:\d+: .* larger than 5000000 bytes$"):
                    await client.download(raw.url + "/", file=file, max_bytes=5_000_000)
                assert 4_000_000 < file.seek(0, 2) <= 5_000_000
            await closed.wait()

    run(work)


def test_a_body_that_is_announced_as_too_large_is_not_waited_for() -> None:
    text, written = refused(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", BodyTooLarge)
    assert text.endswith(": the body is larger than 1048576 bytes")
    assert written == 0


def bomb(mebibytes: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    block = b"\0" * MIB
    return b"".join(compressor.compress(block) for _ in range(mebibytes)) + compressor.flush()


# I17
@pytest.mark.long
def test_a_gzip_bomb_is_inflated_to_the_limit_and_a_little_at_a_time() -> None:
    answer = gzipped(b"", bomb(128))
    assert refused(answer, BodyTooLarge)[1] <= LIMIT
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        download(answer, file, max_bytes=128 * MIB)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert file.seek(0, 2) == 128 * MIB
    assert peak < 16 * MIB


# I17
@pytest.mark.parametrize("how", ["chunked", "close"])
def test_a_large_body_takes_no_memory(how: str) -> None:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        await sending(how, 800)(request, writer)
        writer.close()

    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        download(answer, file, max_bytes=2**30)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert file.seek(0, 2) == 800 * len(BLOCK)
    assert peak < 4 * MIB


# --- too slow, cut


# I17
@pytest.mark.parametrize("how", list(HEADS))
def test_a_body_that_drips_is_too_slow(how: str) -> None:
    head = f"HTTP/1.1 200 OK\r\n{HEADS[how]}\r\n\r\n".encode() + (b"ffffff\r\n" if how == "chunked" else b"")
    text, _ = refused(dripping(head), TooSlow, max_bytes=2**30, timeout=0.5)
    assert text.endswith(": no complete answer within 0.5 s and a second for each 256 KiB of it")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 404 No\r\nContent-Length: 999\r\n\r\n"])
def test_a_host_that_gives_no_answer_is_not_called_slow(head: bytes) -> None:
    text, _ = refused(dripping(head) if head else silent, HostUnreachable, timeout=0.5)
    assert text.endswith(": no complete answer within 0.5 s")


async def silent(request: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def test_a_body_that_comes_fast_enough_may_take_longer_than_other_requests() -> None:
    half = b"z" * (8 * SLOWEST_DOWNLOAD)

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(response(half, length=2 * len(half)))
        await writer.drain()
        await asyncio.sleep(1.0)  # twice the time of a request, an eighth of what the first half has earned
        writer.write(half)

    with tempfile.TemporaryFile() as file:
        download(answer, file, max_bytes=2**30, timeout=0.5)
        assert file.seek(0, 2) == 2 * len(half)


@pytest.mark.parametrize(
    "answer",
    [
        response(BODY, length=len(BODY) + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    ],
)
def test_a_body_that_is_cut_is_neither_slow_nor_complete(answer: bytes) -> None:
    refused(then_close(answer), HostUnreachable)


@pytest.mark.parametrize("keep", [10, 500, -1])
def test_a_gzip_body_that_is_cut_is_malformed(keep: int) -> None:
    assert "cut short" in refused(gzipped(b"", gzip.compress(BODY)[:keep]), MalformedAnswer)[0]


# I17
def test_a_cancelled_download_closes_its_connection() -> None:
    half_way, closed = asyncio.Event(), asyncio.Event()

    async def endless(request: str, writer: asyncio.StreamWriter) -> None:
        try:
            await sending("chunked", 100)(request, writer)
            half_way.set()
            await sending("chunked", 10**9)(request, writer)
        except ConnectionError:
            closed.set()
            raise

    async def work() -> None:
        async with talking(endless) as (client, raw):
            with tempfile.TemporaryFile() as file:
                task = asyncio.create_task(client.download(raw.url + "/", file=file, max_bytes=2**40))
                await half_way.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await closed.wait()

    run(work)


# --- files and transports of others


class FullDisk(BytesIO):
    """A file that fails at one of the things that are done with it."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def _fail(self, at: str) -> None:
        if at == self.at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, size: int | None = None, /) -> int:
        self._fail("truncate")
        return super().truncate(size)

    def write(self, data: Any, /) -> int:
        self._fail("write")
        return super().write(data)

    def flush(self) -> None:
        self._fail("flush")


@pytest.mark.parametrize("at", ["truncate", "write", "flush"])
def test_a_full_disk_is_not_the_hosts_fault(at: str) -> None:
    with pytest.raises(FileFailed, match=r"^127\.0\.0\.1:\d+: the body cannot be written: .*No space left"):
        download(response(BODY), FullDisk(at))


def through(transport: httpx.AsyncBaseTransport, file: BinaryIO, max_bytes: int = LIMIT) -> None:
    async def work() -> None:
        network = open_network(load_settings(), transport)
        try:
            await network.xrpc.http.download("https://pds.example.com/x", file=file, max_bytes=max_bytes)
        finally:
            await network.aclose()

    run(work)


def test_a_transport_may_have_read_and_decoded_the_body_already() -> None:
    answer = httpx.MockTransport(
        lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, content=gzip.compress(BODY))
    )
    file = BytesIO(b"old" * MIB)
    through(answer, file)
    assert file.getvalue() == BODY
    with pytest.raises(BodyTooLarge):
        through(answer, file, max_bytes=len(BODY) - 1)


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        (lambda: of(b"a", "text"), TransportFailed),
        (lambda: of(b"a", None), TransportFailed),
        (lambda: failing(httpx.ReadTimeout("silent for 30 s")), HostUnreachable),
        (lambda: failing(httpx.ReadError("cut")), HostUnreachable),
        (lambda: failing(OSError("reset")), HostUnreachable),
        (lambda: failing(BlockedEndpoint("not public")), BlockedEndpoint),
    ],
)
def test_what_a_transport_raises_amid_a_body_is_told_by_its_class(
    chunks: Callable[[], AsyncIterator[Any]], kind: type[Exception]
) -> None:
    transport, stream = streaming(chunks)
    with pytest.raises(kind) as caught:
        through(transport, BytesIO())
    assert type(caught.value) is kind
    assert stream.closed


async def failing(error: Exception) -> AsyncIterator[bytes]:
    yield b"x"
    raise error


def test_a_transport_that_never_waits_ends_at_the_wall_clock() -> None:
    async def never_waiting() -> AsyncIterator[bytes]:
        while True:
            yield b""

    async def work() -> None:
        network = open_network(load_settings(request_timeout=0.3), streaming(never_waiting)[0])
        with pytest.raises(TooSlow):
            await network.xrpc.http.download("https://pds.example.com/x", file=BytesIO(), max_bytes=LIMIT)
        await network.aclose()

    run(work)


def test_a_status_that_is_none_is_the_transports_failure() -> None:
    made = httpx.Response(200, stream=streaming(lambda: of(b"x"))[1])
    made.status_code = "200"  # type: ignore[assignment]
    with pytest.raises(TransportFailed):
        through(answering(lambda: made), BytesIO())


# --- with retries and limits


def asking(
    answer: bytes | Serving, work: Callable[[Network, RawServer], Awaitable[None]], **overrides: object
) -> RawServer:
    async def whole() -> RawServer:
        async with talking(answer) as (_, raw):
            network = open_network(load_settings(allow_private_hosts=True, **overrides), longest_wait=5.0)
            try:
                await work(network, raw)
            finally:
                await network.aclose()
            return raw

    done: RawServer = run(whole)
    return done


def test_each_try_starts_the_file_anew() -> None:
    tries = iter([response(BODY, length=10**6), response(b"{}", status="503 Busy"), response(b"short")])

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(next(tries))
        await writer.drain()
        writer.close()

    async def work(network: Network, raw: RawServer) -> None:
        file = BytesIO()
        got = await network.xrpc.get(raw.url, "/", max_bytes=LIMIT, file=file)
        assert (got.status, file.getvalue()) == (200, b"short")

    assert len(asking(answer, work).requests) == 3


def test_a_refusal_is_the_same_with_a_file_as_without() -> None:
    async def work(network: Network, raw: RawServer) -> None:
        with pytest.raises(XrpcError) as caught:
            await network.xrpc.get(raw.url, "/", file=BytesIO())
        assert (caught.value.status, caught.value.name, caught.value.text) == (400, "RepoTakendown", "gone")

    asking(response(b'{"error":"RepoTakendown","message":"gone"}', status="400 Bad"), work)


@pytest.mark.long
def test_a_slow_download_is_not_tried_again_and_its_host_is_not_given_up() -> None:
    async def work(network: Network, raw: RawServer) -> None:
        for number in range(BREAKER_FAILURES + 1):
            with pytest.raises(TooSlow):
                await network.xrpc.get(raw.url, "/", max_bytes=2**30, file=BytesIO(), bucket="getRepo")
            assert len(raw.requests) == number + 1
        limiter = network.xrpc.limiters.of(raw.url, "getRepo")
        assert not limiter.is_resting
        assert limiter.concurrency == 1

    asking(dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), work, request_timeout=0.6)


@pytest.mark.parametrize("limited", ["getRepo", "listRecords"])
def test_a_429_of_one_bucket_delays_no_other(limited: str) -> None:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        refusal = response(b"{}", "Retry-After: 3600", status="429 Too Many")
        writer.write(refusal if limited in request else response(b"{}", "RateLimit-Remaining: 900"))

    async def work(network: Network, raw: RawServer) -> None:
        async def ask(method: str) -> None:
            file = BytesIO() if method == "getRepo" else None
            bucket = "getRepo" if method == "getRepo" else ""
            await network.xrpc.get(raw.url, f"/xrpc/{method}", file=file, bucket=bucket)

        (other,) = {"getRepo", "listRecords"} - {limited}
        with pytest.raises(RateLimited) as caught:
            await ask(limited)
        assert str(caught.value) == f"{raw.url} asks to wait 3600 s"
        for _ in range(3):
            await ask(other)
        with pytest.raises(RateLimited):
            await ask(limited)

    assert len(asking(answer, work).requests) == 4


@pytest.mark.parametrize(("concurrency", "at_once"), [(1, 1), (4, 1), (16, 4)])
def test_downloads_leave_three_of_four_places_to_pages(concurrency: int, at_once: int) -> None:
    begun, finish = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        if "/page" not in request:
            begun.release()
            await finish.wait()
        writer.write(response(b"{}"))

    async def work(network: Network, raw: RawServer) -> None:
        # as if of a host each, so that the hosts' own limits do not bear on it
        tasks = [
            asyncio.create_task(network.xrpc.get(raw.url, "/", file=BytesIO(), bucket=str(number)))
            for number in range(20)
        ]
        for _ in range(at_once):
            await begun.acquire()
        if concurrency > 1:
            for _ in range(5):
                await network.xrpc.get(raw.url, "/page")
        assert len([request for request in raw.requests if "/page" not in request]) == at_once
        finish.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}

    asking(answer, work, concurrency=concurrency)
