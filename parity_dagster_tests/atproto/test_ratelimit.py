"""How fast a host is asked, and that no host is made to wait for another."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings as settings_of_hypothesis, strategies as st

from parity_dagster.atproto.network import open_network
from parity_dagster.atproto.ratelimit import (
    BREAKER_FAILURES,
    LONGEST_ASKED,
    MOST_QUIET,
    WHOLE,
    HostLimiter,
    HostLimiters,
    Share,
    retry_after,
)
from parity_dagster.errors import HostPaused, HostUnreachable, RateLimited
from parity_dagster.events import ImportCompleted, ImportFailed
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings, load_settings
from parity_dagster_tests.imports import importing
from parity_dagster_tests.quick import quick


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "30"}, 30, 30),
        ({"retry-after": "0"}, 1, 1),
        ({"retry-after": "-5"}, 1, 1),
        ({"retry-after": "999999999"}, 86_400, 86_400),
        ({"retry-after": "nan"}, 60, 60),
        ({"retry-after": "inf"}, 60, 60),
        ({"retry-after": "1e308"}, 86_400, 86_400),
        ({"retry-after": "nan", "ratelimit-reset": "45"}, 45, 45),
        ({"ratelimit-reset": "-inf", "ratelimit-remaining": "nan"}, 60, 60),
        ({"ratelimit-reset": "1e308"}, 86_400, 86_400),
        ({"ratelimit-reset": "-1e308"}, 1, 1),
        ({"retry-after": "a date in 40 s"}, 30, 41),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 1, 1),
        ({"retry-after": "soon"}, 60, 60),
        ({"ratelimit-reset": "an epoch in 45 s"}, 35, 46),
        ({"ratelimit-reset": "an epoch in 45 s, in milliseconds"}, 35, 46),
        ({"ratelimit-reset": "an epoch in 45 s", "date": "no date"}, 35, 46),
        ({"ratelimit-reset": "an epoch in 45 s", "date": "a date 2 s ago"}, 35, 45.5),
        ({"ratelimit-reset": "45"}, 45, 45),
        ({"ratelimit-reset": "45", "date": "a date in 40 s"}, 45, 45),
        ({"retry-after": "soon", "ratelimit-reset": "45"}, 45, 45),
        ({"retry-after": "5", "ratelimit-reset": "45"}, 5, 5),
        ({}, 60, 60),
        ({"ratelimit-reset": "x"}, 60, 60),
    ],
)
def test_how_long_a_429_asks_to_wait(headers: dict[str, str], low: float, high: float) -> None:
    moments = {
        "a date in 40 s": format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True),
        "a date 2 s ago": format_datetime(datetime.now(UTC) - timedelta(seconds=2), usegmt=True),
        "an epoch in 45 s": str(int(time.time()) + 45),
        "an epoch in 45 s, in milliseconds": str(int(time.time()) * 1000 + 45_000),
    }
    assert low <= retry_after({name: moments.get(value, value) for name, value in headers.items()}) <= high


@pytest.mark.parametrize("ahead", [-7200, 0, 7200])
def test_a_clock_that_is_wrong_by_hours_makes_nobody_rest_longer_or_shorter(ahead: int) -> None:
    now = datetime.now(UTC) + timedelta(seconds=ahead)
    headers = {"date": format_datetime(now, usegmt=True), "ratelimit-reset": str(int(now.timestamp()) + 50)}
    assert 48 <= retry_after(headers) <= 51
    assert 48 <= retry_after({"date": headers["date"], "retry-after": _in_50_seconds(now)}) <= 51
    limiter = HostLimiter("https://pds.test", 10)
    limiter.answered(200, {**headers, "ratelimit-remaining": "5"})
    assert 9 <= limiter._interval <= 11


def _in_50_seconds(now: datetime) -> str:
    return format_datetime(now + timedelta(seconds=50), usegmt=True)


@pytest.mark.parametrize("remaining", ["nan", "-inf", "inf", "1e400", "1e308", "-1e308", "-5", "5e-324", "x", ""])
@pytest.mark.parametrize("reset", ["nan", "-inf", "1e308", "-1e308", "0", "5"])
@pytest.mark.parametrize("status", [200, 429])
def test_whatever_a_host_says_of_its_limit_is_survived(status: int, remaining: str, reset: str) -> None:
    limiter = HostLimiter("https://pds.test", 10)
    limiter.answered(status, {"ratelimit-remaining": remaining, "ratelimit-reset": reset, "retry-after": remaining})
    limiter.answered(200, {})


_DATE = st.from_regex(r"\A[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d\d:\d\d:\d\d( GMT| [-+]\d{1,6})?\Z")
_VALUE = st.one_of(st.text(max_size=60), _DATE, st.floats().map(repr), st.integers().map(str))


@settings_of_hypothesis(max_examples=100, deadline=None)
@given(
    st.sampled_from([200, 400, 429, 500]),
    st.dictionaries(st.sampled_from(["date", "retry-after", "ratelimit-remaining", "ratelimit-reset"]), _VALUE),
)
@pytest.mark.long
def test_no_header_whatever_it_holds_raises_or_stops_a_host_for_more_than_a_day(
    status: int, headers: dict[str, str]
) -> None:
    limiter = HostLimiter("https://pds.test", 10)
    limiter.answered(status, headers)
    assert 1 <= retry_after(headers) <= LONGEST_ASKED
    assert limiter._not_before <= time.monotonic() + LONGEST_ASKED
    assert 0 <= limiter._interval <= LONGEST_ASKED


def test_numbers_that_are_none_do_not_slow_a_host_down() -> None:
    limiter = HostLimiter("https://pds.test", 10)
    limiter.answered(200, {"ratelimit-remaining": "nan", "ratelimit-reset": "300"})
    assert not limiter.is_resting


def test_a_host_that_rests_is_remembered_however_many_others_are_met() -> None:
    limiters = HostLimiters(10)
    limited = limiters.of("https://limited.test")
    limited.answered(429, {"retry-after": "300"})
    for number in range(25_000):
        limiters.of(f"https://{number}.test").answered(200, {})
    assert limiters.of("https://limited.test") is limited
    assert len(limiters._limiters) <= 10_001


def drive(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await work()

    return asyncio.run(bounded())


def test_who_waits_for_a_place_of_a_host_gets_it_however_many_others_are_met_meanwhile() -> None:
    origin = "https://host.test"

    async def body() -> None:
        limiters = HostLimiters(4)
        limiters.enter(origin)
        limiters.share(origin, Share(4, 5))  # all of its places are others'
        waiting = asyncio.create_task(_pass(limiters.of(origin)))
        await asyncio.sleep(0)
        for number in range(MOST_QUIET + 1):
            limiters.of(f"https://other-{number}.test")
        limiters.share(origin, WHOLE)
        await asyncio.wait_for(waiting, 10)

    drive(body)


async def _pass(limiter: HostLimiter) -> None:
    async with limiter.slot():
        pass


def test_places_are_given_in_the_order_of_asking_and_never_more_than_allowed() -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 10)
        order: list[int] = []
        most = 0

        async def ask(number: int) -> None:
            nonlocal most
            async with limiter.slot():
                order.append(number)
                most = max(most, limiter.in_flight)
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(ask(number)) for number in range(200)]
        await asyncio.gather(*tasks)
        assert order == list(range(200))
        assert most == 4
        assert limiter.in_flight == 0

    drive(work)


def test_a_cancelled_wait_takes_no_place_with_it() -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 1)
        holding = asyncio.Event()

        async def ask() -> None:
            async with limiter.slot():
                await holding.wait()

        tasks = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:  # the holder, and every other one that waits
            task.cancel()
        await asyncio.sleep(0.01)
        for task in tasks[1::4]:
            task.cancel()
        holding.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        async with limiter.slot():
            assert limiter.in_flight == 1

    drive(work)


def test_concurrency_grows_with_good_answers_and_halves_with_bad_ones() -> None:
    limiter = HostLimiter("https://a", 10)
    for _ in range(200):
        limiter.answered(200, {})
    assert limiter.concurrency == 10
    limiter.answered(503, {})
    assert limiter.concurrency == 5
    limiter.answered(429, {"retry-after": "1"})
    limiter.failed()
    limiter.failed()
    assert limiter.concurrency == 1


@pytest.mark.long
def test_the_last_requests_of_a_window_are_spread_over_it() -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 10)
        reset = {"ratelimit-remaining": "5", "ratelimit-reset": "1"}
        limiter.answered(200, reset)
        times = []

        async def ask() -> None:
            async with limiter.slot():
                times.append(time.monotonic())

        await asyncio.gather(*(ask() for _ in range(5)))
        assert times[-1] - times[0] > 0.75, "five requests in a second, not at once"
        limiter.answered(200, {"ratelimit-remaining": "0", "ratelimit-reset": "1"})
        began = time.monotonic()
        await ask()
        assert time.monotonic() - began > 0.9, "none are left, so the window is waited for"

    drive(work)


@pytest.mark.parametrize("is_known", [True, False], ids=["shared already", "shared from then on"])
def test_however_many_share_a_host_nobody_rests_longer_than_until_its_window_opens(is_known: bool) -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 10, clock=lambda: 1000.0)
        last = {"ratelimit-remaining": "8" if is_known else "1", "ratelimit-reset": "140"}
        if is_known:
            limiter.share = Share(0, 8)
        limiter.answered(200, last)
        limiter.share = Share(0, 8)
        async with limiter.slot():
            pass
        assert limiter._not_before == 1141, "eight who take turns would wait eight times as long as the window lasts"

    drive(work)


def test_after_failures_the_host_rests_and_then_one_request_tries() -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 10)
        for _ in range(BREAKER_FAILURES):
            limiter.failed()
        assert limiter.is_paused
        with pytest.raises(HostPaused, match="rests"):
            async with limiter.slot():
                pass
        limiter._not_before = 0.0  # the rest is over
        trial = limiter.slot()
        await trial.__aenter__()
        waiting = asyncio.create_task(limiter.slot().__aenter__())
        await asyncio.sleep(0.01)
        assert not waiting.done(), "the others wait for the outcome of one"
        limiter.failed()
        await trial.__aexit__(None, None, None)
        with pytest.raises(HostPaused):
            await waiting
        limiter._not_before = 0.0
        async with limiter.slot():
            limiter.answered(200, {})
        async with limiter.slot():
            assert not limiter.is_paused

    drive(work)


def test_a_wait_longer_than_an_import_has_patience_is_an_error_with_the_hosts_own_time() -> None:
    async def work() -> None:
        limiter = HostLimiter("https://a", 10, longest_wait=5)
        limiter.answered(429, {"retry-after": "3600"})
        with pytest.raises(RateLimited) as caught:
            async with limiter.slot():
                pass
        assert 3500 < caught.value.retry_after <= 3600
        assert limiter.in_flight == 0

    drive(work)


@pytest.mark.long
def test_a_host_that_only_ever_says_429_is_given_up(settings: Settings) -> None:
    network = SampleNetwork()
    network.behave(host="pds-1", faults=[{"kind": "429", "seconds": 1}])

    async def work(origin: str) -> None:
        client = open_network(settings, longest_wait=2)
        began = time.monotonic()
        try:
            with pytest.raises(RateLimited):
                await client.xrpc.get(origin, "/xrpc/com.atproto.repo.listRecords", {"repo": "x"})
        finally:
            await client.aclose()
        assert time.monotonic() - began < 10

    with run_in_thread(network):
        drive(lambda: work(network.hosts["pds-1"].url))


@pytest.mark.long
def test_a_host_that_only_ever_says_429_does_not_keep_each_of_its_accounts_waiting(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 1})
    network.behave(host="pds-1", faults=[{"kind": "429", "seconds": 1}])

    async def work(origin: str) -> None:
        client = open_network(settings, longest_wait=1.5)

        async def ask() -> None:
            await client.xrpc.get(origin, "/xrpc/com.atproto.sync.getLatestCommit", {"did": did})

        try:
            with pytest.raises(RateLimited):
                await ask()
            asked = network.log.count()
            for _ in range(20):
                with pytest.raises(RateLimited, match="every request"):
                    await ask()
            assert network.log.count() == asked, "the others need not ask, nor wait"
            network.behave_normally()
            await asyncio.sleep(2.5)
            await ask()  # after its rest the host is asked again, and is as good as any
            assert not client.xrpc.limiters.of(origin).is_resting
        finally:
            await client.aclose()

    with run_in_thread(network):
        drive(lambda: work(network.hosts["pds-1"].url))


@pytest.mark.long
def test_limits_of_the_host_are_kept_by_all_walks_together(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 30}) for _ in range(8)]
    network.behave(host="pds-1", rate_limit=30, rate_window=2.0)
    with importing(settings, network, page_size=10) as (service, _):
        results = service.import_pairs([Pair(did, POST) for did in dids])
    assert all(result.completed for result in results)
    refused = network.log.count(host="pds-1", status=429)
    asked = network.log.count(host="pds-1")
    assert refused <= 0.15 * asked, f"{refused} of {asked} requests were refused"


def finish_times(service: Any, pairs: list[Pair]) -> dict[str, float]:
    began = time.monotonic()
    ended: dict[str, float] = {}

    def note(event: object) -> None:
        if isinstance(event, ImportCompleted | ImportFailed):
            ended[event.did] = time.monotonic() - began

    service.import_pairs(pairs, on_event=note)
    return ended


@pytest.mark.parametrize("trouble", quick(1, ["dead", "slow", "hanging", "limited", "drip"]))
def test_hosts_in_trouble_do_not_hold_up_the_others(settings: Settings, trouble: str) -> None:
    network = SampleNetwork(hosts=9)
    bad = [network.add_account({POST: 3}, host=f"pds-{1 + n % 8}") for n in range(160)]
    good = [network.add_account({POST: 25}, host="pds-9") for _ in range(20)]
    with importing(settings, network, page_size=10, concurrency=16, request_timeout=3.0) as (service, _):
        for name in [f"pds-{n}" for n in range(1, 9)]:
            if trouble == "slow":
                network.behave(host=name, latency=0.4)
            elif trouble == "dead":
                network.take_down_host(name)
            elif trouble == "hanging":
                network.behave(host=name, faults=[{"kind": "hang"}])
            elif trouble == "limited":
                network.behave(host=name, faults=[{"kind": "429", "seconds": 8, "times": 1}])
            else:
                network.behave(host=name, faults=[{"kind": "drip", "seconds": 30}])
        ended = finish_times(service, [Pair(did, POST) for did in bad + good])
    last_good = max(ended[did] for did in good)
    last_bad = max(ended[did] for did in bad)
    # What is in flight is limited over all hosts, so hosts that hang can hold places for one time-out each.
    assert last_good < (last_bad * 0.7 if trouble in ("slow", "limited") else 15), (last_good, last_bad)


@pytest.mark.parametrize("count", quick(1, [300, 1500]))
@pytest.mark.long
def test_many_accounts_on_one_dead_host_are_done_with_quickly(settings: Settings, count: int) -> None:
    network = SampleNetwork(hosts=1)
    dids = [network.add_account({POST: 1}) for _ in range(count)]
    with importing(settings, network) as (service, _):
        network.take_down_host("pds-1")
        began = time.monotonic()
        results = service.import_pairs(Pair(did, POST) for did in dids)
        assert time.monotonic() - began < 40
        assert {result.error_code for result in results} <= {"unreachable", "host_paused"}
        assert network.log.count(host="plc") < 1.2 * len(dids), "the directory is not asked again for each"


def test_the_directory_has_a_limit_of_its_own() -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 1}) for _ in range(21)]

    async def work(plc_url: str) -> float:
        settings = load_settings(allow_private_hosts=True, plc_url=plc_url, plc_rate=20.0)
        client = open_network(settings)
        began = time.monotonic()
        await asyncio.gather(*(client.identities.resolve_did(did) for did in dids))
        await client.aclose()
        return time.monotonic() - began

    with run_in_thread(network) as running:
        assert 0.95 < drive(lambda: work(running.plc_url)) < 5


def test_no_more_requests_are_in_flight_than_the_settings_allow(settings: Settings) -> None:
    network = SampleNetwork(hosts=6)
    dids = [network.add_account({POST: 10}) for _ in range(60)]
    network.behave(latency=0.02)
    with importing(settings, network, concurrency=5) as (service, _):
        began = time.monotonic()
        service.import_pairs([Pair(did, POST) for did in dids])
        elapsed = time.monotonic() - began
    pds_requests = sum(network.log.count(host=name) for name in network.hosts)
    assert pds_requests >= 180
    assert elapsed > pds_requests * 0.02 / 5 * 0.9


def test_a_connection_that_cannot_be_made_is_retried_and_then_the_hosts_error(settings: Settings) -> None:
    async def work() -> None:
        client = open_network(settings)
        with pytest.raises(HostUnreachable):
            await client.xrpc.get("http://127.0.0.1:9", "/")
        await client.aclose()

    drive(work)


MEMORY_PROGRAM = """
import resource, sys
from parity_dagster.models import Pair
from parity_dagster.service import ImportService
with ImportService(report=False) as service:
    service.import_user(sys.argv[1], [sys.argv[-1]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = service.import_pairs([Pair(did, sys.argv[-1]) for did in sys.argv[1:-1]])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024, sum(result.completed for result in results))
"""


@pytest.mark.long
def test_many_hosts_with_huge_pages_do_not_fill_the_memory(settings: Settings) -> None:
    """24 pages of 30 MiB at once would take more than a gigabyte."""
    network = SampleNetwork(hosts=25)
    dids = [network.add_account({POST: 2}, host=f"pds-{25 - n}") for n in range(25)]
    padded = {"kind": "padded", "method": "listRecords", "size": 30 * 2**20}
    for number in range(1, 25):
        network.behave(host=f"pds-{number}", last_cursor=False, faults=[padded])
    assert settings.database_url is not None
    with run_in_thread(network) as running:
        environment = {
            "PARITY_DATABASE_URL": settings.database_url.get_secret_value(),
            "PARITY_PLC_URL": running.plc_url,
            "PARITY_ALLOW_PRIVATE_HOSTS": "1",
            "PARITY_PAGE_SIZE": "2",
        }
        output = subprocess.run(
            [sys.executable, "-c", MEMORY_PROGRAM, *dids, POST],
            env=os.environ | environment, capture_output=True, text=True, timeout=200, check=True,
        ).stdout  # fmt: skip
    megabytes, completed = map(int, output.split())
    assert completed == 25, "they are read all the same, a few at a time"
    assert megabytes < 400
