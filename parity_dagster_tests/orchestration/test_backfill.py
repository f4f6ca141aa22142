"""A backfill launched as the UI launches it, run by a real webserver and daemon."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parity_dagster.dagster_instance.keys import to_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.metadata import COLUMNS
from parity_dagster.orchestration.partitions import register_dids
from parity_dagster.sample_network import LIKE, POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests import command_line
from parity_dagster_tests.imports import assert_equal

pytestmark = [pytest.mark.processes, pytest.mark.long]

PROJECT = Path(__file__).parents[2]
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } } } }"""
CELLS = """{ assetNodeOrError(assetKey: {path: ["atproto", "records"]}) { ... on AssetNode {
  partitionStats { numPartitions numMaterialized numFailed numMaterializing }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey secondaryDim {
    ... on DefaultPartitionStatuses { failedPartitions } } } } } } } }"""
METADATA = """query ($partition: String!) { assetNodeOrError(assetKey: {path: ["atproto", "records"]}) {
  ... on AssetNode { assetMaterializations(partitions: [$partition], limit: 5) { runId metadataEntries { label
    ... on IntMetadataEntry { intRepr } ... on TextMetadataEntry { text } ... on UrlMetadataEntry { url }
    ... on TimestampMetadataEntry { timestamp } ... on NullMetadataEntry { __typename } } } } } }"""


class Ui:
    """The UI's API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def is_up(self) -> bool:
        try:
            return bool(self.ask("{ version }"))
        except (urllib.error.URLError, OSError):
            return False


def wait(seconds: float, what: Any) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def ui(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    """The UI and daemon of a fresh copy of the project."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in command_line.variables(settings, PARITY_COLLECTIONS=",".join(settings.collections)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with command_line.start("dev", "--port", str(port), cwd=tmp_path) as process:
        try:
            found = Ui(port)
            wait(120, found.is_up)
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_every_cell_of_a_backfill_is_as_its_row_says(ui: Ui, settings: Settings, network: Running) -> None:
    good = [network.network.add_account({POST: 120 + number, LIKE: 7}) for number in range(2)]
    bad = network.network.add_account({POST: 3})
    network.network.behave(did=bad, faults=(Fault(kind="400", method="listRecords"),))
    gone = network.network.add_account({POST: 3}, status="takendown")
    with parity_instance() as instance:
        register_dids(instance, [*good, bad, gone])

    def backfill(dids: list[str]) -> str:
        pairs = [Pair(did, collection) for did in dids for collection in settings.collections]
        launched = ui.ask(
            LAUNCH,
            params={
                "assetSelection": [{"path": ["atproto", "records"]}],
                "partitionNames": [str(to_partition_key(pair)) for pair in pairs],
            },
        )["launchPartitionBackfill"]
        return str(launched["backfillId"])

    def ended(backfill_id: str) -> str:
        found = ui.ask(STATUS, id=backfill_id)["partitionBackfillOrError"]
        assert found["error"] is None
        return "" if found["status"] in ("REQUESTED", "IN_PROGRESS") else str(found["status"])

    first, second = backfill(good), backfill([bad, gone])
    assert wait(120, lambda: ended(first)) == "COMPLETED_SUCCESS"
    assert wait(120, lambda: ended(second)) == "COMPLETED_FAILED"

    width = len(settings.collections)
    cells = ui.ask(CELLS)["assetNodeOrError"]
    assert cells["partitionStats"] == {
        "numPartitions": 4 * width, "numMaterialized": 2 * width, "numFailed": width, "numMaterializing": 0,
    }  # fmt: skip
    for cell in cells["assetPartitionStatuses"]["ranges"]:
        assert cell["secondaryDim"]["failedPartitions"] == [bad]

    with ImportService(settings, report=False) as service:
        states = service.find_states()
    assert {state.did for state in states if state.status is ImportStatus.FAILED} == {bad, gone}
    for state in states:
        key = str(to_partition_key(state.pair))
        events = ui.ask(METADATA, partition=key)["assetNodeOrError"]["assetMaterializations"]
        assert len(events) == (state.status is ImportStatus.COMPLETED)
        for event in events:
            assert event["runId"] == state.run_id
            shown = {entry["label"]: entry for entry in event["metadataEntries"]}
            for column in COLUMNS:
                assert plain(shown[column]) == expected(getattr(state, column)), column

    # I1: a refresh that was queued, of an account that has not changed
    queued = command_line.call("import", good[0], "--refresh", "--queue", env=command_line.variables(settings))
    assert queued.exit_code == 0, queued.output
    third = backfill(good[:1])
    assert wait(120, lambda: ended(third)) == "COMPLETED_SUCCESS"
    for collection in settings.collections:
        assert_equal(settings, network.network, good[0], collection)


def plain(entry: dict[str, Any]) -> Any:
    for form, read in (("intRepr", int), ("text", str), ("url", str), ("timestamp", float)):
        if form in entry:
            return read(entry[form])
    return None


def expected(value: Any) -> Any:
    if hasattr(value, "timestamp"):
        return pytest.approx(value.timestamp(), abs=1e-6)
    return value if value is None or isinstance(value, int) else str(value)
