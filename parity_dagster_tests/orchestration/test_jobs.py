"""The job `import_records`, whose run config is a list of accounts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.definitions import build_defs
from parity_dagster.models import Pair
from parity_dagster.orchestration.jobs import DIDS_HELP
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.dagster_runs import failure, materialized, observed, remembered, row, run
from parity_dagster_tests.imports import assert_equal
from parity_dagster_tests.quick import quick


@pytest.fixture
def accounts(network: Running) -> list[str]:
    return [network.network.add_account({POST: 120, LIKE: 3}) for _ in range(2)]


@pytest.mark.parametrize("form", quick(1, ["flat", "nested"]))
def test_the_accounts_of_the_run_config_are_registered_and_imported(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str], form: str
) -> None:
    flat = {"dids": accounts}
    config = flat if form == "flat" else {"ops": {"import_records": {"config": flat}}}
    result = run(settings, instance, "import_records", config=config)
    assert result.success
    wanted = [Pair(did, nsid) for did in accounts for nsid in (POST, LIKE)]
    assert sorted(materialized(result)) == sorted(wanted)
    assert instance.get_dynamic_partitions(DIDS) == accounts
    for pair in wanted:
        assert remembered(instance, pair) == row(settings, pair)


def test_only_the_collections_asked_for_are_imported(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    result = run(settings, instance, "import_records", config={"dids": accounts, "collections": [LIKE]})
    assert result.success
    assert sorted(materialized(result)) == sorted(Pair(did, LIKE) for did in accounts)


def test_single_pairs_can_be_asked_for_by_partition_key(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    wanted = [Pair(accounts[0], POST), Pair(accounts[1], LIKE)]
    keys = [str(to_partition_key(pair)) for pair in wanted]
    result = run(settings, instance, "import_records", config={"partitions": keys})
    assert result.success
    assert sorted(materialized(result)) == sorted(wanted)


def test_a_wrong_entry_costs_only_itself_and_is_named(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    network.network.set_status(accounts[1], "suspended")
    config = {"dids": [accounts[0], "nonsense", accounts[1]], "partitions": ["no key"], "collections": [POST]}
    result = run(settings, instance, "import_records", config=config)
    assert not result.success
    assert materialized(result) == [Pair(accounts[0], POST)]
    assert observed(result) == [Pair(accounts[1], POST)]
    message, metadata = failure(result)
    for name in ("nonsense", "no key", "1 of accounts that are gone: suspended 1"):
        assert name in message
    assert metadata["pairs_failed"] == dg.IntMetadataValue(2)
    assert metadata["pairs_gone"] == dg.IntMetadataValue(1)
    assert instance.get_dynamic_partitions(DIDS) == accounts


def test_a_collection_that_is_not_registered_is_refused_with_the_cure(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    config = {"dids": accounts[:1], "collections": ["com.example.other"]}
    result = run(settings, instance, "import_records", config=config)
    assert not result.success
    assert "PARITY_COLLECTIONS" in failure(result)[0]
    assert instance.get_dynamic_partitions(DIDS) == []


def test_a_run_config_without_accounts_says_what_to_give(settings: Settings, instance: dg.DagsterInstance) -> None:
    result = run(settings, instance, "import_records", config={})
    assert not result.success
    assert "give dids" in failure(result)[0]


def test_a_refresh_reads_complete_pairs_again(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], LIKE)
    config = {"dids": accounts[:1], "collections": [LIKE]}
    run(settings, instance, "import_records", config=config)
    network.network.put_record(pair.did, LIKE, {"$type": LIKE})
    assert run(settings, instance, "import_records", config=config).success
    assert remembered(instance, pair).records_synced == 3
    assert run(settings, instance, "import_records", config={**config, "refresh": True}).success
    assert remembered(instance, pair).records_synced == 4


def test_the_run_config_says_what_to_read(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    config = {"dids": accounts[:1], "source": "repo"}
    assert run(settings, instance, "import_records", config=config).success
    assert remembered(instance, Pair(accounts[0], LIKE)).source == "repo"
    assert network.network.log.count(method="com.atproto.sync.getRepo") == 1


@pytest.fixture
def execute(settings: Settings, network: Running, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`dagster job execute`, with a folder of its own."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    given = {"DAGSTER_HOME": str(tmp_path), "PARITY_COLLECTIONS": f"{POST},{LIKE}"}
    environment = {**os.environ, **variables(settings, **given)}
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "parity_dagster.definitions"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.fixture
def imported_by_command(
    execute: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, accounts: list[str]
) -> Pair:
    """The first account's posts, imported by a file of run config."""
    (tmp_path / "run.yaml").write_text(f"dids: [{accounts[0]}]\ncollections: [{POST}]\n")
    done = execute("-j", "import_records", "-c", str(tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stderr
    assert "120 records synced" in done.stderr
    return Pair(accounts[0], POST)


def test_dagster_job_execute_imports_a_file_of_run_config(
    settings: Settings, network: Running, imported_by_command: Pair
) -> None:
    assert_equal(settings, network.network, *imported_by_command)


@pytest.mark.long
def test_dagster_job_execute_imports_single_partitions_of_registered_accounts(
    settings: Settings,
    network: Running,
    tmp_path: Path,
    accounts: list[str],
    imported_by_command: Pair,
    execute: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    pair, posts = Pair(accounts[0], LIKE), imported_by_command
    with ImportService(settings, report=False) as service:
        assert service.enqueue([posts], refresh=True) == [posts]
    for asked, code in ((pair, 0), (posts, 0), (Pair(accounts[1], LIKE), 1)):
        tags = json.dumps({"dagster/partition": to_partition_key(asked)})
        done = execute("-j", "import_partitions", "--tags", tags)
        assert done.returncode == code, done.stderr
    assert_equal(settings, network.network, posts.did, posts.collection)  # I1
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_materialized_partitions(RECORDS_KEY) == {
            str(to_partition_key(Pair(accounts[0], nsid))) for nsid in (POST, LIKE)
        }
        assert remembered(instance, pair) == row(settings, pair)


def test_the_example_that_the_launchpad_shows_can_be_launched_as_it_is() -> None:
    job = build_defs().resolve_job_def("import_records")
    for text in (DIDS_HELP, job.description or ""):
        found = re.search(r"\{dids.*\}|dids:\n(.{,38}\n)+(?=```)", text)
        assert found is not None, text
        example = yaml.safe_load(found[0])
        assert example["dids"]
        assert dg.validate_run_config(job, example)
