"""Live events beside imports: whatever the order in which they arrive, the table ends as the network is."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

import psycopg
import pytest

from parity_dagster import (
    CollectionNotRegistered,
    ImportProgress,
    ImportService,
    InvalidIdentifier,
    LiveRecord,
    Pair,
    Settings,
)
from parity_dagster.models import WalkPosition
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.store.database import connect, connection_url
from parity_dagster.store.live import LiveBatch, LiveRow, delete_live, prune_tombstones, upsert_live
from parity_dagster.store.pages import PageStore
from parity_dagster.store.sessions import open_session
from parity_dagster.store.states import StateStore
from parity_dagster.store.writes import Counts, Ending, PageRow, PairWrite
from parity_dagster_tests.imports import OF_THIS_DATABASE, assert_equal, importing, new_importer, query
from parity_dagster_tests.quick import quick
from parity_dagster_tests.sample_mappers import ARTICLES

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
URI = f"at://{DID}/{POST}/3jzfcijpj2z2a"
OLD, REV, NEW = "3kaaaaaaaaa2a", "3kbbbbbbbbb2a", "3kccccccccc2a"


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=31)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})


@pytest.fixture
def service(settings: Settings) -> Iterator[ImportService]:
    with ImportService(settings, report=False) as service:
        yield service


def table(settings: Settings) -> dict[Pair, dict[str, tuple[str | None, Any]]]:
    """What the database holds: pair → rkey → (cid, value)."""
    found: dict[Pair, dict[str, tuple[str | None, Any]]] = {}
    with connect(settings) as connection:
        rows = connection.execute("SELECT did, collection, rkey, cid, value FROM atproto_records WHERE active")
        for did, collection, rkey, cid, value in rows:
            found.setdefault(Pair(did, collection), {})[rkey] = (cid, value)
    return found


def truth(network: SampleNetwork, pair: Pair) -> dict[str, tuple[str | None, Any]]:
    return {rkey: (cid, json.loads(value)) for rkey, (cid, value) in network.records(*pair).items()}


def post(text: str, rev: str = REV, uri: str = URI, cid: str | None = None) -> LiveRecord:
    return LiveRecord(uri, rev, cid or f"bafy{text}", {"$type": POST, "text": text})


def texts(settings: Settings) -> list[str]:
    return [value["text"] for _, value in table(settings).get(Pair(DID, POST), {}).values()]


def test_a_live_record_is_stored_and_replaced_by_newer_ones_only(settings: Settings, service: ImportService) -> None:
    assert service.upsert_records([post("first")]) == 1
    assert service.upsert_records([post("newer", NEW)]) == 1
    assert service.upsert_records([post("replayed")]) == 0
    assert texts(settings) == ["newer"]


def test_a_deleted_record_does_not_come_back_by_a_replay(settings: Settings, service: ImportService) -> None:
    service.upsert_records([post("first")])
    assert not service.delete_record(URI, OLD), "older than what is known"
    assert service.delete_record(URI, NEW)
    assert service.upsert_records([post("replayed")]) == 0
    assert texts(settings) == []
    assert service.upsert_records([post("again", "3kddddddddd2a")]) == 1
    assert texts(settings) == ["again"]


# I1, I8
def test_an_event_of_next_year_can_be_replaced_and_deleted(
    settings: Settings, service: ImportService, network: Running
) -> None:
    did = network.network.add_account({POST: 0})
    uri = f"at://{did}/{POST}/self"
    shown = "SELECT value->>'text' FROM atproto_records"
    future = [f"{year}aaaaaaaa2a" for year in ("4ca", "4cb", "4cc")]
    assert service.upsert_records([post("first", future[2], uri)]) == 1
    assert service.upsert_records([post("second", future[0], uri)]) == 1
    assert query(settings, shown) == [("second",)]
    assert service.delete_record(uri, future[1])
    assert service.upsert_records([post("third", future[0], uri), post("fourth", future[0], uri)]) == 1
    assert query(settings, shown) == [("fourth",)]
    assert service.import_user_collection(did, POST).completed
    assert query(settings, shown) == [], "the network has never had it"


# I11
def test_a_replay_does_not_show_records_of_an_inactive_account(
    settings: Settings, service: ImportService, network: Running
) -> None:
    sample = network.network
    did = sample.add_account({POST: 1})
    event = post("told", sample.rev(did), f"at://{did}/{POST}/self")
    newer = post("written since", "3lzzzzzzzzz2a", f"at://{did}/{POST}/self")
    service.upsert_records([event])
    sample.set_status(did, "takendown")
    assert service.import_user_collection(did, POST).error_code == "takendown"
    service.upsert_records([event])
    assert query(settings, "SELECT active FROM atproto_records") == [(False,)]
    service.upsert_records([newer])
    assert query(settings, "SELECT active FROM atproto_records") == [(True,)]


def test_of_one_batch_the_newest_version_of_a_record_counts(settings: Settings, service: ImportService) -> None:
    assert service.upsert_records([post("b", NEW), post("a", REV), post("c", NEW)]) == 1
    assert texts(settings) == ["c"]
    assert service.upsert_records([]) == 0


def test_values_may_be_json_bytes(settings: Settings, service: ImportService) -> None:
    service.upsert_records([LiveRecord(URI, REV, "bafya", b'{"text": "b\\u00fctes"}')])
    assert texts(settings) == ["bütes"]


@pytest.mark.parametrize(
    ("uri", "rev", "error"),
    [
        ("https://bsky.app/profile/x", REV, InvalidIdentifier),
        (f"at://{DID}/{POST}", REV, InvalidIdentifier),
        (f"at://alice.test/{POST}/abc", REV, InvalidIdentifier),
        (URI, "yesterday", InvalidIdentifier),
        (f"at://{DID}/com.example.other/abc", REV, CollectionNotRegistered),
    ],
)
def test_what_names_no_record_of_ours_is_refused_and_nothing_is_written(
    settings: Settings, service: ImportService, uri: str, rev: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        service.upsert_records([post("good"), post("bad", rev, uri)])
    with pytest.raises(error):
        service.delete_record(uri, rev)
    assert table(settings) == {}


def test_a_live_record_that_cannot_be_stored_costs_only_itself(settings: Settings, service: ImportService) -> None:
    values: list[dict[str, Any] | bytes] = [
        {"text": "\x00"}, {"text": "\ud800"}, b"[1]", b"{broken", {"n": 10**5000},
    ]  # fmt: skip
    bad = [
        LiveRecord(f"at://{DID}/{POST}/{number}", REV, f"bafy{number}", value) for number, value in enumerate(values)
    ]
    service.upsert_records([post("known", OLD, bad[0].uri)])
    assert service.upsert_records([*bad, post("good")]) == len(bad) + 1
    assert texts(settings) == ["good"], "the version before is out of date, so it goes"
    with connect(settings) as connection:
        failed = connection.execute("SELECT rkey, body FROM parity_failed_records ORDER BY rkey").fetchall()
    assert [rkey for rkey, _ in failed] == [str(number) for number in range(len(bad))]
    assert all(f'"at://{DID}/{POST}/{rkey}"'.encode() in body for rkey, body in failed)
    service.upsert_records([post("mended", NEW, bad[0].uri)])
    with connect(settings) as connection:
        row = connection.execute("SELECT count(*) FROM parity_failed_records WHERE rkey = '0'").fetchone()
    assert row == (0,), "what is mended is not tried again"


def test_an_event_with_an_impossible_record_key_costs_only_itself(settings: Settings, service: ImportService) -> None:
    """Strangers choose the keys; a consumer that stopped at one would stop at it for ever."""
    keys = ["a b%20$!", "a/b", "", "x" * 513, "nul\x00"]
    odd = [LiveRecord(f"at://{DID}/{POST}/{key}", REV, "bafy", {"text": key}) for key in keys]
    assert service.upsert_records([*odd, post("good"), *odd]) == len(odd) + 1
    assert texts(settings) == ["good"]
    with connect(settings) as connection:
        failed = connection.execute("SELECT rkey, reason FROM parity_failed_records").fetchall()
    assert failed == [(None, "invalid_rkey")] * len(keys), "kept, each once"
    assert all(service.delete_record(record.uri, NEW) for record in odd)
    assert texts(settings) == ["good"]


def test_the_state_tells_where_a_consumer_may_start(service: ImportService, network: Running) -> None:
    did = network.network.add_account({POST: 5})
    rev = network.network.rev(did)
    service.import_user_collection(did, POST)
    state = service.get_status(did, POST)
    assert state is not None
    assert state.rev == rev


def test_a_walk_forgets_the_deletions_that_it_began_after(
    settings: Settings, service: ImportService, network: Running
) -> None:
    did = network.network.add_account({POST: 5})
    rkey = network.network.put_record(did, POST)
    network.network.delete_record(did, POST, rkey)
    service.delete_record(f"at://{did}/{POST}/{rkey}", network.network.rev(did))
    with connect(settings, autocommit=True) as connection:
        count = "SELECT count(*) FROM parity_tombstones"
        assert connection.execute(count).fetchone() == (1,)
        service.import_user_collection(did, POST)
        assert connection.execute(count).fetchone() == (0,)
        service.delete_record(f"at://{did}/{POST}/later", "7777777777777")
        asyncio.run(_prune(settings))
        assert connection.execute(count).fetchone() == (1,), "and not a day old"
        connection.execute("UPDATE parity_tombstones SET deleted_at = now() - interval '2 days'")
        connection.execute("UPDATE parity_import_states SET status = 'failed'")
        asyncio.run(_prune(settings))
        assert connection.execute(count).fetchone() == (1,), "a walk that may be resumed is older"
        connection.execute("UPDATE parity_import_states SET status = 'completed'")
        asyncio.run(_prune(settings))
        assert connection.execute(count).fetchone() == (0,)


# I8
def test_a_record_that_failed_and_is_deleted_is_not_tried_again(
    settings: Settings, service: ImportService, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    rkey = network.network.put_record(did, POST, b'{"$type":"x","text":"\\u0000"}')
    service.import_user_collection(did, POST)
    assert [failed.rkey for failed in service.find_failed_records(did)] == [rkey]
    network.network.delete_record(did, POST, rkey)
    service.delete_record(f"at://{did}/{POST}/{rkey}", network.network.rev(did))
    assert service.find_failed_records(did) == []


# I8
def test_a_walk_forgets_no_deletion_that_it_may_not_have_seen(settings: Settings) -> None:
    """Else a replay of what happened during the walk would bring the record back."""
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    events: list[tuple[str, str]] = []
    with importing(settings, network, page_size=10, page_delay=200) as (service, _):

        def come_and_go(progress: ImportProgress) -> None:
            if not events:
                rkey = network.put_record(did, POST)
                events.append((f"at://{did}/{POST}/{rkey}", network.rev(did)))
                network.delete_record(did, POST, rkey)
                uri, created = events[0]
                assert service.upsert_records([post("live", created, uri)]) == 1
                assert service.delete_record(uri, network.rev(did))

        assert service.import_user_collection(did, POST, on_progress=come_and_go).completed
        uri, created = events[0]
        assert service.upsert_records([post("replayed", created, uri)]) == 0
        assert_equal(settings, network, did, POST)


def test_old_deletions_are_forgotten_with_the_next_one(
    settings: Settings, service: ImportService, network: Running
) -> None:
    """However few a process handles before it is started anew."""
    did = network.network.add_account({POST: 1})
    service.import_user_collection(did, POST)
    service.delete_record(f"at://{did}/{POST}/old", "7777777777777")
    with connect(settings, autocommit=True) as connection:
        connection.execute("UPDATE parity_tombstones SET deleted_at = now() - interval '2 days'")
        with ImportService(settings, report=False) as restarted:
            restarted.delete_record(f"at://{did}/{POST}/new", "7777777777777")
        assert connection.execute("SELECT rkey FROM parity_tombstones").fetchall() == [("new",)]


async def _prune(settings: Settings) -> None:
    async with await open_session(settings) as conn:
        await prune_tombstones(conn, settings.state_table)


# I7
def test_an_event_waits_for_the_page_that_is_being_committed(
    settings: Settings, service: ImportService, network: Running
) -> None:
    """The one race that no comparison of what is committed can see: neither knows of the other's row."""
    did = network.network.add_account({LIKE: 1})
    rkey = network.network.put_record(did, POST)
    rev = network.network.rev(did)
    blocked = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'parity_announcements'::regclass"
        f" AND {OF_THIS_DATABASE}"
    )
    with (
        ImportService(settings) as importer,  # one that has an ending to announce
        psycopg.connect(connection_url(settings)) as barrier,
        ThreadPoolExecutor() as threads,
    ):
        # The last thing that a page's transaction needs before its commit.
        barrier.execute("LOCK TABLE parity_announcements IN ACCESS EXCLUSIVE MODE")
        page = threads.submit(importer.import_user_collection, did, POST)
        try:
            while barrier.execute(blocked).fetchone() != (1,):
                assert not page.done()
                time.sleep(0.02)
            event = threads.submit(service.delete_record, f"at://{did}/{POST}/{rkey}", _later(rev))
            time.sleep(0.3)
            assert not event.done()
        finally:
            barrier.commit()
        assert page.result(10).records_synced == 1
        assert event.result(10)
    assert Pair(did, POST) not in table(settings)


