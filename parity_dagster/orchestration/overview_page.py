"""The page that `import_overview` shows: tables and charts over the state table, and the numbers that the UI plots."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import pandas as pd

from parity_dagster.errors import GONE
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.charts import bar_chart, time_chart
from parity_dagster.orchestration.markdown import account_link, partition_link, table
from parity_dagster.store.known import MissingCollection, missing_sentence
from parity_dagster.store.overview import STATE_COLUMNS, Holdings

MOST = 15
"""Rows that a table shows."""
POINTS = 60
"""Points of the line over time, at most."""
_STATUSES = [str(status) for status in ImportStatus]
_PERIODS = {
    "1s": "second", "10s": "10 seconds", "1min": "minute", "10min": "10 minutes", "1h": "hour", "6h": "6 hours",
    "1D": "day", "7D": "week", "28D": "28 days", "364D": "52 weeks",
}  # fmt: skip
_COUNTS = ["records_synced", "records_skipped", "records_failed"]


def states_frame(holdings: Holdings) -> pd.DataFrame:
    """The state table as a frame; `seconds` is how long a walk took, `host` its PDS or `unknown`, `is_verified`
    whether it is complete and its account's signature vouches for all of it; a failed pair `is_gone`, because its
    account is, or `is_wrong`."""
    frame = pd.DataFrame(holdings.states, columns=list(STATE_COLUMNS))
    for name in ("started_at", "completed_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    frame["seconds"] = (frame["completed_at"] - frame["started_at"]).dt.total_seconds()
    frame["host"] = frame["pds"].fillna("unknown")
    frame["is_gone"] = (frame["status"] == "failed") & frame["error_code"].isin(GONE)
    frame["is_wrong"] = (frame["status"] == "failed") & ~frame["is_gone"]
    frame["is_verified"] = (frame["status"] == "completed") & frame["commit"].notna()
    return frame


def overview_metadata(
    holdings: Holdings, collections: Sequence[str] = (), *, partitions: int | None = None
) -> dict[str, dg.MetadataValue]:
    """Numbers that the UI plots, and everything as one page of markdown.

    Args:
        collections: the registered NSIDs, each of which every account should have a row for.
        partitions: accounts that are partitions, if no more of them become some by themselves.
    """
    frame = states_frame(holdings)
    missing = _missing(frame, collections)
    by_status = frame["status"].value_counts()
    done = int(by_status.get("completed", 0))
    verified = int(frame["is_verified"].sum())
    totals = {name: int(frame[name].sum()) for name in _COUNTS}
    accounts = int(frame["did"].nunique())
    completeness = done / len(frame) if len(frame) else 0.0
    numbers: dict[str, dg.MetadataValue] = {
        "accounts": dg.MetadataValue.int(accounts),
        "hosts": dg.MetadataValue.int(int(frame["pds"].nunique())),
        "pairs": dg.MetadataValue.int(len(frame)),
        **{f"pairs_{status}": dg.MetadataValue.int(int(by_status.get(status, 0))) for status in _STATUSES},
        "pairs_gone": dg.MetadataValue.int(int(frame["is_gone"].sum())),
        "pairs_missing": dg.MetadataValue.int(sum(collection.accounts for collection in missing)),
        "pairs_verified": dg.MetadataValue.int(verified),
        "completeness": dg.MetadataValue.float(round(completeness, 6)),
        **{name: dg.MetadataValue.int(value) for name, value in totals.items()},
        "table_megabytes": dg.MetadataValue.float(round(holdings.table_bytes / 2**20, 1)),
    }
    beyond = 0 if partitions is None else max(0, accounts - partitions)
    if beyond:
        numbers["accounts_without_partition"] = dg.MetadataValue.int(beyond)
    parts = [
        f"**{totals['records_synced']:,} records** of {accounts:,} accounts on {frame['pds'].nunique():,}"
        f" hosts; **{done:,} of {len(frame):,} pairs complete ({completeness:.1%})**, {verified:,} of them verified"
        f" (read as signed repositories), {frame['is_wrong'].sum():,} failed, {frame['is_gone'].sum():,} of accounts"
        f" that are gone, {totals['records_failed']:,} failed records, {totals['records_skipped']:,} skipped.",
        f"**{beyond:,} accounts have no partition** and no events, because PARITY_PARTITION_LIMIT is reached; they are"
        " in the state table and in all numbers here, `parity import-status DID` shows one, and `parity import DID`"
        " gives it its partition."
        if beyond
        else "",
        f"{missing_sentence(missing)}; `parity import --known --queue` queues what is missing." if missing else "",
        "## Completeness",
        bar_chart("Pairs by collection", *_status_bars(frame)),
        _collections(frame),
        "## Records over time",
        time_chart(*_over_time(frame)),
        "## What failed, and why",
        "Imports: " + _failed_pairs(frame[frame["is_wrong"]]),
        _failed_records(holdings),
        "## Accounts that are gone",
        "Deactivated, suspended, taken down, deleted or unknown; nothing is wrong here: "
        + _failed_pairs(frame[frame["is_gone"]]),
        "## Hosts",
        _hosts(frame),
        "## Largest accounts",
        bar_chart("Records of the largest accounts", _largest_bars(frame)),
        _largest(frame),
        "## Slowest pairs",
        _slowest(frame),
    ]
    return {"overview": dg.MetadataValue.md("\n\n".join(filter(None, parts))), **numbers}


def _missing(frame: pd.DataFrame, collections: Sequence[str]) -> list[MissingCollection]:
    accounts, rows = int(frame["did"].nunique()), frame["collection"].value_counts()
    lacking = [MissingCollection(nsid, accounts - int(rows.get(nsid, 0))) for nsid in collections]
    return [collection for collection in lacking if collection.accounts]


def _status_bars(frame: pd.DataFrame) -> tuple[list[tuple[str, list[float]]], list[str]]:
    order = ["completed", "failed", "in_progress", "pending"]
    counted = frame.groupby(["collection", "status"]).size().unstack(fill_value=0).reindex(columns=order, fill_value=0)
    return [(str(nsid), [float(value) for value in row]) for nsid, row in counted.iterrows()], order


def _collections(frame: pd.DataFrame) -> str:
    grouped = frame.assign(done=frame["status"] == "completed").groupby("collection")
    rows = grouped.agg(
        pairs=("did", "size"), done=("done", "sum"), verified=("is_verified", "sum"), synced=("records_synced", "sum"),
        skipped=("records_skipped", "sum"), failed=("records_failed", "sum"),
    ).sort_values("synced", ascending=False)  # fmt: skip
    return table(
        ["collection", "#pairs", "#complete", "#%", "#verified", "#records", "#skipped", "#failed records"],
        [
            [
                nsid, int(r.pairs), int(r.done), f"{r.done / r.pairs:.1%}", int(r.verified), int(r.synced),
                int(r.skipped), int(r.failed),
            ]
            for nsid, r in rows.iterrows()
        ],
    )  # fmt: skip


def _over_time(frame: pd.DataFrame) -> tuple[str, list[tuple[pd.Timestamp, float]]]:
    done = frame.dropna(subset=["completed_at"]).set_index("completed_at")["records_synced"].sort_index()
    if done.empty:
        return "Records of completed pairs", []
    span = done.index[-1] - done.index[0]
    period = next((size for size in _PERIODS if span / pd.Timedelta(size) < POINTS), list(_PERIODS)[-1])
    sums = done.resample(period).sum()
    # nothing came before and after, which also makes a line of a single point
    step = pd.Timedelta(period)
    points = [(moment, float(value)) for moment, value in zip(sums.index, sums, strict=True)]
    points = [(sums.index[0] - step, 0.0), *points, (sums.index[-1] + step, 0.0)]
    return f"Records of completed pairs, per {_PERIODS[period]}", points


def _failed_pairs(failed: pd.DataFrame) -> str:
    grouped = failed.assign(error_code=failed["error_code"].fillna("unknown")).groupby("error_code")
    counted = grouped.agg(
        pairs=("did", "size"), accounts=("did", "nunique"), hosts=("host", "nunique"), did=("did", "first"),
        collection=("collection", "first"),
    ).sort_values("pairs", ascending=False)  # fmt: skip
    rows = [
        [code, int(row.pairs), int(row.accounts), int(row.hosts), partition_link(Pair(row.did, row.collection))]
        for code, row in counted.iterrows()
    ]
    return ("\n\n" if rows else "") + table(["error", "#pairs", "#accounts", "#hosts", "one of them"], rows)


def _failed_records(holdings: Holdings) -> str:
    rows = holdings.failed_records
    return "Records: " + ("\n\n" if rows else "") + table(["reason", "#records", "one of them"], rows)


def _hosts(frame: pd.DataFrame) -> str:
    grouped = frame.assign(done=frame["status"] == "completed").groupby("host")
    hosts = grouped.agg(
        accounts=("did", "nunique"), pairs=("did", "size"), done=("done", "sum"), bad=("is_wrong", "sum"),
        gone=("is_gone", "sum"), synced=("records_synced", "sum"), pages=("pages", "sum"),
        seconds=("seconds", "median"),
    ).sort_values("synced", ascending=False)  # fmt: skip
    return table(
        ["PDS", "#accounts", "#pairs", "#complete", "#failed", "#gone", "#records", "#pages", "#median s per pair"],
        [
            [
                host, int(r.accounts), int(r.pairs), int(r.done), int(r.bad), int(r.gone), int(r.synced), int(r.pages),
                None if pd.isna(r.seconds) else float(r.seconds),
            ]
            for host, r in hosts.head(MOST).iterrows()
        ],
        len(hosts) - MOST,
    )  # fmt: skip


def _accounts(frame: pd.DataFrame) -> pd.DataFrame:
    grouped = frame.groupby("did").agg(
        synced=("records_synced", "sum"), pairs=("collection", "size"), handle=("handle", "first"),
        host=("host", "first"), seconds=("seconds", "sum"),
    )  # fmt: skip
    return grouped.sort_values("synced", ascending=False).head(MOST)


def _largest_bars(frame: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return [
        (str(did) if pd.isna(row.handle) else str(row.handle), [float(row.synced)])
        for did, row in _accounts(frame).iterrows()
    ]


def _largest(frame: pd.DataFrame) -> str:
    return table(
        ["account", "handle", "PDS", "#pairs", "#records", "#seconds"],
        [
            [
                account_link(str(did)), None if pd.isna(row.handle) else row.handle, row.host, int(row.pairs),
                int(row.synced), float(row.seconds),
            ]
            for did, row in _accounts(frame).iterrows()
        ],
        int(frame["did"].nunique()) - MOST,
    )  # fmt: skip


def _slowest(frame: pd.DataFrame) -> str:
    slow = frame.dropna(subset=["seconds"]).nlargest(MOST, "seconds")
    return table(
        ["partition", "#seconds", "#records", "#records/s", "#pages", "PDS"],
        [
            [
                partition_link(Pair(row.did, row.collection)), float(row.seconds), int(row.records_synced),
                row.records_synced / row.seconds if row.seconds else None, int(row.pages), row.host,
            ]
            for _, row in slow.iterrows()
        ],
    )  # fmt: skip
