"""Accounts read as signed repositories: one request each, verified before anything of them is touched."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parity_dagster.errors import Reason
from parity_dagster.events import ImportEvent, ImportProgress
from parity_dagster.importing.archives import PAGE_RECORDS, SMALL_BYTES
from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.sample_network import FOLLOW, LIKE, POST, PROFILE, REPOST, Fault, Running, SampleNetwork
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import migrate
from parity_dagster_tests.atproto.archives import CODES, WRONG_CASES
from parity_dagster_tests.imports import (
    DAMAGED_IN_LISTS,
    ONLY_IN_LISTS,
    assert_equal,
    importing,
    listed,
    query,
    settings_for,
    stored,
)
from parity_dagster_tests.quick import quick

ALL = (POST, LIKE, REPOST, FOLLOW, PROFILE)
UNSTORABLE = {
    *("encoded-surrogate", "exploding-numbers", "giant-int", "huge-exponent", "invalid-utf8", "lone-surrogate", "nul"),
    *("nul-field-name", "value-array", "value-null", "value-number", "value-string", "very-deep"),
}
"""Odd records that are kept as failed ones when they come from a repository."""


@pytest.fixture
def network() -> SampleNetwork:
    return SampleNetwork()


@pytest.fixture
def served(settings: Settings, network: SampleNetwork) -> Iterator[tuple[ImportService, Running]]:
    with importing(settings, network, source="repo") as opened:
        yield opened


@pytest.fixture
def service(served: tuple[ImportService, Running]) -> ImportService:
    return served[0]


def rows(settings: Settings) -> list[tuple[Any, ...]]:
    return query(settings, "SELECT did, collection, rkey, cid, value::text FROM atproto_records ORDER BY 1, 2, 3")


def states(settings: Settings) -> list[tuple[Any, ...]]:
    return query(settings, "SELECT collection, status, error_code, source, commit FROM parity_import_states ORDER BY 1")


def requests(network: SampleNetwork) -> dict[str, int]:
    return {
        method: count
        for method in ("getRepo", "listRecords", "getLatestCommit", "getRepoStatus")
        if (count := network.log.count(method=f"com.atproto.{'repo' if method == 'listRecords' else 'sync'}.{method}"))
    }


def test_an_account_is_one_request_and_its_rows_are_those_of_its_lists(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account(dict.fromkeys(ALL, 116))
    network.add_odd(did, POST)
    service.import_user(did, ALL)
    assert requests(network) == {"getRepo": 1}
    query(settings, "CREATE TABLE by_repo AS SELECT * FROM atproto_records")
    found = states(settings)
    assert {state[1:4] for state in found} == {("completed", None, "repo")}
    assert len({state[4] for state in found}) == 1
    assert str(found[0][4]).startswith("bafyrei")
    failed = {record.rkey for record in service.find_failed_records(did)}

    query(settings, "TRUNCATE atproto_records, parity_failed_records, parity_import_states, parity_walk_pages")
    results = service.import_pairs([Pair(did, nsid) for nsid in ALL], source="list")
    assert all(result.completed for result in results)
    assert {state[3:] for state in states(settings)} == {("list", None)}
    odd = network.odd_records(did, POST)
    columns = "did, collection, rkey, cid, value"
    only = f"SELECT rkey FROM (SELECT {columns} FROM %s EXCEPT SELECT {columns} FROM %s) r"
    only_by_repo = {odd[rkey] for (rkey,) in query(settings, only % ("by_repo", "atproto_records"))}
    only_by_list = {odd[rkey] for (rkey,) in query(settings, only % ("atproto_records", "by_repo"))}
    assert only_by_repo == DAMAGED_IN_LISTS
    assert only_by_list == ONLY_IN_LISTS
    assert {odd[rkey] for rkey in failed if rkey} == UNSTORABLE


def test_a_repository_longer_than_a_page_is_read_and_counted(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 3 * PAGE_RECORDS + 7, LIKE: 0})
    events: list[ImportEvent] = []
    results = service.import_pairs([Pair(did, POST), Pair(did, LIKE)], on_event=events.append)
    assert [result.records_synced for result in results] == [3 * PAGE_RECORDS + 7, 0]
    assert len([event for event in events if isinstance(event, ImportProgress)]) == 4 + 1
    assert_equal(settings, network, did, POST)
    assert query(settings, "SELECT count(*) FROM parity_walk_pages") == [(0,)]


@pytest.mark.long
def test_a_small_repository_needs_no_file_and_a_large_one_without_room_for_it_is_read_by_pages(
    settings: Settings, network: SampleNetwork, service: ImportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    small, large = network.add_account({POST: 40}), network.add_account({POST: SMALL_BYTES // 250})
    results = service.import_pairs([Pair(small, POST), Pair(large, POST)])
    assert all(result.completed for result in results)
    assert query(settings, "SELECT did, source FROM parity_import_states ORDER BY id") == [
        (small, "repo"),
        (large, "list"),
    ]
    assert_equal(settings, network, large, POST)


@pytest.mark.parametrize("name", quick(4, WRONG_CASES))
def test_a_wrong_archive_fails_and_changes_nothing(
    settings: Settings, network: SampleNetwork, service: ImportService, name: str
) -> None:
    did = network.add_account({POST: 40})
    service.import_pairs([Pair(did, POST)], source="list")
    before = rows(settings)
    for rkey in sorted(network.records(did, POST))[:3]:
        network.delete_record(did, POST, rkey)
    network.put_record(did, POST)
    network.behave(did=did, archive=name)
    network.log.clear()
    (result,) = service.import_pairs([Pair(did, POST)], refresh=True)
    assert "listRecords" not in requests(network), "it is never quietly read by pages"
    assert result.error_code == CODES[name]
    if not CODES[name]:
        assert_equal(settings, network, did, POST)
        return
    assert "\n" not in (result.error or "")
    assert rows(settings) == before
    network.behave_normally()
    (result,) = service.import_pairs([Pair(did, POST)], refresh=True)
    assert result.completed
    assert_equal(settings, network, did, POST)


# I7
def test_a_refresh_reads_what_has_changed_and_drops_what_is_gone(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30, LIKE: 5})
    pairs = [Pair(did, POST), Pair(did, LIKE)]
    service.import_pairs(pairs)
    network.log.clear()
    service.import_pairs(pairs, refresh=True)
    assert requests(network) == {"getLatestCommit": 1}, "an unchanged repository is not read again"
    (commit,) = {state[4] for state in states(settings)}
    assert commit is not None
    for rkey in sorted(network.records(did, POST))[::3]:
        network.delete_record(did, POST, rkey)
    network.put_record(did, POST)
    network.log.clear()
    service.import_pairs(pairs, refresh=True)
    assert requests(network) == {"getLatestCommit": 1, "getRepo": 1}
    assert network.log.count(method="did") == 1, "the key is of this run"
    assert_equal(settings, network, did, POST)
    assert_equal(settings, network, did, LIKE)
    assert {state[4] for state in states(settings)}.isdisjoint({commit, None})


@pytest.mark.long
@pytest.mark.parametrize(
    ("faults", "changes"),
    [
        ((Fault(kind="501", method="getRepo"),), {}),
        ((Fault(kind="404", method="getRepo"),), {}),
        ((Fault(kind="400", method="getRepo", name="InvalidRequest"),), {}),
        ((Fault(kind="drip", method="getRepo", seconds=30),), {"request_timeout": 4.0}),
    ],
    ids=["501", "404", "400", "drip"],
)
def test_a_host_that_gives_no_archive_is_read_by_pages(
    settings: Settings, network: SampleNetwork, faults: tuple[Fault, ...], changes: dict[str, Any]
) -> None:
    did = network.add_account({POST: 30, LIKE: 5})
    network.behave(faults=faults)
    with importing(settings, network, source="repo", **changes) as (service, _):
        service.import_user(did, [POST, LIKE])
        assert requests(network)["getRepo"] == 1, "the pairs of an account share the refusal"
    assert_equal(settings, network, did, POST)
    assert {state[1:] for state in states(settings)} == {("completed", None, "list", None)}


def test_an_archive_that_takes_longer_than_runs_are_patient_is_read_by_pages_by_the_next(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30, LIKE: 5})
    pairs = [Pair(did, POST), Pair(did, LIKE)]
    network.behave(faults=(Fault(kind="hang", method="getRepo"),))
    for result in service.import_pairs(pairs, patience=0.4):
        assert result.error_code == "interrupted"
    assert all(result.completed for result in service.import_pairs(pairs, patience=30))
    assert requests(network)["getRepo"] == 1
    assert_equal(settings, network, did, POST)
    network.behave_normally()
    (_, result) = service.import_pairs(pairs, reread=True)
    assert result.completed
    assert {state[3] for state in states(settings)} == {"repo"}


def test_a_repository_that_is_too_large_is_read_by_pages(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30})
    network.behave(did=did, archive_surplus=-1)
    with ImportService(service.settings.model_copy(update={"max_repo_bytes": 2**20}), report=False) as careful:
        assert careful.import_user_collection(did, POST).completed
    assert states(settings) == [(POST, "completed", None, "list", None)]


@pytest.mark.long
def test_a_cut_transfer_is_tried_again_and_never_taken_for_a_whole(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30})
    network.behave(faults=(Fault(kind="cut", method="getRepo", size=500),))
    (result,) = service.import_pairs([Pair(did, POST)])
    assert result.error_code == "unreachable"
    assert requests(network) == {"getRepo": 3}
    assert rows(settings) == []
    network.behave(faults=(Fault(kind="cut", method="getRepo", size=500, times=1),))
    assert service.import_user_collection(did, POST).completed
    assert_equal(settings, network, did, POST)


def test_a_key_that_has_just_been_changed_is_looked_up_once_more(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30})
    network.behave(faults=(Fault(kind="latency", method="getRepo", seconds=0.5),))
    rotated = threading.Event()

    def rotate(event: ImportEvent) -> None:
        if not rotated.is_set():  # at its start: the document has been read, the archive has not
            rotated.set()
            network.rotate_key(did)

    (result,) = service.import_pairs([Pair(did, POST)], on_event=rotate)
    assert result.completed
    assert_equal(settings, network, did, POST)


def test_an_account_whose_status_forbids_it_is_not_imported_and_its_records_are_hidden(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30})
    service.import_user_collection(did, POST)
    network.set_status(did, "takendown")
    result = service.import_user_collection(did, POST, refresh=True)
    assert result.error_code == "takendown"
    assert stored(settings, did, POST) == {}
    network.set_status(did, "active")
    assert service.import_user_collection(did, POST, refresh=True).completed
    assert_equal(settings, network, did, POST)


@pytest.mark.long
def test_what_is_interrupted_is_read_again_and_ends_equal(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30 * PAGE_RECORDS})

    def stop(event: ImportEvent) -> None:
        if isinstance(event, ImportProgress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.import_pairs([Pair(did, POST)], on_event=stop)
    (state,) = service.find_states(did=did)
    assert state.status is not ImportStatus.COMPLETED
    for rkey in sorted(network.records(did, POST))[:40]:
        network.delete_record(did, POST, rkey)
    with ImportService(service.settings, report=False) as another:
        assert all(result.completed for result in another.resume_all())
    assert_equal(settings, network, did, POST)


@pytest.mark.long
@pytest.mark.parametrize("order", [("repo", "list"), ("list", "repo")])
def test_an_import_that_was_begun_one_way_is_ended_the_other_way(
    settings: Settings, network: SampleNetwork, order: tuple[str, str]
) -> None:
    did = network.add_account({POST: 4 * PAGE_RECORDS})
    network.behave(faults=(Fault(kind="503", method="listRecords", skip=3),))
    with importing(settings, network) as (service, running):
        for source in order:
            with ImportService(settings_for(settings, running, source=source), report=False) as each:
                each.import_user_collection(did, POST, refresh=True)
            network.put_record(did, POST)
            network.delete_record(did, POST, min(network.records(did, POST)))
            network.behave_normally()
        assert service.import_user_collection(did, POST, refresh=True).completed
    assert_equal(settings, network, did, POST)


# I6
@pytest.mark.parametrize("by", ["list", "live", "another project"])
def test_a_commit_vouches_for_no_value_that_was_not_compared_with_its_record(
    settings: Settings, network: SampleNetwork, service: ImportService, by: str
) -> None:
    """A list's cid is a claim: a host, or a hand, may have put another value beside it."""
    did = network.add_account({POST: 30})
    pair = Pair(did, POST)
    if by == "another project":
        other = service.settings.model_copy(update={"state_table": "other_states"})
        migrate(other)
        with ImportService(other, report=False) as first:
            first.import_pairs([pair], source="list")
    else:
        service.import_pairs([pair], source="list" if by == "list" else "repo")
    rkey = min(network.records(did, POST))
    network.put_record(did, POST)
    if by == "live":
        cid, value = network.records(did, POST)[rkey]
        service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])
    query(settings, """UPDATE atproto_records SET value = '{"text": "forged"}' WHERE rkey = %s""", rkey)
    service.import_pairs([pair], refresh=True)
    (state,) = service.find_states(did=did)
    assert (state.source, state.rev) == ("repo", network.rev(did))
    assert_equal(settings, network, did, POST)
    locked = query(settings, "SELECT count(*) FROM atproto_records WHERE xmax <> 0 AND rkey <> %s", rkey)
    assert locked == [(0,)], "what is equal is left alone, not even locked"


