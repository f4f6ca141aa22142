"""The asset `atproto/records`: every imported record, one partition per (did, collection).

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import cast

import dagster as dg
from pydantic import Field

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.errors import InvalidIdentifier
from parity_dagster.models import Pair
from parity_dagster.orchestration.dagster_compat import beta_parts, plain_failures
from parity_dagster.orchestration.markdown import account_link, link, record_url, table
from parity_dagster.orchestration.partitions import unregistered_dids
from parity_dagster.orchestration.step_events import SOURCE_HELP, import_in_step
from parity_dagster.service import ImportService
from parity_dagster.store.database import connect
from parity_dagster.store.typed import BLUESKY_VIEWS, TypedView, ViewSummary, find_samples, make_view, summarize_view

RECORDS_METADATA = {
    "dagster/table_name": "atproto_records",
    "dagster/column_schema": dg.TableSchema(
        columns=[
            dg.TableColumn("did", "text", "Account, from the request, never from the answer"),
            dg.TableColumn("collection", "text", "NSID of the collection"),
            dg.TableColumn("rkey", "text", "Record key; did, collection and rkey are the primary key"),
            dg.TableColumn("cid", "text", "Content identifier of this version; null when the PDS names none"),
            dg.TableColumn("value", "jsonb", "The record"),
            dg.TableColumn("rev", "text", "Revision of the repository known when this version was observed"),
            dg.TableColumn("active", "boolean", "False while the account is deactivated, suspended or taken down"),
            dg.TableColumn("first_seen_at", "timestamptz", "When the record was stored first"),
            dg.TableColumn("updated_at", "timestamptz", "When this version was stored"),
            dg.TableColumn("uri", "text", "at://did/collection/rkey"),
        ]
    ),
}
"""Metadata of the asset's definition."""


PAIRS_PER_RUN = 500
"""Partitions that a backfill gives to one run.

A run costs seconds to start (process, code location, run record) and its pairs are walked concurrently, so a
few pairs per run waste most of the time on starting runs; planning costs a few milliseconds per partition and
happens before anything is imported, so many thousands per run would leave the UI still for a long time. A run
that dies loses nothing but its place: the next one resumes at the last committed cursor.
"""

DESCRIPTION = """\
Every record of an account's collection, read page by page from the account's own PDS
(`com.atproto.repo.listRecords`) into the table `atproto_records`.

One partition is one (did, collection). Its metadata is its row of the state table; a failed pair leaves an
observation with the same metadata. Materializing a completed partition again reads nothing, unless the run
is tagged `parity/refresh: "true"` or its config says `refresh: true`.

Beyond `PARITY_PARTITION_LIMIT` accounts, pairs are imported without a partition and an event each:
`import_overview` counts them, and `parity import DID` gives an account its partition.
"""


class RecordsConfig(dg.Config):
    """Run config of the asset."""

    refresh: bool = Field(False, description="read completed pairs again from their start")
    reread: bool = Field(False, description="read them even if nothing has changed, and correct what differs")
    source: str = Field("", description=SOURCE_HELP)


def build_records_asset(partitions: dg.MultiPartitionsDefinition) -> dg.AssetsDefinition:
    """Define the asset over the given matrix; it needs the resource `import_service`."""

    with beta_parts():

        @dg.asset(
            key=RECORDS_KEY,
            # not discovered_accounts: until somebody discovers some, the UI would ask "Are you sure?" at each import
            deps=["did_lists"],
            metadata=RECORDS_METADATA,
            partitions_def=cast("dg.PartitionsDefinition[str]", partitions),
            backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=PAIRS_PER_RUN),
            group_name="atproto",
            kinds={"bluesky", "postgres"},
            owners=["team:parity"],
            tags={"parity/table": "atproto_records"},
            description=DESCRIPTION,
            # nothing is handed downstream in memory: the records are in Postgres
            dagster_type=cast("dg.DagsterType", dg.Nothing),
        )
        def records(
            context: dg.AssetExecutionContext,
            config: RecordsConfig,
            import_service: dg.ResourceParam[ImportService],
        ) -> Iterator[dg.DagsterEvent | dg.Output[None]]:
            pairs = requested_pairs(context, partitions)
            yield from import_in_step(
                context.op_execution_context,
                import_service,
                pairs,
                refresh=config.refresh,
                reread=config.reread,
                source=config.source,
            )

    return records


