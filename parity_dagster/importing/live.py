"""Records that a consumer of the firehose hands over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from parity_dagster.atproto.pages import FailedEntry, parse_entry
from parity_dagster.atproto.repo import MAX_CLOCK_SKEW
from parity_dagster.errors import CollectionNotRegistered, DatabaseError, InvalidIdentifier, Reason
from parity_dagster.identifiers import is_valid_rkey, is_valid_tid, parse_at_uri, parse_did
from parity_dagster.importing.mappers import Mappers
from parity_dagster.importing.pair_task import tid_of
from parity_dagster.settings import Settings
from parity_dagster.store.failed_records import find_unstorable
from parity_dagster.store.live import LiveBatch, LiveFailure, LiveRow, delete_live, prune_tombstones, upsert_live
from parity_dagster.store.mapper_tables import REFUSALS, MappedRow, MappedStore, MappedWrite
from parity_dagster.store.postgres_errors import first_line
from parity_dagster.store.sessions import Database

PRUNE_SECONDS = 3600.0
"""Pause between two looks for old tombstones; the first one comes with the first deletion."""


@dataclass(frozen=True, slots=True)
class LiveRecord:
    """A record that a `create` or `update` operation of a commit event brought.

    Source: lexicon com.atproto.sync.subscribeRepos, `#commit`.
    """

    uri: str
    """`at://did/collection/rkey`."""
    rev: str
    """The commit's revision, a TID."""
    cid: str | None
    """Content identifier of this version, as listRecords writes it."""
    value: Mapping[str, Any] | bytes
    """The record, or its JSON. Links and bytes in the JSON form of the data model (`{"$link": …}`)."""


