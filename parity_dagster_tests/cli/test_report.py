"""`parity import` leaves Dagster alone, and `parity report` tells it at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import Pair
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import UNUSED, call, run, variables
from parity_dagster_tests.dagster_runs import remembered, row
from parity_dagster_tests.imports import query
from parity_dagster_tests.quick import quick

WATCHED = f"""
import sys
from parity_dagster.cli import main
try:
    main()
except SystemExit as exc:
    print(exc.code, sorted({UNUSED} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2)) as running:
        yield running


@pytest.fixture
def env(settings: Settings, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return variables(settings, PARITY_PLC_URL=network.plc_url, PARITY_COLLECTIONS=f"{POST},{LIKE}")


@pytest.mark.parametrize("more", quick(1, [["--progress"], [], ["--json"], ["--queue"]]))
def test_an_import_loads_nothing_that_it_does_not_use_and_starts_no_server(
    env: dict[str, str], network: Running, tmp_path: Path, more: list[str]
) -> None:
    did = network.network.add_account({POST: 120, LIKE: 5})
    command = [sys.executable, "-c", WATCHED, "import", did, *more]
    env = {**os.environ, **env, "PARITY_HOME": str(tmp_path / "home")}
    for _ in range(2):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1] == "0 []"
    assert not (tmp_path / "home").exists()


def test_what_was_imported_is_told_once(env: dict[str, str], network: Running, settings: Settings) -> None:
    did = network.network.add_account({POST: 12, LIKE: 5})
    gone = network.network.add_account({POST: 3}, status="takendown")
    assert call("import", did, env=env).exit_code == 0
    assert call("import", gone, "--collection", POST, env=env).exit_code == 1
    told = call("report", env=env)
    assert (told.exit_code, told.stdout, told.stderr) == (0, "Dagster was told of 3 imports.\n", "")
    assert call("report", env=env).stdout == "Dagster knows of every import that has ended.\n"
    with parity_instance(settings) as instance:
        assert remembered(instance, Pair(did, POST)) == row(settings, Pair(did, POST))


@pytest.mark.long
def test_everything_is_compared_on_request(env: dict[str, str], network: Running, settings: Settings) -> None:
    did = network.network.add_account({POST: 12, LIKE: 5})
    call("import", did, env=env)
    call("report", env=env)
    query(settings, "UPDATE parity_import_states SET pages = 7 WHERE collection = %s", LIKE)
    told = call("report", "--all", env=env)
    assert told.stdout == "Dagster was told of 1 import; 1 it knew.\n"
    again = call("report", "--all", "--json", env=env)
    assert json.loads(again.stdout) == {"reported": 0, "known": 2, "without_partition": 0}


def test_with_nothing_to_tell_dagster_is_not_loaded(env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "report"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "0 []\n"


def test_without_a_database_it_is_one_line() -> None:
    done = run("report", env={"PARITY_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot connect to PostgreSQL at 127.0.0.1:9")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_a_dagster_that_cannot_be_loaded_is_one_line_and_nothing_is_lost(
    env: dict[str, str], network: Running, settings: Settings, tmp_path: Path
) -> None:
    did = network.network.add_account({POST: 5})
    call("import", did, "--collection", POST, env=env)
    broken = tmp_path / "dagster.yaml"
    broken.write_text("storage: {custom: {module: nowhere, class: Nothing, config: {}}}\n")
    failed = call("report", env=env)
    assert failed.exit_code == 1
    assert len(failed.stderr.splitlines()) == 1
    broken.unlink()
    assert call("report", env=env).stdout == "Dagster was told of 1 import.\n"
