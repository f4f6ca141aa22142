"""Accounts are found in lists and queued: each once, whatever the list says, whoever is killed or refused when."""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from parity_dagster.errors import (
    BlockedEndpoint,
    CollectionNotRegistered,
    InvalidIdentifier,
    ListBusy,
    SettingsError,
)
from parity_dagster.importing.discovery import BARREN_PAGES
from parity_dagster.models import Discovery, Pair
from parity_dagster.sample_network import FOLLOW, LIKE, POST, Fault, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import migrate
from parity_dagster_tests.forked import start_discovery
from parity_dagster_tests.importing.test_crash import Tripwire
from parity_dagster_tests.imports import query, settings_for
from parity_dagster_tests.quick import quick


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=23)) as running:
        yield running


@pytest.fixture
def service(settings: Settings, network: Running) -> Iterator[ImportService]:
    with ImportService(settings_for(settings, network, collections=(POST, LIKE)), report=False) as service:
        yield service


def add(network: Running, count: int, nsid: str = POST) -> list[str]:
    return [network.network.add_account({nsid: 1}) for _ in range(count)]


def queued(settings: Settings) -> list[Pair]:
    rows = query(settings, "SELECT did, collection FROM parity_import_states WHERE status = 'pending' ORDER BY id")
    return [Pair(*row) for row in rows]


def asked(network: Running, host: str = "relay") -> list[str | None]:
    """Cursors that were asked for since the last look."""
    cursors = [entry.cursor for entry in network.network.log.entries(host=host, status=200)]
    network.network.log.clear()
    return cursors


def row(settings: Settings, *columns: str) -> tuple[Any, ...]:
    (found,) = query(settings, f"SELECT {', '.join(columns)} FROM parity_discoveries")
    return found


def discover(service: ImportService, *nsids: str, **options: Any) -> Discovery:
    (found,) = service.discover(nsids or [POST], **options)
    return found


def test_every_account_is_queued_with_the_registered_collections(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 5)
    add(network, 2, LIKE)
    network.network.behave(host="relay", page_cap=2)
    told: list[Discovery] = []
    found = discover(service, on_progress=told.append)
    assert sorted(queued(settings)) == sorted(Pair(did, nsid) for did in dids for nsid in (POST, LIKE))
    assert found == Discovery(
        network.relay_url, POST, accounts=5, queued=10, pages=3, is_complete=True, is_resumed=False
    )
    assert [one.accounts for one in told] == [2, 4, 5]


def test_what_was_asked_for_before_stays_as_it_is(service: ImportService, settings: Settings, network: Running) -> None:
    first, second, third = add(network, 3)
    service.import_user(first)
    service.import_user_collection(second, POST)
    found = discover(service)
    assert (found.accounts, found.known, found.queued) == (3, 2, 3)
    assert set(queued(settings)) == {Pair(second, LIKE), Pair(third, POST), Pair(third, LIKE)}


def test_a_queued_account_can_be_imported(service: ImportService, network: Running) -> None:
    did = network.network.add_account({POST: 3, LIKE: 2})
    discover(service)
    assert sorted(result.records_synced for result in service.resume_all()) == [2, 3]
    assert service.is_imported(did, LIKE)


def test_only_some_collections_are_queued_if_so_wished(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 7, FOLLOW)
    network.network.behave(host="relay", page_cap=2)
    with pytest.raises(CollectionNotRegistered, match=f"{FOLLOW} is not a registered collection"):
        discover(service, FOLLOW)
    discover(service, FOLLOW, collections=[LIKE])
    assert sorted(queued(settings)) == sorted(Pair(did, LIKE) for did in dids)
    # whoever was passed with fewer collections is met again when more are wanted
    found = discover(service, FOLLOW, collections=[POST, LIKE])
    assert (found.is_resumed, found.queued) == (False, 7)
    assert set(queued(settings)) == {Pair(did, nsid) for did in dids for nsid in (POST, LIKE)}
    assert discover(service, FOLLOW, collections=[LIKE]).is_resumed


