"""What an ending deletes and counts rests on the pages of its own walk, whoever begins and ends it, and wherever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg
import pytest

from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import ImportStatus, Pair, WalkPosition
from parity_dagster.orchestration.partitions import register_dids
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect, migrate
from parity_dagster.store.live import prune_tombstones
from parity_dagster.store.pages import PageStore
from parity_dagster.store.sessions import open_session
from parity_dagster.store.states import StateStore
from parity_dagster.store.writes import Counts, Ending, LostClaim, PairWrite, UnprovenEnding
from parity_dagster_tests.command_line import call, variables
from parity_dagster_tests.dagster_runs import one, rectangle, run
from parity_dagster_tests.imports import assert_equal, listed, new_importer, query, settings_for, stored
from parity_dagster_tests.quick import quick

RECORDS = 25
PAGE = 10
REV = "3kbbbbbbbbb2a"
TRIPWIRE = 4711
EMPTY = {"kind": "no-records", "method": "listRecords"}


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    return template_with_dagster


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings_for(settings, network, page_size=PAGE, collections=(POST, LIKE), writers=1)


@pytest.fixture
def service(settings: Settings) -> Iterator[ImportService]:
    with ImportService(settings, report=False) as service:
        yield service


@pytest.fixture
def other(settings: Settings) -> Settings:
    """Another project's settings, in the same database."""
    other = settings.model_copy(update={"state_table": "other_states"})
    migrate(other)
    return other


def break_off(network: SampleNetwork, after: int) -> None:
    """Let the PDS fail once it has shown so many pages."""
    network.behave(faults=[{"kind": "503", "method": "listRecords", "skip": after}])


