"""PostgreSQL goes away, refuses, or runs full: retried where it can be, else resumable."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from parity_dagster.embedded_postgres import server as embedded_server, sharing as embedded
from parity_dagster.errors import DatabaseError
from parity_dagster.events import ImportProgress
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.sample_network import LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import connection_url
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for
from parity_dagster_tests.quick import quick

IMPORTER = "application_name = 'parity_dagster' AND datname = current_database()"


@pytest.fixture
def own_server(put_server: Callable[[Path], None]) -> Iterator[Settings]:
    """Settings with a server of the test's own, that may be restarted."""
    home = Path(tempfile.gettempdir(), f"parity-trouble-{time.time_ns()}")
    put_server(home)
    settings = load_settings(home=home, allow_private_hosts=True, page_delay=0)
    url = connection_url(settings)
    try:
        yield settings.model_copy(update={"database_url": load_settings(database_url=url).database_url})
    finally:
        embedded.release(home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.processes
def test_a_restart_of_postgres_in_the_middle_is_waited_out(own_server: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 150, LIKE: 40}) for _ in range(4)]
    data = embedded.data_folder(own_server.home)
    with importing(own_server, network, page_size=10, page_delay=20) as (service, _):
        restarts: list[int] = []

        def restart(event: object) -> None:
            if getattr(event, "pages", 0) in (3, 8) and event.pages not in restarts:  # type: ignore[attr-defined]
                restarts.append(event.pages)  # type: ignore[attr-defined]
                embedded_server.stop(data)
                embedded.acquire(own_server.home)

        results = service.import_pairs([Pair(did, nsid) for did in dids for nsid in (POST, LIKE)], on_event=restart)
        assert restarts == [3, 8]
        assert [result.error for result in results if not result.completed] == []
        for did in dids:
            assert_equal(own_server, network, did, POST)
            assert_equal(own_server, network, did, LIKE)


@pytest.mark.processes
@pytest.mark.long
def test_postgres_away_for_longer_than_an_import_waits_leaves_the_pairs_resumable(own_server: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 120}) for _ in range(3)]
    data = embedded.data_folder(own_server.home)
    with importing(own_server, network, page_size=10, page_delay=50, database_patience=1.0) as (service, _):
        stopped = threading.Event()
        endings = []
        committed = set()

        def stop(event: object) -> None:
            if isinstance(event, ImportProgress):
                committed.add(event.did)
            if getattr(event, "pages", 0) == 2 and not stopped.is_set():
                stopped.set()
                embedded_server.stop(data)
            if hasattr(event, "result"):
                endings.append(event)

        texts: list[str | None] = []
        try:
            results = service.import_pairs([Pair(did, POST) for did in dids], on_event=stop)
        except DatabaseError as exc:
            texts = [str(exc)]
        else:
            # on a slow machine a pair may be done before the server is
            left = [result for result in results if not result.completed]
            assert left
            assert {result.error_code for result in left} <= {"database", "database_unreachable"}
            texts = [result.error for result in left]
        assert all("check" in (text or "").lower() for text in texts), texts
        assert len(endings) == 3, "each pair gets its ending"
        embedded.acquire(own_server.home)
        assert all(result.completed for result in service.resume_all())
        for did in dids:
            assert_equal(own_server, network, did, POST)
            # one whose first page was not committed yet has nothing to go on from
            assert did not in committed or network.log.cursors(did, POST).count(None) == 1, "from where it was"
        assert committed


@pytest.mark.long
@pytest.mark.parametrize("which", quick(2, ["writers", "all", "claim", "questions"]))
def test_connections_dropped_again_and_again_cost_nothing(settings: Settings, which: str) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 80}) for _ in range(3)]
    condition = {
        "writers": "pid IN (SELECT pid FROM pg_stat_activity WHERE query ILIKE '%parity_incoming%' OR query ILIKE"
        " '%parity_walk_pages%' OR query ILIKE '%COPY%' OR query ILIKE '%unnest%' OR query = 'COMMIT')",
        "claim": "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1885434489)",
        "questions": "(query ILIKE '%parity_identities%' OR query ILIKE '%parity_host_importers%')",
        "all": "true",
    }[which]
    done = threading.Event()
    dropped = 0

    def drop() -> None:
        nonlocal dropped
        while not done.wait(0.15):
            dropped += len(
                query(
                    settings, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {IMPORTER} AND {condition}"
                )
            )

    with importing(settings, network, page_size=10, page_delay=60) as (service, _):
        thread = threading.Thread(target=drop)
        thread.start()
        try:
            results = service.import_pairs([Pair(did, POST) for did in dids])
        finally:
            done.set()
            thread.join()
        assert dropped
        assert [result.error for result in results] == [None] * 3
        for did in dids:
            assert_equal(settings, network, did, POST)
            assert network.log.cursors(did, POST).count(None) == 1