def test_of_several_collections_each_has_its_list_and_its_place(
    service: ImportService, settings: Settings, network: Running
) -> None:
    both = network.network.add_account({POST: 1, LIKE: 1})
    (liker,) = add(network, 1, LIKE)
    posts, likes = service.discover([POST, LIKE])
    assert (posts.accounts, posts.queued) == (1, 2)
    assert (likes.accounts, likes.known, likes.queued) == (2, 1, 2)
    assert {pair.did for pair in queued(settings)} == {both, liker}
    assert query(settings, "SELECT collection, accounts FROM parity_discoveries ORDER BY 1") == [(LIKE, 2), (POST, 1)]


def test_all_accounts_of_a_server_are_queued_but_those_it_calls_inactive(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 4)
    network.network.set_status(dids[2], "takendown")
    pds = network.pds_urls["pds-1"]
    (found,) = service.discover(pds=pds)
    assert (found.server, found.collection, found.accounts, found.inactive) == (pds, None, 1, 1)
    assert {pair.did for pair in queued(settings)} == {dids[0]}
    (other,) = service.discover([LIKE], pds=network.pds_urls["pds-2"])
    assert other.queued == 2
    assert set(queued(settings)[2:]) == {Pair(dids[1], LIKE), Pair(dids[3], LIKE)}


# The place.


def test_a_later_call_goes_on_at_the_last_page_and_finds_what_is_new(
    service: ImportService, settings: Settings, network: Running
) -> None:
    add(network, 5)
    network.network.behave(host="relay", page_cap=2)
    assert discover(service).is_resumed is False
    *_, last = asked(network)
    found = discover(service)
    assert (found.is_resumed, found.is_complete, found.accounts, found.known) == (True, True, 1, 1)
    assert asked(network) == [last]
    new = add(network, 4)
    found = discover(service)
    assert (found.accounts, found.known, found.queued, found.pages) == (5, 1, 8, 3)
    assert {pair.did for pair in queued(settings)[10:]} == set(new)
    assert row(settings, "accounts", "queued", "is_sorted") == (5, 18, False)


def test_a_list_in_the_order_of_dids_is_read_from_its_start_again(
    service: ImportService, settings: Settings, network: Running
) -> None:
    """New accounts may be anywhere in it."""
    network.network.behave(host="relay", account_order="did", page_cap=4)
    add(network, 20)
    discover(service)
    new = add(network, 20)
    found = discover(service)
    assert (found.is_resumed, found.accounts, found.known) == (False, 40, 20)
    assert {pair.did for pair in queued(settings)} >= set(new)


def test_a_list_that_was_last_begun_long_ago_is_read_from_its_start_again(
    service: ImportService, settings: Settings, network: Running
) -> None:
    """Its index may have been rebuilt, and new accounts stand before what was the end."""
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2)
    discover(service)
    query(settings, "UPDATE parity_discoveries SET began_at = now() - interval '8 days'")
    assert discover(service).accounts == len(dids)
    assert discover(service).accounts < len(dids)
    assert discover(service, from_start=True).accounts == len(dids)


def test_a_place_belongs_to_a_server_and_to_a_state_table(
    service: ImportService, settings: Settings, network: Running
) -> None:
    add(network, 6)
    network.network.behave(host="relay", page_cap=2)
    discover(service)
    other = settings_for(settings, network, collections=(POST,), state_table="another")
    migrate(other)
    with ImportService(other, report=False) as elsewhere:
        assert discover(elsewhere).queued == 6
    assert query(settings, "SELECT state_table::text FROM parity_discoveries ORDER BY id") == [
        ("parity_import_states",),
        ("another",),
    ]


def test_a_limit_is_kept_and_the_next_call_goes_on_behind_it(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 10)
    assert discover(service, limit=4).accounts == 4
    assert [pair.did for pair in queued(settings)][::2] == sorted(dids[:4])
    found = discover(service, limit=4)
    assert (found.accounts, found.known, found.is_resumed, found.is_complete) == (4, 0, True, False)
    found = discover(service, limit=4)
    assert (found.accounts, found.is_complete) == (2, True)
    assert {pair.did for pair in queued(settings)} == set(dids)
    add(network, 3, LIKE)
    assert [one.accounts for one in service.discover([POST, LIKE], limit=3, from_start=True)] == [3]


