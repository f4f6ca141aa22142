"""Dagster's storage on our database: where it is, what it costs, that it is shared and leaves nothing."""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from parity_dagster.dagster_instance.events import write_without_run
from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.dagster_instance.storage import TABLES_LOCK, ParityStorage, make_pool, parity_instance, storage_url
from parity_dagster.models import Pair
from parity_dagster.settings import load_settings
from parity_dagster_tests.imports import OF_THIS_DATABASE

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"
ACCOUNTS = dg.DynamicPartitionsDefinition(name="accounts")


@dg.asset(partitions_def=ACCOUNTS, backfill_policy=dg.BackfillPolicy.single_run())
def records(context: dg.AssetExecutionContext) -> None:
    """Does nothing with as many partitions as there are."""


@pytest.fixture
def instance(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of a folder that holds the project's dagster.yaml."""
    monkeypatch.setenv("PARITY_DATABASE_URL", database_url)
    monkeypatch.setenv("PARITY_HOME", str(tmp_path / "home"))
    shutil.copy(DAGSTER_YAML, tmp_path)
    monkeypatch.chdir(tmp_path)
    with parity_instance() as instance:
        yield instance


def sessions(url: str) -> int:
    """Connections ever made to the database; this one is not counted yet."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def test_dagsters_tables_are_in_their_own_schema(instance: dg.DagsterInstance, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT tablename, schemaname FROM pg_tables WHERE tablename IN ('runs', 'event_logs', 'jobs')"
            " OR tablename = 'alembic_version'"
        ).fetchall()
    assert sorted(found) == [(name, "dagster") for name in ("alembic_version", "event_logs", "jobs", "runs")]


@pytest.mark.long
def test_a_run_over_500_partitions_needs_a_handful_of_connections(
    instance: dg.DagsterInstance, database_url: str
) -> None:
    keys = [f"did:plc:{number:024}" for number in range(500)]
    instance.add_dynamic_partitions("accounts", keys)
    definitions = dg.Definitions(
        assets=[records], jobs=[dg.define_asset_job("job", [records])], executor=dg.in_process_executor
    )
    before = sessions(database_url)
    result = definitions.resolve_job_def("job").execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]},
    )
    assert result.success
    assert sessions(database_url) - before <= 10
    assert instance.get_materialized_partitions(records.key) == set(keys)
    planned = instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, limit=1000
    )
    assert len(planned.records) == 500


def test_more_than_a_thousand_dynamic_partitions_are_kept(instance: dg.DagsterInstance) -> None:
    keys = [f"did:plc:{number:024}" for number in range(2500)]
    for start in range(0, len(keys), 1000):
        instance.add_dynamic_partitions("accounts", keys[start : start + 1000])
    assert set(instance.get_dynamic_partitions("accounts")) == set(keys)


def test_all_instances_and_threads_of_a_process_share_one_pool(instance: dg.DagsterInstance, database_url: str) -> None:
    reference = instance.get_ref()

    def look(_: int) -> int:
        with dg.DagsterInstance.from_ref(reference) as other:
            return other.get_runs_count()

    before = sessions(database_url)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(100))) == {0}
    assert sessions(database_url) - before <= 20


def test_the_pool_survives_a_restart_of_the_server(instance: dg.DagsterInstance, database_url: str) -> None:
    assert instance.get_runs_count() == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert instance.get_runs_count() == 0


@pytest.mark.parametrize(("rest", "said"), [(3600, "SELECT pg_backend_pid()"), (0, "SELECT 1")])
def test_only_a_connection_that_has_rested_for_long_is_asked_whether_it_is_there(
    instance: dg.DagsterInstance, database_url: str, rest: float, said: str
) -> None:
    engine = make_pool(storage_url(load_settings()), ask_after=rest)
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine.connect(), psycopg.connect(database_url) as beside:
        found = beside.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
    engine.dispose()
    assert found == (said,)


def backend(instance: dg.DagsterInstance) -> int:
    """Process id of the server's side of the connection that the instance uses now."""
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_forked_child_does_not_use_its_parents_connections(instance: dg.DagsterInstance) -> None:
    before = backend(instance)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(backend(instance)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != before
    assert backend(instance) == before, "the child closed its parent's connection"
    os.close(reading)
    os.close(writing)


def test_the_instance_reference_holds_no_url(instance: dg.DagsterInstance, database_url: str) -> None:
    shown = str(instance.get_ref().to_dict())
    assert "ParityStorage" in shown
    assert "postgresql" not in shown


def test_the_file_for_operators_is_read_whole(instance: dg.DagsterInstance) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 8
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["parity/queue"]
    assert instance.run_monitoring_enabled
    assert not instance.telemetry_enabled
    assert instance.run_coordinator.dequeue_interval_seconds == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["DAGSTER_HOME", "folder with dagster.yaml", "any folder"])
def test_the_command_lines_instance_is_on_the_same_database(
    place: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_DATABASE_URL", database_url)
    monkeypatch.setenv("PARITY_HOME", str(tmp_path / "home"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    if place == "DAGSTER_HOME":
        shutil.copy(DAGSTER_YAML, tmp_path)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    elif place != "any folder":
        shutil.copy(DAGSTER_YAML, elsewhere)
    with parity_instance() as instance:
        assert isinstance(instance.get_ref().storage, ParityStorage)
        instance.add_dynamic_partitions("accounts", ["did:plc:a"])
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT partition FROM dagster.dynamic_partitions").fetchall()
    assert found == [("did:plc:a",)]
    assert list(elsewhere.iterdir()) == ([elsewhere / "dagster.yaml"] if place.startswith("folder") else [])


def _count_runs(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(environment["PARITY_HOME"])
    with parity_instance() as instance:
        sys.exit(instance.get_runs_count())


@pytest.mark.long
def test_processes_that_start_at_once_make_the_tables_one_after_the_other(
    empty_database_url: str, tmp_path: Path
) -> None:
    environment = {"PARITY_DATABASE_URL": empty_database_url, "PARITY_HOME": str(tmp_path)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    waiting = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {OF_THIS_DATABASE}"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (TABLES_LOCK,))
        racing = [context.Process(target=_count_runs, args=(environment,)) for _ in range(3)]
        for process in racing:
            process.start()
        for _ in range(600):
            if connection.execute(waiting).fetchone() == (3,):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the processes do not wait for each other")
        assert connection.execute("SELECT to_regnamespace('dagster') IS NULL").fetchone() == (True,)
    for process in racing:
        process.join()
    assert [process.exitcode for process in racing] == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 3])
def test_endings_are_written_whole_or_not_at_all(instance: dg.DagsterInstance, database_url: str, count: int) -> None:
    """Stock, the events are there and what shows them is not."""
    pairs = [Pair(f"did:plc:{number:024}", "app.bsky.feed.post") for number in range(count)]
    events = [dg.AssetMaterialization(RECORDS_KEY, partition=to_partition_key(pair)) for pair in pairs]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'as if killed here'; END$$"
        )
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON dagster.asset_keys FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        with pytest.raises(DBAPIError, match="as if killed here"):
            write_without_run(instance, events, [])
        assert connection.execute("SELECT count(*) FROM dagster.event_logs").fetchone() == (0,)
        connection.execute("DROP TRIGGER refuse ON dagster.asset_keys")
        write_without_run(instance, events, [])
        assert connection.execute("SELECT count(*) FROM dagster.event_logs").fetchone() == (count,)
    assert instance.get_materialized_partitions(RECORDS_KEY) == {str(to_partition_key(pair)) for pair in pairs}
    assert instance.has_asset_key(RECORDS_KEY)


def test_whether_dagsters_tables_are_there_is_asked_once(instance: dg.DagsterInstance) -> None:
    asked: list[str] = []
    storage = instance.schedule_storage
    assert storage is not None

    def look() -> None:
        # as a code server does at each tick
        with dg.DagsterInstance.from_ref(instance.get_ref()) as another:
            assert another.schedule_storage is not None
            assert another.schedule_storage.supports_batch_queries
            another.schedule_storage.all_instigator_state()
            another.get_run_records(limit=1)
            another.get_backfills()

    look()
    engine = storage._engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    look()
    assert asked
    assert [statement for statement in asked if "pg_catalog" in statement or "secondary_indexes" in statement] == []
