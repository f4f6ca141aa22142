"""One importer per pair at a time, across threads, processes and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from parity_dagster.errors import Interrupted
from parity_dagster.events import ImportProgress
from parity_dagster.models import ImportResult, ImportStatus, Pair
from parity_dagster.sample_network import POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import OF_THIS_DATABASE, assert_equal, importing, query, settings_for

OTHERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"

PROGRAM = """
import sys
from parity_dagster.service import ImportService
with ImportService(report=False) as service:
    print("ready", flush=True)
    result = service.import_user(sys.argv[1], [sys.argv[2]], lambda event: print("page", event.pages, flush=True))
    print(result.error or "completed", flush=True)
"""


def start_importer(settings: Settings, running: Running, did: str, **more: Any) -> subprocess.Popen[str]:
    """An importing process; it prints a line per committed page."""
    assert settings.database_url is not None
    environment = {
        "PARITY_DATABASE_URL": settings.database_url.get_secret_value(),
        "PARITY_PLC_URL": running.plc_url,
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_SIZE": "10",
        "PARITY_PAGE_DELAY": "0",
    } | {f"PARITY_{name.upper()}": str(value) for name, value in more.items()}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, did, POST],
        env={name: value for name, value in os.environ.items() if not name.startswith("PARITY_")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for found in process.stdout:
        if found.strip() == line:
            return
    raise AssertionError(f"the importer ended without saying {line}")


# I12
@pytest.mark.long
def test_of_two_importers_one_works_and_the_other_says_who_has_the_pair(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    with run_in_thread(network) as running:
        process = start_importer(settings, running, did, page_delay=300)
        wait_for(process, "page 1")
        process.send_signal(signal.SIGSTOP)  # it has the pair and does not finish with it meanwhile
        with ImportService(settings_for(settings, running, page_size=10), report=False) as service:
            result = service.import_user_collection(did, POST)
            assert (result.error_code, result.completed) == ("busy", False)
            assert f"process {process.pid} on " in (result.error or "")
            assert service.resume_all() == [], "what somebody works on is not resumed"
            assert service.enqueue([(did, POST)]) == []  # type: ignore[list-item]
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read().split()[-1] == "completed"
        process.wait()
        assert_equal(settings, network, did, POST)


# I13
def test_the_pair_of_a_killed_importer_is_free_at_once_and_goes_on_where_it_was(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    with run_in_thread(network) as running:
        process = start_importer(settings, running, did, page_delay=300)
        wait_for(process, "page 2")
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        with ImportService(settings_for(settings, running, page_size=10), report=False) as service:
            result = service.import_user_collection(did, POST)
            while result.error_code == "busy" and time.monotonic() < began + 60:
                time.sleep(0.1)
                result = service.import_user_collection(did, POST)
        assert (result.completed, result.records_synced) == (True, 60)
        assert time.monotonic() - began < 10
        cursors = network.log.cursors(did, POST)
        assert cursors.count(None) == 1
        assert_equal(settings, network, did, POST)
    assert query(settings, "SELECT count(*) FROM parity_importers") == [(0,)], "the killed one leaves nothing behind"


def test_of_two_threads_of_one_service_one_works(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    with importing(settings, network, page_size=10, page_delay=50) as (service, _):
        results: list[ImportResult] = []
        threads = [
            threading.Thread(target=lambda: results.append(service.import_user_collection(did, POST))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(str(result.error_code) for result in results) == ["None", "busy", "busy", "busy"]
        assert network.log.cursors(did, POST).count(None) == 1
        assert_equal(settings, network, did, POST)


def test_an_interrupted_call_gives_its_pairs_back_at_once_and_the_service_goes_on(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 60}) for _ in range(5)]
    with importing(settings, network, page_size=10, page_delay=100) as (service, running):

        class Stop(BaseException):
            """What Ctrl-C does."""

        def stop(event: object) -> None:
            if getattr(event, "pages", 0) == 2:
                raise Stop

        began = time.monotonic()
        with pytest.raises(Stop):
            service.import_pairs([(did, POST) for did in dids], on_event=stop)  # type: ignore[misc]
        assert time.monotonic() - began < 5
        states = service.find_states()
        pages = {state.did: state.pages for state in states}
        assert max(pages.values()) >= 2
        assert {state.status for state in states} == {ImportStatus.IN_PROGRESS}
        assert {state.importer_id for state in states} == {None}, "free for everybody"
        assert query(settings, "SELECT count(*) FROM parity_importers") == [(0,)]
        with ImportService(settings_for(settings, running, page_size=10), report=False) as other:
            results = other.resume_all()
        assert [result.completed for result in results] == [True] * 5
        for did in dids:
            if pages[did]:
                assert network.log.cursors(did, POST).count(None) == 1, "from where it was"
            assert_equal(settings, network, did, POST)


# I12
def test_an_import_that_is_stopped_while_it_gets_its_number_gives_that_back(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        assert settings.database_url is not None
        with psycopg.connect(settings.database_url.get_secret_value()) as conn:
            # one that was killed: whoever gets a number takes it away, and now has to wait for that
            killed = "INSERT INTO parity_importers (hostname, pid) VALUES ('gone', 1)"
            query(settings, f"WITH killed AS ({killed}) SELECT")
            conn.execute("SELECT FROM parity_importers FOR UPDATE")
            importing_thread = threads.submit(service.import_user_collection, did, POST)
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            while query(settings, waiting) != [(1,)]:
                time.sleep(0.01)
            service.close()
            with pytest.raises(Interrupted):
                importing_thread.result()
            assert query(settings, "SELECT hostname FROM parity_importers") == [("gone",)]


# I12
@pytest.mark.long
def test_an_import_that_is_stopped_while_it_gives_its_number_back_does_so_to_the_end(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        query(
            settings,
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
            " IF current_query() LIKE '%SET importer_id = NULL%' THEN PERFORM pg_sleep(2); END IF; RETURN NULL;"
            " END$$; CREATE TRIGGER dawdle BEFORE UPDATE ON parity_import_states EXECUTE FUNCTION dawdle()",
        )
        importing_thread = threads.submit(service.import_user_collection, did, POST)
        dawdling = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while query(settings, dawdling) != [(1,)]:
            time.sleep(0.01)
        service.close()
        with pytest.raises(Interrupted):
            importing_thread.result()
        assert query(settings, "SELECT count(*) FROM parity_importers") == [(0,)]


@pytest.mark.long
def test_ctrl_c_ends_a_process_quickly_and_frees_its_pairs(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    with run_in_thread(network) as running:
        process = start_importer(settings, running, did, page_delay=500)
        wait_for(process, "page 2")
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.wait(20)
        assert time.monotonic() - began < 10
    ((importer, cursor),) = query(settings, "SELECT importer_id, cursor FROM parity_import_states")
    assert importer is None
    assert cursor is not None


# I12
def test_a_reset_during_an_import_ends_that_import_and_breaks_nothing(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3000})  # 300 pages: on no machine is the walk quicker than the reset
    with importing(settings, network, page_size=10, page_delay=30) as (service, running):
        settings = settings_for(settings, running)

        def on_progress(event: object) -> None:
            if getattr(event, "pages", 0) == 2:
                with ImportService(settings, report=False) as other:
                    assert other.reset(did, POST) == 1

        result = service.import_user_collection(did, POST, on_progress)
        assert result.error_code == "busy"
        assert "reset" in (result.error or "")
        assert network.log.count(method="listRecords") < 300, "the host is asked for nothing that nobody wants"
        with ImportService(settings, report=False) as another:
            assert another.import_user_collection(did, POST).completed
        assert_equal(settings, network, did, POST)


# I12
def test_a_pair_that_is_reset_in_the_moment_it_is_claimed_is_imported_all_the_same(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 3}) for _ in range(2)]
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        service.enqueue([Pair(did, POST) for did in dids])
        assert settings.database_url is not None
        with psycopg.connect(settings.database_url.get_secret_value()) as conn:
            conn.execute(f"SELECT FROM {settings.state_table} WHERE did = %s FOR UPDATE", (dids[0],))
            importing_them = threads.submit(service.import_pairs, [Pair(did, POST) for did in dids])
            deadline = time.monotonic() + 30
            while not query(settings, f"SELECT pid FROM pg_locks WHERE NOT granted AND pid IN ({OTHERS})"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            conn.execute(f"DELETE FROM {settings.state_table} WHERE did = %s", (dids[0],))
        results = importing_them.result(60)
    assert [(result.did, result.is_success) for result in results] == [(did, True) for did in dids]
    for did in dids:
        assert_equal(settings, network, did, POST)


def test_a_refresh_whose_pair_is_reset_is_not_completed_though_the_import_before_was(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    with importing(settings, network, page_size=10, page_delay=200) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.put_record(did, POST)

        def reset(progress: ImportProgress) -> None:
            service.reset_user(did)

        result = service.import_user_collection(did, POST, reset, refresh=True)
        assert (result.error_code, result.completed) == ("busy", False)


@pytest.mark.long
def test_a_lost_claim_session_is_noticed_and_held_again(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 600})
    network.behave(latency=0.5)  # half a minute, unless the lock is held again before
    locks = (
        f"FROM pg_locks WHERE locktype = 'advisory' AND classid = 1885434489 AND objsubid = 2 AND {OF_THIS_DATABASE}"
    )
    begun = threading.Event()
    with importing(settings, network, page_size=10) as (service, _), ThreadPoolExecutor() as threads:
        whole = threads.submit(service.import_user_collection, did, POST, lambda event: begun.set())
        assert begun.wait(30)
        lost = query(settings, f"SELECT pid {locks}")
        assert len(lost) == 1
        query(settings, f"SELECT pg_terminate_backend(pid) {locks}")
        deadline = time.monotonic() + 30
        while (held := query(settings, f"SELECT pid {locks}")) in ([], lost):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not whole.done(), "the lock is held again while the import goes on"
        assert len(held) == 1
        network.behave(latency=0.0)
        assert whole.result(60).completed
    assert_equal(settings, network, did, POST)
