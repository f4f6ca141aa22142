"""The loop that most people write with the Python SDK.

The SDK's documented call, its models, and one upsert per record sent page by page; no tricks that a reader of the
SDK's and psycopg's documentation would not find.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import psycopg
from atproto import Client, models  # type: ignore[import-untyped]
from atproto.exceptions import RateLimitExceededError  # type: ignore[import-untyped]
from psycopg.types.json import Jsonb

from benchmarks.contenders.task import Done, Run, Task


def sdk(task: Task, stack: ExitStack) -> Run:
    """`client.com.atproto.repo.list_records` until there is no cursor, `executemany` per page."""
    clients = {pds: Client(base_url=pds) for _, pds in task.accounts}
    conn = stack.enter_context(psycopg.connect(task.database_url))
    conn.execute(
        "CREATE TABLE IF NOT EXISTS sdk_records (uri text PRIMARY KEY, did text NOT NULL, collection text NOT NULL,"
        " cid text, value jsonb NOT NULL)"
    )
    conn.commit()

    def run() -> Done:
        records = pages = 0
        for did, nsid, pds in task.pairs:
            cursor = None
            while True:
                params = models.ComAtprotoRepoListRecords.Params(repo=did, collection=nsid, limit=100, cursor=cursor)
                page = _list_records(clients[pds], params)
                pages += 1
                if page.records:
                    rows = [
                        (record.uri, did, nsid, record.cid, Jsonb(models.get_model_as_dict(record.value)))
                        for record in page.records
                    ]
                    with conn.cursor() as writing:
                        writing.executemany(
                            "INSERT INTO sdk_records VALUES (%s, %s, %s, %s, %s) ON CONFLICT (uri) DO UPDATE"
                            " SET cid = EXCLUDED.cid, value = EXCLUDED.value",
                            rows,
                        )
                    conn.commit()
                    records += len(rows)
                cursor = page.cursor
                if not cursor or not page.records:
                    break
        return Done(records, pages)

    return run


def _list_records(client: Client, params: models.ComAtprotoRepoListRecords.Params) -> Any:
    """A page; the SDK leaves it to its caller to wait for a rate limit."""
    while True:
        try:
            return client.com.atproto.repo.list_records(params)
        except RateLimitExceededError as exc:
            time.sleep(exc.retry_after or 1)
