"""The page that `import_overview` shows: tables and charts over the state table, and the numbers that the UI plots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from parity_dagster.errors import GONE
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.charts import bar_chart, time_chart
from parity_dagster.orchestration.markdown import account_link, partition_link, table
from parity_dagster.store.freshness import age_text
from parity_dagster.store.known import MissingCollection, missing_sentence
from parity_dagster.store.overview import PERIODS, CollectionCounts, ErrorCounts, Holdings
from parity_dagster.store.summary import Summary, sentences

_PERIODS = dict(
    zip(
        PERIODS,
        ("second", "10 seconds", "minute", "10 minutes", "hour", "6 hours", "day", "week", "28 days", "52 weeks"),
        strict=True,
    )
)


def overview_metadata(
    holdings: Holdings,
    collections: Sequence[str] = (),
    *,
    partitions: int | None = None,
    summary: Summary | None = None,
) -> dict[str, dg.MetadataValue]:
    """Numbers that the UI plots, and everything as one page of markdown.

    Args:
        collections: the registered NSIDs, each of which every account should have a row for.
        partitions: accounts that are partitions, if no more of them become some by themselves.
        summary: what goes on at this moment.
    """
    missing = _missing(holdings, collections)
    totals = {
        name: sum(getattr(counts, name) for counts in holdings.collections) for name in CollectionCounts._fields[1:]
    }
    pairs, done, accounts = totals["pairs"], totals["completed"], holdings.accounts
    completeness = done / pairs if pairs else 0.0
    numbers: dict[str, dg.MetadataValue] = {
        "accounts": dg.MetadataValue.int(accounts),
        "hosts": dg.MetadataValue.int(holdings.hosts),
        "pairs": dg.MetadataValue.int(pairs),
        **{f"pairs_{status}": dg.MetadataValue.int(totals[status]) for status in ImportStatus},
        "pairs_gone": dg.MetadataValue.int(totals["gone"]),
        "pairs_missing": dg.MetadataValue.int(sum(collection.accounts for collection in missing)),
        "pairs_verified": dg.MetadataValue.int(totals["verified"]),
        "completeness": dg.MetadataValue.float(round(completeness, 6)),
        **{
            name: dg.MetadataValue.int(totals[name]) for name in ("records_synced", "records_skipped", "records_failed")
        },
        "table_megabytes": dg.MetadataValue.float(round(holdings.table_bytes / 2**20, 1)),
    }
    if holdings.stalest_seconds is not None:
        numbers["stalest_copy_days"] = dg.MetadataValue.float(round(holdings.stalest_seconds / 86_400, 3))
    beyond = 0 if partitions is None else max(0, accounts - partitions)
    if beyond:
        numbers["accounts_without_partition"] = dg.MetadataValue.int(beyond)
    if summary is not None:
        numbers["pairs_held"] = dg.MetadataValue.int(summary.held)
        numbers["records_per_second"] = dg.MetadataValue.float(round(summary.records_per_second, 1))
        if summary.seconds_left is not None:
            numbers["hours_left"] = dg.MetadataValue.float(round(summary.seconds_left / 3600, 3))
    parts = [
        f"**As of {summary.at:%Y-%m-%d %H:%M:%S} UTC.** {' '.join(sentences(summary))}" if summary else "",
        f"**{totals['records_synced']:,} records** of {accounts:,} accounts on {holdings.hosts:,}"
        f" hosts; **{done:,} of {pairs:,} pairs complete ({completeness:.1%})**, {totals['verified']:,} of them"
        f" verified (read as signed repositories), {totals['failed'] - totals['gone']:,} failed,"
        f" {totals['gone']:,} of accounts that are gone, {totals['records_failed']:,} failed records,"
        f" {totals['records_skipped']:,} skipped.",
        f"**{beyond:,} accounts have no partition** and no events, because PARITY_PARTITION_LIMIT is reached; they are"
        " in the state table and in all numbers here, `parity import-status DID` shows one, and `parity import DID`"
        " gives it its partition."
        if beyond
        else "",
        f"{missing_sentence(missing)}; `parity import --known --queue` queues what is missing." if missing else "",
        f"The stalest copy was read or confirmed {age_text(holdings.stalest_seconds)} ago."
        if holdings.stalest_seconds is not None
        else "",
        "## Completeness",
        bar_chart("Pairs by collection", *_status_bars(holdings)),
        _collections(holdings),
        "## Records over time",
        time_chart(*_over_time(holdings)),
        "## What failed, and why",
        "Imports: " + _failed_pairs([counts for counts in holdings.errors if counts.error_code not in GONE]),
        _failed_records(holdings),
        "## Accounts that are gone",
        "Deactivated, suspended, taken down, deleted or unknown; nothing is wrong here: "
        + _failed_pairs([counts for counts in holdings.errors if counts.error_code in GONE]),
        "## Hosts",
        _hosts(holdings),
        "The slowest of them, by seconds from the start to the end of an import for each page:",
        _slowest_hosts(holdings),
        "## Largest accounts",
        bar_chart(
            "Records of the largest accounts",
            [(account.handle or account.did, [float(account.records_synced)]) for account in holdings.largest_accounts],
        ),
        _largest(holdings),
        "## Slowest pairs",
        _slowest(holdings),
    ]
    return {"overview": dg.MetadataValue.md("\n\n".join(filter(None, parts))), **numbers}


def _missing(holdings: Holdings, collections: Sequence[str]) -> list[MissingCollection]:
    rows = {counts.collection: counts.pairs for counts in holdings.collections}
    lacking = [MissingCollection(nsid, holdings.accounts - rows.get(nsid, 0)) for nsid in collections]
    return [collection for collection in lacking if collection.accounts]


def _status_bars(holdings: Holdings) -> tuple[list[tuple[str, list[float]]], list[str]]:
    order = ["completed", "failed", "in_progress", "pending", "gone"]
    # what is gone has not failed
    shown = [counts._replace(failed=counts.failed - counts.gone) for counts in holdings.collections]
    bars = [(counts.collection, [float(getattr(counts, kind)) for kind in order]) for counts in shown]
    return sorted(bars), order


def _collections(holdings: Holdings) -> str:
    return table(
        ["collection", "#pairs", "#complete", "#%", "#verified", "#records", "#skipped", "#failed records"],
        [
            [
                counts.collection, counts.pairs, counts.completed, f"{counts.completed / counts.pairs:.1%}",
                counts.verified, counts.records_synced, counts.records_skipped, counts.records_failed,
            ]
            for counts in holdings.collections
        ],
    )  # fmt: skip


def _over_time(holdings: Holdings) -> tuple[str, list[tuple[datetime, float]]]:
    points = [(moment, float(records)) for moment, records in holdings.synced_over_time]
    if not points:
        return "Records of completed pairs", []
    # nothing came before and after, which also makes a line of a single point
    points = [(points[0][0] - holdings.period, 0.0), *points, (points[-1][0] + holdings.period, 0.0)]
    return f"Records of completed pairs, per {_PERIODS[holdings.period]}", points


def _failed_pairs(errors: Sequence[ErrorCounts]) -> str:
    rows = [[*counts[:-1], partition_link(counts.example)] for counts in errors]
    return ("\n\n" if rows else "") + table(["error", "#pairs", "#accounts", "#hosts", "one of them"], rows)


def _failed_records(holdings: Holdings) -> str:
    rows = holdings.failed_records
    return "Records: " + ("\n\n" if rows else "") + table(["reason", "#records", "one of them"], rows)


def _hosts(holdings: Holdings) -> str:
    return table(
        ["PDS", "#accounts", "#pairs", "#complete", "#failed", "#gone", "#records", "#pages", "#median s per pair"],
        holdings.largest_hosts,
        holdings.hosts - len(holdings.largest_hosts),
    )


def _slowest_hosts(holdings: Holdings) -> str:
    return table(["PDS", "#complete pairs", "#pages", "#s per page"], holdings.slowest_hosts)


def _largest(holdings: Holdings) -> str:
    return table(
        ["account", "handle", "PDS", "#pairs", "#records", "#seconds"],
        [[account_link(account.did), *account[1:]] for account in holdings.largest_accounts],
        holdings.accounts - len(holdings.largest_accounts),
    )


def _slowest(holdings: Holdings) -> str:
    return table(
        ["partition", "#seconds", "#records", "#records/s", "#pages", "PDS"],
        [
            [
                partition_link(Pair(pair.did, pair.collection)), pair.seconds, pair.records_synced,
                pair.records_synced / pair.seconds if pair.seconds else None, pair.pages, pair.host,
            ]
            for pair in holdings.slowest_pairs
        ],
    )  # fmt: skip
