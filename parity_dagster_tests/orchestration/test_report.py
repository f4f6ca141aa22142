"""What was imported outside of Dagster shows in Dagster: each pair, once, in order, whoever is killed in between."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import dagster as dg
import psycopg
import pytest
from sqlalchemy import Engine, event

from parity_dagster.dagster_instance.events import BATCH_SIZE
from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.definitions import build_defs
from parity_dagster.events import ImportEvent
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.orchestration.metadata import state_from_metadata
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.report import Report, report_pending
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect, migrate
from parity_dagster.store.outbox import RUN_LOCK, count_unreported, have_all_reported, lock_reporting
from parity_dagster.store.state_tables import regclass
from parity_dagster_tests.dagster_runs import one, remembered, row, run
from parity_dagster_tests.imports import query
from parity_dagster_tests.quick import quick

LOCKS = "FROM pg_locks JOIN pg_stat_activity USING (pid)"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return settings


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance(settings) as found:
        yield found


@pytest.fixture
def service(settings: Settings) -> Iterator[ImportService]:
    with ImportService(settings) as service:
        yield service


def shown(instance: dg.DagsterInstance) -> list[ImportState]:
    """The row in every event of the records, in the order in which they were written."""
    records = [
        *instance.fetch_materializations(RECORDS_KEY, limit=10_000).records,
        *instance.fetch_observations(RECORDS_KEY, limit=10_000).records,
    ]
    states = []
    for record in sorted(records, key=lambda record: record.storage_id):
        event = record.asset_materialization or record.asset_observation
        assert event is not None
        state = state_from_metadata(event.metadata)
        assert record.partition_key == to_partition_key(state.pair)
        assert (record.asset_materialization is not None) == (state.status is ImportStatus.COMPLETED)
        states.append(state)
    return states


def owed(settings: Settings) -> int:
    """Endings that Dagster is still to be told of."""
    with connect(settings) as conn:
        found = conn.execute("SELECT count(*) FROM parity_announcements WHERE report").fetchone()
    assert found is not None
    return int(found[0])


def insert(settings: Settings, count: int) -> list[Pair]:
    """Pairs that ended outside of Dagster, without the work of importing them; every third has failed."""
    pairs = [Pair(f"did:plc:{number:024}", POST) for number in range(count)]
    query(
        settings,
        "INSERT INTO parity_import_states (did, collection, status, error, error_code, records_synced, completed_at)"
        " SELECT did, %s, CASE WHEN n %% 3 = 0 THEN 'failed' ELSE 'completed' END,"
        " CASE WHEN n %% 3 = 0 THEN 'gone' END, CASE WHEN n %% 3 = 0 THEN 'takendown' END, n,"
        " CASE WHEN n %% 3 <> 0 THEN now() END FROM unnest(%s::text[]) WITH ORDINALITY AS u(did, n)",
        POST,
        [pair.did for pair in pairs],
    )
    with connect(settings) as conn:
        have_all_reported(conn, settings.state_table)
    return pairs


def test_each_pair_is_shown_with_its_row_and_its_account_is_a_partition(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 130, LIKE: 4})
    gone = network.network.add_account({POST: 3}, status="takendown")
    assert service.import_user(did).is_success
    assert service.import_user_collection(gone, POST).is_failed
    assert shown(instance) == [], "nobody who imports waits for Dagster"
    assert report_pending(instance, settings) == Report(written=3)
    assert sorted(instance.get_dynamic_partitions(DIDS)) == sorted([did, gone])
    pairs = [Pair(did, POST), Pair(did, LIKE), Pair(gone, POST)]
    assert {state.pair: state for state in shown(instance)} == {pair: row(settings, pair) for pair in pairs}
    assert owed(settings) == 0
    assert report_pending(instance, settings) == Report()


def test_the_sensor_does_so_by_itself(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    (sensor,) = [
        sensor for sensor in build_defs(settings).get_repository_def().sensor_defs if sensor.name == "report_sensor"
    ]
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    did = network.network.add_account({POST: 3, LIKE: 1})
    service.import_user(did)
    messages = []
    for _ in range(2):
        with dg.build_sensor_context(instance=instance) as context:
            tick = sensor(context)
            assert isinstance(tick, dg.SkipReason)
            messages.append(tick.skip_message)
    assert messages == ["2 imports shown.", "Nothing new."]
    assert len(shown(instance)) == 2


def test_what_is_refused_before_it_has_a_row_leaves_nothing_in_dagster(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 1})
    assert service.import_user_collection(did, "com.example.other").is_failed
    assert report_pending(instance, settings) == Report()
    assert instance.get_dynamic_partitions(DIDS) == []


@pytest.mark.long
def test_three_thousand_pairs_are_shown_in_order_with_a_few_statements_each_batch(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    pairs = insert(settings, 3_000)
    query(
        settings,
        "UPDATE parity_announcements a SET ended_at = now() - interval '1 s' * s.id FROM parity_import_states s"
        " WHERE s.did = a.did",
    )
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", note)
    advanced: list[int] = []
    try:
        assert report_pending(instance, settings, advance=advanced.append) == Report(written=3_000)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert advanced == [BATCH_SIZE] * 6 + [0]
    assert len(statements) <= 6 * 20
    found = [state.pair for state in shown(instance)]
    assert sorted(found) == sorted(pairs)
    numbers = [pairs.index(pair) for pair in found]
    newest_first = [number // BATCH_SIZE for number in numbers]
    assert newest_first == sorted(newest_first, reverse=True), "batches come in the order of the endings"


@pytest.mark.long
def test_a_report_that_has_no_more_time_goes_on_the_next_time(instance: dg.DagsterInstance, settings: Settings) -> None:
    insert(settings, BATCH_SIZE + 20)
    assert report_pending(instance, settings, seconds=0) == Report(written=BATCH_SIZE, is_whole=False)
    assert report_pending(instance, settings, seconds=0) == Report(written=20)
    assert len(shown(instance)) == BATCH_SIZE + 20


def test_complete_pairs_that_nobody_reads_leave_dagsters_log_as_it_is(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 1})
    pairs = [Pair(did, POST), Pair(did, LIKE)]
    for refresh in (False, False, True, True, False):
        service.import_pairs(pairs, refresh=refresh)
        report_pending(instance, settings)
        for pair in pairs:  # a refresh that found nothing new writes the row, so it is told; the others are not
            assert remembered(instance, pair) == row(settings, pair)
    assert len(shown(instance)) == len(pairs) * 3


def test_every_pair_is_compared_on_request_and_what_dagster_has_wrong_is_told(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 1})
    with ImportService(settings, report=False) as silent:
        silent.import_user_collection(did, POST)
    other = network.network.add_account({POST: 2, LIKE: 2})
    service.import_user_collection(did, LIKE)
    service.import_user(other)
    assert report_pending(instance, settings) == Report(written=3)
    query(settings, "UPDATE parity_import_states SET pages = 7 WHERE did = %s AND collection = %s", did, LIKE)
    with connect(settings) as conn:
        have_all_reported(conn, settings.state_table)
    assert report_pending(instance, settings) == Report(written=2, known=2)
    for pair in (Pair(did, POST), Pair(did, LIKE)):
        assert remembered(instance, pair) == row(settings, pair)
    assert len(shown(instance)) == 5


def test_a_service_that_is_to_report_nothing_reports_nothing(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3})
    with ImportService(settings, report=False) as silent:
        silent.import_user_collection(did, POST)
    assert report_pending(instance, settings) == Report()


def test_listeners_and_dagster_are_told_whoever_comes_first(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3})

    class Mailbox:
        def __call__(self, event: ImportEvent) -> None:
            pass

        def flush(self) -> None:
            raise ConnectionError("the mail server is away")

    with ImportService(settings, [Mailbox()]) as service:
        service.import_user_collection(did, POST)
    assert report_pending(instance, settings) == Report(written=1)
    heard: list[ImportEvent] = []
    with ImportService(settings, [heard.append]) as service:
        service.import_pairs([])
        assert [event.did for event in heard] == [did]
        service.import_pairs([Pair(did, LIKE)])
    assert owed(settings) == 1, "listeners know of it, and Dagster does not"
    assert report_pending(instance, settings) == Report(written=1)
    assert query(settings, "SELECT count(*) FROM parity_announcements") == [(0,)]


def test_pairs_that_were_reset_are_not_shown_and_nothing_of_them_stays(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 1})
    service.import_user(did)
    service.reset(did, POST)
    assert report_pending(instance, settings) == Report(written=1)
    assert [state.pair for state in shown(instance)] == [Pair(did, LIKE)]
    assert owed(settings) == 0


def test_two_projects_in_one_database_report_their_own(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    theirs = settings.model_copy(update={"state_table": "theirs"})
    migrate(theirs)
    mine, other = (network.network.add_account({POST: 2}) for _ in range(2))
    for place, did in ((settings, mine), (theirs, other)):
        with ImportService(place) as service:
            service.import_user_collection(did, POST)
    assert report_pending(instance, settings) == Report(written=1)
    assert [state.did for state in shown(instance)] == [mine]
    assert owed(settings) == 1
    with connect(theirs) as conn, conn.transaction():
        conn.execute("SELECT 1")
        assert report_pending(instance, theirs) == Report(written=1)
    assert [state.did for state in shown(instance)] == [mine, other]


def test_what_has_ended_is_shown_while_its_importer_goes_on(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    done, held = (network.network.add_account({POST: 120}) for _ in range(2))
    ended, release = threading.Event(), threading.Event()

    def listen(event: ImportEvent) -> None:
        ended.set()
        release.wait(60)

    def pairs() -> Iterator[Pair]:
        yield Pair(done, POST)
        release.wait(60)
        yield Pair(held, POST)

    with ImportService(settings, [listen]) as service:
        importing = threading.Thread(target=service.import_pairs, args=(pairs(),))
        importing.start()
        try:
            assert ended.wait(60)
            while owed(settings) == 0:
                time.sleep(0.02)
            assert report_pending(instance, settings) == Report(written=1)
            assert query(settings, "SELECT deliver, report FROM parity_announcements") == [(True, False)]
        finally:
            release.set()
            importing.join()
    assert query(settings, "SELECT did, report FROM parity_announcements") == [(held, True)]
    assert report_pending(instance, settings) == Report(written=1)


def test_a_pair_that_is_read_again_is_shown_when_it_has_ended(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3})
    service.import_user_collection(did, POST)
    query(settings, "UPDATE parity_import_states SET status = 'in_progress'")
    assert report_pending(instance, settings) == Report()
    assert owed(settings) == 1
    service.import_user_collection(did, POST)
    assert report_pending(instance, settings) == Report(written=1)
    assert shown(instance) == [row(settings, Pair(did, POST))]


def test_calls_from_several_threads_are_all_shown(
    service: ImportService, instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    dids = [network.network.add_account({POST: 2}) for _ in range(6)]
    threads = [threading.Thread(target=service.import_user_collection, args=(did, POST)) for did in dids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report_pending(instance, settings)
    assert len(instance.get_materialized_partitions(RECORDS_KEY)) == len(dids)


@pytest.mark.long
def test_several_who_report_at_once_share_the_work(instance: dg.DagsterInstance, settings: Settings) -> None:
    insert(settings, 2 * BATCH_SIZE + 200)
    reports: list[Report] = []
    threads = [
        threading.Thread(target=lambda wait=wait: reports.append(report_pending(instance, settings, wait=wait)))
        for wait in (True, True, False, False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.written for report in reports) == 2 * BATCH_SIZE + 200
    assert sum(report.known for report in reports) == 0
    assert len(shown(instance)) == 2 * BATCH_SIZE + 200


def test_a_tick_leaves_the_work_to_whoever_is_at_it(instance: dg.DagsterInstance, settings: Settings) -> None:
    insert(settings, 3)
    with connect(settings) as busy:
        assert lock_reporting(busy, regclass(settings.state_table), wait=True)
        assert report_pending(instance, settings, wait=False) == Report(is_whole=False)
    assert report_pending(instance, settings, wait=False) == Report(written=3)


# A run writes down itself how its pairs end.


def test_what_a_run_has_written_is_not_reported_again(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    did = network.network.add_account({POST: 3})
    instance.add_dynamic_partitions(DIDS, [did])
    assert run(settings, instance, tags=one(Pair(did, POST))).success
    assert len(shown(instance)) == 1
    assert owed(settings) == 0
    assert report_pending(instance, settings) == Report()


def test_a_run_that_is_killed_leaves_its_endings_to_the_report_and_one_at_work_does_not(
    instance: dg.DagsterInstance, network: Running, settings: Settings
) -> None:
    dids = [network.network.add_account({POST: 3}) for _ in range(2)]

    def die(event: ImportEvent) -> None:
        if owed(settings) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def at_work() -> None:
        with ImportService(settings, run_id="run-2") as service:
            service.import_pairs([Pair(dids[1], POST)])
            os.kill(os.getpid(), signal.SIGSTOP)

    stopped = fork(at_work)
    os.waitpid(stopped, os.WUNTRACED)
    killed = fork(lambda: ImportService(settings, run_id="run-1").import_pairs([Pair(dids[0], POST)], on_event=die))
    os.waitpid(killed, 0)
    try:
        assert owed(settings) == 2
        assert report_pending(instance, settings) == Report(written=1)
        assert [state.did for state in shown(instance)] == [dids[0]]
    finally:
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)
    # a run of your own code that records nothing itself: its pairs are shown when it is over
    while count(settings) == 0:
        time.sleep(0.02)
    assert report_pending(instance, settings) == Report(written=1)


def test_a_run_that_loses_its_session_is_at_work_again_with_the_next_question(settings: Settings) -> None:
    held = f"{LOCKS} WHERE locktype = 'advisory' AND classid = %s AND datname = current_database()"
    with ImportService(settings, run_id="run-1") as service:
        service.import_pairs([])
        for _ in range(2):
            assert query(settings, f"SELECT count(*) {held}", RUN_LOCK) == [(1,)]
            query(settings, f"SELECT pg_terminate_backend(pid, 10000) {held}", RUN_LOCK)
            assert query(settings, f"SELECT count(*) {held}", RUN_LOCK) == [(0,)]
            service.find_states()


def count(settings: Settings) -> int:
    with connect(settings) as conn:
        return count_unreported(conn, settings.state_table)


def fork(work: Callable[[], object]) -> int:
    """Do something in a process of its own, which has loaded what this one has."""
    pid = os.fork()
    if pid == 0:
        _be(work)
    return pid


def _be(work: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into the tests
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


# Killed.

TABLES = ("parity_announcements", "dagster.dynamic_partitions", "dagster.event_logs", "dagster.asset_keys")


class Tripwire:
    """Stops whoever makes the n-th change, before it, after it, and in its commit, until he is killed."""

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url is not None
        self.conn = psycopg.connect(settings.database_url.get_secret_value(), autocommit=True)
        self.conn.execute(
            """
            CREATE SEQUENCE tripwire;
            CREATE TABLE tripwire_at AS SELECT 0::bigint AS number;
            CREATE FUNCTION trip() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('public.tripwire') = (SELECT number FROM public.tripwire_at) THEN
                    PERFORM pg_advisory_lock_shared(4711);
                END IF;
                RETURN NULL;
            END $$
            """
        )
        for number, table in enumerate(TABLES):
            for moment in ("BEFORE", "AFTER"):
                self.conn.execute(
                    f"CREATE TRIGGER {moment}_{number} {moment} INSERT OR UPDATE OR DELETE ON {table}"
                    " FOR EACH STATEMENT EXECUTE FUNCTION trip()"
                )
            self.conn.execute(
                f"CREATE CONSTRAINT TRIGGER commit_{number} AFTER INSERT OR UPDATE OR DELETE ON {table}"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trip()"
            )

    def set(self, number: int) -> None:
        self.conn.execute("SELECT pg_advisory_lock(4711)")
        self.conn.execute("ALTER SEQUENCE tripwire RESTART")
        self.conn.execute("UPDATE tripwire_at SET number = %s", (number,))

    def has_caught(self) -> bool:
        return self._are_waiting("objid = 4711")

    def makes_wait(self) -> bool:
        """Whether somebody waits for whom it has caught."""
        return self._are_waiting("objid IS DISTINCT FROM 4711")

    def _are_waiting(self, condition: str) -> bool:
        statement = f"SELECT {LOCKS} WHERE datname = current_database() AND NOT granted AND {condition}"
        return bool(self.conn.execute(statement.encode()).fetchall())

    def let_go(self) -> None:
        self.conn.execute("SELECT pg_advisory_unlock(4711)")


# I15
@pytest.mark.long
@pytest.mark.parametrize("step", quick(1, [7, 1]))
def test_killed_at_every_change_each_pair_is_shown_once(
    instance: dg.DagsterInstance, settings: Settings, step: int
) -> None:
    """The next one begins at once, while the server may still be at what the dead one has sent."""
    pairs = insert(settings, 3)
    wire = Tripwire(settings)
    number, kills, rivals = 0, 0, 0
    while True:
        number += step
        for table in TABLES:
            wire.conn.execute(f"TRUNCATE {table}".encode())
        with connect(settings) as conn:
            have_all_reported(conn, settings.state_table)
        wire.set(number)
        pid = fork(lambda: _report_anew(settings))
        ended = 0
        while not ended and not wire.has_caught():
            ended, _ = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        if ended:
            wire.let_go()
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
        successor = threading.Thread(target=report_pending, args=(instance, settings))
        successor.start()
        while successor.is_alive() and not wire.makes_wait():
            time.sleep(0.005)
        rivals += successor.is_alive()
        wire.let_go()
        successor.join()
        assert sorted(state.pair for state in shown(instance)) == sorted(pairs), f"killed at change {number}"
        assert owed(settings) == 0
        assert instance.has_asset_key(RECORDS_KEY)
    wire.conn.close()
    assert kills >= 20 // step
    assert rivals or step > 1, "no successor ever met what the dead one had left under way"
    assert len(shown(instance)) == len(pairs)


def _report_anew(settings: Settings) -> None:
    with parity_instance(settings) as instance:
        report_pending(instance, settings)
