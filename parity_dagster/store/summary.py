"""How far all imports are, how fast they go and when they will be done, read from indexes alone.

Of a million pairs it is some hundred milliseconds: the one index that is read as a whole has a few megabytes, the
others are asked for what ended within the last minutes, or for what is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.errors import GONE
from parity_dagster.models import ImportStatus
from parity_dagster.store.freshness import FRESH_AT, age_text
from parity_dagster.store.queue import IS_HELD
from parity_dagster.store.states import LIVE_IMPORTERS

RECENT_SECONDS = 300.0
"""What the pace is taken from."""
_LEAST_SECONDS = 10.0


class ErrorSum(NamedTuple):
    """Failed pairs of one error."""

    error_code: str
    pairs: int
    is_gone: bool
    """Whether it says that the account is gone, so that nothing is wrong."""


class HostSum(NamedTuple):
    """Pairs of one host."""

    host: str | None
    """None for pairs whose host was not looked up yet."""
    pairs: int
    completed: int
    left: int
    """Pending or in progress."""
    failed: int
    gone: int
    seconds_per_page: float | None
    """Of what was completed within the last minutes."""


class Summary(NamedTuple):
    """All imports at one moment."""

    at: datetime
    pairs: int
    statuses: dict[str, int]
    errors: list[ErrorSum]
    """Most pairs first."""
    hosts: list[HostSum]
    """Those with most left first, then those with most pairs."""
    gone: int
    """Pairs of accounts that are gone, among the failed."""
    left: int
    """Pairs that will be imported without anybody asking for it."""
    held: int
    """Pairs that wait for a person, because their run was canceled."""
    running: int
    """Pairs that somebody imports at this moment."""
    to_retry: int
    """Failed pairs that will be tried again by themselves."""
    last_retry_at: datetime | None
    """When the last of them is due."""
    recent_seconds: float
    """Time that the following numbers are about."""
    recent_pairs: int
    """Pairs completed in it."""
    recent_records: int

    @property
    def records_per_second(self) -> float:
        """Records of completed pairs."""
        return self.recent_records / self.recent_seconds

    @property
    def seconds_until_last_retry(self) -> float:
        """Until nothing waits for its pause any more."""
        return max(0.0, (self.last_retry_at - self.at).total_seconds()) if self.last_retry_at else 0.0

    @property
    def seconds_left(self) -> float | None:
        """When everything that is left will be done at this pace, and no pause is left; None if nothing moves."""
        if self.recent_pairs:
            return max(self.left * self.recent_seconds / self.recent_pairs, self.seconds_until_last_retry)
        return (self.seconds_until_last_retry or None) if self.left == self.to_retry else None

    @property
    def slowest_hosts(self) -> list[HostSum]:
        """Those that took longest for a page within the last minutes."""
        timed = [host for host in self.hosts if host.seconds_per_page is not None]
        return sorted(timed, key=lambda host: host.seconds_per_page or 0.0, reverse=True)


def read_summary(connection: psycopg.Connection[Any], table: str, collections: Sequence[str]) -> Summary:
    """Sum up the state table.

    Args:
        collections: those whose completed pairs make the pace.
    """
    with connection.transaction():
        # PostgreSQL cannot know that what ended within the last minutes is little of a table
        connection.execute("SET LOCAL enable_seqscan = off")
        found = _read(connection, sql.Identifier(table), collections)
        # the transaction may be a part of a longer one, for which it would go on to hold
        connection.execute("SET LOCAL enable_seqscan TO DEFAULT")
        return found


def _read(connection: psycopg.Connection[Any], name: sql.Identifier, collections: Sequence[str]) -> Summary:
    counts = connection.execute(
        sql.SQL("SELECT status, error_code, pds, count(*) FROM {} GROUP BY 1, 2, 3").format(name)
    ).fetchall()
    row = connection.execute(
        sql.SQL(
            "SELECT now(), b.held, b.held_failed,"
            " (SELECT count(*) FROM {table} WHERE status = 'in_progress' AND importer_id IN ({live})),"
            " r.pairs + b.to_retry, r.last FROM (SELECT count(*) AS pairs, max(next_attempt_at) AS last FROM {table}"
            "  WHERE status = 'failed' AND batch IS NULL AND next_attempt_at IS NOT NULL) r,"
            f" (SELECT count(*) FILTER (WHERE {IS_HELD}) AS held,"
            f"   count(*) FILTER (WHERE {IS_HELD} AND status = 'failed') AS held_failed,"
            f"   count(*) FILTER (WHERE NOT {IS_HELD} AND status = 'failed') AS to_retry"
            "  FROM {table} WHERE batch IS NOT NULL) b"
        ).format(table=name, live=LIVE_IMPORTERS)
    ).fetchone()
    assert row is not None
    at, held, held_failed, running, to_retry, last_retry_at = row
    recent = connection.execute(
        sql.SQL(
            "SELECT s.pds, count(*), sum(s.records_synced)::bigint, min(s.completed_at), sum(s.pages)::bigint,"
            " extract(epoch FROM sum(s.completed_at - s.started_at))::float FROM {table} s"
            " WHERE s.status = 'completed' AND s.collection = ANY(%(collections)s)"
            f" AND {FRESH_AT} > now() - make_interval(secs => %(recent)s)"
            " AND s.completed_at > now() - make_interval(secs => %(recent)s) GROUP BY 1"
        ).format(table=name),
        {"collections": list(collections), "recent": RECENT_SECONDS},
    ).fetchall()
    first = min((moment for _, _, _, moment, _, _ in recent), default=at)
    statuses = {str(status): 0 for status in ImportStatus}
    errors: Counter[str] = Counter()
    hosts: dict[str | None, Counter[str]] = {}
    for status, error_code, host, count in counts:
        statuses[status] += count
        code = error_code or "unknown"
        kind = status
        if status == ImportStatus.FAILED:
            errors[code] += count
            kind = "gone" if code in GONE else status
        hosts.setdefault(host, Counter())[kind] += count
    paces = {host: seconds / pages for host, _, _, _, pages, seconds in recent if pages and seconds is not None}
    sums = [
        HostSum(
            host,
            kinds.total(),
            kinds[ImportStatus.COMPLETED],
            kinds[ImportStatus.PENDING] + kinds[ImportStatus.IN_PROGRESS],
            kinds[ImportStatus.FAILED],
            kinds["gone"],
            paces.get(host),
        )
        for host, kinds in hosts.items()
    ]
    waiting = sum(statuses[status] for status in (ImportStatus.PENDING, ImportStatus.IN_PROGRESS))
    return Summary(
        at=at,
        pairs=sum(statuses.values()),
        statuses=statuses,
        errors=[ErrorSum(code, count, code in GONE) for code, count in errors.most_common()],
        hosts=sorted(sums, key=lambda host: (-host.left, -host.pairs, host.host or "")),
        gone=sum(count for code, count in errors.items() if code in GONE),
        left=max(0, waiting - (held - held_failed)) + to_retry,
        held=held,
        running=running,
        to_retry=to_retry,
        last_retry_at=last_retry_at,
        recent_seconds=min(RECENT_SECONDS, max(_LEAST_SECONDS, (at - first).total_seconds())),
        recent_pairs=sum(count for _, count, *_ in recent),
        recent_records=sum(records for _, _, records, *_ in recent),
    )


def sentences(found: Summary) -> list[str]:
    """What goes on, what waits for a person, and when everything will be done."""
    said = []
    if found.held:
        said.append(
            f"{_imports(found.held)} of canceled runs wait{'s' * (found.held == 1)} for you: `parity import --resume`"
            " goes on, and so does Re-execute."
        )
    if not found.left:
        return [*said, "Nothing is left to be imported."]
    left = f"{_imports(found.left)} left, {found.running:,} of them under way"
    if found.seconds_until_last_retry:
        left += f", {found.to_retry:,} to be tried again later"
    if found.seconds_left is None:
        return [*said, f"{left}; none was completed within the last {age_text(RECENT_SECONDS)}."]
    if found.seconds_left == found.seconds_until_last_retry:
        return [*said, f"{left}: done in about {age_text(found.seconds_left)}, when the last of them is due."]
    return [
        *said,
        f"{left}: done in about {age_text(found.seconds_left)}, at the pace of the last"
        f" {found.recent_seconds:.0f} seconds ({_imports(found.recent_pairs)}, {found.recent_records:,} records,"
        f" {found.records_per_second:,.0f} records/s).",
    ]


def _imports(count: int) -> str:
    return f"{count:,} import{'s' * (count != 1)}"
