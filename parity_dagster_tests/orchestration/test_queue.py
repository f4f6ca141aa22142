"""The queue: what is due is launched, once, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta

import dagster as dg
import psycopg
import pytest

from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.queue import BATCH_TAG, OPEN_BATCHES, QUEUE_TAG, importing_alone, launch_due
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.consistency import ConsistencyQueries
from parity_dagster.store.database import connect
from parity_dagster.store.queue import find_left_over, find_resumable, make_batches, open_batches, pairs_of_batch
from parity_dagster.store.states import LOCK_CLASS
from parity_dagster_tests.dagster_runs import materialized, row, run

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


@pytest.fixture(scope="module")
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=4)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(
        update={"plc_url": network.plc_url, "collections": (POST, LIKE), "retry_delay": 60.0, "queue": "evening"}
    )


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with closing(connect(settings, autocommit=True)) as opened:
        yield opened


def queue(settings: Settings, *pairs: Pair) -> None:
    with ImportService(settings, report=False) as service:
        service.enqueue(pairs)


def launch(settings: Settings, instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return run(settings, instance, "import_records", config=request.run_config, tags=request.tags)


def invented(count: int) -> list[Pair]:
    return [Pair(f"did:web:a{number}.test.example.com", POST) for number in range(count)]


def due_pairs(connection: psycopg.Connection, settings: Settings) -> list[Pair]:
    batches = make_batches(connection, settings.state_table, settings.collections, size=1000, count=1)
    return [pair for batch in batches for pair in pairs_of_batch(connection, settings.state_table, batch)]


def test_a_queued_pair_is_launched_under_the_queues_tag_and_ends_complete(
    settings: Settings, instance: dg.DagsterInstance, network: Running, connection: psycopg.Connection
) -> None:
    pairs = [Pair(network.network.add_account({POST: 5, LIKE: 2}), nsid) for nsid in (POST, LIKE)]
    queue(settings, *pairs)
    (request,) = launch_due(instance, settings)
    assert request.tags[QUEUE_TAG] == "evening"
    result = launch(settings, instance, request)
    assert result.success
    assert sorted(materialized(result)) == sorted(pairs)
    assert open_batches(connection, settings.state_table) == []
    assert launch_due(instance, settings) == []


def test_of_two_runs_that_two_daemons_asked_for_with_one_batch_one_imports_it(
    settings: Settings, instance: dg.DagsterInstance, network: Running, connection: psycopg.Connection
) -> None:
    pair = Pair(network.network.add_account({POST: 5}), POST)
    queue(settings, pair)
    (request,) = launch_due(instance, settings)
    with importing_alone(settings, str(request.run_key)) as is_first:
        assert is_first
        second = launch(settings, instance, request)
        assert second.success, "another run has its pairs, which is as good"
        assert materialized(second) == []
        assert pairs_of_batch(connection, settings.state_table, str(request.run_key)) == [pair]
    result = launch(settings, instance, request)
    assert materialized(result) == [pair]


def test_an_account_that_a_person_adds_to_the_config_of_a_batch_is_imported_also_if_another_run_has_the_batch(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    queue(settings, Pair(DID, POST))
    (request,) = launch_due(instance, settings)
    pair = Pair(network.network.add_account({POST: 5}), POST)
    with importing_alone(settings, str(request.run_key)):
        config = {**request.run_config, "dids": [pair.did], "collections": [POST]}
        assert pair in materialized(run(settings, instance, "import_records", config=config))


def test_a_batch_that_waits_for_its_run_is_not_launched_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    queue(settings, Pair(DID, POST))
    (request,) = launch_due(instance, settings)
    instance.create_run_for_job(_import_records(settings), tags={BATCH_TAG: request.tags[BATCH_TAG]})
    assert launch_due(instance, settings) == []


def test_a_batch_whose_run_was_never_made_is_asked_for_again_under_the_same_key(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    # the daemon was killed between the tick and the launch
    queue(settings, Pair(DID, POST))
    (lost,) = launch_due(instance, settings)
    (again,) = launch_due(instance, settings)
    assert again.run_key == lost.run_key
    assert again.run_config == lost.run_config


def test_what_a_run_leaves_untouched_is_launched_again_after_a_pause(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection
) -> None:
    queue(settings, Pair(DID, POST))
    (request,) = launch_due(instance, settings)
    died = instance.create_run_for_job(_import_records(settings), tags={BATCH_TAG: request.tags[BATCH_TAG]})
    instance.report_run_failed(died, "the machine was switched off")
    assert launch_due(instance, settings) == []
    state = row(settings, Pair(DID, POST))
    assert state is not None
    assert state.status is ImportStatus.PENDING
    assert state.next_attempt_at is not None
    assert 50 < (state.next_attempt_at - state.updated_at).total_seconds() < 70
    connection.execute(f"UPDATE {settings.state_table} SET next_attempt_at = now()")
    (again,) = launch_due(instance, settings)
    assert again.run_key != request.run_key


def is_held(connection: psycopg.Connection, settings: Settings, pair: Pair) -> bool:
    query = f"SELECT coalesce(starts_with(batch, 'held:'), false) FROM {settings.state_table} WHERE did = %s"
    (found,) = connection.execute(query, (pair.did,)).fetchall()
    return bool(found[0])


def test_what_a_canceled_run_did_not_take_up_waits_until_a_person_asks_for_it(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection
) -> None:
    queue(settings, Pair(DID, POST))
    (request,) = launch_due(instance, settings)
    tags = {BATCH_TAG: request.tags[BATCH_TAG]}
    instance.report_run_canceled(instance.create_run_for_job(_import_records(settings), tags=tags))
    connection.execute(f"UPDATE {settings.state_table} SET updated_at = now() - interval '2 hours'")
    for _ in range(2):
        assert launch_due(instance, settings) == []
    assert is_held(connection, settings, Pair(DID, POST))
    queries = ConsistencyQueries(connection, settings.state_table)
    assert queries.stuck(timedelta(hours=1), [POST]) == []
    queue(settings, Pair(DID, POST))
    assert len(launch_due(instance, settings)) == 1


def test_what_a_canceled_run_left_waits_also_if_another_daemon_had_asked_for_a_second_one(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection
) -> None:
    queue(settings, Pair(DID, POST))
    (request,) = launch_due(instance, settings)
    tags = {BATCH_TAG: request.tags[BATCH_TAG]}
    canceled = instance.create_run_for_job(_import_records(settings), tags=tags)
    with importing_alone(settings, str(request.run_key)):
        assert launch(settings, instance, request).success
    assert launch_due(instance, settings) == []
    instance.report_run_canceled(canceled)
    assert launch_due(instance, settings) == []
    assert is_held(connection, settings, Pair(DID, POST))


@pytest.mark.parametrize("left", ["in_progress", "failed"])
def test_what_a_canceled_run_has_begun_waits_and_what_a_killed_one_has_begun_does_not(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection, left: str
) -> None:
    canceled, killed = (instance.create_run_for_job(_import_records(settings)) for _ in range(2))
    instance.report_run_canceling(canceled)
    instance.report_run_failed(killed, "its process was killed")
    pairs = invented(2)
    queue(settings, *pairs)
    for pair, run_id in zip(pairs, (canceled.run_id, killed.run_id), strict=True):
        connection.execute(
            f"UPDATE {settings.state_table} SET status = %s, run_id = %s, next_attempt_at = now() - interval '1 s'"
            " WHERE did = %s",
            (left, run_id, pair.did),
        )
    (request,) = launch_due(instance, settings)
    assert pairs_of_batch(connection, settings.state_table, request.tags[BATCH_TAG]) == [pairs[1]]
    instance.report_run_canceled(canceled)
    assert [again.run_key for again in launch_due(instance, settings)] == [request.run_key]
    assert is_held(connection, settings, pairs[0])
    # Re-execute, and `parity import --resume`
    assert find_left_over(connection, settings.state_table, [canceled.run_id]) == [pairs[0]]
    assert pairs[0] in find_resumable(connection, settings.state_table)


def test_a_pair_that_somebody_else_has_imported_meanwhile_does_not_fail_the_run(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    pair = Pair(network.network.add_account({POST: 5}), POST)
    queue(settings, pair)
    (request,) = launch_due(instance, settings)
    with ImportService(settings, report=False) as service:
        assert service.import_user_collection(*pair).is_success
    result = launch(settings, instance, request)
    assert result.success
    assert materialized(result) == []


@pytest.mark.parametrize(
    ("columns", "is_due"),
    [
        ("status = 'pending'", True),
        ("status = 'failed', next_attempt_at = now() - interval '1 second'", True),
        ("status = 'failed', next_attempt_at = now() + interval '1 minute'", False),
        ("status = 'failed', next_attempt_at = NULL", False),
        ("status = 'completed'", False),
        ("status = 'in_progress', importer_id = 4711", True),
        ("status = 'in_progress', importer_id = NULL", True),
        ("status = 'in_progress', importer_id = 4712", False),
    ],
    ids=[
        "pending",
        "failed and its pause is over",
        "failed and its pause is not over",
        "failed for good",
        "complete",
        "importer killed",
        "importer stopped",
        "importer at work",
    ],
)
def test_only_what_nobody_works_on_and_may_succeed_is_due(
    settings: Settings, connection: psycopg.Connection, database_url: str, columns: str, is_due: bool
) -> None:
    queue(settings, Pair(DID, POST))
    connection.execute(f"UPDATE {settings.state_table} SET {columns}")
    with psycopg.connect(database_url) as alive:
        alive.execute("SELECT pg_advisory_lock(%s, 4712)", (LOCK_CLASS,))
        assert due_pairs(connection, settings) == ([Pair(DID, POST)] if is_due else [])


def test_pairs_of_a_collection_that_is_not_registered_any_more_wait(
    settings: Settings, connection: psycopg.Connection
) -> None:
    queue(settings, Pair(DID, POST), Pair(DID, LIKE))
    fewer = settings.model_copy(update={"collections": (LIKE,)})
    assert due_pairs(connection, fewer) == [Pair(DID, LIKE)]
    assert due_pairs(connection, settings) == [Pair(DID, POST)]


def test_hosts_take_turns_within_a_batch_and_accounts_stay_together(
    settings: Settings, connection: psycopg.Connection
) -> None:
    dids = [f"did:web:a{number}.test.example.com" for number in range(6)]
    queue(settings, *(Pair(did, nsid) for did in dids for nsid in (POST, LIKE)))
    for did in dids:
        host = "https://big.example.com" if did < dids[4] else f"https://{did[-20:]}"
        connection.execute(f"UPDATE {settings.state_table} SET pds = %s WHERE did = %s", (host, did))
    order = due_pairs(connection, settings)
    assert [pair.did for pair in order[::2]] == [dids[0], dids[4], dids[5], dids[1], dids[2], dids[3]]
    assert all(first.did == second.did for first, second in zip(order[::2], order[1::2], strict=True))


def test_what_is_only_to_be_read_again_waits_for_what_was_never_read(
    settings: Settings, connection: psycopg.Connection
) -> None:
    again, first = invented(4)[:2], invented(4)[2:]
    queue(settings, *again, *first)
    connection.execute(
        f"UPDATE {settings.state_table} SET refresh = true WHERE did = ANY(%s)", ([p.did for p in again],)
    )
    for expected in (first, again):
        (batch,) = make_batches(connection, settings.state_table, settings.collections, size=2, count=1)
        assert sorted(pairs_of_batch(connection, settings.state_table, batch)) == expected


def test_a_long_queue_is_launched_bit_by_bit_and_each_pair_in_one_batch(
    settings: Settings, connection: psycopg.Connection
) -> None:
    pairs = invented(45)
    queue(settings, *pairs)
    launched: list[Pair] = []
    for expected in (20, 20, 5, 0):
        batches = make_batches(connection, settings.state_table, settings.collections, size=10, count=2)
        assert sum(batches.values()) == expected
        launched += _all_pairs(connection, settings, list(batches))
    assert sorted(launched) == sorted(pairs)


def test_no_more_runs_wait_than_workers_can_take_up(
    settings: Settings, instance: dg.DagsterInstance, connection: psycopg.Connection
) -> None:
    queue(settings, *invented(OPEN_BATCHES + 3))
    batches = make_batches(connection, settings.state_table, settings.collections, size=1, count=OPEN_BATCHES - 1)
    requests = launch_due(instance, settings)
    assert len({request.run_key for request in requests} - set(batches)) == 1
    assert len(open_batches(connection, settings.state_table)) == OPEN_BATCHES


def _all_pairs(connection: psycopg.Connection, settings: Settings, batches: Sequence[str]) -> list[Pair]:
    return [pair for batch in batches for pair in pairs_of_batch(connection, settings.state_table, batch)]


def _import_records(settings: Settings) -> dg.JobDefinition:
    from parity_dagster.definitions import build_defs

    return build_defs(settings).resolve_job_def("import_records")