def _later(rev: str) -> str:
    return f"{rev[:-4]}zzzz"


def test_mappers_are_asked_about_live_records_too(settings: Settings) -> None:
    mapped = settings.model_copy(update={"mappers": ("parity_dagster_tests.sample_mappers:Articles",)})
    with connect(settings, autocommit=True) as connection:
        connection.execute(ARTICLES)
        with ImportService(mapped, report=False) as service:
            live = {rkey: f"at://{DID}/{POST}/{rkey}" for rkey in ("good", "skipped", "refused", "constraint")}
            service.upsert_records([post("fine", OLD, uri) for uri in live.values()])
            assert service.upsert_records([
                post("better", REV, live["good"]),
                post("skip this", REV, live["skipped"]),
                post("bad", REV, live["refused"]),
                LiveRecord(live["constraint"], REV, "bafyc", {"text": "long " * 200}),
            ]) == 4  # fmt: skip
            assert service.upsert_records([post("skip no more", OLD, live["skipped"])]) == 0
            titles = connection.execute("SELECT rkey, title FROM articles").fetchall()
            assert titles == [("good", "better")]
            assert texts(settings) == ["better"]
            failed = connection.execute("SELECT rkey, reason FROM parity_failed_records ORDER BY rkey").fetchall()
            assert failed == [("constraint", "mapper_refused"), ("refused", "mapper_refused")]
            assert service.delete_record(live["good"], NEW)
            assert connection.execute("SELECT count(*) FROM articles").fetchone() == (0,)


