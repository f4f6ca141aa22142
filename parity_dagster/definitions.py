"""The code location: everything Dagster loads, in one list.

 Loading reads the settings and nothing
else: no database, no network, so that the UI comes up (and says what is wrong) even if the database is down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from parity_dagster.dagster_instance.events import batch_by_default
from parity_dagster.orchestration.assets import build_records_asset
from parity_dagster.orchestration.inbox import did_lists, read_did_list
from parity_dagster.orchestration.jobs import build_import_partitions, import_records
from parity_dagster.orchestration.lineage import build_lineage
from parity_dagster.orchestration.partitions import build_partitions
from parity_dagster.orchestration.resources import ImportServiceResource, bound_service
from parity_dagster.orchestration.sensors import build_did_list_sensor, build_retry_sensor
from parity_dagster.settings import Settings, load_settings


def build_defs(settings: Settings | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Wire assets, jobs, sensors and resources.

    Args:
        settings: of every run; if None, each process reads them from its environment.
        resources: replacements by name, such as a plain `ImportService` as `import_service`.

    Raises:
        SettingsError: a `PARITY_*` variable is wrong.
    """
    service = ImportServiceResource() if settings is None else bound_service(settings)
    batch_by_default()
    records = build_records_asset(build_partitions(settings or load_settings()))
    imports = dg.Definitions(
        assets=[did_lists, records],
        jobs=[import_records, build_import_partitions(records), read_did_list],
        sensors=[build_did_list_sensor(settings), build_retry_sensor(settings)],
        resources={"import_service": service, **(resources or {})},
        # a run's pairs are walked concurrently inside one step; another process would only cost its start
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(imports, build_lineage(settings))


defs = build_defs()