def fail_for_a_while(settings: Settings, sqlstate: str, times: int, table: str = "atproto_records") -> None:
    """Let the first statements on a table fail with an error of the server's."""
    query(settings, "CREATE SEQUENCE trouble")
    query(
        settings,
        f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('trouble') <= {times} THEN"
        f" RAISE EXCEPTION 'made up by the test' USING ERRCODE = '{sqlstate}'; END IF; RETURN NULL; END $$",
    )
    query(settings, f"CREATE TRIGGER trouble BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION trouble()")


@pytest.mark.parametrize(
    ("sqlstate", "name"),
    quick(
        3,
        [
            ("53100", "disk full"),
            ("40P01", "deadlock"),
            ("57P01", "shutdown"),
            ("53200", "out of memory"),
            ("40001", "serialization failure"),
            ("57014", "statement timeout"),
            ("55P03", "lock timeout"),
            ("25006", "read-only"),
        ],
    ),
)
@pytest.mark.parametrize("table", ["atproto_records", "parity_walk_pages"])
def test_trouble_that_passes_is_waited_out(settings: Settings, sqlstate: str, name: str, table: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    fail_for_a_while(settings, sqlstate, 3, table)
    with importing(settings, network, page_size=10, page_delay=20) as (service, _):
        result = service.import_user_collection(did, POST)
        assert (result.completed, result.error) == (True, None), name
        assert_equal(settings, network, did, POST)


@pytest.mark.parametrize(
    ("sqlstate", "cure"),
    [("42501", "grant the role"), ("42P01", "parity migrate"), ("XX000", "check that the server is up")],
)
def test_trouble_that_does_not_pass_says_what_to_do_and_leaves_the_pair_resumable(
    settings: Settings, sqlstate: str, cure: str
) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    fail_for_a_while(settings, sqlstate, 10**6)
    with importing(settings, network, page_size=10) as (service, _):
        result = service.import_user_collection(did, POST)
        assert (result.completed, result.error_code) == (False, "database")
        assert cure in (result.error or "")
        assert "made up by the test" in (result.error or "")
        state = service.get_status(did, POST)
        assert state is not None
        assert (state.status, state.importer_id, state.can_resume) == (ImportStatus.IN_PROGRESS, None, True)
        query(settings, "DROP TRIGGER trouble ON atproto_records")
        (result,) = service.resume_all()
        assert result.completed
        assert_equal(settings, network, did, POST)


@pytest.mark.long
def test_a_deadlock_with_somebody_elses_transaction_is_survived(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 40})
    assert settings.database_url is not None
    with importing(settings, network, page_size=10) as (service, _):
        service.import_user_collection(did, POST)
        rkeys = sorted(network.records(did, POST))
        for rkey in rkeys:
            network.put_record(did, POST, {"text": "new"}, rkey=rkey)
        ready, stop = threading.Event(), threading.Event()

        def fight() -> None:
            url = settings.database_url.get_secret_value()  # type: ignore[union-attr]
            update = "UPDATE atproto_records SET updated_at = now() WHERE did = %s AND rkey = %s"
            while not stop.is_set():
                try:
                    with psycopg.connect(url) as conn:
                        conn.execute("SET deadlock_timeout = '100s'")  # the importer is the one that loses
                        for rkey in rkeys:
                            conn.execute(update, (did, rkey))
                            ready.set()
                            time.sleep(0.02)
                except psycopg.Error:
                    pass

        thread = threading.Thread(target=fight)
        thread.start()
        ready.wait(10)
        try:
            result = service.import_user_collection(did, POST, refresh=True)
        finally:
            stop.set()
            thread.join()
        assert result.completed
        assert_equal(settings, network, did, POST)


def test_a_commit_whose_answer_was_lost_is_recognized(settings: Settings) -> None:
    """The connection is cut the moment the last transaction becomes visible; its outcome was never told."""
    network = SampleNetwork()
    dids = [network.add_account({POST: 5}) for _ in range(6)]
    done = threading.Event()

    def cut() -> None:
        seen = 0
        while not done.is_set():
            ((count,),) = query(settings, "SELECT count(*) FROM parity_import_states WHERE status = 'completed'")
            if count > seen:
                seen = count
                query(settings, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {IMPORTER}")

    with run_in_thread(network) as running, ImportService(settings_for(settings, running), report=False) as service:
        thread = threading.Thread(target=cut)
        thread.start()
        try:
            for did in dids:
                result = service.import_user_collection(did, POST)
                assert (result.completed, result.records_synced, result.error) == (True, 5, None)
        finally:
            done.set()
            thread.join()
    for did in dids:
        assert_equal(settings, network, did, POST)


def test_a_full_disk_that_stays_full_names_the_cure() -> None:
    from parity_dagster.store.postgres_errors import failed

    for error, cure in [
        (psycopg.errors.DiskFull("could not extend file"), "free some disk space"),
        (psycopg.errors.QueryCanceled("canceling statement due to user request"), "the server's log"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "default_transaction_read_only"),
    ]:
        assert cure in str(failed(error))
        assert "parity import --resume" in str(failed(error))
