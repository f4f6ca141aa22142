"""Prometheus metrics: what this process imports, and how the state table stands.

No label holds a DID: a label's values must stay few.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from functools import cache

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg import sql

from parity_dagster.errors import GONE, DatabaseError
from parity_dagster.events import ImportCompleted, ImportEvent, ImportProgress, ImportStarted
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.freshness import age_of_stalest
from parity_dagster.store.queue import IS_HELD
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import LIVE_IMPORTERS
from parity_dagster.store.summary import Summary, read_summary

logger = logging.getLogger(__name__)

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
"""Buckets of `parity_import_seconds`: a profile takes a tenth of a second, a whale's likes take hours."""


class ImportMetrics:
    """A listener that counts what this process imports.

    Args:
        registry: where the metrics are registered; by default the one that `prometheus_client` serves.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._started = Counter(
            "parity_imports_started", "Walks over a (did, collection) begun", ["collection"], registry=registry
        )
        self._completed = Counter(
            "parity_imports_completed",
            "Imports of a (did, collection) completed; fetched is false if nothing had to be read",
            ["collection", "fetched"],
            registry=registry,
        )
        self._failed = Counter(
            "parity_imports_failed",
            "Imports of a (did, collection) that ended with an error",
            ["collection", "error_code"],
            registry=registry,
        )
        self._pages = Counter("parity_pages", "Pages committed", ["collection"], registry=registry)
        self._records = Counter(
            "parity_records",
            "Records of committed pages: synced, skipped or failed",
            ["collection", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "parity_import_seconds",
            "Wall-clock seconds from the start to the end of a walk",
            ["collection"],
            buckets=SECONDS,
            registry=registry,
        )
        self._counted: dict[Pair, tuple[int, ...] | None] = {}

    def __call__(self, event: ImportEvent) -> None:
        """Count an event."""
        pair = Pair(event.did, event.collection)
        if isinstance(event, ImportStarted):
            self._started.labels(event.collection).inc()
            # What a resumed walk has committed before was counted by the process that did it.
            self._counted[pair] = (0, 0, 0, 0) if event.cursor is None else None
        elif isinstance(event, ImportProgress):
            self._count(pair, event)
        else:
            if isinstance(event, ImportCompleted):
                self._completed.labels(event.collection, str(event.fetched).lower()).inc()
            else:
                self._failed.labels(event.collection, event.error_code).inc()
            self._counted.pop(pair, None)
            if event.seconds is not None:
                self._seconds.labels(event.collection).observe(event.seconds)

    def _count(self, pair: Pair, event: ImportProgress) -> None:
        now = (event.pages, event.records_synced, event.records_skipped, event.records_failed)
        before = self._counted.get(pair)
        self._counted[pair] = now
        if before is None:
            self._pages.labels(pair.collection).inc()
            return
        if now[0] < before[0]:  # the walk began anew, on another host
            before = (0, 0, 0, 0)
        pages, *records = (new - old for new, old in zip(now, before, strict=True))
        self._pages.labels(pair.collection).inc(max(0, pages))
        for outcome, count in zip(("synced", "skipped", "failed"), records, strict=True):
            self._records.labels(pair.collection, outcome).inc(max(0, count))


@cache
def _default_metrics() -> ImportMetrics:
    return ImportMetrics()


def count_events(event: ImportEvent) -> None:
    """A listener that `PARITY_LISTENERS=parity_dagster.monitoring.prometheus:count_events` names; default registry."""
    _default_metrics()(event)


class StateCollector(Collector):
    """Metrics of the state table, read from the database at every scrape."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        """Read the tables; `parity_database_up` alone, with value 0, if the database cannot be read."""
        up = GaugeMetricFamily("parity_database_up", "Whether the database could be read")
        try:
            metrics = list(self._read())
        except (DatabaseError, psycopg.Error) as exc:
            logger.warning("no metrics from the database: %s", exc)
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *metrics]

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering needs no database."""
        return []

    def _read(self) -> Iterator[Metric]:
        name = self._settings.state_table
        parts = {"table": sql.Identifier(name), "own": regclass(name), "live": LIVE_IMPORTERS}
        with connect(self._settings) as connection:
            by_status = dict.fromkeys((str(status) for status in ImportStatus), 0)
            by_code: dict[str, int] = {}
            records = [0, 0, 0]
            rows = connection.execute(
                sql.SQL(
                    "SELECT status, CASE WHEN status = 'failed' THEN coalesce(error_code, '') END, count(*),"
                    " sum(records_synced), sum(records_skipped), sum(records_failed) FROM {table} GROUP BY 1, 2"
                ).format(**parts)
            )
            for status, code, count, *counts in rows:
                by_status[status] += count
                if code is not None:
                    by_code[code] = count
                records = [total + int(more) for total, more in zip(records, counts, strict=True)]
            yield _family("parity_pairs", "(did, collection) pairs by status", "status", by_status)
            yield _family("parity_pairs_failed", "Failed pairs by error code", "error_code", by_code)
            gone = sum(count for code, count in by_code.items() if code in GONE)
            yield GaugeMetricFamily("parity_pairs_gone", "Failed pairs of accounts that are gone", value=gone)
            outcomes = dict(zip(("synced", "skipped", "failed"), records, strict=True))
            yield _family("parity_pair_records", "Records that the pairs' rows count", "outcome", outcomes)
            row = connection.execute(
                sql.SQL(
                    "SELECT count(*) FILTER (WHERE status = 'failed' AND next_attempt_at <= now()),"
                    " count(*) FILTER (WHERE status = 'failed' AND next_attempt_at > now()),"
                    " count(*) FILTER (WHERE status = 'in_progress' AND"
                    "  (importer_id IS NULL OR importer_id NOT IN ({live}))),"
                    " coalesce(extract(epoch FROM now() - min(updated_at) FILTER (WHERE status = 'pending')), 0)"
                    # those of a canceled run wait because somebody wants it so
                    f" FROM {{table}} WHERE status <> 'completed' AND NOT {IS_HELD}"
                ).format(**parts)
            ).fetchone()
            assert row is not None
            for (name, text), value in zip(_WAITING, row, strict=True):
                yield GaugeMetricFamily(name, text, value=float(value))
            yield from _pace(read_summary(connection, self._settings.state_table, self._settings.collections))
            reasons = connection.execute("SELECT reason, count(*) FROM parity_failed_records GROUP BY 1")
            yield _family(
                "parity_failed_records",
                "Records kept because they cannot be stored",
                "reason",
                dict(reasons.fetchall()),
            )
            yield GaugeMetricFamily(
                "parity_stalest_copy_seconds",
                "Since the stalest complete copy was read or confirmed, 0 if there is none",
                value=age_of_stalest(connection, self._settings.state_table, self._settings.collections) or 0.0,
            )
            for name, (text, query) in _COUNTS.items():
                row = connection.execute(sql.SQL(query).format(**parts)).fetchone()
                assert row is not None
                yield GaugeMetricFamily(name, text, value=float(row[0]))


