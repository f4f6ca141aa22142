"""What a host says about a repository's revision and status, and what it does not say."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.repo import RepoClient
from parity_dagster.errors import MalformedAnswer, ServerFailure
from parity_dagster.importing.pair_task import tid_of
from parity_dagster.settings import load_settings

T = TypeVar("T")


DID = "did:plc:z72i7hdynmk6r22z27h6tvur"


async def _ask(answer: object, question: Callable[[RepoClient, str], Awaitable[T]]) -> T:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    network = open_network(load_settings(allow_private_hosts=True))
    try:
        port = server.sockets[0].getsockname()[1]
        return await question(network.repos, f"http://127.0.0.1:{port}")
    finally:
        await network.aclose()
        server.close()


async def _latest_rev(answer: object) -> str | None:
    return await _ask(answer, lambda repo, origin: repo.latest_rev(origin, DID))


def test_a_revision_is_a_tid_of_our_time():
    rev = tid_of(datetime.now(UTC))
    assert asyncio.run(_latest_rev({"cid": "bafy", "rev": rev})) == rev


@pytest.mark.parametrize(
    "answer",
    [
        {"rev": "not-a-tid"},
        {"rev": tid_of(datetime.now(UTC) + timedelta(days=400))},
        {"rev": 5},
        {"cid": "bafy"},
        ["rev"],
        {"rev": tid_of(datetime.now(UTC)), "did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"},
    ],
    ids=["no-tid", "from-the-future", "a-number", "none", "no-object", "of-another-account"],
)
def test_anything_else_counts_as_unknown(answer):
    """A revision from the future would make every later live event of the account look old."""
    assert asyncio.run(_latest_rev(answer)) is None


def test_a_status_of_another_account_says_nothing_about_this_one():
    def ask(answer: object) -> bool:
        return asyncio.run(_ask(answer, lambda repo, origin: repo.check_status(origin, DID)))

    assert ask({"did": DID, "active": True})
    assert ask({"active": True})
    with pytest.raises(MalformedAnswer, match="answered about did:plc:aaaa"):
        ask({"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "active": False, "status": "deleted"})


class _Loopback(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def _check_status(status: int) -> bool:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}" % status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    network = open_network(load_settings(allow_private_hosts=True), resolver=_Loopback())
    try:
        port = server.sockets[0].getsockname()[1]
        return await network.repos.check_status(f"http://pds501.example.com:{port}", DID)
    finally:
        await network.aclose()
        server.close()


def test_only_the_status_501_says_that_a_host_lacks_the_method():
    assert asyncio.run(_check_status(501)) is False
    with pytest.raises(ServerFailure, match="pds501") as raised:
        asyncio.run(_check_status(503))
    assert raised.value.status == 503