# All interleavings, one by one.


class Scenario(NamedTuple):
    """One record's life, and where a walk and its page fall into it."""

    starts: bool
    """Whether the record, and a row of an earlier walk, are there at first."""
    operations: tuple[str, ...]
    fence: int
    """Operations done when the walk reads the revision."""
    read: int
    """Operations done when the page is read."""
    written: int
    """Events delivered when the page is written."""
    is_direct: bool


def scenarios() -> list[Scenario]:
    found = []
    for starts, length in itertools.product((False, True), (0, 1, 2, 3, 4, 5)):
        for operations in itertools.product(("put", "delete"), repeat=length):
            there = starts
            for operation in operations:
                if operation == "delete" and not there:
                    break
                there = operation == "put"
            else:
                for fence, read, written in itertools.product(range(length + 1), repeat=3):
                    if fence <= read:
                        for is_direct in (False,) if starts else (False, True):
                            found.append(Scenario(starts, operations, fence, read, written, is_direct))
    longest = [case for case in found if len(case.operations) == 5]
    return [case for case in found if len(case.operations) < 5] + random.Random(1).sample(longest, 400)


# I7, I8
@pytest.mark.parametrize("every", quick(1, [7, 1]))
def test_every_order_of_page_and_events_ends_with_the_truth(settings: Settings, every: int) -> None:
    """Each scenario is an account of its own, and all of them take their steps at the same time."""
    cases = scenarios()[::every]
    assert len(cases) > 2_300 / every
    ends = asyncio.run(_play(settings, cases))
    wrong = [(case, ends.get(n), _truth(case, len(case.operations))) for n, case in enumerate(cases)
             if ends.get(n) != _truth(case, len(case.operations))]  # fmt: skip
    assert not wrong, f"{len(wrong)} of {len(cases)}, such as {wrong[:3]}"


