"""A state row as Dagster metadata, and back.

The metadata is flat and has the row's column names, so that Dagster plots each count over time and
`rebuild_states` can restore the table from it: integers as integers, times as timestamps, the PDS as a link,
what is NULL in the row as null. `dagster/partition_row_count` repeats `records_synced` under the name that Dagster's
catalog shows as the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from parity_dagster.models import ImportState, ImportStatus
from parity_dagster.orchestration.markdown import EXPLORER_URL, PROFILE_URL

COLUMNS = tuple(field.name for field in fields(ImportState))
"""Every column of the state row, in the table's order."""
LATER_COLUMNS = frozenset(field.name for field in fields(ImportState) if field.default is not MISSING)


def state_metadata(state: ImportState) -> dict[str, dg.MetadataValue]:
    """Everything the row says, for a materialization or an observation.

    One entry per column, `dagster/partition_row_count`, `verified` (whether the account's signature vouches for the
    pair), and links to the account and its records on the network.
    """
    metadata = {name: _to_value(name, getattr(state, name)) for name in COLUMNS}
    metadata["dagster/partition_row_count"] = dg.MetadataValue.int(state.records_synced)
    metadata["verified"] = dg.MetadataValue.bool(state.is_verified)
    metadata["account"] = dg.MetadataValue.url(PROFILE_URL.format(did=state.did))
    metadata["records"] = dg.MetadataValue.url(EXPLORER_URL.format(path=f"{state.did}/{state.collection}"))
    return metadata


def state_from_metadata(metadata: Mapping[str, dg.MetadataValue]) -> ImportState:
    """The row that `state_metadata` was given; further entries are ignored.

    Raises:
        KeyError: a column is missing, so the event was not written by `state_metadata`.
        ValueError: a value is not one of that column.
    """
    # events of earlier versions lack the columns that came later
    values = {name: _from_value(metadata, name) for name in COLUMNS if name in metadata or name not in LATER_COLUMNS}
    return ImportState(**values)


def _to_value(name: str, value: Any) -> dg.MetadataValue:
    if value is None:
        return dg.MetadataValue.null()
    if isinstance(value, datetime):
        return dg.MetadataValue.timestamp(value)
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if name == "pds":
        return dg.MetadataValue.url(value)
    return dg.MetadataValue.text(str(value))


def _from_value(metadata: Mapping[str, dg.MetadataValue], name: str) -> Any:
    entry = metadata[name]
    if isinstance(entry, dg.TimestampMetadataValue):
        # PostgreSQL keeps microseconds, which a float of this size still holds exactly once rounded
        return datetime.fromtimestamp(round(entry.value, 6), UTC)
    if name == "status":
        return ImportStatus(str(entry.value))
    return entry.value
