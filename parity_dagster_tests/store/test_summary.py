"""The sums of the state table: they are right, read from indexes, and say when everything will be done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import psycopg
import pytest

from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.states import LOCK_CLASS
from parity_dagster.store.summary import read_summary, sentences
from parity_dagster_tests.command_line import call, variables

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with closing(connect(settings)) as opened:
        yield opened


def add(connection: psycopg.Connection, status: str, count: int, host: str | None, **more: str) -> None:
    """Rows of pairs that ended 1 to `count` seconds ago, after 2 seconds for one page each of which 10 records came."""
    columns = {"records_synced": "10", "pages": "1"}
    if status == "completed":
        columns |= {"completed_at": "now() - n * interval '1 s'", "started_at": "now() - (n + 2) * interval '1 s'"}
    columns |= more
    connection.execute(
        f"INSERT INTO parity_import_states (did, collection, status, pds, {', '.join(columns)})"
        f" SELECT 'did:plc:' || gen_random_uuid(), %s, %s, %s, {', '.join(columns.values())}"
        " FROM generate_series(1, %s) n",
        (LIKE if status == "pending" else POST, status, host, count),
    )


@pytest.fixture
def filled(connection: psycopg.Connection) -> psycopg.Connection:
    add(connection, "completed", 100, "https://a.test")
    add(connection, "completed", 40, "https://b.test", pages="2", completed_at="now() - interval '1 hour'")
    add(connection, "pending", 30, None)
    add(connection, "pending", 5, None, batch="'held:run'")
    add(connection, "in_progress", 2, "https://b.test", importer_id="99")
    add(connection, "failed", 7, "https://b.test", error_code="'unreachable'", next_attempt_at="now()")
    add(connection, "failed", 3, "https://a.test", error_code="'deactivated'")
    connection.execute("SELECT pg_advisory_lock(%s, 99)", (LOCK_CLASS,))
    connection.commit()
    return connection


def test_everything_is_counted_by_status_error_and_host_with_pace_and_time_left(
    filled: psycopg.Connection, settings: Settings
) -> None:
    found = read_summary(filled, settings.state_table, settings.collections)
    assert found.statuses == {"pending": 35, "in_progress": 2, "completed": 140, "failed": 10}
    assert [tuple(error) for error in found.errors] == [("unreachable", 7, False), ("deactivated", 3, True)]
    assert (found.pairs, found.gone, found.held, found.running, found.to_retry) == (187, 3, 5, 2, 7)
    hosts = {host.host: host for host in found.hosts}
    assert list(hosts) == [None, "https://b.test", "https://a.test"], "what is left comes first"
    assert hosts["https://a.test"][1:-1] == (103, 100, 0, 0, 3)
    assert hosts["https://a.test"].seconds_per_page == pytest.approx(2.0)
    assert hosts["https://b.test"][1:] == (49, 40, 2, 7, 0, None)
    # 100 pairs within 100 seconds; what is held is nobody's, what failed comes again
    assert found.left == 30 + 2 + 7
    assert (found.recent_pairs, found.recent_records) == (100, 1000)
    assert found.seconds_left == pytest.approx(39, rel=0.1)
    said = " ".join(sentences(found))
    assert "5 imports of canceled runs wait for you" in said
    assert "39 imports left, 2 of them under way: done in about 1 minute," in said


def test_what_waits_for_its_pause_is_not_said_to_be_done_before(
    connection: psycopg.Connection, settings: Settings
) -> None:
    add(connection, "completed", 100, "https://a.test")
    for minutes in (10, 59):
        again = f"now() + interval '{minutes} minutes'"
        add(connection, "failed", 1, "https://a.test", error_code="'unreachable'", next_attempt_at=again)
    found = read_summary(connection, settings.state_table, settings.collections)
    assert found.seconds_left == found.seconds_until_last_retry == pytest.approx(59 * 60)
    waits = "2 imports left, 0 of them under way, 2 to be tried again later: done in about 59 minutes"
    assert sentences(found) == [f"{waits}, when the last of them is due."]
    connection.execute("UPDATE parity_import_states SET completed_at = completed_at - interval '1 hour'")
    found = read_summary(connection, settings.state_table, settings.collections)
    assert sentences(found) == [f"{waits}, when the last of them is due."], "nothing else is left to have a pace"
    add(connection, "pending", 1, "https://a.test")
    found = read_summary(connection, settings.state_table, settings.collections)
    assert found.seconds_left is None


def test_what_failed_is_left_once_its_run_is_asked_for_but_not_once_it_is_held(
    connection: psycopg.Connection, settings: Settings
) -> None:
    failed = {"error_code": "'unreachable'", "next_attempt_at": "now() - interval '1 s'"}
    add(connection, "failed", 3, "https://a.test", **failed)
    found = read_summary(connection, settings.state_table, settings.collections)
    assert sentences(found) == ["3 imports left, 0 of them under way; none was completed within the last 5 minutes."]
    connection.execute("UPDATE parity_import_states SET batch = 'of a run that waits'")
    add(connection, "pending", 4, "https://a.test")
    add(connection, "failed", 2, "https://a.test", batch="'held:run'", **failed)
    found = read_summary(connection, settings.state_table, settings.collections)
    assert (found.left, found.to_retry, found.held) == (4 + 3, 3, 2)
    said = sentences(found._replace(held=1, left=1))
    assert said[0].startswith("1 import of canceled runs waits for you")
    assert said[1].startswith("1 import left")


def test_it_never_reads_the_table_as_a_whole(connection: psycopg.Connection, settings: Settings) -> None:
    add(connection, "completed", 20_000, "https://a.test", completed_at="now() - interval '1 day'")
    add(connection, "failed", 100, "https://a.test", error_code="'deactivated'")
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE parity_import_states")
    connection.autocommit = False
    assert read_summary(connection, settings.state_table, settings.collections).pairs == 20_100
    (scans,) = connection.execute(
        "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = %s", (settings.state_table,)
    ).fetchall()[0]
    assert scans == 0


def test_the_command_prints_it_for_people_and_for_programs(filled: psycopg.Connection, settings: Settings) -> None:
    env = variables(settings)
    said = call("import-status", "--summary", env=env).stdout
    assert "187 imports: 35 pending, 2 in_progress, 140 completed, 10 failed" in said
    assert "Failed: unreachable 7\n" in said
    assert "Accounts that are gone: deactivated 3\n" in said
    assert "(not looked up yet)" in said
    found = json.loads(call("import-status", "--summary", "--json", env=env).stdout)
    assert (found["left"], found["held"], len(found["hosts"])) == (39, 5, 3)
    assert datetime.fromisoformat(found["last_retry_at"]) <= datetime.fromisoformat(found["at"])
    assert call("import-status", "--summary", "--failed", env=env).exit_code == 2


def test_of_nothing_there_is_a_summary(settings: Settings, connection: psycopg.Connection) -> None:
    found = read_summary(connection, settings.state_table, settings.collections)
    assert (found.pairs, found.left, found.seconds_left) == (0, 0, None)
    assert sentences(found) == ["Nothing is left to be imported."]
