"""`parity demo` and `parity sample-network`: the first things a newcomer runs."""

import json
import signal

import dagster as dg
import psycopg
import pytest
import yaml

from parity_dagster.cli.demo import _stretches
from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.sample_network import demo_network
from parity_dagster_tests.command_line import call, run, start, variables
from parity_dagster_tests.quick import quick


@pytest.fixture
def demo_env(settings):
    env = variables(settings, PARITY_PLC_URL="http://127.0.0.1:1", PARITY_ALLOW_PRIVATE_HOSTS="0")
    return {**env, "DAGSTER_HOME": ""}


@pytest.mark.processes
@pytest.mark.parametrize("times", quick(1, [1, 2]))
def test_the_demo_imports_by_a_dagster_run_and_can_be_repeated(settings, demo_env, tmp_path, times):
    first = run("demo", env=demo_env, cwd=tmp_path, timeout=120)
    assert first.returncode == 0, first.stderr
    assert "25 imports of 5 accounts: 25 completed; 3,000 records" in first.stdout
    assert "app.bsky.feed.post" in first.stdout
    assert "25 of 25 partitions complete" in first.stdout
    assert "parity dev" in first.stdout
    assert "parity import did:plc:" in first.stdout
    assert first.stderr == ""

    for _ in range(times - 1):
        again = run("demo", env=demo_env, cwd=tmp_path, timeout=120)
        assert again.returncode == 0, again.stderr
        assert "25 imports of 5 accounts: 25 completed; 3,000 records" in again.stdout

    with parity_instance(settings) as instance:
        found = [record.asset_materialization for record in instance.fetch_materializations(RECORDS_KEY, 1000).records]
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * times
    told = {each.partition: each.metadata["records_synced"].value for each in found if each}
    assert told == {f"{nsid}|{did}": count for (did, nsid), count in demo_network().counts().items()}


@pytest.mark.long
@pytest.mark.processes
def test_prune_drops_log_entries_of_successful_runs_and_no_memory_of_any_import(demo_env, settings, tmp_path):
    run("demo", env=demo_env, cwd=tmp_path, timeout=120)
    assert "Dropped 0 log entries of 0 successful runs" in run("prune", env=demo_env, cwd=tmp_path).stdout
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute("SET search_path TO dagster")
        connection.execute("UPDATE runs SET update_timestamp = now() - interval '40 days'")

        def kinds() -> dict[str, int]:
            rows = connection.execute("SELECT coalesce(dagster_event_type, 'log'), count(*) FROM event_logs GROUP BY 1")
            return dict(rows.fetchall())

        before = kinds()
        said = run("prune", "--dry-run", env=demo_env, cwd=tmp_path).stdout
        assert kinds() == before
        assert said.replace("Would drop", "Dropped") == run("prune", env=demo_env, cwd=tmp_path).stdout
        after = kinds()
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert after["ASSET_MATERIALIZATION"] == before["ASSET_MATERIALIZATION"] == 25
    assert not {"STEP_START", "ASSET_MATERIALIZATION_PLANNED", "log"} & set(after)
    assert sum(after.values()) < sum(before.values())

    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(f"DELETE FROM {settings.state_table}")
    assert "25 rows added" in run("rebuild-states", env=demo_env, cwd=tmp_path).stdout
    status = call("import-status", env=demo_env).stdout
    assert "25 completed; 3,000 records" in status


@pytest.mark.long
@pytest.mark.processes
def test_the_demo_also_works_after_some_of_its_accounts_were_imported_singly(demo_env, tmp_path):
    with start("sample-network", "--json", env=demo_env) as network:
        assert network.stdout is not None
        described = json.loads(network.stdout.readline())
        env = {**demo_env, **described["environment"], "PARITY_COLLECTIONS": "app.bsky.actor.profile"}
        assert call("import", described["dids"][3], env=env).exit_code == 0
        network.terminate()
        network.communicate(timeout=20)
    result = run("demo", env={**demo_env, "PARITY_COLLECTIONS": "app.bsky.actor.profile"}, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "5 of 5 partitions complete" in result.stdout


@pytest.mark.parametrize(
    ("known", "ranges"),
    [
        (["a", "b", "c"], [("a", "c")]),
        (["x", "a", "b", "c", "y"], [("a", "c")]),
        (["c", "x", "a", "b"], [("c", "c"), ("a", "b")]),
        (["b", "a", "x", "c"], [("b", "a"), ("c", "c")]),
    ],
)
def test_ranges_cover_the_accounts_and_no_other_in_whatever_order_dagster_lists_them(known, ranges):
    assert _stretches(known, ["a", "b", "c"]) == ranges


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sample_network_tells_how_to_import_from_it_and_ends_on_a_signal(settings, tmp_path, number):
    config, listed = tmp_path / "import.yaml", tmp_path / "dids.txt"
    arguments = ["--config", str(config), "--dids-file", str(listed), "--scale", "0.4"]
    with start("sample-network", *arguments, env=variables(settings)) as network:
        assert network.stdout is not None
        said: list[str] = []
        while not said or "Ctrl-C" not in said[-1]:
            said.append(network.stdout.readline())
            assert said[-1], network.communicate()
        exported = dict(line.split()[1].split("=", 1) for line in said if line.strip().startswith("export PARITY_"))
        dids = listed.read_text().split()
        assert yaml.safe_load(config.read_text()) == {"dids": dids}
        assert str(config) in "".join(said)
        env = variables(settings, **exported)
        result = call("import", "--file", str(listed), env=env)
        assert result.exit_code == 0, result.output
        assert "1,200 records" in result.stdout
        network.send_signal(number)
        _, errors = network.communicate(timeout=20)
    assert network.returncode == 0
    assert errors == ""


@pytest.mark.processes
def test_a_port_that_is_taken_is_one_line(settings):
    with start("sample-network", "--json", env=variables(settings)) as network:
        assert network.stdout is not None
        port = json.loads(network.stdout.readline())["plc_url"].rpartition(":")[2]
        result = call("sample-network", "--plc-port", port)
        network.terminate()
        network.communicate(timeout=20)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the sample network cannot listen: ")
    assert len(result.stderr.splitlines()) == 1
