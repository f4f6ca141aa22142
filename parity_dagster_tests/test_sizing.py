"""The simulation of large imports agrees with what can be computed by hand, with the limiters, and with an import."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sizing.__main__ import fewest_runs
from benchmarks.sizing.accounts import COLLECTIONS, Kinds, make_kinds, requests_by_pages, whole_network
from benchmarks.sizing.pace import WINDOW, LimitingHost, measure_pace
from benchmarks.sizing.simulation import PAGES, PLACES, REPOSITORIES, Way, simulate
from parity_dagster.models import Pair
from parity_dagster.sample_network import FOLLOW, LIKE, POST, SampleNetwork
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import importing

SAME = Kinds(np.array([100.0]), np.array([10.0]), np.array([3.0]))


@pytest.mark.parametrize(("way", "requests"), [(PAGES, 10), (REPOSITORIES, 1)], ids=["pages", "repositories"])
def test_one_host_takes_as_long_as_its_limit_says(way: Way, requests: int) -> None:
    pace = way.limit / WINDOW
    (found,) = simulate(100_000, np.array([1.0]), SAME, way, {4: pace}, latency=0.05)
    assert found.accounts == 100_000
    assert found.requests == 100_000 * requests
    assert found.records == 100 * 100_000
    by_hand = found.requests / pace - WINDOW  # the first window is open at once
    assert found.seconds == pytest.approx(by_hand, rel=0.01)
    costs = way.costs
    each = costs.account + COLLECTIONS * costs.pair + 100 * costs.record
    assert found.cpu == pytest.approx(100_000 * each)


def test_hosts_that_no_run_waits_for_leave_it_to_the_processor() -> None:
    hosts = np.ones(1000)
    (one,) = simulate(40_000, hosts, SAME, REPOSITORIES, {1: 20.0}, latency=0.001)
    work = one.cpu + one.launched * 0.65
    assert work < one.seconds < work + one.launched * 1.1, "one run after the other, each after at most a second"


def test_look_ups_at_the_pace_of_the_directory_can_be_what_an_import_waits_for() -> None:
    (found,) = simulate(10_000, np.ones(500), SAME, REPOSITORIES, {4: 20.0}, latency=0.05, look_ups=20.0)
    assert found.seconds == pytest.approx(500, rel=0.02)


def test_twice_the_large_hosts_are_twice_as_fast_until_something_else_is_what_is_waited_for() -> None:
    kinds, paces = make_kinds(1024), {1: 10.0, 4: 10.0}
    few, many = (
        fewest_runs(100_000, whole_network(large), kinds, PAGES, paces, 0.1).seconds + WINDOW for large in (5, 10)
    )
    assert few / many == pytest.approx(2, rel=0.05)


def test_the_fewest_runs_that_are_nearly_as_fast_are_chosen() -> None:
    assert fewest_runs(10_000, np.array([1.0]), SAME, PAGES, {1: 10.0, 2: 10.0, 4: 10.0}, 0.05).runs == 1


@pytest.mark.long
@pytest.mark.parametrize("readers", [1, 4, 16])
def test_the_limiters_get_nearly_all_that_a_host_allows_and_no_more(readers: int) -> None:
    host = LimitingHost(limit=3000, window=WINDOW, latency=0.1)
    found = measure_pace(host, readers, places=PLACES)
    assert 9 <= found <= 10
    assert host.refused <= 0.01 * host.answered


def test_an_account_is_reckoned_with_the_requests_that_it_takes(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    counts = [{POST: 250, LIKE: 100, FOLLOW: 1}, {POST: 99, LIKE: 101, FOLLOW: 2}]
    dids = [network.add_account(one) for one in counts]
    with importing(settings, network) as (service, _):
        results = service.import_pairs(Pair(did, nsid) for did in dids for nsid in (POST, LIKE, FOLLOW))
        assert all(result.is_success for result in results)
        by_pages = network.log.count(host="pds-1") + network.log.count(host="pds-2")
    assert by_pages == sum(map(requests_by_pages, counts))
