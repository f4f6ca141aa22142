"""What this package takes from Dagster's private modules is there, does what it is taken for, and is in one place."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from inspect import getsource, signature
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

import parity_dagster

PACKAGE = Path(parity_dagster.__path__[0])
PRIVATE = PACKAGE / "dagster_instance" / "private.py"


class Taken(NamedTuple):
    module: str
    name: str
    reason: str


def imported(source: str) -> list[tuple[str, str, int]]:
    """Module, name and line of each import from Dagster's private modules."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("dagster._"):
            found += [(str(node.module), alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names if alias.name.startswith("dagster._")]
    return found


def taken() -> list[Taken]:
    """Each name with the reason that stands above it."""
    lines = PRIVATE.read_text().splitlines()
    found = []
    for module, name, number in imported(PRIVATE.read_text()):
        above = lines[: number - 1]
        while above and not above[-1].lstrip().startswith("#") and '"""' not in above[-1]:
            assert above.pop().strip(), f"{name} has no reason above it in {PRIVATE.name}"
        found.append(Taken(module, name, above[-1].strip(' #"')))
    return found


def has(*names: str) -> Callable[[Any], bool]:
    return lambda found: all(hasattr(found, name) for name in names)


def takes(function: str, *names: str) -> Callable[[Any], bool]:
    return lambda found: set(names) <= set(signature(getattr(found, function) if function else found).parameters)


def columns(*names: str) -> Callable[[Any], bool]:
    return lambda table: set(names) <= set(table.c.keys())


MATERIALIZATION = dg.AssetMaterialization("a", partition="p")
PROBES: dict[str, Callable[[Any], bool]] = {
    "ConfigurableClassData": lambda found: found("module", "Class", "{}").class_name == "Class",
    "DAGSTER_CONFIG_YAML_FILENAME": lambda found: found == "dagster.yaml",
    "is_dagster_home_set": lambda found: found() in (True, False),
    "InstanceRef": takes("from_dir", "base_dir", "config_dir", "overrides"),
    "EventLogEntry": has("get_dagster_event", "dagster_event_type"),
    "AssetEventTagsTable": columns("event_id"),
    "AssetKeyTable": columns("asset_key", "last_materialization", "cached_status_data"),
    "DynamicPartitionsTable": columns("partitions_def_name", "partition"),
    "SqlEventLogStorageTable": columns("id", "run_id", "dagster_event_type", "asset_key", "partition"),
    "SqlEventLogStorage": has(
        "_store_asset_event", "prepare_insert_event_batch", "index_connection", "index_transaction"
    ),
    "ASSET_CHECK_EVENTS": lambda found: dg.DagsterEventType.ASSET_CHECK_EVALUATION in found,
    "PIPELINE_EVENTS": lambda found: {dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_SUCCESS} <= set(found),
    "AssetMaterializationPlannedData": lambda found: found(dg.AssetKey("a"), partition="p").partition == "p",
    "AssetObservationData": lambda found: found(dg.AssetObservation("a")).asset_observation.asset_key is not None,
    "StepMaterializationData": lambda found: found(MATERIALIZATION).materialization == MATERIALIZATION,
    "DagsterEventBatchMetadata": lambda found: found("batch", True).is_end,
    "RUNLESS_JOB_NAME": lambda found: isinstance(found, str),
    "RUNLESS_RUN_ID": lambda found: found == "",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION": lambda found: (
        "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION in output.metadata"
        in getsource(import_module("dagster._core.execution.plan.execute_step"))
    ),
    "CheckRunHealthResult": takes("", "status", "msg", "run_worker_id"),
    "LaunchRunContext": has("dagster_run", "workspace"),
    "GRPC_INFO_TAG": lambda found: (
        "GRPC_INFO_TAG" in getsource(dg.DefaultRunLauncher)
        and has("launch_run", "terminate", "supports_check_run_worker_health", "check_run_worker_health")(
            dg.DefaultRunLauncher
        )
    ),
    "WorkerStatus": has("RUNNING", "FAILED"),
    "serializable_error_info_from_exc_info": takes("", "exc_info"),
    "capture_interrupts": has("__call__"),
    "_execute_run_command_body": takes("", "run_id", "instance", "write_stream_fn", "set_exit_code_on_failure"),
}


@pytest.mark.parametrize("name", [entry.name for entry in taken()])
def test_dagster_still_has_what_we_take_from_its_private_modules(name: str) -> None:
    (entry,) = [entry for entry in taken() if entry.name == name]
    wrong = (
        f"Dagster {dg.__version__} has no {entry.module}.{name} that does what we need it for: {entry.reason}. Find "
        "what has taken its place and correct parity_dagster/dagster_instance/private.py."
    )
    try:
        found = getattr(import_module(entry.module), name)
        is_as_before = PROBES[name](found)
    except (ImportError, AttributeError, TypeError) as exc:
        pytest.fail(f"{wrong} ({type(exc).__name__}: {exc})")
    assert is_as_before, wrong


def test_dagsters_private_modules_are_imported_in_one_place_only() -> None:
    elsewhere = {
        str(path.relative_to(PACKAGE)): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PRIVATE and (names := imported(path.read_text()))
    }
    assert elsewhere == {}, "import it in dagster_instance/private.py, with the reason and a probe in this test"
