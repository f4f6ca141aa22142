"""The code location: what is in it, and that it loads whatever else is down."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.definitions import build_defs
from parity_dagster.errors import SettingsError
from parity_dagster.settings import load_settings
from parity_dagster_tests.dagster_runs import run

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def test_the_location_holds_what_the_documentation_names() -> None:
    definitions = build_defs()
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    assert {asset.key.to_user_string() for asset in definitions.resolve_all_asset_specs()} >= {"atproto/records"}
    assert {name for name in repository.job_names if not name.startswith("__")} >= {
        "import_records",
        "import_partitions",
    }


def test_the_registered_collections_are_the_static_dimension() -> None:
    definitions = build_defs(load_settings(collections="com.example.note,app.bsky.feed.post"))
    partitions = definitions.resolve_assets_def(RECORDS_KEY).partitions_def
    assert isinstance(partitions, dg.MultiPartitionsDefinition)
    assert partitions.get_partitions_def_for_dimension("collection").get_partition_keys() == [
        "com.example.note",
        "app.bsky.feed.post",
    ]


def test_a_backfill_gives_many_partitions_to_one_run() -> None:
    policy = build_defs().resolve_assets_def(RECORDS_KEY).backfill_policy
    assert policy is not None
    assert policy.max_partitions_per_run is not None
    assert policy.max_partitions_per_run >= 100


def test_loading_needs_no_database_starts_none_warns_about_nothing_and_loads_no_pandas(tmp_path: Path) -> None:
    """Each run and each server loads the location; pandas takes a second of processor time and 50 MB."""
    code = (
        "import sys, parity_dagster.definitions as d\n"
        "print(sorted(d.defs.get_repository_def().job_names), 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PARITY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "import_records" in done.stdout
    assert done.stdout.split()[-1] == "False"
    assert not (tmp_path / "home").exists()


def test_a_database_that_is_away_does_not_keep_the_location_from_loading() -> None:
    assert build_defs(load_settings(database_url=NOWHERE)).get_repository_def().job_names


def test_a_wrong_setting_is_named_when_the_location_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_PAGE_SIZE", "101")
    with pytest.raises(SettingsError, match="PARITY_PAGE_SIZE"):
        runpy.run_module("parity_dagster.definitions")


@pytest.mark.parametrize("name", ["import_records", "import_partitions"])
def test_no_job_has_a_retry_policy_of_its_own(name: str) -> None:
    """The row decides when a pair is tried again; a second owner would multiply the tries."""
    job = build_defs().resolve_job_def(name)
    assert all(node.retry_policy is None for node in job.nodes)


def test_a_run_without_a_database_says_so_and_shows_no_password(instance: dg.DagsterInstance) -> None:
    result = run(
        load_settings(database_url=NOWHERE), instance, "import_records", config={"dids": ["did:plc:" + "a" * 24]}
    )
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    said = event.step_failure_data.user_failure_data
    assert said is not None
    assert "PARITY_DATABASE_URL" in (said.description or "")
    assert "secret" not in str(result.all_events)


def test_every_description_begins_with_what_it_says() -> None:
    """`dg list defs` and the UI show its first line."""
    repository = build_defs().get_repository_def()
    specs = [spec for spec in build_defs().resolve_all_asset_specs() if spec.description is not None]
    assert {"atproto/records", "did_lists", "import_checks"} <= {spec.key.to_user_string() for spec in specs}
    said = [spec.description or "" for spec in specs] + [job.description or "" for job in repository.get_all_jobs()]
    assert [text for text in said if text != text.lstrip()] == []