@pytest.mark.parametrize("step", quick(1, [3, 1]))
# I18
@pytest.mark.long
def test_killed_at_a_change_of_the_database_the_next_call_goes_on_there(
    settings: Settings, network: Running, step: int
) -> None:
    dids = add(network, 8)
    network.network.behave(host="relay", page_cap=3)
    here = settings_for(settings, network, collections=(POST,))
    wire = Tripwire(settings, ["parity_import_states", "parity_discoveries"])
    number, killed, resumed = 0, 0, 0
    while True:
        number += step
        query(settings, "TRUNCATE parity_import_states, parity_discoveries")
        wire.set(number)
        process = start_discovery(here, POST)
        if not wire.kill(process):
            break
        killed += process.exitcode == -signal.SIGKILL
        pages = sum(row for (row,) in query(settings, "SELECT pages FROM parity_discoveries"))
        asked(network)
        with ImportService(here, report=False) as service:
            found = discover(service)
            resumed += found.is_resumed
            assert found.known == 0, "what was saved is not met again"
            assert len(asked(network)) == 3 - pages, "no page that was saved is asked for again"
        assert sorted(queued(settings)) == sorted(Pair(did, POST) for did in dids)
        assert row(settings, "accounts", "queued", "pages", "ended_at IS NULL") == (8, 8, 3, False)
    assert killed >= 12 // step
    assert resumed
    wire.conn.close()


def test_refused_in_the_middle_the_next_call_goes_on_there(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 6)
    faults = (Fault(kind="503", method="listReposByCollection", skip=2, times=3, message="busy with 1501 ms"),)
    network.network.behave(host="relay", page_cap=2, faults=faults)
    found = discover(service)
    assert (found.is_success, found.is_complete, found.error_code, found.accounts) == (False, False, "server_error", 4)
    assert row(settings, "accounts", "error", "ended_at", "failures") == (4, found.error, None, 0)
    asked(network)
    found = discover(service)
    assert (found.accounts, found.known, found.is_complete, found.is_resumed) == (2, 0, True, True)
    assert len(asked(network)) == 2, "the page that was refused, and an empty one"
    assert {pair.did for pair in queued(settings)} == set(dids)
    assert row(settings, "accounts", "error", "ended_at IS NULL") == (6, None, False)


def test_a_server_that_is_away_is_a_failed_reading_and_counted(
    service: ImportService, settings: Settings, network: Running
) -> None:
    network.network.take_down_host("relay")
    assert [discover(service).error_code for _ in range(2)] == ["unreachable"] * 2
    assert row(settings, "failures", "pages") == (2, 0)


@pytest.mark.parametrize("fault", quick(1, ["400", "500"]))
def test_a_cursor_that_is_not_known_any_more_starts_the_list_over(
    service: ImportService, settings: Settings, network: Running, fault: Any
) -> None:
    """500 is what the reference directory of collections says to a cursor that it cannot read."""
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2)
    discover(service, limit=2)
    faults = (Fault(kind=fault, method="listReposByCollection", with_cursor=True, times=15),)
    network.network.behave(host="relay", page_cap=0, faults=faults)
    found = discover(service)
    assert (found.is_resumed, found.accounts, found.known, found.error) == (False, 6, 2, None)
    assert {pair.did for pair in queued(settings)} == set(dids)


@pytest.mark.parametrize("fault", ["400", "500"])
# I18
@pytest.mark.long
def test_a_server_that_refuses_everything_for_a_while_costs_no_place(
    service: ImportService, settings: Settings, network: Running, fault: Any
) -> None:
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2)
    discover(service, limit=4)
    network.network.behave(host="relay", faults=(Fault(kind=fault, method="listReposByCollection"),))
    assert discover(service).error
    network.network.behave(host="relay", faults=())
    found = discover(service)
    assert (found.is_resumed, found.accounts, found.known) == (True, 2, 0)
    assert {pair.did for pair in queued(settings)} == set(dids)


@pytest.mark.long
def test_one_call_at_a_time_reads_a_list(service: ImportService, settings: Settings, network: Running) -> None:
    add(network, 4)
    network.network.behave(host="relay", page_cap=2)
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Discovery) -> None:
        entered.set()
        leave.wait(30)

    results: list[Discovery] = []
    thread = threading.Thread(target=lambda: results.append(discover(service, on_progress=wait)))
    thread.start()
    entered.wait(30)
    with ImportService(service.settings, report=False) as other:
        assert discover(other).error_code == ListBusy.code
        assert discover(other, LIKE).error is None, "another list is nobody's"
    leave.set()
    thread.join()
    assert results[0].is_complete
    assert discover(service).error is None


