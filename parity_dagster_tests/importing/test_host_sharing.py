"""However many importers read a host, it sees no more requests than one would send it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity_dagster.atproto.ratelimit import TURN_SECONDS, WHOLE, HostLimiters, Share
from parity_dagster.importing.host_sharing import LOOK_SECONDS
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.forked import start_import
from parity_dagster_tests.imports import assert_equal, query, settings_for

RUNS = 4


@pytest.mark.parametrize("places", [1, 3, 10])
@pytest.mark.parametrize("parts", [1, 2, 4, 12])
def test_shares_are_all_there_is_and_no_more(places: int, parts: int) -> None:
    shares = [Share(rank, parts).of(places) for rank in range(parts)]
    assert sum(shares) == places
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("places", [1, 2, 3])
@pytest.mark.parametrize("parts", [4, 5, 7])
def test_where_there_are_more_processes_than_places_they_take_turns(places: int, parts: int) -> None:
    turns = parts * 2
    held: Counter[int] = Counter()
    before: set[int] = set()
    for tick in range(int(turns * TURN_SECONDS)):  # as each sees it, up to a second late
        now, later = (
            {rank for rank in range(parts) if Share(rank, parts).at(places, 1e9 + seconds).of(places)}
            for seconds in (tick, tick + LOOK_SECONDS)
        )
        assert len(now | later | before) <= places
        before = now
        held.update(now)
    assert set(held) == set(range(parts))
    assert min(held.values()) >= 0.6 * places / parts * turns * TURN_SECONDS


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_who_has_a_place_for_each_needs_no_turns(parts: int) -> None:
    shares = [Share(rank, parts) for rank in range(parts)]
    assert [share.at(4, 1e9 + seconds) for share in shares for seconds in (0, 19)] == [
        share for share in shares for _ in range(2)
    ]


def test_a_share_is_of_all_of_a_hosts_limiters_and_goes_with_the_last_who_has_one() -> None:
    limiters = HostLimiters(10)
    before = limiters.of("https://pds.test")
    for _ in range(2):
        limiters.enter("https://pds.test")
    limiters.share("https://pds.test", Share(1, 3))
    assert before.share == limiters.of("https://pds.test", "getRepo").share == Share(1, 3)
    assert limiters.of("https://other.test").share == WHOLE
    limiters.leave("https://pds.test")
    assert before.share == Share(1, 3)
    limiters.leave("https://pds.test")
    assert before.share == WHOLE
    limiters.share("https://pds.test", Share(0, 2))  # an answer that was under way
    assert before.share == limiters.of("https://pds.test", "another").share == WHOLE


@pytest.mark.long
def test_imports_at_the_same_time_have_no_more_in_flight_than_one_may(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 5}) for _ in range(3 * 4)]
    network.behave(host="pds-1", latency=0.3)
    with run_in_thread(network) as running, ThreadPoolExecutor(3) as threads:
        here = settings_for(settings, running, host_concurrency=4)
        services = [ImportService(here, report=False) for _ in range(3)]
        importing = [
            threads.submit(service.import_pairs, [Pair(did, POST) for did in dids[number::3]])
            for number, service in enumerate(services)
        ]
        shares: Counter[tuple[int, int]] = Counter()
        while not all(call.done() for call in importing):
            rows = query(settings, "SELECT count(*), count(DISTINCT service) FROM parity_host_importers")
            shares[rows[0]] += 1
            time.sleep(0.05)
        assert all(result.completed for call in importing for result in call.result())
        assert (3, 3) in shares
        for service in services:
            service.close()
        assert query(settings, "SELECT * FROM parity_host_importers") == []


@pytest.mark.long
@pytest.mark.parametrize("source", ["list", "repo"])
def test_an_account_that_moves_in_the_middle_is_read_on_its_new_host_as_any_other(
    settings: Settings, source: str
) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 150}, host="pds-1")
    with run_in_thread(network) as running, ThreadPoolExecutor(1) as threads:
        here = settings_for(settings, running, source=source)
        with ImportService(here, report=False) as service:
            assert service.import_user_collection(did, POST).completed
            network.migrate(did, "pds-2")
            network.put_record(did, POST)
            network.behave(host="pds-2", latency=0.5)
            call = threads.submit(service.import_user_collection, did, POST, refresh=True)
            seen: set[tuple[str, ...]] = set()
            while not call.done():
                seen.update(query(settings, "SELECT host FROM parity_host_importers"))
                time.sleep(0.02)
            assert call.result().completed
        assert seen == {(host.url,) for host in network.hosts.values()}
        assert_equal(settings, network, did, POST)


def test_threads_of_one_service_share_with_nobody(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 5}) for _ in range(4)]
    network.behave(host="pds-1", latency=0.2)
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running), report=False) as service,
        ThreadPoolExecutor(4) as threads,
    ):
        began = time.monotonic()
        calls = [threads.submit(service.import_user_collection, did, POST) for did in dids]
        seen: set[tuple[int, ...]] = set()
        while not all(call.done() for call in calls):
            seen.update(query(settings, "SELECT count(DISTINCT service) FROM parity_host_importers"))
            time.sleep(0.02)
        assert all(call.result().completed for call in calls)
    assert seen <= {(0,), (1,)}
    assert (1,) in seen
    assert time.monotonic() - began < 60


@pytest.mark.long
@pytest.mark.parametrize("source", ["list", "repo"])
def test_nobody_waits_until_others_are_done_and_be_it_one_that_is_stopped(settings: Settings, source: str) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 5}) for _ in range(33)]
    network.behave(host="pds-1", latency=0.3)
    with run_in_thread(network) as running, ThreadPoolExecutor(2) as threads:
        here = settings_for(settings, running, host_concurrency=1, source=source)
        stopped, begun = start_import(here, [Pair(did, POST) for did in dids[2:]])
        assert begun.wait(60)
        assert stopped.pid is not None
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            services = [ImportService(here, report=False) for _ in range(2)]
            calls = [
                threads.submit(service.import_user_collection, did, POST)
                for service, did in zip(services, dids, strict=False)
            ]
            assert all(call.result(120).completed for call in calls)
            for service in services:
                service.close()
        finally:
            stopped.kill()
            stopped.join()


@pytest.mark.long
@pytest.mark.processes  # what it counts per second is not to be disturbed
@pytest.mark.parametrize("source", ["list", "repo"])
def test_four_runs_ask_a_host_as_often_as_it_allows_and_hardly_less(settings: Settings, source: str) -> None:
    """A host that allows 50 requests in 5 seconds and says so, which is 10 a second."""
    window, limit = 5.0, 50
    network = SampleNetwork()
    dids = [network.add_account({POST: 5}) for _ in range(80 if source == "list" else 240)]
    network.behave(host="pds-1", rate_limit=limit, rate_window=window, latency=0.05)
    with run_in_thread(network) as running, ThreadPoolExecutor(RUNS) as threads:
        here = settings_for(settings, running, source=source)
        services = [ImportService(here, report=False) for _ in range(RUNS)]
        calls = [
            threads.submit(service.import_pairs, [Pair(did, POST) for did in dids[number::RUNS]])
            for number, service in enumerate(services)
        ]
        assert all(result.completed for call in calls for result in call.result())
        for service in services:
            service.close()
        for did in dids:
            assert_equal(settings, network, did, POST)
    asked = network.log.entries(host="pds-1")
    refused = [entry for entry in asked if entry.status == 429]
    seconds = asked[-1].at - asked[0].at
    # the first of each, before it knows of a limit, and one of each a window, whose end is told in whole seconds
    assert len(refused) <= RUNS * (1 + seconds / window)
    assert len(asked) / seconds >= 0.8 * limit / window
    assert len(asked) / seconds <= limit / window * 1.25, "the first window is open at once"