class LiveWriter:
    """Writes live records on a session of its own, so that nothing else holds them up."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._settings = settings
        self._mappers = Mappers(settings.mappers)
        self._mapped = MappedStore(self._mappers.tables())
        self._session = database.session(self._mapped.prepare)
        self._prune_at = 0.0

    async def upsert(self, records: Sequence[LiveRecord]) -> int:
        """Store records in one transaction; see `ImportService.upsert_records`.

        Of one key, the greatest revision counts, and of equal ones the last.
        """
        newest: dict[tuple[str, str, str], LiveRow | LiveFailure] = {}
        for record in records:
            item = self._checked(record)
            key = item.did, item.collection, record.uri if item.rkey is None else item.rkey
            known = newest.get(key)
            if known is None or known.rev <= item.rev:
                newest[key] = item
        if not newest:
            return 0
        batch = self._sorted(newest.values())
        try:
            return await self._save(batch)
        except REFUSALS as exc:
            mended = await self._without_refused(batch)
            if len(mended.failed) == len(batch.failed):
                raise DatabaseError(f"PostgreSQL refuses live records ({first_line(exc)}); please report this") from exc
            return await self._save(mended)

    async def _save(self, batch: LiveBatch) -> int:
        table = self._settings.state_table
        return await self._session.run(lambda conn: upsert_live(conn, table, batch, self._mapped))

    def _sorted(self, items: Iterable[LiveRow | LiveFailure]) -> LiveBatch:
        """Ask the mappers, as a page does."""
        rows: list[LiveRow] = []
        failed: list[LiveFailure] = []
        unwanted: list[LiveRow] = []
        mapped: list[tuple[LiveRow, MappedRow]] = []
        for item in items:
            if isinstance(item, LiveFailure):
                failed.append(item)
            elif item.collection not in self._mappers:
                rows.append(item)
            else:
                found = self._mappers.sort(item.did, item.collection, [(item.rkey, item.cid, item.value)])
                rows += [item for _ in found.kept]
                unwanted += [item for _ in found.skipped]
                failed += [_failure(item, refused.reason, refused.detail) for refused in found.failed]
                mapped += [(item, made) for made in found.mapped]
        return LiveBatch(rows, failed, unwanted, mapped)

    async def _without_refused(self, batch: LiveBatch) -> LiveBatch:
        """Find the records that Postgres refuses, one by one, and make failed records of them."""
        made = dict(batch.mapped)
        refused: dict[LiveRow, LiveFailure] = {}
        for row in batch.rows:
            one = [(row.rkey, row.cid, row.value)]
            reason = Reason.REFUSED_BY_POSTGRES
            why = await self._session.run(lambda conn: find_unstorable(conn, one))  # noqa: B023
            if not why and row in made:
                reason, write = Reason.MAPPER_REFUSED, MappedWrite(row.did, row.collection, [made[row]])
                why = await self._session.run(lambda conn: self._mapped.find_refused(conn, write, one))  # noqa: B023
            if why:
                refused[row] = _failure(row, reason, why[row.rkey])
        return LiveBatch(
            [row for row in batch.rows if row not in refused],
            [*batch.failed, *refused.values()],
            batch.unwanted,
            [(row, each) for row, each in batch.mapped if row not in refused],
        )

    async def delete(self, uri: str, rev: str) -> bool:
        """Delete a record; see `ImportService.delete_record`."""
        did, collection, rkey = self._key(uri, rev)
        if rkey is None:  # no row can have it
            return True
        is_done = await self._session.run(lambda conn: delete_live(conn, did, collection, rkey, _plausible(rev)))
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_SECONDS
            await self._session.run(lambda conn: prune_tombstones(conn, self._settings.state_table))
        return is_done

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    def _key(self, uri: str, rev: str) -> tuple[str, str, str | None]:
        """Take a URI apart; a record key that the protocol does not allow is None, because strangers choose it."""
        parts = uri.split("/", 4)
        found = parse_at_uri("/".join(parts[:4]))
        if found.collection is None or len(parts) < 5:
            raise InvalidIdentifier(f"{uri[:200]!r} names no record; one looks like at://did:plc:…/collection/rkey")
        did = parse_did(found.authority, allow_private=self._settings.allow_private_hosts)
        if found.collection not in self._settings.collections:
            raise CollectionNotRegistered(
                f"{found.collection} is not a registered collection; add it to PARITY_COLLECTIONS, or leave its"
                " events out"
            )
        if not is_valid_tid(rev):
            raise InvalidIdentifier(f"{rev[:50]!r} is not a revision; one is a TID as in 3jzfcijpj2z2a")
        return did, found.collection, parts[4] if is_valid_rkey(parts[4]) else None

    def _checked(self, record: LiveRecord) -> LiveRow | LiveFailure:
        did, collection, rkey = self._key(record.uri, record.rev)
        rev = _plausible(record.rev)
        try:
            value = record.value if isinstance(record.value, bytes) else json.dumps(dict(record.value)).encode()
        except (ValueError, RecursionError) as exc:  # no JSON can say it: a circle, a number of 5,000 digits
            entry = _entry(record.uri, record.cid, b"null")
            return LiveFailure(did, collection, rkey, rev, Reason.INVALID_JSON, f"not storable JSON: {exc}", entry)
        entry = _entry(record.uri, record.cid, value)
        parsed = parse_entry(entry, did, collection)
        if isinstance(parsed, FailedEntry):
            return LiveFailure(did, collection, rkey, rev, parsed.reason, parsed.detail, entry)
        return LiveRow(did, collection, parsed[0], rev, *parsed[1:])


# I1, I8
def _plausible(rev: str) -> str:
    """A revision, or our own time for one that no clock can be right about: a row with one of next year could not be
    replaced, nor deleted, for a year."""
    now = datetime.now(UTC)
    return rev if rev < tid_of(now + MAX_CLOCK_SKEW) else tid_of(now)


def _failure(row: LiveRow, reason: Reason, detail: str) -> LiveFailure:
    uri = f"at://{row.did}/{row.collection}/{row.rkey}"
    return LiveFailure(*row[:4], reason, detail, _entry(uri, row.cid, row.value))


def _entry(uri: str, cid: str | None, value: bytes) -> bytes:
    """A record as listRecords would show it, so that it can be tried again like any other."""
    return b'{"uri":%b,"cid":%b,"value":%b}' % (json.dumps(uri).encode(), json.dumps(cid).encode(), value)