@contextmanager
def held_back(settings: Settings, table: str, event: str) -> Iterator[Callable[..., None]]:
    """Hold back every change of a table; what is given waits until one does."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as barrier:
        barrier.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN PERFORM pg_advisory_xact_lock_shared({TRIPWIRE}); RETURN NULL; END$$"
        )
        barrier.execute(f"CREATE TRIGGER wait AFTER {event} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION wait()")
        barrier.execute("SELECT pg_advisory_lock(%s)", (TRIPWIRE,))

        def wait(number: int = 1) -> None:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                row = barrier.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                ).fetchone()
                if row is not None and row[0] >= number:
                    return
                time.sleep(0.01)
            raise AssertionError("nobody waits")

        yield wait
        barrier.execute("SELECT pg_advisory_unlock(%s)", (TRIPWIRE,))


# A refresh that was queued.


def by_resume(settings: Settings, pair: Pair) -> None:
    result = call("import", "--resume", env=variables(settings, PARITY_PAGE_SIZE=str(PAGE)))
    assert result.exit_code == 0, result.output


def by_the_queue(settings: Settings, pair: Pair) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        (request,) = launch_due(instance, settings)
        assert run(settings, instance, "import_records", config=request.run_config, tags=request.tags).success


def by_a_job(settings: Settings, pair: Pair) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register_dids(instance, [pair.did])
        assert run(settings, instance, tags=one(pair)).success


def by_a_backfill(settings: Settings, pair: Pair) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register_dids(instance, [pair.did])
        assert run(settings, instance, tags=rectangle(pair, pair)).success


# I1
@pytest.mark.parametrize(
    ("take_up", "records"),
    quick(
        2,
        [(by_resume, 3), (by_the_queue, RECORDS), (by_resume, RECORDS), (by_a_job, RECORDS), (by_a_backfill, RECORDS)],
    ),
)
def test_a_queued_refresh_leaves_the_table_as_the_network_is(
    take_up: Callable[[Settings, Pair], None],
    records: int,
    settings: Settings,
    network: Running,
) -> None:
    sample = network.network
    pair = Pair(sample.add_account({POST: records}), POST)
    env = variables(settings, PARITY_PAGE_SIZE=str(PAGE))
    refresh = ("import", pair.did, "--collection", POST, "--refresh", "--queue")
    assert call("import", pair.did, "--collection", POST, env=env).exit_code == 0
    assert_equal(settings, sample, *pair)
    for change in (lambda: None, lambda: sample.delete_record(*pair, min(sample.records(*pair))), lambda: None):
        change()
        assert call(*refresh, env=env).exit_code == 0
        take_up(settings, pair)
        assert_equal(settings, sample, *pair)


def test_a_refresh_that_fails_before_its_first_page_keeps_the_counts(
    settings: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: RECORDS})
    service.import_user_collection(did, POST)
    network.network.put_record(did, POST)
    break_off(network.network, 0)
    for _ in range(2):
        assert service.import_user_collection(did, POST, refresh=True).records_synced == RECORDS
    network.network.behave_normally()
    assert service.import_user_collection(did, POST).completed
    assert_equal(settings, network.network, did, POST)


# Pages that are not all there.


# I2
@pytest.mark.parametrize("gone", quick(2, ["page = 1", "true", "page = 2", "page = 3"]))
def test_a_walk_whose_pages_are_lost_on_the_way_fails_deletes_nothing_and_is_read_again(
    gone: str, settings: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: 5 * PAGE})
    service.import_user_collection(did, POST)
    for rkey in sorted(sample.records(did, POST))[::7]:
        sample.delete_record(did, POST, rkey)
    before = stored(settings, did, POST)

    def lose(event: Any) -> None:
        if getattr(event, "pages", 0) == 3:
            query(settings, f"DELETE FROM parity_walk_pages WHERE {gone}")

    sample.behave(latency=0.05)  # so that each page is a transaction
    result = service.import_user_collection(did, POST, refresh=True, on_progress=lose)
    sample.behave_normally()
    assert (result.completed, result.error_code) == (False, "pages_missing")
    assert "parity import --resume" in str(result.error)
    assert stored(settings, did, POST) == before
    state = service.get_status(did, POST)
    assert state is not None
    assert state.status is ImportStatus.FAILED
    assert state.next_attempt_at is not None, "tried again by itself"
    sample.log.clear()
    (again,) = service.resume_all()
    assert again.completed
    assert sample.log.cursors(did, POST)[0] is None
    assert_equal(settings, sample, did, POST)
    assert query(settings, "SELECT count(*) FROM parity_walk_pages") == [(0,)]


@pytest.mark.parametrize("gone", quick(2, ["page = 1", "true", "page = 2"]))
def test_an_interrupted_walk_whose_pages_are_lost_begins_again(
    gone: str, settings: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: 5 * PAGE})
    break_off(sample, 2)
    assert not service.import_user_collection(did, POST).completed
    query(settings, f"DELETE FROM parity_walk_pages WHERE {gone}")
    sample.behave_normally()
    sample.log.clear()
    assert service.import_user_collection(did, POST).completed
    assert sample.log.cursors(did, POST)[0] is None
    assert_equal(settings, sample, did, POST)


EVIDENCE = {
    "all pages": ([(1, 2, "parity_import_states"), (2, 2, "parity_import_states")], True),
    "none": ([], False),
    "the first is missing": ([(2, 2, "parity_import_states")], False),
    "the last is missing": ([(1, 2, "parity_import_states")], False),
    "one too many": ([(n, 2, "parity_import_states") for n in (1, 2, 3)], False),
    "others in their place": ([(n, 2, "parity_import_states") for n in (2, 3)], False),
    "another walk's": ([(n, 1, "parity_import_states") for n in (1, 2)], False),
    "one of another walk": ([(1, 1, "parity_import_states"), (2, 2, "parity_import_states")], False),
    "another table's": ([(n, 2, "other_states") for n in (1, 2)], False),
    "one of another table": ([(1, 2, "other_states"), (2, 2, "parity_import_states")], False),
}


# I12
def test_who_does_not_hold_a_pair_writes_nothing_of_it(settings: Settings) -> None:
    """The statement itself, given to an importer that has not noticed yet that another one holds the pair."""
    pair = Pair("did:plc:z72i7hdynmk6r22z27h6tvur", POST)

    async def write() -> None:
        async with await open_session(settings) as conn:
            states, store = StateStore(settings.state_table), PageStore(settings.state_table)
            late, holder = [await new_importer(conn, states) for _ in range(2)]
            (claim,) = await states.claim(conn, [pair], holder, None, refresh=False)
            await store.prepare(conn)
            page = PairWrite(
                state_id=claim.state.id, did=pair.did, collection=pair.collection,
                position=WalkPosition(1, "https://pds", REV, REV, "next", pages=1), counts=Counts(9, 9, 9), attempts=0,
                is_new_walk=True, is_counted=False, is_direct=False, is_fresh=True, ending=None,
            )  # fmt: skip
            with pytest.raises(LostClaim):
                await store.save(conn, late, [page])
            await store.save(conn, holder, [page])

    asyncio.run(write())
    assert query(settings, "SELECT pages FROM parity_import_states") == [(1,)]


# I2
@pytest.mark.parametrize("case", quick(5, EVIDENCE))
def test_only_the_pages_of_the_very_walk_let_an_ending_delete_and_count(
    case: str, settings: Settings, other: Settings
) -> None:
    """The statements themselves, told that the walk is complete."""
    rows, is_enough = EVIDENCE[case]
    pair = Pair("did:plc:z72i7hdynmk6r22z27h6tvur", POST)
    for rkey in ("seen", "gone"):
        query(
            settings,
            "INSERT INTO atproto_records (did, collection, rkey, value, rev) VALUES (%s, %s, %s, '{}', %s)",
            *pair, rkey, "3kaaaaaaaaa2a",
        )  # fmt: skip
    query(
        settings,
        "INSERT INTO parity_failed_records (did, collection, fingerprint, reason, detail, body, walk)"
        " VALUES (%s, %s, 'gone', '', '', '', 1)",
        *pair,
    )

    async def end() -> None:
        async with await open_session(settings) as conn:
            states, store = StateStore(settings.state_table), PageStore(settings.state_table)
            importer = await new_importer(conn, states)
            (claim,) = await states.claim(conn, [pair], importer, None, refresh=False)
            for page, walk, table in rows:
                await conn.execute(
                    "INSERT INTO parity_walk_pages (state_table, state_id, walk, page, rkeys, skipped_rkeys, failed)"
                    " VALUES (%s::regclass, %s, %s, %s, '{seen}', '{}', '{}')",
                    (table, claim.state.id, walk, page),
                )
            await store.prepare(conn)
            write = PairWrite(
                state_id=claim.state.id, did=pair.did, collection=pair.collection,
                position=WalkPosition(2, "https://pds", REV, REV, None, pages=2), counts=Counts(9, 9, 9), attempts=0,
                is_new_walk=False, is_counted=False, is_direct=False, is_fresh=False, ending=Ending(),
            )  # fmt: skip
            if is_enough:
                await store.save(conn, importer, [write])
                return
            with pytest.raises(UnprovenEnding):
                await store.save(conn, importer, [write])
            # what the transaction above has undone would not have been done either
            await store._update_states(conn, importer, [write])
            await store._recount(conn, [write])
            await store._sweep(conn, write)

    asyncio.run(end())
    left = {rkey for (rkey,) in query(settings, "SELECT rkey FROM atproto_records")}
    assert left == ({"seen"} if is_enough else {"seen", "gone"})
    assert query(settings, "SELECT count(*) FROM parity_failed_records") == [(0 if is_enough else 1,)]
    counts = "SELECT records_synced, records_skipped, records_failed FROM parity_import_states"
    assert query(settings, counts) == [(1, 0, 0) if is_enough else (9, 9, 9)]


# I10
def test_an_unchanged_pair_is_touched_nowhere(settings: Settings, network: Running, service: ImportService) -> None:
    did = network.network.add_account({POST: RECORDS})
    service.import_user_collection(did, POST)
    tables = ("atproto_records", "parity_failed_records", "parity_tombstones", "parity_walk_pages")
    service.delete_record(f"at://{did}/{POST}/3jzfcijpj2z2a", network.network.rev(did))
    before = [query(settings, f"SELECT t::text, xmin::text FROM {table} t ORDER BY 1") for table in tables]
    counts = "SELECT records_synced, walk, pages, rev, fence_rev FROM parity_import_states"
    counted = query(settings, counts)
    for _ in range(2):
        assert service.import_user_collection(did, POST, refresh=True).completed
    assert [query(settings, f"SELECT t::text, xmin::text FROM {table} t ORDER BY 1") for table in tables] == before
    assert query(settings, counts) == counted


def test_a_small_new_pair_is_one_transaction_without_page_rows(
    settings: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: 5})
    query(
        settings,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'a page row was written'; END$$",
    )
    query(settings, "CREATE TRIGGER r AFTER INSERT ON parity_walk_pages FOR EACH ROW EXECUTE FUNCTION refuse()")
    network.network.behave(last_cursor=False)
    with held_back(settings, "parity_identities", "INSERT") as wait:  # so that page and ending meet in one batch
        importing = threading.Thread(target=service.import_user_collection, args=(did, POST))
        importing.start()
        wait()
    importing.join()
    assert_equal(settings, network.network, did, POST)


def test_a_reset_while_a_page_is_committed_leaves_no_page_behind(
    settings: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: 5 * PAGE})
    break_off(network.network, 2)
    with ImportService(settings, report=False) as resetting:
        importing = threading.Thread(target=service.import_user_collection, args=(did, POST))
        reset = threading.Thread(target=resetting.reset_user, args=(did,))
        with held_back(settings, "parity_walk_pages", "INSERT") as wait:
            importing.start()
            wait(1)
            reset.start()
            wait(2)
        importing.join()
        reset.join()
    assert query(settings, "SELECT count(*) FROM parity_import_states") == [(0,)]
    assert query(settings, "SELECT count(*) FROM parity_walk_pages") == [(0,)]


# Two projects in one database.


# I14
def test_two_projects_in_one_database_do_not_take_each_others_pages_for_their_own(
    settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    ours, theirs = (sample.add_account({POST: 5 * PAGE}) for _ in range(2))
    with ImportService(other, report=False) as others:
        break_off(sample, 3)
        service.import_user_collection(ours, POST)
        sample.behave_normally()
        assert others.import_user_collection(theirs, POST).completed
        (mine,), (its,) = service.find_states(), others.find_states()
        assert mine.id == its.id
        others.reset_user(theirs)
    assert service.import_user_collection(ours, POST).completed
    assert_equal(settings, sample, ours, POST)
    assert stored(settings, theirs, POST) == listed(sample, theirs, POST)


def test_failed_records_of_a_pair_that_two_projects_read_are_kept_and_counted_by_both(
    settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: 3 * PAGE})
    sample.add_odd(did, POST, ["nul", "value-null"])
    with ImportService(other, report=False) as others:
        others.import_user_collection(did, POST)
        sample.put_record(did, POST)
        break_off(sample, 2)
        assert not others.import_user_collection(did, POST, refresh=True).completed  # in its second walk
        sample.behave_normally()
        assert service.import_user_collection(did, POST).completed
        assert others.import_user_collection(did, POST).completed
        assert others.find_states()[0].records_failed == 2
    assert service.find_states()[0].records_failed == 2
    assert len(service.find_failed_records()) == 2
    assert_equal(settings, sample, did, POST)


# I12
def test_a_pair_that_another_project_is_reading_is_busy(
    settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: 3 * PAGE})
    with ImportService(other, report=False) as others:
        importing = threading.Thread(target=others.import_user_collection, args=(did, POST))
        with held_back(settings, "parity_walk_pages", "INSERT") as wait:
            importing.start()
            wait()
            result = service.import_user_collection(did, POST)
        importing.join()
    assert result.error_code == "busy"
    assert "process " in str(result.error)
    assert service.import_user_collection(did, POST).completed
    assert_equal(settings, network.network, did, POST)


# I12
def test_of_two_projects_that_want_a_pair_at_the_same_moment_one_gets_it(
    settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: PAGE})
    with ImportService(other, report=False) as others, ThreadPoolExecutor(2) as threads:
        with held_back(settings, settings.state_table, "UPDATE") as wait:
            ours = threads.submit(service.import_user_collection, did, POST)
            wait()
            theirs = threads.submit(others.import_user_collection, did, POST)
            wait(2)
            # ours is to find time for a page before theirs looks who has the pair
            assert query(settings, "SELECT status FROM other_states") == []
        results = [ours.result(), theirs.result()]
    assert results[0].completed
    assert results[1].error_code in ("busy", None)
    assert_equal(settings, network.network, did, POST)


def test_a_project_is_told_its_own_endings_whatever_another_one_tells(
    settings: Settings, other: Settings, network: Running
) -> None:
    sample = network.network
    ours, theirs = (Pair(sample.add_account({POST: 3}), POST) for _ in range(2))
    for each, pair in ((settings, ours), (other, theirs)):
        with ImportService(each, report=False) as service:
            service.import_user_collection(*pair)
        # as a process leaves it that is killed before it has told anybody
        query(
            settings,
            "INSERT INTO parity_announcements (state_table, did, collection, importer_id, fetched)"
            " VALUES (%s::regclass, %s, %s, 0, true)",
            each.state_table, *pair,
        )  # fmt: skip
    for each, pair in ((settings, ours), (other, theirs)):
        told: list[Any] = []
        with ImportService(each, listeners=[told.append], report=False) as service:
            service.import_user_collection(sample.add_account({POST: 1}), POST)
        known = {Pair(event.did, event.collection) for event in told}
        assert known & {ours, theirs} == {pair}


def test_old_tombstones_stay_while_another_projects_walk_is_older(
    settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    did = network.network.add_account({POST: 3 * PAGE})
    break_off(network.network, 2)
    with ImportService(other, report=False) as others:
        others.import_user_collection(did, POST)
    network.network.delete_record(did, POST, rkey := min(network.network.records(did, POST)))
    service.delete_record(f"at://{did}/{POST}/{rkey}", network.network.rev(did))
    query(settings, "UPDATE parity_tombstones SET deleted_at = now() - interval '2 days'")

    async def prune() -> int:
        async with await open_session(settings) as conn:
            return await prune_tombstones(conn, settings.state_table)

    assert asyncio.run(prune()) == 0
    with connect(settings) as conn:
        conn.execute("DROP TABLE other_states CASCADE")
    assert asyncio.run(prune()) == 1


# What the rows of a walk are marked with.


def test_a_host_without_revisions_does_not_bring_back_what_is_deleted_while_its_page_waits(
    settings: Settings, network: Running, service: ImportService
) -> None:
    """The page was shown before the deletion, and is looked at after it."""
    sample = network.network
    sample.behave(host="pds-1", sync_methods=False)
    first, second = sample.add_account({POST: 3}), sample.add_account({POST: 3})
    sample.behave(did=second, latency=0.2, sync_methods=False)
    sample.set_clock(second)
    pairs = [Pair(first, POST), Pair(second, POST)]
    with ImportService(settings, report=False) as live:
        importing = threading.Thread(target=service.import_pairs, args=(pairs,))
        with held_back(settings, "atproto_records", "INSERT") as wait:
            importing.start()
            wait()  # the only writer is at the first account's page
            while not sample.log.cursors(second, POST):
                time.sleep(0.01)
            time.sleep(1.5)
            rkey = min(sample.records(second, POST))
            sample.delete_record(second, POST, rkey)
            assert live.delete_record(f"at://{second}/{POST}/{rkey}", sample.rev(second))
        importing.join()
    assert stored(settings, second, POST) == listed(sample, second, POST)


@pytest.mark.parametrize("forget", quick(1, ["nothing", "interrupted", "reset", "other project"]))
def test_a_host_whose_clock_was_ahead_once_is_still_read_right(
    forget: str, settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: 3 * PAGE})
    sample.set_clock(did, ahead=20 * 3600)
    assert service.import_user_collection(did, POST).completed
    sample.set_clock(did)
    for number in range(3):
        rkeys = sorted(sample.records(did, POST))
        sample.delete_record(did, POST, rkeys[number])
        sample.put_record(did, POST, {"text": f"changed {number}"}, rkey=rkeys[number + 5])
        sample.put_record(did, POST, {"text": f"new {number}"})
        if forget == "reset":
            service.reset_user(did)
        if forget == "interrupted":
            break_off(sample, 2)
            assert not service.import_user_collection(did, POST, refresh=True).completed
            sample.behave_normally()
            assert service.import_user_collection(did, POST).completed
        with ImportService(other if forget == "other project" else settings, report=False) as reading:
            assert reading.import_user_collection(did, POST, refresh=True).completed
        assert stored(settings, did, POST) == listed(sample, did, POST), number


# I1
@pytest.mark.parametrize("again", quick(3, ["resume", "reread older", "reset", "refresh", "reread", "other project"]))
def test_an_empty_list_at_the_revision_of_a_full_one_is_not_believed_however_often_it_is_shown(
    again: str, settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: RECORDS})
    assert service.import_user_collection(did, POST).completed
    if again in ("refresh", "resume"):  # of which the first page is read
        sample.put_record(did, POST)
        break_off(sample, 1)
        assert service.import_user_collection(did, POST, refresh=True).is_partial
    sample.behave(faults=[{"kind": "refuse-cursor", "with_cursor": True}, EMPTY] if again == "refresh" else [EMPTY])
    if again == "reread older":  # of which no record was seen at the revision for the first time
        sample.behave_normally()
        sample.put_record(did, LIKE)
        assert service.import_user_collection(did, POST, refresh=True).is_success
        sample.behave(faults=[EMPTY])
    if again == "reset":
        service.reset_user(did)
    with ImportService(other if again == "other project" else settings, report=False) as reading:
        for _ in range(3):
            result = reading.import_user_collection(did, POST, refresh=True, reread="reread" in again)
            assert result.error_code == "server_error"
            assert len(stored(settings, did, POST)) >= RECORDS
    sample.behave_normally()
    assert service.import_user_collection(did, POST).completed
    assert_equal(settings, sample, did, POST)


# I11
def test_what_was_hidden_is_shown_again_whoever_fails_before_it_is_read(
    settings: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: RECORDS})
    break_off(sample, 1)
    assert service.import_user_collection(did, POST).is_partial
    sample.behave_normally()
    sample.set_status(did, "deactivated")
    assert service.import_user_collection(did, POST).error_code == "deactivated"
    sample.set_status(did, "active")
    break_off(sample, 0)
    assert service.import_user_collection(did, POST).error_code == "server_error"
    sample.behave_normally()
    assert service.import_user_collection(did, POST).completed
    assert_equal(settings, sample, did, POST)


# I11, I14
@pytest.mark.parametrize("copy", quick(1, ["queued again", "complete", "interrupted"]))
def test_what_one_project_hides_another_one_reads_again(
    copy: str, settings: Settings, other: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: RECORDS})
    with ImportService(other, report=False) as reading:
        if copy == "interrupted":
            break_off(sample, 1)
        assert reading.import_user_collection(did, POST).completed is (copy != "interrupted")
        sample.behave_normally()
        if copy == "queued again":
            assert reading.enqueue([Pair(did, POST)], refresh=True)
        sample.set_status(did, "takendown")
        assert service.import_user_collection(did, POST).error_code == "takendown"
        assert stored(settings, did, POST) == {}
        sample.set_status(did, "active")
        assert reading.import_user_collection(did, POST, refresh=True).completed
    assert stored(settings, did, POST) == listed(sample, did, POST)


# I1
def test_a_deletion_told_by_a_clock_that_was_ahead_does_not_keep_the_record_out_for_ever(
    settings: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({})
    sample.put_record(did, POST, rkey="self")
    assert service.import_user_collection(did, POST).completed
    sample.set_clock(did, ahead=20 * 3600)
    sample.delete_record(did, POST, "self")
    assert service.delete_record(f"at://{did}/{POST}/self", sample.rev(did))
    sample.set_clock(did)
    sample.put_record(did, POST, rkey="self")
    assert service.import_user_collection(did, POST, refresh=True).completed
    assert_equal(settings, sample, did, POST)


# I1
@pytest.mark.parametrize("reread", [False, True])
def test_what_a_live_event_told_of_the_very_revision_survives_a_list_that_lags_behind_it(
    reread: bool, settings: Settings, network: Running, service: ImportService
) -> None:
    sample = network.network
    did = sample.add_account({POST: RECORDS})
    assert service.import_user_collection(did, POST).completed
    rkey = sample.put_record(did, POST)
    cid, value = sample.records(did, POST)[rkey]
    service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", sample.rev(did), cid, value)])
    sample.accounts[did].repo.writable(POST).delete(rkey)  # of which the revision tells nothing
    assert service.import_user_collection(did, POST, refresh=True, reread=reread).is_success
    assert (rkey in stored(settings, did, POST)) is not reread, (
        "whoever rereads a copy that may be wrong believes the list"
    )
