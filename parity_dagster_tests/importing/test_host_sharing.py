"""However many importers read a host, it sees no more requests than one would send it."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity_dagster.atproto.ratelimit import WHOLE, HostLimiters, Share
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import assert_equal, query, settings_for

RUNS = 4


@pytest.mark.parametrize("places", [1, 3, 10])
@pytest.mark.parametrize("parts", [1, 2, 4, 12])
def test_shares_are_all_there_is_and_no_more(places: int, parts: int) -> None:
    shares = [Share(rank, parts).of(places) for rank in range(parts)]
    assert sum(shares) == places
    assert max(shares) - min(shares) <= 1


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
    assert len(refused) <= RUNS, "none but the first of each, before it knows of a limit"
    assert len(asked) / seconds >= 0.8 * limit / window
    assert len(asked) / seconds <= limit / window * 1.25, "the first window is open at once"
