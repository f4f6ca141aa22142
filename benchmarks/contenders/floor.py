"""The floor: the same pages downloaded and dropped, the same rows copied into an identical table.

As little work as possible, and nothing that would make the floor look slower than it is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module

import psycopg

from benchmarks.contenders.task import Done, Run, Task
from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.pages import parse_page
from parity_dagster.importing.loop import new_event_loop
from parity_dagster.settings import Settings, load_settings

_CURSOR = b'"cursor":"'


def download(task: Task, stack: ExitStack) -> Run:
    """Fetch every page with the product's HTTP client, at its concurrency and on its event loop, and drop it."""
    import_module("parity_dagster.atproto.transport")  # loaded late by the network
    settings = load_settings(allow_private_hosts=True, plc_url=task.plc_url)

    def run() -> Done:
        sizes = asyncio.Runner(loop_factory=new_event_loop)
        stack.enter_context(sizes)
        pages = sizes.run(_fetch_all(task, settings, None))
        return Done(records=0, pages=pages)

    return run


async def _fetch_all(task: Task, settings: Settings, keep: dict[tuple[str, str], list[bytes]] | None) -> int:
    client = open_network(settings).xrpc.http
    everywhere = asyncio.Semaphore(settings.concurrency)
    hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(settings.host_concurrency))
    pages = 0

    async def fetch(did: str, nsid: str, pds: str) -> None:
        nonlocal pages
        url = f"{pds}/xrpc/com.atproto.repo.listRecords"
        params = {"repo": did, "collection": nsid, "limit": "100"}
        async with hosts[pds], everywhere:
            while True:
                body = (await client.get(url, params, max_bytes=settings.max_page_bytes)).body
                pages += 1
                if keep is not None:
                    keep[did, nsid].append(body)
                found = body.rfind(_CURSOR)
                if found < 0:
                    return
                params["cursor"] = body[found + len(_CURSOR) : body.index(b'"', found + len(_CURSOR))].decode()

    try:
        async with asyncio.TaskGroup() as tasks:
            for pair in task.pairs:
                tasks.create_task(fetch(*pair))
    finally:
        await client.aclose()
    return pages


def copy(task: Task, stack: ExitStack) -> Run:
    """COPY the rows, encoded beforehand: one statement per connection."""
    settings = load_settings(allow_private_hosts=True, plc_url=task.plc_url)
    kept: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    asyncio.run(_fetch_all(task, settings, kept))
    shares: list[list[bytes]] = [[] for _ in range(task.options["connections"])]
    count = 0
    for number, (did, nsid, _) in enumerate(task.pairs):
        for body in kept.pop((did, nsid)):
            rows = parse_page(body, did, nsid).records
            count += len(rows)
            head = f"{did}\t{nsid}\t"
            tail = b"\t3l4d5gabcd22z\n"
            shares[number % len(shares)].append(
                b"".join(
                    f"{head}{rkey}\t{cid}\t".encode() + value.replace(b"\\", b"\\\\") + tail
                    for rkey, cid, value in rows
                )
            )
    connections = [stack.enter_context(psycopg.connect(task.database_url)) for _ in shares]
    connections[0].execute("DROP TABLE IF EXISTS floor_records")
    connections[0].execute("CREATE TABLE floor_records (LIKE atproto_records INCLUDING ALL)")
    connections[0].commit()
    threads = stack.enter_context(ThreadPoolExecutor(len(shares)))

    def write(connection: psycopg.Connection, blocks: list[bytes]) -> None:
        statement = "COPY floor_records (did, collection, rkey, cid, value, rev) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(statement) as into:
            for block in blocks:
                into.write(block)
        connection.commit()

    def run() -> Done:
        list(threads.map(write, connections, shares))
        return Done(records=count)

    return run
