"""What this package takes from Dagster's private modules: each name with the reason, and nowhere else.

Dagster may change these in any release. A test asks for each of them, so that an upgrade says which reason fell.
"""
# ruff: noqa: I001 - in the order of the reasons

from collections.abc import Callable

# dagster.yaml makes our storage and launcher by class name and hands them what it read there
from dagster._serdes import ConfigurableClassData as ConfigurableClassData

# an instance on our storage where no dagster.yaml is, as Dagster's own commands would choose it
from dagster._core.instance.config import DAGSTER_CONFIG_YAML_FILENAME as DAGSTER_CONFIG_YAML_FILENAME
from dagster._core.instance.config import is_dagster_home_set as is_dagster_home_set
from dagster._core.instance.ref import InstanceRef as InstanceRef

# planned events in one statement, wiping single partitions, pruning: the event log's own tables
from dagster._core.events.log import EventLogEntry as EventLogEntry
from dagster._core.storage.event_log.schema import AssetEventTagsTable as AssetEventTagsTable
from dagster._core.storage.event_log.schema import AssetKeyTable as AssetKeyTable
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage as SqlEventLogStorage

# counting partitions; the API reads all their keys
from dagster._core.storage.event_log.schema import DynamicPartitionsTable as DynamicPartitionsTable

# pruning keeps what the UI and sensors read of a run that is over
from dagster._core.events import ASSET_CHECK_EVENTS as ASSET_CHECK_EVENTS
from dagster._core.events import PIPELINE_EVENTS as PIPELINE_EVENTS

# many asset events in one statement; `report_runless_asset_event` takes one at a time
from dagster._core.events import AssetMaterializationPlannedData as AssetMaterializationPlannedData
from dagster._core.events import AssetObservationData as AssetObservationData
from dagster._core.events import DagsterEventBatchMetadata as DagsterEventBatchMetadata
from dagster._core.events import StepMaterializationData as StepMaterializationData
from dagster._core.instance.utils import RUNLESS_JOB_NAME as RUNLESS_JOB_NAME
from dagster._core.instance.utils import RUNLESS_RUN_ID as RUNLESS_RUN_ID

# a step that has written its own events is not to materialize each partition of the run once more
from dagster._core.definitions.source_asset import (
    SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION,
)

# runs in processes of ours, and what run monitoring asks about them
from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
from dagster._core.launcher import LaunchRunContext as LaunchRunContext
from dagster._core.launcher import WorkerStatus as WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG as GRPC_INFO_TAG
from dagster._utils.error import serializable_error_info_from_exc_info as serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts as capture_interrupts


def execute_run() -> Callable[..., int]:
    """What `dagster api execute_run` does in its process; loaded only where a run is executed."""
    from dagster._cli.api import _execute_run_command_body

    return _execute_run_command_body
