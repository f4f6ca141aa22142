"""Pairs whose copy may be wrong although it is complete: traces in the database of faults of earlier versions.

Four traces are looked for. Rows that are not as many as the walk counted; walks of many pages that ended with few
records, or none; texts that are UTF-8 taken for Latin-1; numbers of a few bytes that are written out as thousands of
digits. Records and walks that are younger than the revision that ended these faults are not looked at, nor are pairs
that were read again since with `reread`: what they hold is what their servers show, however odd it looks.

The tables are walked in the order of their keys, some thousand records per statement, so that it takes little memory
and can stop at any time. No number is written out: a single one of these rows can be more than a gigabyte of text.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.models import Pair

Problem = Literal["rows", "few", "encoding", "numbers"]

RECORDS_PER_STATEMENT = 20_000
PAIRS_PER_STATEMENT = 500
REVISION = "0007"
"""Since this revision, nothing that is looked for here can happen any more."""


class Suspect(NamedTuple):
    """A pair, and what is odd about it."""

    did: str
    collection: str
    problem: Problem
    records: int
    """Rows beside the count, records of the walk, or records with such a text or number."""
    detail: str

    @property
    def pair(self) -> Pair:
        """Account and collection."""
        return Pair(self.did, self.collection)


@dataclass(slots=True)
class Report:
    """What was found, and how much was looked at."""

    suspects: list[Suspect] = field(default_factory=list)
    pairs: int = 0
    records: int = 0
    is_whole: bool = True
    """Whether every completed pair was looked at."""


# UTF-8, each byte being a character. Whatever matches as a whole can be turned back into bytes and is a text then.
_UTF8_BYTES = (
    r"^(?:[\u0001-\u007f]|[\u00c2-\u00df][\u0080-\u00bf]|\u00e0[\u00a0-\u00bf][\u0080-\u00bf]"
    r"|[\u00e1-\u00ec\u00ee\u00ef][\u0080-\u00bf]{{2}}|\u00ed[\u0080-\u009f][\u0080-\u00bf]"
    r"|\u00f0[\u0090-\u00bf][\u0080-\u00bf]{{2}}|[\u00f1-\u00f3][\u0080-\u00bf]{{3}}"
    r"|\u00f4[\u0080-\u008f][\u0080-\u00bf]{{2}})+$"
)
# What Windows-1252 has where Latin-1 has control characters, and these.
_WINDOWS = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_CONTROLS = "".join(chr(char.encode("cp1252")[0]) for char in _WINDOWS)
_CANDIDATES = rf'strict $.** ? (@.type() == "string" && @ like_regex "[\u00c2-\u00f4][\u0080-\u00bf{_WINDOWS}]")'
_NUMBERS = 'strict $.** ? (@.type() == "number")'

_FIND = r"""
WITH wanted AS (
    SELECT s.*, (s.reread_at IS NULL AND s.completed_at < u.upgraded_at) AS is_old, u.upgraded_at
    FROM {table} s, parity_upgrades u WHERE s.id = ANY(%(ids)s) AND u.revision = %(revision)s
), looked AS (
    SELECT s.id, count(r.rkey) AS rows,
        count(r.rkey) FILTER (WHERE r.first_seen_at <= s.completed_at
            AND (s.rev IS NULL OR r.rev IS NULL OR r.rev <= s.rev)) AS of_walk,
        count(*) FILTER (WHERE garbled.example IS NOT NULL) AS garbled, min(garbled.example) AS example,
        count(*) FILTER (WHERE long.is_long) AS long, min(r.rkey) FILTER (WHERE long.is_long) AS long_rkey
    FROM wanted s LEFT JOIN atproto_records r ON r.did = s.did AND r.collection = s.collection
    LEFT JOIN LATERAL (
        SELECT min(convert_from(convert_to(bytes, 'LATIN1'), 'UTF8')) AS example FROM (
            SELECT translate(n #>> '{{}}', %(windows)s, %(controls)s) AS bytes
            FROM jsonb_path_query(r.value, %(candidates)s) n OFFSET 0
        ) texts WHERE bytes COLLATE "C" ~ '"""
_FIND += _UTF8_BYTES
_FIND += r"""'
    ) garbled ON s.is_old AND r.updated_at < s.upgraded_at
    LEFT JOIN LATERAL (
        SELECT bool_or(digits > 1000 AND digits > 10 * bytes) OR sum(digits) > 1000000 + 10 * sum(bytes) AS is_long
        FROM (
            SELECT scale(n::numeric) + CASE WHEN abs(n::numeric) < 1e1000 THEN length(trunc(n::numeric)::text)
                ELSE 1001 END AS digits, pg_column_size(n::numeric) AS bytes
            FROM jsonb_path_query(r.value, %(numbers)s) n
        ) numbers
    ) long ON s.is_old AND r.updated_at < s.upgraded_at
    GROUP BY s.id
)
SELECT s.did, s.collection, s.records_synced, s.records_synced + s.records_skipped + s.records_failed AS total, s.pages,
    l.rows, garbled, example, long, long_rkey,
    of_walk > records_synced OR l.rows < records_synced - (SELECT count(*) FROM parity_tombstones t
        WHERE t.did = s.did AND t.collection = s.collection AND t.deleted_at >= s.completed_at) AS is_miscounted,
    -- the last page is often empty, and the one before it hardly filled
    is_old AND CASE WHEN records_synced + records_skipped + records_failed = 0 THEN pages > 1
        ELSE records_synced + records_skipped + records_failed < (pages - 2) * %(page_size)s / 2 END AS has_few,
    is_old AND records_synced + records_skipped + records_failed = 0 AND completed_at - started_at > interval '1 hour'
        AS is_late
FROM wanted s JOIN looked l USING (id) ORDER BY s.did, s.collection
"""


def find_suspects(
    conn: psycopg.Connection[Any],
    table: str,
    *,
    page_size: int,
    seconds: float | None = None,
    did: str | None = None,
) -> Report:
    """Look at completed pairs; nothing is written.

    Args:
        conn: a connection that commits each statement.
        seconds: when to stop; the statement under way is finished. With a limit it begins at an account drawn by
            chance, so that the next call looks at others. None looks at everything.
    """
    report = Report()
    deadline = None if seconds is None else time.monotonic() + seconds
    for ids in _chunks(conn, table, did, _anywhere() if seconds is not None else ""):
        if deadline is not None and time.monotonic() >= deadline:
            report.is_whole = False
            break
        rows = conn.execute(
            sql.SQL(_FIND).format(table=sql.Identifier(table)),
            {
                "ids": ids, "revision": REVISION, "windows": _WINDOWS, "controls": _CONTROLS, "page_size": page_size,
                "candidates": _CANDIDATES, "numbers": _NUMBERS,
            },
        )  # fmt: skip
        for row in rows:
            report.pairs += 1
            report.records += row[5]
            report.suspects += _judged(row)
    return report


def _judged(row: tuple[Any, ...]) -> Iterator[Suspect]:
    did, nsid, synced, total, pages, rows, garbled, example, long, long_rkey, is_miscounted, has_few, is_late = row
    if is_miscounted:
        yield Suspect(did, nsid, "rows", rows - synced, f"{rows:,} rows, but {synced:,} records were counted")
    if has_few:
        yield Suspect(did, nsid, "few", total, f"{pages:,} pages were read, but only {total:,} records are known")
    elif is_late:
        yield Suspect(did, nsid, "few", 0, "no record, and the walk ended more than an hour after it began")
    if garbled:
        yield Suspect(did, nsid, "encoding", garbled, f"UTF-8 stored as Latin-1; one text was {example[:60]!r}")
    if long:
        yield Suspect(did, nsid, "numbers", long, f"numbers of thousands of digits, as in {long_rkey}")


def _anywhere() -> str:
    return "did:plc:" + "".join(random.choices("234567abcdefghijklmnopqrstuvwxyz", k=6))  # noqa: S311 - no secret


def find_empty(conn: psycopg.Connection[Any], table: str, limit: int) -> dict[Pair, str | None]:
    """Completed pairs of which no record is known; only something outside of the database knows if that is right.

    Args:
        limit: pairs at most, those that ended last first.

    Returns:
        Their revisions by pair, without those that were read again since.
    """
    rows = conn.execute(
        sql.SQL(
            "SELECT did, collection, rev FROM {} s, parity_upgrades u WHERE u.revision = %s AND status = 'completed'"
            " AND records_synced + records_skipped + records_failed = 0 AND reread_at IS NULL"
            " AND completed_at < upgraded_at ORDER BY completed_at DESC LIMIT %s"
        ).format(sql.Identifier(table)),
        (REVISION, limit),
    )
    return {Pair(did, nsid): rev for did, nsid, rev in rows}


def _chunks(conn: psycopg.Connection[Any], table: str, only: str | None, start: str) -> Iterator[list[int]]:
    """Completed pairs, as many as hold some thousand records, from an account on to the last and from the first."""
    for first, end in ((start, None), ("", start)) if start else (("", None),):
        after = (first, "")
        while True:
            rows = conn.execute(
                sql.SQL(
                    "SELECT id, did, collection, records_synced FROM {} WHERE status = 'completed'"
                    " AND (did, collection) > (%(did)s, %(collection)s) AND (%(end)s::text IS NULL OR did < %(end)s)"
                    " AND (%(only)s::text IS NULL OR did = %(only)s)"
                    " ORDER BY did, collection LIMIT %(limit)s"
                ).format(sql.Identifier(table)),
                {
                    "did": after[0],
                    "collection": after[1],
                    "end": end,
                    "only": only,
                    "limit": PAIRS_PER_STATEMENT,
                },
            ).fetchall()
            if not rows:
                break
            ids: list[int] = []
            records = 0
            for state_id, *key, synced in rows:
                if ids and records + synced > RECORDS_PER_STATEMENT:
                    break
                ids.append(state_id)
                records += synced
                after = (key[0], key[1])
            yield ids
