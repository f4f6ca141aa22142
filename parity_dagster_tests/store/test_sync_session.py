"""The session that questions go through: one for all threads, patient, and gone when its service is closed."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from parity_dagster.errors import DatabaseUnreachable, Interrupted
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.sessions import SyncSession
from parity_dagster_tests.imports import query

OURS = "application_name = 'parity_dagster' AND datname = current_database()"


def assert_none_left(settings: Settings) -> None:
    """The server takes a moment to see that a client has gone."""
    deadline = time.monotonic() + 60
    while query(settings, f"SELECT pid FROM pg_stat_activity WHERE {OURS}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _number(conn: psycopg.Connection) -> int:
    return conn.info.backend_pid


def test_a_lost_session_is_opened_again_and_the_question_asked_again(settings: Settings) -> None:
    session = SyncSession(settings)
    first = session.run(_number)
    seen: list[int] = []

    def work(conn: psycopg.Connection) -> int:
        seen.append(conn.info.backend_pid)
        if len(seen) == 1:
            query(settings, f"SELECT pg_terminate_backend({first})")
        conn.execute("CREATE TEMP TABLE half_done ()")
        return conn.info.backend_pid

    assert session.run(work) == seen[1] != first == seen[0]
    session.end()
    assert_none_left(settings)


def test_nobody_waits_for_a_server_that_was_never_met() -> None:
    session = SyncSession(load_settings(database_url="postgresql://127.0.0.1:9/nowhere", database_patience=600))
    with pytest.raises(DatabaseUnreachable, match=r"127\.0\.0\.1:9"):
        session.run(_number)


def test_an_interrupted_question_leaves_nothing_open_and_the_next_one_is_answered(settings: Settings) -> None:
    session = SyncSession(settings)

    def work(conn: psycopg.Connection) -> None:
        conn.execute("DELETE FROM parity_identities")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(work)
    assert session.run(lambda conn: conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()) == (None,)
    session.end()


def test_who_waits_for_the_database_is_interrupted_by_the_end_of_the_session(settings: Settings) -> None:
    session = SyncSession(settings.model_copy(update={"database_patience": 600}))
    session.run(_number)
    asked = threading.Event()
    raised: list[BaseException] = []

    def work(conn: psycopg.Connection) -> None:
        asked.set()
        raise psycopg.OperationalError("away")

    def ask() -> None:
        try:
            session.run(work)
        except Interrupted as exc:
            raised.append(exc)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(60)
    session.end()
    thread.join(60)
    assert raised
    assert_none_left(settings)
    with pytest.raises(Interrupted):
        session.run(_number)
