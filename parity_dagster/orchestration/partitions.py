"""Partitions of the asset `atproto/records`: one per (did, collection)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import dagster as dg
from sqlalchemy.exc import IntegrityError

from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.settings import Settings

DIDS = "atproto_dids"
"""Name of the dynamic partitions that list the accounts."""

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Run tags that Dagster reads: the first and the last of a run's partitions."""

REGISTER_CHUNK = 1000
"""Keys added in one statement; a single statement with many more stalls the event log."""

_REGISTER_ATTEMPTS = 5

atproto_dids = dg.DynamicPartitionsDefinition(name=DIDS)


def build_partitions(settings: Settings) -> dg.MultiPartitionsDefinition:
    """The matrix of accounts and registered collections; its `did` dimension grows with `register_dids`."""
    return dg.MultiPartitionsDefinition(
        {"did": atproto_dids, "collection": dg.StaticPartitionsDefinition(list(settings.collections))}
    )


class Registered(NamedTuple):
    """Accounts that came to Dagster together."""

    new: list[str]
    """Those that were not partitions before and are now."""
    beyond: set[str]
    """Those that are none, because there are as many as there may be."""


def register_within(instance: dg.DagsterInstance, dids: Iterable[str], limit: int) -> Registered:
    """Make accounts that nobody has named one by one partitions, as long as Dagster has fewer than `limit`.

    Its UI is slow with many more. Who registers others in the same moment may bring it somewhat above.
    """
    missing = unregistered_dids(instance, dids)
    room = max(0, limit - count_accounts(instance)) if missing else 0
    return Registered(register_dids(instance, missing[:room]), set(missing[room:]))


def count_accounts(instance: dg.DagsterInstance) -> int:
    """How many accounts are partitions."""
    storage = instance.event_log_storage
    if isinstance(storage, ParityEventLogStorage):
        return storage.count_dynamic_partitions(DIDS)
    return len(instance.get_dynamic_partitions(DIDS))


def register_dids(instance: dg.DagsterInstance, dids: Iterable[str]) -> list[str]:
    """Make the accounts known to Dagster, listed in this order; those already known stay as they are.

    Safe to call from many processes at once: a storage that refuses a key added by somebody else in the same
    moment is asked again.
    """
    wanted = list(dict.fromkeys(dids))
    added: list[str] = []
    for start in range(0, len(wanted), REGISTER_CHUNK):
        added += _register_chunk(instance, wanted[start : start + REGISTER_CHUNK])
    return added


def _register_chunk(instance: dg.DagsterInstance, chunk: Sequence[str]) -> list[str]:
    for attempt in range(_REGISTER_ATTEMPTS):
        known = instance.get_existing_dynamic_partitions(DIDS, chunk)
        missing = [did for did in chunk if did not in known]
        if not missing:
            return []
        try:
            instance.add_dynamic_partitions(DIDS, missing)
        except IntegrityError:
            # somebody added one of them between our look and our insert
            if attempt == _REGISTER_ATTEMPTS - 1:
                raise
            continue
        return missing
    return []


def unregistered_dids(instance: dg.DagsterInstance, dids: Iterable[str]) -> list[str]:
    """The accounts that `register_dids` would add, in order."""
    wanted = list(dict.fromkeys(dids))
    missing: list[str] = []
    for start in range(0, len(wanted), REGISTER_CHUNK):
        chunk = wanted[start : start + REGISTER_CHUNK]
        known = instance.get_existing_dynamic_partitions(DIDS, chunk)
        missing += [did for did in chunk if did not in known]
    return missing