def _did(number: int) -> str:
    return f"did:plc:{number:024d}".translate(str.maketrans("0189", "abcd"))


def _rev(count: int) -> str:
    return f"3k{count}aaaaaaaaaa".replace("0", "2").replace("1", "3") if count < 2 else f"3k{count + 2}aaaaaaaaaa"


def _truth(case: Scenario, count: int) -> str | None:
    """The record's version after so many operations."""
    version = "v0" if case.starts else None
    for number, operation in enumerate(case.operations[:count], start=1):
        version = f"v{number}" if operation == "put" else None
    return version


async def _play(settings: Settings, cases: list[Scenario]) -> dict[int, str]:
    store, states = PageStore(settings.state_table), StateStore(settings.state_table)
    async with await open_session(settings) as conn:
        await store.prepare(conn)
        importer = await new_importer(conn, states)
        claims = await states.claim(
            conn, [Pair(_did(n), POST) for n in range(len(cases))], importer, None, refresh=False
        )
        ids = {claim.state.did: claim.state.id for claim in claims}
        assert len(claims) == len(cases)
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO atproto_records (did, collection, rkey, cid, value, rev) VALUES (%s, %s, 'k', %s, %s, %s)",
                [(_did(n), POST, "v0", '{"v": "v0"}', _rev(0)) for n, case in enumerate(cases) if case.starts],
            )
        for step in range(6):
            await store.save(conn, importer, [
                _page(case, _did(n), ids[_did(n)]) for n, case in enumerate(cases) if case.written == step
            ])  # fmt: skip
            events = [(n, case.operations[step]) for n, case in enumerate(cases) if step < len(case.operations)]
            puts = [LiveRow(_did(n), POST, "k", _rev(step + 1), f"v{step + 1}", b'{"v": "v%d"}' % (step + 1))
                    for n, operation in events if operation == "put"]  # fmt: skip
            if puts:
                await upsert_live(conn, settings.state_table, LiveBatch(puts))
            for n, operation in events:
                if operation == "delete":
                    await delete_live(conn, _did(n), POST, "k", _rev(step + 1))
        numbers = {_did(n): n for n in range(len(cases))}
        cursor = await conn.execute("SELECT did, cid, value->>'v' FROM atproto_records")
        found = await cursor.fetchall()
    assert all(cid == value for _, cid, value in found)
    return {numbers[did]: cid for did, cid, _ in found}