def test_a_session_that_is_lost_costs_nothing(service: ImportService, settings: Settings, network: Running) -> None:
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2)

    def cut(found: Discovery) -> None:
        if found.pages == 1:
            while query(
                settings,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()",
            ):
                time.sleep(0.01)

    found = discover(service, on_progress=cut)
    assert (found.accounts, found.queued, found.error) == (6, 12, None)
    assert {pair.did for pair in queued(settings)} == set(dids)


class DeafProxy:
    """Stands before PostgreSQL, and cuts every second connection that saves a page when the commit is done, unheard."""

    def __init__(self, url: str) -> None:
        self._server = conninfo_to_dict(url)
        self._commits = 0
        self.cut = 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        host, port = str(self._server["host"]), int(self._server.get("port") or 5432)
        is_local = host.startswith("/")
        server = socket.socket(socket.AF_UNIX if is_local else socket.AF_INET)
        server.connect(f"{host}/.s.PGSQL.{port}" if is_local else (host, port))
        saves = False
        with client, server, suppress(OSError):
            while ready := select.select([client, server], [], [])[0]:
                if client in ready:
                    if not (sent := client.recv(65_536)):
                        return
                    server.sendall(sent)
                    saves |= b"UPDATE parity_discoveries SET cursor" in sent
                    if saves and b"COMMIT\0" in sent:
                        self._commits += 1
                        if self._commits % 2 == 0:
                            server.recv(65_536)  # that it is done
                            self.cut += 1
                            return
                if server in ready:
                    if not (answer := server.recv(65_536)):
                        return
                    client.sendall(answer)


def test_a_commit_whose_answer_was_lost_is_recognized(settings: Settings, network: Running) -> None:
    dids = add(network, 8)
    network.network.behave(host="relay", page_cap=1)
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    proxy = DeafProxy(url)
    given = conninfo_to_dict(url)
    through = f"postgresql://{given['user']}:{given.get('password', '')}@127.0.0.1:{proxy.port}/{given['dbname']}"
    here = settings_for(settings, network, collections=(POST, LIKE), database_url=SecretStr(through))
    with ImportService(here, report=False) as service:
        found = discover(service)
    proxy.close()
    assert proxy.cut >= 4
    assert (found.accounts, found.known, found.queued, found.error) == (8, 0, 16, None)
    assert {pair.did for pair in queued(settings)} == set(dids)
    assert row(settings, "accounts", "queued", "pages") == (8, 16, 9)


# Lies.


def test_repeated_and_invalid_entries_are_counted_and_not_queued(
    service: ImportService, settings: Settings, network: Running
) -> None:
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2, account_lies=("repeated", "invalid"))
    found = discover(service)
    assert (found.accounts, found.known, found.queued) == (6, 0, 12)
    assert (found.repeated, found.invalid) == (2 * 3, 17 * 4)
    assert {pair.did for pair in queued(settings)} == set(dids)


@pytest.mark.parametrize("loop", ["same", "ignore", "advance"])
def test_a_list_without_an_end_is_left(service: ImportService, settings: Settings, network: Running, loop: str) -> None:
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2, loop=loop)
    found = discover(service)
    assert (found.error_code, found.is_complete) == ("cursor_loop", False)
    assert "never ends" in str(found.error)
    assert len(asked(network)) <= BARREN_PAGES + 3
    assert {pair.did for pair in queued(settings)} <= set(dids)
    network.network.behave_normally()
    assert discover(service, from_start=True).is_complete
    assert {pair.did for pair in queued(settings)} == set(dids)


def test_empty_pages_are_no_end(service: ImportService, settings: Settings, network: Running) -> None:
    dids = add(network, 6)
    network.network.behave(host="relay", page_cap=2, empty_every=2)
    assert (discover(service).accounts, {pair.did for pair in queued(settings)}) == (6, set(dids))


def test_accounts_that_a_server_calls_inactive_are_met_again(service: ImportService, network: Running) -> None:
    add(network, 3)
    network.network.behave(host="pds-1", account_lies=("none-active",))
    (found,) = service.discover(pds=network.pds_urls["pds-1"])
    assert (found.accounts, found.inactive, found.error) == (0, 2, None)
    network.network.behave_normally()
    (found,) = service.discover(pds=network.pds_urls["pds-1"])
    assert found.accounts == 2


