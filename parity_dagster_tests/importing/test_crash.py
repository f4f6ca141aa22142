"""Killed at any moment, resumed, and nothing is lost, doubled or fetched twice.

An importing process is killed with SIGKILL at the n-th request that the network answers, and at the n-th statement
that changes one of the importer's tables, for every n until it gets through. The network knows of its requests; the
database knows of its statements through triggers, which wait until the process is dead.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess

import psycopg
import pytest

from parity_dagster.sample_network import POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.forked import start_import
from parity_dagster_tests.imports import OF_THIS_DATABASE, assert_equal, query, settings_for
from parity_dagster_tests.quick import quick

RECORDS = 45
PAGES = 6  # of 10 records, the last one is empty
TABLES = (
    "atproto_records",
    "parity_import_states",
    "parity_walk_pages",
    "parity_failed_records",
    "parity_identities",
    "parity_importers",
)
AT_THE_TRIPWIRE = f"FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted AND {OF_THIS_DATABASE}"


@pytest.fixture
def network() -> Iterator[Running]:
    network = SampleNetwork()
    did = network.add_account({POST: RECORDS})
    network.add_odd(did, POST, ["nul", "value-null"])
    with run_in_thread(network) as running:
        yield running


def finish(settings: Settings, running: Running) -> None:
    """Resume what the killed process left, and compare with the network."""
    network = running.network
    (did,) = network.dids
    network.behave_normally()
    before = [cursor for (cursor,) in query(settings, "SELECT cursor FROM parity_import_states")]
    ((committed,),) = query(settings, "SELECT coalesce(max(page), 0) FROM parity_walk_pages")
    network.log.clear()
    with ImportService(settings_for(settings, running, page_size=10), report=False) as service:
        result = service.import_user_collection(did, POST)
        deadline = time.monotonic() + 30
        while result.error_code == "busy" and time.monotonic() < deadline:  # the server has yet to notice the kill
            time.sleep(0.05)
            result = service.import_user_collection(did, POST)
    assert (result.completed, result.records_synced, result.records_failed) == (True, RECORDS, 2), result
    assert_equal(settings, network, did, POST)
    again = network.log.cursors(did, POST)
    if committed == PAGES - 1:
        assert again.pop() is None, "what shows nothing but an empty end is asked whether its list is still there"
    if committed:
        assert len(again) == max(0, PAGES - committed), "no committed page is fetched again"
        assert again[:1] == [cursor for cursor in before if cursor][:1]
    assert query(settings, "SELECT count(*) FROM parity_walk_pages") == [(0,)]
    assert query(settings, "SELECT count(*) FROM parity_failed_records") == [(2,)]


def forget(settings: Settings) -> None:
    query(settings, f"TRUNCATE {', '.join(TABLES)}, parity_announcements")


def kill_at_request(running: Running, process: BaseProcess, number: int) -> None:
    """Kill the process once the network has been asked so often; the answer may or may not arrive."""
    while process.is_alive():
        if running.network.log.count() >= number:
            process.kill()
            return
        time.sleep(0.0005)


# I3, I13
@pytest.mark.parametrize(
    "numbers",
    # A DID document, a revision and the pages.
    quick(1, [pytest.param([2, 5], id="some"), pytest.param(range(1, PAGES + 3), id="every")]),
)
def test_killed_at_a_wire_call_the_import_ends_as_if_nothing_had_happened(
    settings: Settings, network: Running, numbers: Sequence[int]
) -> None:
    (did,) = network.network.dids
    killed = 0
    # Each answer is held back for a moment, so that the kill falls into it.
    for number in numbers:
        forget(settings)
        network.network.log.clear()
        network.network.behave(latency=0.03)
        network.network.behave(host="pds-1", latency=0.03)
        process, _ = start_import(settings_for(settings, network, page_size=10), [(did, POST)])
        kill_at_request(network, process, number)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        finish(settings, network)
    assert killed == len(numbers)


class Tripwire:
    """Triggers that stop at the n-th change of a table, tell who made it, and wait for it to be killed."""

    def __init__(self, settings: Settings, tables: Sequence[str] = TABLES) -> None:
        assert settings.database_url is not None
        self.conn = psycopg.connect(settings.database_url.get_secret_value(), autocommit=True)
        self.conn.execute(
            """
            CREATE SEQUENCE tripwire;
            CREATE TABLE tripwire_at (number bigint);
            CREATE FUNCTION trip() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('tripwire') = (SELECT number FROM tripwire_at) THEN
                    PERFORM pg_advisory_lock_shared(4711);
                END IF;
                RETURN NULL;
            END $$
            """
        )
        for table in tables:
            for moment in ("BEFORE", "AFTER"):
                self.conn.execute(
                    f"CREATE TRIGGER {moment}_{table} {moment} INSERT OR UPDATE OR DELETE ON {table}"
                    " FOR EACH STATEMENT EXECUTE FUNCTION trip()"
                )

    def set(self, number: int) -> None:
        self.conn.execute("SELECT pg_advisory_lock(4711)")
        self.conn.execute("TRUNCATE tripwire_at")
        self.conn.execute("ALTER SEQUENCE tripwire RESTART")
        self.conn.execute("INSERT INTO tripwire_at VALUES (%s)", (number,))

    def kill(self, process: BaseProcess) -> bool:
        """Kill the process once it is caught; False if it ends without."""
        while process.is_alive() and not self._has_caught():
            process.join(0.005)
        is_caught = process.is_alive()
        if is_caught:
            process.kill()
        process.join()
        self._let_go()
        return is_caught

    def _has_caught(self) -> bool:
        row = self.conn.execute(f"SELECT EXISTS (SELECT {AT_THE_TRIPWIRE})").fetchone()
        return bool(row and row[0])

    def _let_go(self) -> None:
        # The server's process does not notice a kill while it waits for a lock; it goes as if it had.
        while self.conn.execute(f"SELECT pg_terminate_backend(pid) {AT_THE_TRIPWIRE}").fetchall():
            time.sleep(0.005)
        self.conn.execute("TRUNCATE tripwire_at")
        self.conn.execute("SELECT pg_advisory_unlock(4711)")


# I3
@pytest.mark.parametrize("step", quick(1, [12, 1]))
def test_killed_at_a_change_of_the_database_the_import_ends_as_if_nothing_had_happened(
    settings: Settings, network: Running, step: int
) -> None:
    (did,) = network.network.dids
    wire = Tripwire(settings)
    number, killed = 0, 0
    while True:
        number += step
        forget(settings)
        wire.set(number)
        process, _ = start_import(settings_for(settings, network, page_size=10), [(did, POST)])
        if not wire.kill(process):
            break
        killed += 1
        finish(settings, network)
    assert killed >= 24 // step
    assert_equal(settings, network.network, did, POST)
    wire.conn.close()


def test_killed_between_the_last_page_and_the_end_nothing_is_fetched_again(
    settings: Settings, network: Running
) -> None:
    (did,) = network.network.dids
    network.network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": PAGES - 1}])
    with ImportService(settings_for(settings, network, page_size=10), report=False) as service:
        assert service.import_user_collection(did, POST).is_partial
    # What a host leaves that gives no cursor with its last page, and an importer killed before the next commit.
    query(
        settings,
        "UPDATE parity_import_states SET cursor = NULL, status = 'in_progress', error = NULL, error_code = NULL",
    )
    network.network.log.clear()
    with ImportService(settings_for(settings, network, page_size=10), report=False) as service:
        assert service.import_user_collection(did, POST).completed
    assert network.network.log.cursors(did, POST) == []
    assert_equal(settings, network.network, did, POST)
