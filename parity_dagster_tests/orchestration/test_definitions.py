"""The code location: what is in it, and that it loads whatever else is down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.definitions import build_defs
from parity_dagster.settings import load_settings

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def load(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True
    )


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


def test_loading_needs_no_database_starts_none_and_warns_about_nothing(tmp_path: Path) -> None:
    code = "import parity_dagster.definitions as d; print(sorted(d.defs.get_repository_def().job_names))"
    for variables in ({"PARITY_DATABASE_URL": NOWHERE}, {"PARITY_HOME": str(tmp_path / "home")}):
        done = load(code, tmp_path, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        assert "import_records" in done.stdout
    assert not (tmp_path / "home").exists()


def test_loading_the_location_loads_no_pandas(tmp_path: Path) -> None:
    """Each run and each server loads the location; pandas takes a second of processor time and 50 MB."""
    done = load("import sys, parity_dagster.definitions; print('pandas' in sys.modules)", tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_a_wrong_setting_is_named_when_the_location_is_loaded(tmp_path: Path) -> None:
    done = load("import parity_dagster.definitions", tmp_path, PARITY_PAGE_SIZE="101")
    assert done.returncode != 0
    assert "PARITY_PAGE_SIZE" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["import_records", "import_partitions"])
def test_no_job_has_a_retry_policy_of_its_own(name: str) -> None:
    """The row decides when a pair is tried again; a second owner would multiply the tries."""
    job = build_defs().resolve_job_def(name)
    assert all(node.retry_policy is None for node in job.nodes)


def test_a_run_without_a_database_says_so_and_shows_no_password(tmp_path: Path) -> None:
    settings = load_settings(database_url=NOWHERE)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = (
            build_defs(settings)
            .resolve_job_def("import_records")
            .execute_in_process(instance=instance, run_config={"dids": ["did:plc:" + "a" * 24]}, raise_on_error=False)
        )
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    said = event.step_failure_data.user_failure_data
    assert said is not None
    assert "PARITY_DATABASE_URL" in (said.description or "")
    assert "secret" not in str(result.all_events)
