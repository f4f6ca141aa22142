"""The asset `atproto/records`: every imported record, one partition per (did, collection).

What lives here: the asset. What must not: how a list of pairs is imported and written down (`recording`).
Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

import warnings
from collections.abc import Iterator
from typing import cast

import dagster as dg
from pydantic import Field

from parity_dagster.errors import InvalidIdentifier
from parity_dagster.importing.models import Pair
from parity_dagster.importing.service import ImportService
from parity_dagster.orchestration.beta import beta_parts
from parity_dagster.orchestration.partitions import (
    RECORDS_KEY,
    from_partition_key,
    unregistered_dids,
)
from parity_dagster.orchestration.recording import import_in_step
from parity_dagster.orchestration.records_table import RECORDS_METADATA

PAIRS_PER_RUN = 500
"""Partitions that a backfill gives to one run.

A run costs seconds to start (process, code location, run record) and its pairs are walked concurrently, so a
few pairs per run waste most of the time on starting runs; planning costs a few milliseconds per partition and
happens before anything is imported, so many thousands per run would leave the UI still for a long time. A run
that dies loses nothing but its place: the next one resumes at the last committed cursor.
"""

DESCRIPTION = """
Every record of an account's collection, read page by page from the account's own PDS
(`com.atproto.repo.listRecords`) into the table `atproto_records`.

One partition is one (did, collection). Its metadata is its row of the state table; a failed pair leaves an
observation with the same metadata. Materializing a completed partition again reads nothing, unless the run
is tagged `parity/refresh: "true"` or its config says `refresh: true`.
"""


class RecordsConfig(dg.Config):
    """Run config of the asset."""

    refresh: bool = Field(False, description="read completed pairs again from their start")
    reread: bool = Field(False, description="read them even if nothing has changed, and correct what differs")


def build_records_asset(partitions: dg.MultiPartitionsDefinition) -> dg.AssetsDefinition:
    """Define the asset over the given matrix.

    Args:
        partitions: accounts and registered collections.

    Returns:
        The asset; it needs the resource `import_service`.
    """

    with warnings.catch_warnings():
        # backfill policies are "beta" to Dagster; an operator can do nothing about it
        warnings.simplefilter("ignore", category=dg.BetaWarning)

        @dg.asset(
            key=RECORDS_KEY,
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
                context.op_execution_context, import_service, pairs, refresh=config.refresh, reread=config.reread
            )

    with beta_parts():
        (referenced,) = dg.with_source_code_references([records])
    return cast("dg.AssetsDefinition", referenced)


def requested_pairs(context: dg.AssetExecutionContext, partitions: dg.MultiPartitionsDefinition) -> list[Pair]:
    """The pairs a run is about, refused as a whole if one of them is unknown.

    Dagster itself would run the body for a partition nobody registered and fail afterwards.

    Args:
        context: the running asset.
        partitions: the definition the keys must belong to.

    Returns:
        One pair per partition of the run.

    Raises:
        dagster.Failure: no partition, or one that is not registered; the message says the cure.
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
