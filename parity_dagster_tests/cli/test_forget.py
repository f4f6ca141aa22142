"""`parity forget`: nothing is left of an account, and nothing is taken of another."""

from __future__ import annotations

import json
import os
import pty
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from zlib import crc32

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.errors import PairBusy
from parity_dagster.events import ImportCompleted, ImportEvent
from parity_dagster.importing.listeners import RunListener
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.report import report_pending
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.forget import Forgotten, forget_account
from parity_dagster.store.live import LOCK_BUCKETS, LOCK_CLASS as EVENTS_LOCK
from parity_dagster.store.outbox import REPORT_LOCK, lock_reporting
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import LOCK_CLASS
from parity_dagster_tests.command_line import call, start
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import OF_THIS_DATABASE, assert_equal, query


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    return template_with_dagster


@pytest.fixture
def settings(settings_of_environment: Settings) -> Settings:
    return settings_of_environment


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance() as found:
        yield found


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with closing(connect(settings, autocommit=True)) as opened:
        yield opened


def tables_with(connection: psycopg.Connection, did: str) -> list[str]:
    """Every table of ours, and of Dagster's partitions and events, that names the account."""
    columns = connection.execute(
        "SELECT c.table_schema, c.table_name, c.column_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE'"
        " AND c.table_schema NOT IN ('pg_catalog', 'information_schema')"
        " AND (c.column_name IN ('did', 'partition') OR c.table_name = 'asset_event_tags')"
        " AND c.data_type IN ('text', 'character varying')"
    ).fetchall()
    found = []
    for schema, table, column in columns:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} LIKE %s").format(
            sql.Identifier(schema, table), sql.Identifier(column)
        )
        (count,) = connection.execute(query, (f"%{did}%",)).fetchall()[0]
        found += [table] * (count > 0)
    return sorted(set(found))


def test_nothing_is_left_of_an_account_and_everything_of_others(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection, network: Running
) -> None:
    gone, kept = (network.network.add_account({POST: 130, LIKE: 3}) for _ in range(2))
    network.network.add_odd(gone, POST, ["nul"])
    config = {"dids": [gone, kept]}
    assert run(settings, instance, "import_records", config=config).success
    with ImportService(settings) as service:
        service.import_pairs([Pair(gone, LIKE)], reread=True)
        service.delete_record(f"at://{gone}/{LIKE}/gone", "3l3qo2vuowo2b")
        service.show_in_dagster([gone])
    before = tables_with(connection, gone)
    assert {"atproto_records", "parity_failed_records", "parity_tombstones", "event_logs", "dynamic_partitions"} <= {
        *before
    }
    refused = call("forget", gone)
    assert refused.exit_code == 2
    assert "--yes" in refused.output
    result = call("forget", gone, "--yes", "--json")
    assert result.exit_code == 0, result.output
    (removed,) = json.loads(result.stdout)
    assert (removed["imports"], removed["records"], removed["failed_records"]) == (2, 133, 1)
    assert tables_with(connection, gone) == []
    assert instance.get_dynamic_partitions(DIDS) == [kept]
    # what reports later does not bring it back, and others are as they were
    report_pending(instance, settings)
    assert instance.get_dynamic_partitions(DIDS) == [kept]
    assert instance.get_materialized_partitions(RECORDS_KEY) == {f"{POST}|{kept}", f"{LIKE}|{kept}"}
    with ImportService(settings) as service:
        assert service.is_imported(kept, POST)
        assert service.import_user_collection(gone, POST).records_synced == 130, "asked for again, it is imported again"


def test_an_account_that_is_being_imported_is_not_forgotten(
    settings: Settings, connection: psycopg.Connection, network: Running
) -> None:
    did, other = (network.network.add_account({POST: 3}) for _ in range(2))
    with ImportService(settings) as service:
        service.import_user_collection(did, POST)
        service.import_user_collection(other, POST)
    connection.execute("SELECT pg_advisory_lock(%s, 99)", (LOCK_CLASS,))
    connection.execute(
        "UPDATE parity_import_states SET status = 'in_progress', importer_id = 99 WHERE did = %s", (did,)
    )
    result = call("forget", did, other, "--yes")
    assert result.exit_code == 1
    assert "is being imported at this moment" in result.output
    assert "atproto_records" in tables_with(connection, did)
    assert tables_with(connection, other) == []


