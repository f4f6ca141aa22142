"""The code location: everything Dagster loads, in one list.

Loading reads the settings and nothing else: no database, no network, so that the UI comes up (and says what is wrong)
even if the database is down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from parity_dagster.dagster_instance.events import batch_by_default
from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.orchestration.accounts import build_accounts_asset
from parity_dagster.orchestration.assets import build_records_asset, build_typed_asset, freshness_policy
from parity_dagster.orchestration.checks import CHECKS, import_checks
from parity_dagster.orchestration.dagster_compat import beta_parts
from parity_dagster.orchestration.discovery import build_discovered_asset, discover_accounts
from parity_dagster.orchestration.inbox import did_lists, read_did_list
from parity_dagster.orchestration.jobs import (
    build_import_partitions,
    import_records,
    refresh_overview,
    run_all_checks,
)
from parity_dagster.orchestration.overview import build_overview_asset
from parity_dagster.orchestration.partitions import build_partitions
from parity_dagster.orchestration.resources import ImportServiceResource, bound_service
from parity_dagster.orchestration.sensors import build_sensors, daily_checks
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.accounts_view import AccountsView
from parity_dagster.store.typed import registered_views


def build_defs(settings: Settings | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Wire assets, jobs, sensors and resources.

    Args:
        settings: of every run; if None, each process reads them from its environment.
        resources: replacements by name, such as a plain `ImportService` as `import_service`.

    Raises:
        SettingsError: a `PARITY_*` variable is wrong.
    """
    batch_by_default()
    here = settings or load_settings()
    records = build_records_asset(build_partitions(here))
    views = registered_views(here)
    freshness = freshness_policy(here.stale_days)
    typed = [build_typed_asset(view, freshness) for view in views]
    accounts = AccountsView(here.state_table)
    if accounts.name not in {view.name for view in views}:  # a view of yours may have the name
        typed.append(build_accounts_asset(accounts, freshness))
    overview = build_overview_asset([dg.AssetKey(view.name) for view in views] or [RECORDS_KEY], freshness)
    with beta_parts():
        assets = dg.with_source_code_references([build_discovered_asset(), records, *typed, overview])
        return dg.Definitions(
            assets=[did_lists, *assets, import_checks],
            asset_checks=CHECKS,
            jobs=[
                import_records,
                build_import_partitions(records),
                read_did_list,
                discover_accounts,
                refresh_overview,
                run_all_checks,
            ],
            sensors=build_sensors(settings),
            schedules=[daily_checks],
            resources={
                "import_service": ImportServiceResource() if settings is None else bound_service(settings),
                **(resources or {}),
            },
            # a run's pairs are walked concurrently inside one step; another process would only cost its start
            executor=dg.in_process_executor,
        )


defs = build_defs()
