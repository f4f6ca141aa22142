"""A state row survives the way through Dagster's event log, to the last microsecond."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import given, strategies as st

from parity_dagster.models import ImportState, ImportStatus
from parity_dagster.orchestration.metadata import COLUMNS, state_from_metadata, state_metadata

times = st.datetimes(datetime(2020, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(0, 2**31)
texts = st.text(min_size=1, max_size=50)
states = st.builds(
    ImportState,
    id=counts,
    did=st.just("did:plc:" + "a" * 24),
    collection=st.just("app.bsky.feed.post"),
    status=st.sampled_from(ImportStatus),
    cursor=st.none() | texts,
    records_synced=counts,
    records_skipped=counts,
    records_failed=counts,
    started_at=st.none() | times,
    completed_at=st.none() | times,
    error=st.none() | texts,
    created_at=times,
    updated_at=times,
    pds=st.none() | st.just("https://pds.example.com"),
    rev=st.none() | st.just("3l3qo2vuowo2b"),
    walk=counts,
    pages=counts,
    attempts=counts,
    next_attempt_at=st.none() | times,
    error_code=st.none() | texts,
    run_id=st.none() | texts,
    importer_id=st.none() | counts,
    source=st.sampled_from(["list", "repo"]),
    commit=st.none() | st.just("bafyreicommit"),
)


@given(states)
def test_a_row_comes_back_from_stored_metadata_unchanged(state: ImportState) -> None:
    event = dg.AssetMaterialization("records", metadata=state_metadata(state))
    stored = deserialize_value(serialize_value(event), dg.AssetMaterialization)
    assert state_from_metadata(stored.metadata) == state


@given(states)
def test_every_column_is_there_and_counts_can_be_plotted(state: ImportState) -> None:
    metadata = state_metadata(state)
    assert set(COLUMNS) <= set(metadata)
    for name in ("records_synced", "records_skipped", "records_failed", "pages", "walk", "attempts"):
        assert metadata[name] == dg.IntMetadataValue(getattr(state, name))
    is_verified = state.status is ImportStatus.COMPLETED and state.commit is not None
    assert metadata["verified"] == dg.BoolMetadataValue(is_verified)


@pytest.mark.parametrize("missing", COLUMNS)
def test_metadata_of_somebody_else_is_no_row(missing: str) -> None:
    metadata = {name: dg.MetadataValue.int(1) for name in COLUMNS if name != missing}
    with pytest.raises((KeyError, ValueError)):
        state_from_metadata(metadata)


@given(states)
def test_the_rows_of_a_pair_are_called_those_of_a_partition(state: ImportState) -> None:
    """`dagster/row_count` is, in Dagster's words, the number of rows of the whole table."""
    found = state_metadata(state)
    assert found["dagster/partition_row_count"] == dg.IntMetadataValue(state.records_synced)
    assert "dagster/row_count" not in found