def requested_pairs(context: dg.AssetExecutionContext, partitions: dg.MultiPartitionsDefinition) -> list[Pair]:
    """The pairs a run is about, refused as a whole (`dagster.Failure`) if one of them is not registered.

    Dagster itself would run the body for a partition nobody registered and fail afterwards.
    """
    if not context.has_partition_key and not context.has_partition_key_range:
        raise _refusal(
            "This run names no partition. Choose partitions in the UI, or add --tags "
            '\'{"dagster/partition": "COLLECTION|DID"}\' to `dagster job execute`.'
        )
    # looked at before they are resolved: Dagster's own complaint names neither the problem nor the cure
    bounds = context.partition_key_range
    try:
        ends = [from_partition_key(key) for key in dict.fromkeys((bounds.start, bounds.end))]
    except InvalidIdentifier as exc:
        raise _refusal(str(exc)) from None
    registered = partitions.get_partitions_def_for_dimension("collection").get_partition_keys()
    for pair in ends:
        if pair.collection not in registered:
            raise _refusal(
                f"{pair.collection} is not a registered collection; add it to PARITY_COLLECTIONS and restart."
            )
    if missing := unregistered_dids(context.instance, [pair.did for pair in ends]):
        raise _refusal(
            f"{missing[0]} is not registered as a partition; `parity import {missing[0]}` or the job "
            "import_records registers and imports it."
        )
    if len(ends) == 1:
        return ends
    return [from_partition_key(key) for key in context.partition_keys]


def _refusal(message: str) -> dg.Failure:
    return dg.Failure(description=message, allow_retries=False)


SHOWN_COLUMNS = 4
"""Typed columns shown of a sample."""


def freshness_policy(stale_days: int) -> dg.FreshnessPolicy | None:
    """What stands on the records is made anew after every import, so it is as old as the last of them."""
    if not stale_days:
        return None
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(days=stale_days), warn_window=timedelta(days=stale_days / 2)
    )


def build_typed_asset(view: TypedView, freshness: dg.FreshnessPolicy | None = None) -> dg.AssetsDefinition:
    """Define the asset of a view, downstream of `atproto/records`; it needs the resource `import_service`."""

    @dg.asset(
        key=view.name,
        code_version=view.version(),
        freshness_policy=freshness,
        deps=[RECORDS_KEY],
        group_name="typed",
        kinds={"postgres", "view", "bluesky"} if view in BLUESKY_VIEWS else {"postgres", "view"},
        owners=["team:parity"],
        tags={"parity/collection": view.collection},
        description=(
            f"{view.comment or view.collection}\n\nA view over `atproto_records`, always up to date: materializing it "
            "brings its definition up to date and counts what it shows; of a large table it looks at a part, and says "
            "so in `looked_at`. A field of the wrong type is null, never an "
            "error."
        ),
        metadata={
            "dagster/table_name": view.name,
            "dagster/column_schema": _schema(view),
            "dagster/column_lineage": _lineage(view),
            "collection": view.collection,
            "definition": dg.MetadataValue.md(f"```sql\n{view.select()}\n```"),
        },
    )
    def typed_view(import_service: dg.ResourceParam[ImportService]) -> dg.MaterializeResult[None]:
        with plain_failures(), closing(connect(import_service.settings)) as conn:
            is_new = make_view(conn, view)
            conn.commit()
            summary = summarize_view(conn, view, import_service.settings.state_table)
            samples = find_samples(conn, view)
        shown = [column.name for column in view.columns][:SHOWN_COLUMNS]
        rows = [
            [
                account_link(row["did"]),
                link(row["rkey"], record_url(row["did"], view.collection, row["rkey"], view.link)),
                *(row[name] for name in shown),
            ]
            for row in samples
        ]
        return dg.MaterializeResult(
            metadata={
                **_numbers(summary),
                "definition_changed": is_new,
                "latest_records": dg.MetadataValue.md(table(["account", "record", *shown], rows)),
            }
        )

    return typed_view


def _numbers(summary: ViewSummary) -> dict[str, dg.MetadataValue]:
    seen = "every record" if summary.sampled is None else f"{summary.sampled:,} records drawn by chance"
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(summary.rows),
        "looked_at": dg.MetadataValue.text(seen),
        "accounts": dg.MetadataValue.int(summary.accounts),
        "inactive_rows": dg.MetadataValue.int(summary.inactive),
        "nulls_by_column": dg.MetadataValue.md(table(["column", "#missing or malformed"], list(summary.nulls.items()))),
    }
    if summary.first is not None and summary.last is not None:
        metadata["first_created_at"] = dg.MetadataValue.text(summary.first.isoformat())
        metadata["last_created_at"] = dg.MetadataValue.text(summary.last.isoformat())
    return metadata


def _schema(view: TypedView) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=sql_type, description=comment)
            for name, sql_type, comment in view.described_columns()
        ]
    )


def _lineage(view: TypedView) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=RECORDS_KEY, column_name=view.source_of(name))]
            for name, *_ in view.described_columns()
        }
    )