def test_what_is_meant_must_be_clear(service: ImportService, settings: Settings, network: Running) -> None:
    for error, nsids, options in (
        (SettingsError, [], {}),
        (SettingsError, [POST], {"relay": "https://a.example.com", "pds": "https://b.example.com"}),
        (InvalidIdentifier, ["post"], {}),
        (BlockedEndpoint, [POST], {"relay": "ftp://a.example.com"}),
        (BlockedEndpoint, [], {"pds": "https://a.example.com/path"}),
        (CollectionNotRegistered, [POST], {"collections": [FOLLOW]}),
    ):
        with pytest.raises(error):
            service.discover(nsids, **options)
    assert query(settings, "SELECT count(*) FROM parity_discoveries") == [(0,)]
    assert network.network.log.count() == 0


# Without queueing.


def test_accounts_are_listed_each_once_and_nothing_is_kept(
    service: ImportService, settings: Settings, network: Running
) -> None:
    both = network.network.add_account({POST: 1, LIKE: 1})
    dids = [both, *add(network, 4), *add(network, 2, LIKE)]
    network.network.behave(host="relay", page_cap=2, account_lies=("repeated",))
    told: list[Discovery] = []
    assert list(service.list_accounts([POST, LIKE, FOLLOW], on_list=told.append)) == dids
    assert [(one.collection, one.accounts, one.is_complete) for one in told] == [
        (POST, 5, True),
        (LIKE, 3, True),
        (FOLLOW, 0, True),
    ]
    assert list(service.list_accounts([POST, LIKE], limit=6)) == dids[:6]
    assert (queued(settings), query(settings, "SELECT count(*) FROM parity_discoveries")) == ([], [(0,)])


def test_a_list_that_is_refused_does_not_keep_the_next_one_from_being_read(
    service: ImportService, network: Running
) -> None:
    add(network, 2)
    (liker,) = add(network, 1, LIKE)
    network.network.behave(host="relay", collection=POST, faults=(Fault(kind="400"),))
    told: list[Discovery] = []
    assert list(service.list_accounts([POST, LIKE], on_list=told.append)) == [liker]
    assert [one.error_code for one in told] == ["request_refused", None]
    assert [one.error_code for one in service.discover([POST, LIKE])] == ["request_refused", None]


def test_a_plan_counts_what_is_known_and_what_the_rest_takes(
    service: ImportService, settings: Settings, network: Running
) -> None:
    done, half, *rest = [network.network.add_account({POST: 150, LIKE: 1}) for _ in range(8)]
    add(network, 2, FOLLOW)
    service.import_user(done)
    service.import_user_collection(half, POST)
    plan = service.plan_discovery([POST, LIKE])
    assert (plan.accounts, plan.known, plan.missing_accounts, plan.missing_pairs) == (8, 2, 7, 13)
    assert plan.collections == (POST, LIKE)
    assert [one.accounts for one in plan.lists] == [8, 8]
    assert query(settings, "SELECT count(*) FROM parity_discoveries") == [(0,)]
    assert plan.servers == 2
    by_pages, by_repositories = plan.estimates
    assert (by_pages.source, by_repositories.source) == ("list", "repo")
    assert by_repositories.requests == 14
    # what it takes in truth: documents, revisions, and the pages of lists as long as those that are known
    network.network.log.clear()
    service.import_pairs([Pair(did, nsid) for did in (half, *rest) for nsid in (POST, LIKE)])
    assert by_pages.requests == pytest.approx(network.network.log.count(), rel=0.1)
    assert by_pages.hours == pytest.approx(max(6 / 20, (by_pages.requests - 6) / 20) / 3600)
    wide = service.plan_discovery([FOLLOW])
    assert (wide.collections, wide.missing_pairs) == ((POST, LIKE, FOLLOW), 6)
    narrow = service.plan_discovery(pds=network.pds_urls["pds-1"], collections=[FOLLOW], limit=3)
    assert (narrow.accounts, narrow.missing_pairs, narrow.servers, narrow.lists[0].is_complete) == (3, 3, 1, False)
