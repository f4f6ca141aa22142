"""Asset events written many at a time, because one statement per event costs several milliseconds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import dagster as dg

from parity_dagster.dagster_instance.private import (
    RUNLESS_JOB_NAME,
    RUNLESS_RUN_ID,
    SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION,
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEventBatchMetadata,
    StepMaterializationData,
)

BATCH_SIZE = 500
"""Events written by one statement, at most."""

ALREADY_RECORDED = SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
"""Output metadata that keeps Dagster from materializing every partition of the run once more.

Dagster put it there for assets that log their own events, which is what ours does; an output is still needed,
because without one the steps downstream would be skipped.
"""

T = TypeVar("T")


def batch_by_default() -> None:
    """Let Dagster write asset events in batches, unless the operator chose a size (0 for none)."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH_SIZE))


def batched(events: Sequence[T]) -> Iterator[tuple[T, DagsterEventBatchMetadata]]:
    """Mark events, of a single kind, as one batch; Dagster writes it when it has seen the last."""
    batch_by_default()
    batch_id = str(uuid4())
    for index, event in enumerate(events):
        yield event, DagsterEventBatchMetadata(batch_id, index == len(events) - 1)


def plan_partitions(
    instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str, asset_key: dg.AssetKey, partitions: Sequence[str]
) -> None:
    """Write that a run is going to materialize partitions of an asset, as Dagster does it for the runs of assets.

    So the UI shows them as materializing, and as failed if the run fails and has not materialized them.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    for start in range(0, len(partitions), BATCH_SIZE):
        for key, mark in batched(partitions[start : start + BATCH_SIZE]):
            event = dg.DagsterEvent(
                kind.value,
                job_name=run.job_name,
                step_key=step_key,
                message=f"{run.job_name} intends to materialize asset {asset_key.to_string()}",
                event_specific_data=AssetMaterializationPlannedData(asset_key, partition=key),
            )
            instance.report_dagster_event(event, run_id=run.run_id, batch_metadata=mark)


def write_without_run(
    instance: dg.DagsterInstance,
    materializations: Sequence[dg.AssetMaterialization],
    observations: Sequence[dg.AssetObservation],
) -> None:
    """Write asset events that belong to no run; their partitions must be registered."""
    for materialization, mark in batched(materializations):
        _write(instance, dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(materialization), mark)
    for observation, mark in batched(observations):
        _write(instance, dg.DagsterEventType.ASSET_OBSERVATION, AssetObservationData(observation), mark)


def _write(instance: dg.DagsterInstance, kind: dg.DagsterEventType, data: Any, mark: DagsterEventBatchMetadata) -> None:
    # what DagsterInstance.report_runless_asset_event does, which takes one event at a time
    event = dg.DagsterEvent(kind.value, job_name=RUNLESS_JOB_NAME, event_specific_data=data)
    instance.report_dagster_event(event, run_id=RUNLESS_RUN_ID, batch_metadata=mark)