def _page(case: Scenario, did: str, state_id: int) -> PairWrite:
    version = _truth(case, case.read)
    rows = [("k", version, b'{"v": "%b"}' % version.encode())] if version else []
    # A row that a live event has put there sends a first import through the upsert, as the writer does it.
    is_direct = case.is_direct and not (rows and case.written and _truth(case, case.written))
    return PairWrite(
        state_id=state_id, did=did, collection=POST, attempts=0,
        position=WalkPosition(1, "https://pds", _rev(case.fence), _rev(case.fence), None, pages=1),
        counts=Counts(len(rows)), is_new_walk=True, is_counted=False, is_direct=is_direct,
        is_fresh=not case.starts, rows=list(rows),
        page_rows=[PageRow(1, [row[0] for row in rows], [], [])], ending=Ending(),
    )  # fmt: skip


# Everything at once, with threads, sockets and transactions as they come.


@pytest.mark.long
def test_imports_and_a_stream_of_events_racing_on_the_same_records_end_with_the_truth(
    settings: Settings, network: Running
) -> None:
    dice = random.Random(7)
    sample = network.network
    sample.behave(page_cap=5, jitter=0.004)
    pairs = [Pair(sample.add_account({POST: 20, LIKE: 20}), nsid) for nsid in (POST, LIKE) for _ in range(15)]
    events: SimpleQueue[Callable[[ImportService], object] | None] = SimpleQueue()
    is_over = threading.Event()
    done = {"create": 0, "update": 0, "delete": 0}

    def author() -> None:
        """Write to the repositories; each commit's event is sent before the next commit, as a PDS does."""
        while not is_over.is_set():
            did, nsid = dice.choice(pairs)
            keys = list(sample.records(did, nsid))
            kind = dice.choice(["create", "update", "update", "delete"]) if len(keys) > 5 else "create"
            rkey = None if kind == "create" else dice.choice(keys[-8:])
            with sample.lock:
                if kind == "delete":
                    assert rkey is not None
                    sample.delete_record(did, nsid, rkey)
                    uri, rev = f"at://{did}/{nsid}/{rkey}", sample.rev(did)
                    events.put(lambda service, uri=uri, rev=rev: service.delete_record(uri, rev))  # type: ignore[misc]
                else:
                    value = {"$type": nsid, "text": f"{kind} {dice.random()}"}
                    rkey = sample.put_record(did, nsid, value, rkey=rkey)
                    cid = sample.records(did, nsid)[rkey][0]
                    record = LiveRecord(f"at://{did}/{nsid}/{rkey}", sample.rev(did), cid, value)
                    events.put(lambda service, record=record: service.upsert_records([record]))  # type: ignore[misc]
            done[kind] += 1
            time.sleep(0.003)
        events.put(None)

    def consume() -> int:
        """Hand the events over, sometimes late, sometimes again from an earlier one."""
        rng, count = random.Random(8), 0
        recent: list[Callable[[ImportService], object]] = []
        with ImportService(settings, report=False) as service:
            while (event := events.get()) is not None:
                if rng.random() < 0.02:
                    time.sleep(rng.random() * 0.02)
                recent = [*recent[-20:], event]
                for each in recent[-rng.randrange(1, 20) :] if rng.random() < 0.02 else [event]:
                    each(service)
                    count += 1
        return count

    with ThreadPoolExecutor() as threads:
        author_done, consumed = threads.submit(author), threads.submit(consume)
        walks = 0
        try:
            with ImportService(settings, report=False) as service:
                # As much as this, however quick the machine is.
                while not author_done.done() and (walks < 100 or sum(done.values()) < 600 or min(done.values()) < 60):
                    results = service.import_pairs(dice.sample(pairs, 10), refresh=True)
                    assert [result.error for result in results if result.error] == []
                    walks += len(results)
                    if dice.random() < 0.2:
                        service.reset(*dice.choice(pairs))
                service.import_pairs(pairs)
        finally:
            is_over.set()
        author_done.result(30)
        assert consumed.result(60) >= sum(done.values())
    found = table(settings)
    wrong = {pair for pair in pairs if found.get(pair, {}) != truth(sample, pair)}
    assert not wrong, f"{len(wrong)} of {len(pairs)} pairs differ after {walks} walks and {done}"