# I7, I8
def test_live_events_amid_it_win_and_what_they_deleted_stays_deleted(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 20 * PAGE_RECORDS})
    told = False

    def live(event: ImportEvent) -> None:
        nonlocal told
        if told or not isinstance(event, ImportProgress):
            return
        told = True
        keys = sorted(network.records(did, POST))
        for rkey in (keys[0], keys[-1]):
            network.delete_record(did, POST, rkey)
            service.delete_record(f"at://{did}/{POST}/{rkey}", network.rev(did))
        for rkey in (keys[1], keys[-2]):
            network.update_record(did, POST, {"text": "live"}, rkey=rkey)
            cid, value = network.records(did, POST)[rkey]
            service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])

    assert service.import_pairs([Pair(did, POST)], on_event=live)[0].completed
    assert stored(settings, did, POST) == listed(network, did, POST)


def test_an_archive_older_than_what_events_have_told_is_not_taken(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 30})
    service.import_user_collection(did, POST)
    rkey = network.put_record(did, POST)
    cid, value = network.records(did, POST)[rkey]
    service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])
    network.behave(did=did, archive="outdated")
    before = rows(settings)
    result = service.import_user_collection(did, POST, refresh=True)
    assert result.error_code == "archive_outdated"
    assert rows(settings) == before
    network.behave_normally()
    assert service.import_user_collection(did, POST, refresh=True).completed
    assert_equal(settings, network, did, POST)


def test_a_block_that_is_no_record_is_kept_and_can_be_tried_again(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 3})
    network.add_odd(did, POST)
    service.import_user_collection(did, POST)
    kept = service.find_failed_records(did)
    assert Reason.INVALID_CBOR in {record.reason for record in kept}
    done = service.retry_failed_records(did)
    assert done.stored == 0
    assert {record.reason for record in kept} == {record.reason for record in service.find_failed_records(did)}


def test_the_row_shows_it(settings: Settings, network: SampleNetwork, service: ImportService) -> None:
    did = network.add_account({POST: 3})
    service.import_user_collection(did, POST)
    (state,) = service.find_states(did=did)
    assert state.source == "repo"
    assert state.commit is not None
    assert state.rev == network.rev(did)
