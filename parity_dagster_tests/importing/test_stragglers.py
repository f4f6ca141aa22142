"""An account that takes for ever does not keep a run, and one that only takes long is complete after several."""

from __future__ import annotations

import time
from contextlib import closing

import dagster as dg
import pytest

from parity_dagster.models import Pair
from parity_dagster.orchestration.queue import batch_pairs
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.queue import make_batches
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for

PATIENCE = 1.0


def drip_feed(network: SampleNetwork, did: str) -> None:
    """A list whose every page is one new record, and takes its time: hundreds of pages, none of them late."""
    network.behave(did=did, page_cap=1, latency=0.04)


def row(settings: Settings, pair: Pair) -> dict[str, object]:
    names = ("status", "error_code", "error", "attempts", "pages", "cursor", "due", "importer_id")
    (found,) = query(
        settings,
        "SELECT status, error_code, error, attempts, pages, cursor, next_attempt_at IS NOT NULL, importer_id"
        " FROM parity_import_states WHERE did = %s AND collection = %s",
        *pair,
    )
    return dict(zip(names, found, strict=True))


@pytest.mark.long
def test_a_long_walk_makes_room_and_is_complete_after_several_runs(settings: Settings) -> None:
    network = SampleNetwork()
    long, short = network.add_account({POST: 90}), network.add_account({POST: 30})
    drip_feed(network, long)
    with importing(settings, network) as (service, _):
        first, second = service.import_pairs([Pair(long, POST), Pair(short, POST)], patience=PATIENCE)
        assert second.completed
        assert not first.completed
        assert first.error_code == "interrupted"
        assert "made room for others" in (first.error or "")
        runs, before = 1, 0
        while (now := row(settings, Pair(long, POST)))["status"] != "completed":
            assert (now["status"], now["error_code"], now["attempts"], now["due"]) == ("failed", "interrupted", 0, True)
            assert isinstance(now["pages"], int)
            assert now["pages"] > before, "every run gets on"
            before, runs = now["pages"], runs + 1
            service.import_pairs([Pair(long, POST)], patience=PATIENCE)
        assert runs > 2
        asked = network.log.cursors(long, POST)
        assert len(asked) - len(set(asked)) <= runs, "nothing but the page that was under way is asked for again"
    assert_equal(settings, network, long, POST)


def test_a_walk_that_gets_nothing_in_its_time_has_failed_a_try(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    network.behave(did=did, faults=(Fault(kind="hang", method="listRecords"),))
    with importing(settings, network) as (service, _):
        began = time.monotonic()
        (result,) = service.import_pairs([Pair(did, POST)], patience=PATIENCE)
        assert time.monotonic() - began < 20, "a request under way is not waited for"
        assert result.error_code == "interrupted"
        now = row(settings, Pair(did, POST))
        assert (now["attempts"], now["pages"], now["importer_id"]) == (1, 0, None)
        network.behave_normally()
        assert service.import_user_collection(did, POST).completed


@pytest.mark.long
def test_a_run_with_short_walks_under_way_interrupts_nothing(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 8}) for _ in range(14)]
    for did in dids:
        drip_feed(network, did)
    with importing(settings, network, host_concurrency=1) as (service, _):
        results = service.import_pairs([Pair(did, POST) for did in dids], patience=3.0)
        assert all(result.completed for result in results)


@pytest.mark.long
def test_without_patience_a_walk_takes_as_long_as_it_takes(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 40})
    drip_feed(network, did)
    with importing(settings, network, straggler_patience=PATIENCE) as (service, _):
        assert service.import_user_collection(did, POST).completed


def test_pairs_behind_a_long_walk_get_its_place(settings: Settings) -> None:
    network = SampleNetwork()
    long, other = network.add_account({POST: 1000}), network.add_account({POST: 5})
    drip_feed(network, long)
    with importing(settings, network, host_concurrency=1) as (service, _):
        first, second = service.import_pairs([Pair(long, POST), Pair(other, POST)], patience=PATIENCE)
        assert (first.error_code, second.error_code) == ("interrupted", None)
        assert second.completed
    assert_equal(settings, network, other, POST)


def test_one_run_reads_so_many_bytes_of_a_pair_and_the_next_goes_on(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    network.behave(did=did, page_cap=5)
    with importing(settings, network, max_bytes=1) as (service, _):
        for page in range(1, 6):
            result = service.import_user_collection(did, POST)
            assert (result.error_code, result.records_synced) == ("interrupted", 5 * page)
            assert "PARITY_MAX_BYTES" in (result.error or "")
        while not service.import_user_collection(did, POST).completed:
            assert row(settings, Pair(did, POST))["attempts"] == 0
        *asked, last = network.log.cursors(did, POST)
        assert len(asked) == len(set(asked))
        assert last is None, "a walk resumed only to find its end looks whether the list is still there"
    assert_equal(settings, network, did, POST)


def test_the_queue_puts_what_has_made_room_last(settings: Settings) -> None:
    table = settings.state_table
    query(
        settings,
        f"INSERT INTO {table} (did, collection, status, error_code, next_attempt_at) VALUES"
        " ('did:web:a', 'x.y.z', 'in_progress', 'interrupted', NULL),"
        " ('did:web:b', 'x.y.z', 'failed', 'interrupted', now() - interval '1 h'),"
        " ('did:web:c', 'x.y.z', 'pending', NULL, NULL),"
        " ('did:web:d', 'x.y.z', 'failed', 'server_error', now() - interval '1 s'),"
        " ('did:web:e', 'x.y.z', 'in_progress', NULL, NULL)",
    )
    with closing(connect(settings, autocommit=True)) as connection:
        order = []
        for _ in range(5):
            (batch,) = make_batches(connection, table, ["x.y.z"], size=1, count=1)
            order += [pair.did[-1] for pair in batch_pairs(settings, batch)]
        assert order == ["e", "d", "c", "b", "a"]
        query(settings, f"UPDATE {table} SET batch = 'one'")
        assert [pair.did[-1] for pair in batch_pairs(settings, "one")] == ["c", "d", "e", "a", "b"]


def test_a_dagster_run_ends_though_an_account_does_not(settings: Settings, network: Running) -> None:
    settings = settings_for(settings, network, collections=(POST, LIKE), straggler_patience=PATIENCE)
    endless, good = network.network.add_account({POST: 5000}), network.network.add_account({POST: 4})
    drip_feed(network.network, endless)
    with dg.DagsterInstance.ephemeral() as instance:
        config = {"dids": [endless, good], "collections": [POST]}
        assert not run(settings, instance, "import_records", config=config).success
    assert row(settings, Pair(good, POST))["status"] == "completed"
    assert row(settings, Pair(endless, POST))["error_code"] == "interrupted"