def _pace(summary: Summary) -> Iterator[Metric]:
    """What `parity import-status --summary` says of the pace."""
    yield GaugeMetricFamily("parity_pairs_left", "Pairs that will be imported without being asked for", summary.left)
    yield GaugeMetricFamily("parity_pairs_running", "Pairs that somebody imports now", summary.running)
    yield GaugeMetricFamily("parity_pairs_held", "Pairs of canceled runs, which wait for a person", summary.held)
    pairs = summary.recent_pairs / summary.recent_seconds
    yield GaugeMetricFamily("parity_recent_pairs_per_second", "Pairs completed within the last minutes", pairs)
    records = summary.records_per_second
    yield GaugeMetricFamily("parity_recent_records_per_second", "Their records", records)
    left = math.nan if summary.seconds_left is None else summary.seconds_left
    yield GaugeMetricFamily("parity_left_seconds", "Time left at this pace; NaN if there is none", left)


_WAITING = (
    ("parity_retries_due", "Failed pairs whose next try is due"),
    ("parity_retries_scheduled", "Failed pairs that will be tried again later"),
    ("parity_pairs_interrupted", "Pairs in progress whose importer is gone"),
    ("parity_oldest_pending_seconds", "Age of the pair that has been pending for longest, 0 if none is"),
)
_COUNTS = {
    "parity_importers": ("Importing processes that are alive", "SELECT count(*) FROM ({live}) live"),
    "parity_announcements_waiting": (
        "Endings that are not delivered to listeners yet",
        "SELECT count(*) FROM parity_announcements WHERE state_table = {own} AND deliver",
    ),
    "parity_reports_waiting": (
        "Endings that Dagster has not been told yet",
        "SELECT count(*) FROM parity_announcements WHERE state_table = {own} AND report",
    ),
    "parity_tombstones": (
        "Live deletions remembered until a newer walk completes",
        "SELECT count(*) FROM parity_tombstones",
    ),
}


def _family(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def state_registry(settings: Settings) -> CollectorRegistry:
    """A registry with the state table's metrics alone: what `parity metrics` prints and serves."""
    registry = CollectorRegistry()
    registry.register(StateCollector(settings))
    return registry