def test_what_another_import_brings_while_an_account_is_being_forgotten_stays_whole(
    settings: Settings, connection: psycopg.Connection, network: Running
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 3})
    with ImportService(settings) as service, ThreadPoolExecutor() as threads:
        service.import_user_collection(did, POST)
        with connection.transaction():
            bucket = crc32(f"{did}/{POST}".encode()) % LOCK_BUCKETS
            connection.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", (EVENTS_LOCK, bucket))
            forgetting = threads.submit(forget, settings, did)  # has looked what there is, and waits for an event
            wait_for_lock(settings, EVENTS_LOCK)
            assert service.import_user_collection(did, LIKE).records_synced == 3
        with pytest.raises(PairBusy, match="began at this moment"):
            forgetting.result(60)
        assert (service.is_imported(did, LIKE), service.is_imported(did, POST)) == (True, True)
    for nsid in (POST, LIKE):
        assert_equal(settings, network.network, did, nsid)
    assert forget(settings, did).records == 6


def test_a_mappers_table_whose_foreign_key_keeps_the_records_is_named(
    settings: Settings, connection: psycopg.Connection, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    with ImportService(settings) as service:
        service.import_user_collection(did, POST)
    connection.execute(
        "CREATE TABLE notes (did text, collection text, rkey text, FOREIGN KEY (did, collection, rkey) REFERENCES"
        " atproto_records (did, collection, rkey))"
    )
    connection.execute("INSERT INTO notes SELECT did, collection, rkey FROM atproto_records LIMIT 1")
    refused = call("forget", "did:plc:" + "a" * 24, did, "--yes", "--json")
    assert refused.exit_code == 1
    assert "rows of the table public.notes belong to records" in refused.output
    assert [removed["did"] for removed in json.loads(refused.stdout)] == ["did:plc:" + "a" * 24]
    assert query(settings, "SELECT count(*) FROM atproto_records") == [(3,)]
    connection.execute("DELETE FROM notes")
    assert call("forget", did, "--yes").exit_code == 0


def test_what_a_run_has_yet_to_tell_is_not_forgotten_before(
    settings: Settings, connection: psycopg.Connection, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    told: list[ImportEvent] = []

    class Writes(RunListener):
        def __call__(self, event: ImportEvent) -> None:
            if isinstance(event, ImportCompleted):  # committed, and not written down yet
                told.append(event)
                with pytest.raises(PairBusy, match="at this moment"):
                    forget(settings, did)

    with ImportService(settings, run_id="at-work") as service:
        assert service.import_pairs([Pair(did, POST)], on_event=Writes())[0].records_synced == 3
        assert told
        assert forget(settings, did).records == 3, "the run is still at work, but it has told"
    assert tables_with(connection, did) == []


def test_forgetting_waits_for_who_reports(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    with ImportService(settings) as service, ThreadPoolExecutor() as threads:
        service.import_user_collection(did, POST)
        with connection.transaction():
            assert lock_reporting(connection, regclass(settings.state_table), wait=True)  # and has read what there is
            forgetting = threads.submit(forget, settings, did)
            wait_for_lock(settings, REPORT_LOCK)
            assert not forgetting.done()
        assert forgetting.result(60).records == 3
    report_pending(instance, settings)
    assert tables_with(connection, did) == []


def wait_for_lock(settings: Settings, of_class: int) -> None:
    """Wait until somebody waits for an advisory lock."""
    until = time.monotonic() + 60
    waiting = f"SELECT pid FROM pg_locks WHERE NOT granted AND classid = {of_class} AND {OF_THIS_DATABASE}"
    while not query(settings, waiting):
        assert time.monotonic() < until
        time.sleep(0.01)


def forget(settings: Settings, did: str) -> Forgotten:
    with closing(connect(settings, autocommit=True)) as opened:
        return forget_account(opened, did)


@pytest.mark.long
def test_on_a_terminal_it_says_what_is_held_and_asks(
    settings: Settings, connection: psycopg.Connection, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    with ImportService(settings) as service:
        service.import_user_collection(did, POST)
    for answer, code, last in (
        ("n\n", 1, "Nothing was removed."),
        ("\x04", 130, "nothing was removed"),
        ("y\n", 0, "Remove 1 account for good? [y/N]:"),
    ):
        ours, theirs = pty.openpty()
        with start("forget", did, stdin=theirs) as process:
            os.write(ours, answer.encode())
            _, said = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert f"{did}, 1 import, 3 records, 0 failed records" in said
        assert process.returncode == code
        assert said.strip().endswith(last)
        assert ("atproto_records" in tables_with(connection, did)) is (code != 0)
