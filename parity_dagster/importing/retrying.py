"""Trying failed records again, from the bytes that were kept.

What lives here: reading a kept entry with today's rules and storing it if it passes. What must not: the network; a
record that its author has corrected is met by the next refresh.
"""

from __future__ import annotations

from functools import partial

from parity_dagster.atproto.pages import RejectedRecord, parse_entry
from parity_dagster.importing.database import Database
from parity_dagster.importing.models import RetryResult
from parity_dagster.store.rejects import count_retry, find_failed_records, store_failed_record
from parity_dagster.store.sessions import REFUSED_DATA, first_line

CHUNK = 50
"""Records read at a time; each may be some megabytes."""


async def retry_failed_records(database: Database, table: str, did: str | None) -> RetryResult:
    """Store those failed records that can be stored now.

    Args:
        database: where they are.
        table: name of the state table.
        did: only this account's; None for all.

    Returns:
        How many were stored, and how many are left.

    Raises:
        DatabaseError: Postgres failed; what was stored so far stays.
    """
    stored = left = last = 0
    while True:
        chunk = await database.run(partial(find_failed_records, did=did, after=last, limit=CHUNK))
        if not chunk:
            return RetryResult(stored, left)
        last = chunk[-1].id
        for failed in chunk:
            entry = parse_entry(failed.body, failed.did, failed.collection)
            if isinstance(entry, RejectedRecord):
                reason, detail = entry.reason, entry.detail
            else:
                try:
                    await database.run(partial(store_failed_record, table=table, failed=failed, row=entry))
                except REFUSED_DATA as exc:
                    reason, detail = "refused_by_postgres", first_line(exc)
                else:
                    stored += 1
                    continue
            await database.run(partial(count_retry, failed=failed, reason=reason, detail=detail))
            left += 1
