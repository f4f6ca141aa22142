"""Copies are kept fresh: by the lists of their hosts, or by asking their accounts; and no list can do harm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest

from parity_dagster.errors import SettingsError
from parity_dagster.importing.freshness import FEWEST_ACCOUNTS, MOST_WAITING
from parity_dagster.models import ImportStatus, Pair, Refreshing
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.forked import start_refresh
from parity_dagster_tests.imports import assert_equal, query, settings_for, stored
from parity_dagster_tests.quick import quick

WEEK = timedelta(days=7)
UNKNOWN = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=23)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings_for(settings, network, collections=(POST, LIKE), refresh_every=WEEK)


@pytest.fixture
def service(settings: Settings) -> Iterator[ImportService]:
    with ImportService(settings, report=False) as service:
        yield service


def imported(service: ImportService, network: Running, number: int, host: str = "pds-1", days: float = 8) -> list[str]:
    """Complete accounts of one host, each copy of an age."""
    dids = [network.network.add_account({POST: 3, LIKE: 2}, host=host) for _ in range(number)]
    assert all(
        result.is_success for result in service.import_pairs(Pair(did, nsid) for did in dids for nsid in (POST, LIKE))
    )
    grow_old(service, dids, days)
    return dids


def grow_old(service: ImportService, dids: list[str], days: float = 8) -> None:
    query(
        service.settings,
        "UPDATE parity_import_states SET completed_at = completed_at - %s, confirmed_at = confirmed_at - %s,"
        " updated_at = updated_at - %s WHERE did = ANY(%s)",
        *[timedelta(days=days)] * 3,
        dids,
    )
    query(service.settings, "UPDATE parity_host_lists SET began_at = began_at - %s", timedelta(days=days))


def asked(network: Running, method: str, host: str | None = None) -> int:
    return network.network.log.count(method=f"com.atproto.sync.{method}", host=host)


def statuses(service: ImportService) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for did, status, is_confirmed in query(
        service.settings, "SELECT did, status, confirmed_at IS NOT NULL FROM parity_import_states"
    ):
        found.setdefault(did, set()).add("confirmed" if is_confirmed and status == "completed" else status)
    return found


def test_one_page_of_a_host_confirms_what_is_unchanged_and_queues_what_has_changed(
    service: ImportService, network: Running
) -> None:
    *quiet, busy = imported(service, network, 6)
    network.network.put_record(busy, POST)
    before = asked(network, "getLatestCommit")
    assert service.refresh_stale()[:3] == (10, 2, 1)
    assert statuses(service) == {**{did: {"confirmed"} for did in quiet}, busy: {"pending"}}
    assert asked(network, "listRepos") == 1
    assert asked(network, "getLatestCommit") == before
    assert all(result.is_success for result in service.resume_all())
    assert_equal(service.settings, network.network, busy, POST)
    assert len(stored(service.settings, busy, POST)) == 4
    assert service.refresh_stale()[:3] == (0, 0, 0)


def test_a_few_accounts_of_a_host_are_asked_themselves(service: ImportService, network: Running) -> None:
    dids = imported(service, network, FEWEST_ACCOUNTS - 1)
    before = asked(network, "getLatestCommit")
    assert service.refresh_stale()[:3] == (0, 2 * len(dids), 0)
    assert asked(network, "listRepos") == 0
    assert {state.status for state in service.find_states()} == {ImportStatus.PENDING}
    pages = asked(network, "listRecords")
    assert all(result.is_success for result in service.resume_all())
    assert asked(network, "getLatestCommit") == before + len(dids)
    assert asked(network, "listRecords") == pages


def test_a_host_is_chosen_by_what_its_list_is_known_to_cost(service: ImportService, network: Running) -> None:
    dids = imported(service, network, 6)
    network.network.behave(host="pds-1", page_cap=4)
    assert service.refresh_stale()[:3] == (12, 0, 2)
    grow_old(service, dids[:2])
    assert service.refresh_stale()[:3] == (0, 4, 0)
    grow_old(service, dids[2:5])
    assert service.refresh_stale()[:3] == (6, 0, 2)


def test_a_list_that_is_longer_than_it_is_worth_is_given_up_and_not_tried_again(
    service: ImportService, network: Running
) -> None:
    dids = imported(service, network, 6)
    for _ in range(10):
        network.network.add_account({POST: 1}, host="pds-1")
    network.network.behave(host="pds-1", page_cap=2)
    assert service.refresh_stale().pages == 3
    assert service.refresh_stale()[1:3] == (0, 0)
    grow_old(service, dids)
    assert service.refresh_stale()[:3] == (0, 12, 0)
    assert asked(network, "listRepos") == 3


def test_a_list_takes_what_is_half_as_old_and_leaves_what_is_younger(service: ImportService, network: Running) -> None:
    due = imported(service, network, 4)
    half, young = imported(service, network, 1, days=4), imported(service, network, 1, days=3)
    for did in half + young:
        network.network.put_record(did, POST)
    service.refresh_stale()
    assert statuses(service) == {**{did: {"confirmed"} for did in due}, half[0]: {"pending"}, young[0]: {"completed"}}


def test_an_account_that_was_read_from_another_host_is_nothing_of_this_one(
    service: ImportService, network: Running
) -> None:
    imported(service, network, 4, host="pds-1")
    same, ahead = imported(service, network, 2, host="pds-2", days=5)
    hosts = network.network.hosts
    hosts["pds-1"].repos[same] = hosts["pds-2"].repos[same].copy()
    network.network.put_record(ahead, POST)
    hosts["pds-1"].repos[ahead] = hosts["pds-2"].repos[ahead].copy()
    service.refresh_stale()
    assert asked(network, "listRepos", "pds-1") == 1
    assert statuses(service)[same] == statuses(service)[ahead] == {"completed"}


@pytest.mark.parametrize("is_known", [True, False])
def test_an_account_that_has_moved_is_not_confirmed_by_its_old_host(
    service: ImportService, network: Running, is_known: bool
) -> None:
    stay = imported(service, network, 4)
    (moved,) = imported(service, network, 1)
    network.network.migrate(moved, "pds-2", old="stale")
    network.network.put_record(moved, POST)
    # where it lives was looked up before it moved, more than a day ago
    query(service.settings, "UPDATE parity_identities SET resolved_at = now() - interval '2 days'")
    if is_known:
        query(
            service.settings,
            "UPDATE parity_identities SET pds = %s, resolved_at = now() WHERE did = %s",
            network.pds_urls["pds-2"],
            moved,
        )
    assert service.refresh_stale()[:3] == (8, 0, 1)
    assert statuses(service) == {**{did: {"confirmed"} for did in stay}, moved: {"completed"}}
    assert service.refresh_stale()[:3] == (0, 2, 0)
    assert all(result.is_success for result in service.resume_all())
    assert_equal(service.settings, network.network, moved, POST)


def test_what_the_directorys_log_was_read_for_is_not_looked_up_again(service: ImportService, network: Running) -> None:
    dids = imported(service, network, 4)
    service.sync_directory()
    query(service.settings, "UPDATE parity_identities SET resolved_at = now() - interval '2 days'")
    before = len(network.network.log.entries(method="did"))
    assert service.refresh_stale()[:3] == (8, 0, 1)
    assert len(network.network.log.entries(method="did")) == before
    assert set(statuses(service)) == set(dids)


def test_an_account_that_has_moved_is_read_from_its_new_host_before_that_one_confirms_it(
    service: ImportService, network: Running
) -> None:
    here = imported(service, network, 4, host="pds-2")
    (moved,) = imported(service, network, 1, days=5)
    network.network.migrate(moved, "pds-2")
    query(service.settings, "UPDATE parity_identities SET pds = %s", network.pds_urls["pds-2"])
    service.refresh_stale()
    assert statuses(service) == {**{did: {"confirmed"} for did in here}, moved: {"completed"}}


def test_a_directory_that_does_not_answer_confirms_nobody_and_holds_up_nothing(
    service: ImportService, network: Running
) -> None:
    dids = imported(service, network, 4)
    query(service.settings, "UPDATE parity_identities SET resolved_at = now() - interval '2 days'")
    for did in dids[:3]:
        network.network.set_document(did, b"{}")
    network.network.tombstone(dids[3])
    assert service.refresh_stale()[:3] == (0, 0, 1)
    assert service.refresh_stale()[:3] == (0, 8, 0)
    assert len(stored(service.settings, dids[3], POST)) == 3


@pytest.mark.parametrize("lie", ["no-rev", "old-rev", "future-rev", "bad-rev"])
def test_a_revision_that_is_none_or_went_back_or_is_of_the_future_proves_nothing(
    service: ImportService, network: Running, lie: str
) -> None:
    dids = imported(service, network, 4)
    network.network.behave(host="pds-1", account_lies=(lie,))
    assert service.refresh_stale()[:3] == (0, 0, 1)
    assert set(statuses(service)) == set(dids)
    # nobody was confirmed, so each is asked
    assert service.refresh_stale()[:3] == (0, 8, 0)
    assert all(result.is_success for result in service.resume_all())
    assert all(len(stored(service.settings, did, POST)) == 3 for did in dids)


def test_a_list_that_shows_two_revisions_of_an_account_has_shown_none(service: ImportService, network: Running) -> None:
    first, *others = imported(service, network, 4)
    network.network.behave(host="pds-1", account_lies=("two-revs",))
    service.refresh_stale()
    assert statuses(service) == {first: {"completed"}, **{did: {"confirmed"} for did in others}}


class Between:
    """A transport that does something before some page of a host's list is asked for, perhaps before all later ones."""

    def __init__(self, number: int, action: Callable[[], None], *, again: bool = False) -> None:
        self._left = number
        self._action = action
        self._again = again

    def __call__(self, ours: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return _Watching(ours, self)

    def pass_page(self) -> None:
        self._left -= 1
        if not self._left or (self._left < 0 and self._again):
            self._action()


class _Watching(httpx.AsyncBaseTransport):
    def __init__(self, ours: httpx.AsyncBaseTransport, between: Between) -> None:
        self._ours = ours
        self._between = between

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("listRepos"):
            self._between.pass_page()
        return await self._ours.handle_async_request(request)

    async def aclose(self) -> None:
        await self._ours.aclose()


def test_an_account_that_a_later_page_shows_otherwise_is_asked(service: ImportService, network: Running) -> None:
    dids = imported(service, network, 6)
    network.network.behave(host="pds-1", page_cap=3, account_lies=("repeated",))

    def write() -> None:
        network.network.put_record(dids[2], POST)

    with ImportService(service.settings, report=False, transport=Between(2, write)) as watched:
        assert watched.refresh_stale()[:2] == (12, 2)
    expected = {did: {"confirmed"} for did in dids} | {dids[2]: {"pending"}}
    assert statuses(service) == expected


def test_of_two_that_read_a_list_at_the_same_time_one_takes_each_page(service: ImportService, network: Running) -> None:
    imported(service, network, 8)
    network.network.behave(host="pds-1", page_cap=3)
    others: list[Refreshing] = []

    def look_as_well() -> None:
        # its second page does not come, so that the list is still under way
        def fail() -> None:
            raise httpx.UnsupportedProtocol("not now")

        with ImportService(service.settings, report=False, transport=Between(2, fail, again=True)) as other:
            others.append(other.refresh_stale())

    with ImportService(service.settings, report=False, transport=Between(2, look_as_well)) as watched:
        assert watched.refresh_stale()[:3] == (6, 0, 1)
    assert [done[:3] for done in others] == [(6, 0, 1)]
    assert query(service.settings, "SELECT pages FROM parity_host_lists") == [(2,)]
    assert service.refresh_stale()[:3] == (4, 0, 1)


def test_whoever_is_killed_goes_on_behind_the_last_page(service: ImportService, network: Running) -> None:
    dids = imported(service, network, 8)
    hanging = Fault(kind="hang", method="listRepos", with_cursor=True, skip=1)
    network.network.behave(host="pds-1", page_cap=3, faults=(hanging,))
    killed = start_refresh(service.settings)
    confirmed = "SELECT count(*) FROM parity_import_states WHERE confirmed_at IS NOT NULL"
    deadline = time.monotonic() + 60
    while query(service.settings, confirmed) != [(12,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.join()
    network.network.behave(host="pds-1", faults=())
    assert service.refresh_stale()[:3] == (4, 0, 1)
    assert set(statuses(service)) == set(dids)
    cursors = [entry.cursor for entry in network.network.log.entries(method="listRepos")]
    assert cursors[0] is None
    assert len(set(cursors[:3])) == 3
    assert cursors[-1] == cursors[2]


def test_an_account_that_its_hosts_list_leaves_out_is_asked_and_its_records_are_kept(
    service: ImportService, network: Running
) -> None:
    *there, absent = imported(service, network, 5)
    network.network.drop_repo(absent)
    assert service.refresh_stale()[:3] == (8, 0, 1)
    assert statuses(service)[absent] == {"completed"}
    assert service.refresh_stale()[:3] == (0, 2, 0)
    assert {result.error_code for result in service.resume_all()} == {"repo_not_found"}
    assert len(stored(service.settings, absent, POST)) == 3
    assert all(len(stored(service.settings, did, POST)) == 3 for did in there)


@pytest.mark.parametrize("status", quick(1, ["deactivated", "takendown", "suspended", "deleted"]))
def test_what_a_list_calls_gone_is_asked_before_anything_is_hidden_and_is_back_when_it_is_listed_again(
    service: ImportService, network: Running, status: str
) -> None:
    *others, gone = imported(service, network, 5)
    network.network.set_status(gone, status)  # type: ignore[arg-type]
    assert service.refresh_stale()[:3] == (8, 2, 1)
    assert len(stored(service.settings, gone, POST)) == 3
    assert not any(result.is_success for result in service.resume_all())
    assert stored(service.settings, gone, POST) == {}
    network.network.set_status(gone, "active")
    assert service.refresh_stale()[:3] == (0, 0, 0)
    grow_old(service, [*others, gone])
    assert service.refresh_stale()[:3] == (8, 2, 1)
    assert all(result.is_success for result in service.resume_all())
    assert_equal(service.settings, network.network, gone, POST)


def test_a_list_that_calls_everybody_gone_hides_nobody(service: ImportService, network: Running) -> None:
    dids = imported(service, network, 4)
    network.network.behave(host="pds-1", account_lies=("none-active",))
    assert service.refresh_stale()[:2] == (0, 8)
    assert all(result.is_success for result in service.resume_all())
    assert all(len(stored(service.settings, did, POST)) == 3 for did in dids)


def test_accounts_that_are_gone_are_looked_at_again_where_no_list_names_them(
    service: ImportService, network: Running
) -> None:
    (gone,) = imported(service, network, 1)
    network.network.set_status(gone, "deactivated")
    service.refresh_stale()
    assert not any(result.is_success for result in service.resume_all())
    assert service.refresh_stale()[:2] == (0, 0)
    grow_old(service, [gone])
    network.network.set_status(gone, "active")
    assert service.refresh_stale()[:2] == (0, 2)
    assert all(result.is_success for result in service.resume_all())
    assert len(stored(service.settings, gone, POST)) == 3


def test_what_failed_for_good_is_tried_again_after_as_long_and_what_is_tried_again_anyway_is_left(
    service: ImportService, network: Running
) -> None:
    lost, waiting = imported(service, network, 2)
    query(
        service.settings,
        "UPDATE parity_import_states SET status = 'failed', error_code = 'unreachable', completed_at = NULL,"
        " next_attempt_at = CASE WHEN did = %s THEN now() + interval '1 hour' END",
        waiting,
    )
    assert service.refresh_stale(timedelta(days=9))[:2] == (0, 0)
    assert service.refresh_stale()[:2] == (0, 2)
    assert statuses(service) == {lost: {"pending"}, waiting: {"failed"}}


def test_what_a_person_has_stopped_stays_so_and_takes_nobodys_room(service: ImportService, network: Running) -> None:
    (stopped,) = imported(service, network, 1)
    query(
        service.settings,
        "UPDATE parity_import_states SET status = 'failed', error_code = 'deactivated', batch = 'held:some-run'",
    )
    invent(service, MOST_WAITING)
    query(
        service.settings,
        "UPDATE parity_import_states SET status = 'pending', refresh = true, batch = 'held:some-run'"
        " WHERE status = 'completed'",
    )
    due = imported(service, network, 1, host="pds-2")
    assert service.refresh_stale()[:2] == (0, 2)
    assert statuses(service)[stopped] == {"failed"}
    assert statuses(service)[due[0]] == {"pending"}


def test_what_failed_in_part_or_became_empty_is_not_passed_over_as_unchanged(
    service: ImportService, network: Running
) -> None:
    *whole, odd = imported(service, network, 4)
    query(service.settings, "UPDATE parity_import_states SET records_failed = 1 WHERE did = %s", odd)
    query(service.settings, "UPDATE parity_import_states SET rev = NULL WHERE did = %s AND collection = %s", odd, LIKE)
    assert service.refresh_stale()[:2] == (6, 0)
    assert statuses(service) == {**{did: {"confirmed"} for did in whole}, odd: {"completed"}}
    assert service.refresh_stale()[:2] == (0, 2)


@pytest.mark.parametrize("loop", quick(2, ["same", "advance", "ignore"]))
def test_a_list_without_an_end_is_given_up(service: ImportService, network: Running, loop: str) -> None:
    imported(service, network, 8)
    network.network.behave(host="pds-1", loop=loop, page_cap=3)
    done = service.refresh_stale()
    assert done.pages <= 4
    assert 6 <= done.confirmed <= 12
    assert service.refresh_stale()[:3] == (0, 16 - done.confirmed, 0)


def test_a_list_that_leads_back_to_where_it_was_is_given_up(service: ImportService, network: Running) -> None:
    imported(service, network, 16)
    cursors: list[str | None] = []

    class Circle(httpx.AsyncBaseTransport):
        def __init__(self, ours: httpx.AsyncBaseTransport) -> None:
            self._ours = ours

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not request.url.path.endswith("listRepos"):
                return await self._ours.handle_async_request(request)
            cursors.append(request.url.params.get("cursor"))
            repos = [{"did": UNKNOWN, "rev": "3l4d5gabcd22z", "active": True}]
            return httpx.Response(200, json={"repos": repos, "cursor": f"c{len(cursors) % 3}"})

        async def aclose(self) -> None:
            await self._ours.aclose()

    with ImportService(service.settings, report=False, transport=Circle) as circling:
        assert circling.refresh_stale()[:3] == (0, 0, 7)
    assert cursors == [None, "c1", "c2", "c0", "c1", "c2", "c0"]
    assert service.refresh_stale()[:3] == (0, 32, 0)


@pytest.mark.parametrize("kind", quick(2, ["501", "404", "wrong-shape", "html"]))
def test_a_host_that_gives_no_list_has_its_accounts_asked(service: ImportService, network: Running, kind: str) -> None:
    imported(service, network, 4)
    network.network.behave(host="pds-1", faults=(Fault(kind=kind, method="listRepos"),))  # type: ignore[arg-type]
    looks = 1
    while (done := service.refresh_stale()) == Refreshing(stalest_seconds=done.stalest_seconds):
        looks += 1
    assert looks <= 4
    assert done[:3] == (0, 8, 0)
    asked_before = asked(network, "listRepos")
    query(service.settings, "UPDATE parity_import_states SET status = 'completed'")
    assert service.refresh_stale()[:3] == (0, 8, 0)
    assert asked(network, "listRepos") == asked_before


def test_lists_of_several_hosts_are_read_side_by_side(service: ImportService, network: Running) -> None:
    for host in ("pds-1", "pds-2"):
        imported(service, network, 4, host=host)

    class Together(httpx.AsyncBaseTransport):
        """Lets a page of either host pass when both were asked for."""

        def __init__(self, ours: httpx.AsyncBaseTransport) -> None:
            self._ours = ours
            self._both = asyncio.Barrier(2)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await self._both.wait()
            return await self._ours.handle_async_request(request)

        async def aclose(self) -> None:
            await self._ours.aclose()

    with ImportService(service.settings, report=False, transport=Together) as together:
        assert together.refresh_stale()[:3] == (16, 0, 2)


def test_what_somebody_works_on_and_what_is_not_registered_any_more_is_left_alone(
    service: ImportService, network: Running
) -> None:
    dids = imported(service, network, 5)
    busy, *_ = dids
    network.network.put_record(dids[1], POST)
    query(service.settings, "UPDATE parity_import_states SET status = 'in_progress' WHERE did = %s", busy)
    with ImportService(service.settings.model_copy(update={"collections": (POST,)}), report=False) as narrow:
        assert narrow.refresh_stale()[:3] == (6, 1, 1)
    assert statuses(service)[busy] == {"in_progress"}
    left = "SELECT collection FROM parity_import_states WHERE did = %s AND status = 'completed'"
    assert query(service.settings, left, dids[1]) == [(LIKE,)]


def test_what_an_account_has_of_half_the_age_goes_with_what_is_due(service: ImportService, network: Running) -> None:
    both, one = imported(service, network, 2)
    age = "UPDATE parity_import_states SET completed_at = now() - %s WHERE did = %s AND collection = %s"
    query(service.settings, age, timedelta(days=4), both, LIKE)
    query(service.settings, age, timedelta(days=3), one, LIKE)
    assert service.refresh_stale()[:2] == (0, 3)
    assert statuses(service) == {both: {"pending"}, one: {"pending", "completed"}}


def invent(service: ImportService, number: int) -> None:
    """Stale pairs of hosts with three accounts each, the stalest first."""
    query(
        service.settings,
        "INSERT INTO parity_import_states (did, collection, status, pds, rev, completed_at)"
        " SELECT 'did:plc:' || n, %s, 'completed', 'https://h' || n / 3, 'r', now() - interval '30 days'"
        " + n * interval '1 minute' FROM generate_series(1, %s) n",
        POST,
        number,
    )


def test_a_list_is_read_however_many_accounts_of_other_hosts_are_due(service: ImportService, network: Running) -> None:
    imported(service, network, 4)
    invent(service, MOST_WAITING)
    assert service.refresh_stale()[:3] == (8, MOST_WAITING // 2, 1)


def test_the_stalest_are_queued_first_and_no_more_than_one_run_imports(service: ImportService) -> None:
    invent(service, MOST_WAITING + 100)
    assert service.refresh_stale().queued == MOST_WAITING
    ((left,),) = query(
        service.settings,
        "SELECT array_agg(split_part(did, ':', 3)::int ORDER BY id) FROM parity_import_states"
        " WHERE status = 'completed'",
    )
    assert left == list(range(MOST_WAITING + 1, MOST_WAITING + 101))
    assert service.refresh_stale().queued == 0
    query(service.settings, "DELETE FROM parity_import_states WHERE status = 'pending' AND did < 'did:plc:2'")
    assert service.refresh_stale().queued == 100


def test_what_no_run_will_take_up_does_not_wait(service: ImportService) -> None:
    invent(service, MOST_WAITING)
    assert service.refresh_stale().queued == MOST_WAITING
    query(service.settings, "UPDATE parity_import_states SET collection = 'com.example.former'")
    invent(service, 10)
    assert service.refresh_stale().queued == 10


def test_what_nobody_has_said_how_old_it_may_become_is_left(settings: Settings) -> None:
    with (
        ImportService(settings.model_copy(update={"refresh_every": None}), report=False) as service,
        pytest.raises(SettingsError, match="PARITY_REFRESH_EVERY"),
    ):
        service.refresh_stale()
