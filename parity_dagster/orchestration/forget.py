"""Removing accounts from Dagster: their partitions, and the events of these."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg

from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import DIDS


def forget_in_dagster(instance: dg.DagsterInstance, did: str, collections: Collection[str]) -> int:
    """Remove an account's partition and the events of its pairs; says how many events.

    What a run's log says of an account in its own words stays until the run is deleted or pruned.
    """
    removed = 0
    storage = instance.event_log_storage
    if isinstance(storage, ParityEventLogStorage):
        keys = [str(to_partition_key(Pair(did, nsid))) for nsid in sorted(collections)]
        removed = storage.delete_partitions(RECORDS_KEY, keys)
    instance.delete_dynamic_partition(DIDS, did)
    return removed
