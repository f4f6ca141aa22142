"""What real PDSes do: each quirk of listRecords, identity and account status, survived (docs/quirks.md)."""

from __future__ import annotations

from typing import Any

import pytest

from parity_dagster.events import ImportEvent, ImportProgress
from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import ImportResult, Pair
from parity_dagster.sample_network import DIALECTS, LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for, stored
from parity_dagster_tests.quick import quick


def run(settings: Settings, network: SampleNetwork, did: str, **changes: Any) -> ImportResult:
    with importing(settings, network, **{"page_size": 10} | changes) as (service, _):
        return service.import_user_collection(did, POST)


def one_account(records: int = 57, **behaviour: Any) -> tuple[SampleNetwork, str]:
    network = SampleNetwork()
    if behaviour:
        network.behave(host="pds-1", **behaviour)
    return network, network.add_account({POST: records})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("records", quick(2, [1, 57, 0, 10]))
def test_every_known_pds_is_read_to_its_end_exactly_once(settings: Settings, dialect: str, records: int) -> None:
    network, did = one_account(records, dialect=dialect)
    result = run(settings, network, did)
    assert (result.completed, result.records_synced, result.error) == (True, records, None)
    assert_equal(settings, network, did, POST)


def test_q1_a_cursor_on_the_last_page_costs_one_empty_page(settings: Settings) -> None:
    network, did = one_account(20)
    assert run(settings, network, did).records_synced == 20
    assert len(network.log.cursors(did, POST)) == 3


def test_q2_a_missing_cursor_on_the_last_page_is_the_end(settings: Settings) -> None:
    network, did = one_account(20, last_cursor=False)
    assert run(settings, network, did).records_synced == 20
    assert len(network.log.cursors(did, POST)) == 2


def test_q3_short_pages_are_not_the_end(settings: Settings) -> None:
    network, did = one_account(57, page_cap=3)
    assert run(settings, network, did).records_synced == 57
    assert_equal(settings, network, did, POST)


def test_q4_empty_pages_with_an_advancing_cursor_are_not_the_end(settings: Settings) -> None:
    network, did = one_account(57, empty_every=2)
    assert run(settings, network, did).records_synced == 57
    assert_equal(settings, network, did, POST)


@pytest.mark.parametrize("page_size", [1, 2, 10])
def test_q5_an_inclusive_cursor_counts_no_record_twice(settings: Settings, page_size: int) -> None:
    network, did = one_account(25, inclusive=True, last_cursor=False)
    result = run(settings, network, did, page_size=max(2, page_size))
    assert (result.completed, result.records_synced) == (True, 25)
    assert_equal(settings, network, did, POST)


@pytest.mark.parametrize("loop", quick(1, ["advance", "same", "ignore"]))
def test_q6_a_list_that_never_ends_ends_in_a_cursor_loop(settings: Settings, loop: str) -> None:
    network, did = one_account(57, loop=loop)
    result = run(settings, network, did)
    assert (result.completed, result.error_code) == (False, "cursor_loop")
    assert "parity import --resume" in (result.error or "")
    assert len(network.log.cursors(did, POST)) < 150
    ((next_attempt,),) = query(settings, "SELECT next_attempt_at FROM parity_import_states")
    assert next_attempt is None
    network.behave_normally()
    assert run(settings, network, did).completed, "and is read from its start when the host is repaired"
    assert_equal(settings, network, did, POST)


def test_q6_a_walk_over_more_pages_than_allowed_says_which_setting_to_raise(settings: Settings) -> None:
    network, did = one_account(57)
    with run_in_thread(network) as running:
        with ImportService(settings_for(settings, running, page_size=10, max_pages=3), report=False) as service:
            result = service.import_user_collection(did, POST)
        assert (result.error_code, result.records_synced) == ("too_many_pages", 30)
        assert "PARITY_MAX_PAGES" in (result.error or "")
        with ImportService(settings_for(settings, running, page_size=10), report=False) as service:
            assert service.resume_all()[0].completed, "and the walk goes on when it was raised"
    assert network.log.cursors(did, POST).count(None) == 1
    assert_equal(settings, network, did, POST)


def test_q7_q8_cursors_are_handed_back_as_they_came_whatever_the_order(settings: Settings) -> None:
    network, did = one_account(57, dialect="cocoon")
    run(settings, network, did)
    cursors = [cursor for cursor in network.log.cursors(did, POST) if cursor]
    assert len(cursors) == 5
    assert not set(cursors) & network.records(did, POST).keys()


def test_q9_q22_nothing_but_the_four_common_parameters_is_sent(settings: Settings) -> None:
    network, did = one_account(25)
    run(settings, network, did)
    asked = network.log.entries(method="listRecords")
    assert {(entry.did, entry.collection, entry.limit) for entry in asked} == {(did, POST, "10")}


@pytest.mark.parametrize("unknown_repo", ["400", "404", "500", "plain", "empty"])
def test_q11_a_repo_the_host_does_not_have_is_not_found_however_it_says_so(
    settings: Settings, unknown_repo: str
) -> None:
    network, did = one_account(25, unknown_repo=unknown_repo)
    network.drop_repo(did)
    result = run(settings, network, did)
    assert (result.completed, result.error_code) == (False, "repo_not_found")
    assert network.log.count(method="getRepoStatus") + network.log.count(method="getLatestCommit") >= 1
    assert network.log.count(host="plc") == 2, "resolved afresh before it is believed"


# I11
@pytest.mark.parametrize("unknown_repo", quick(1, ["empty", "400"]))
@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("deactivated", "deactivated"),
        ("takendown", "takendown"),
        ("suspended", "suspended"),
        ("deleted", "deleted"),
    ],
)
def test_q11_an_inactive_account_is_called_what_the_status_says(
    settings: Settings, unknown_repo: str, status: Any, code: str
) -> None:
    network, did = one_account(25, unknown_repo=unknown_repo)
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.set_status(did, status)
        result = service.import_user_collection(did, POST, refresh=True)
        assert (result.completed, result.error_code) == (False, code)
        ((total, active),) = query(settings, "SELECT count(*), count(*) FILTER (WHERE active) FROM atproto_records")
        assert total == 25, "records are never deleted because an account is away"
        assert active == 0
        network.set_status(did, "active")
        assert service.import_user_collection(did, POST).completed
        assert_equal(settings, network, did, POST)


# I11
def test_q11_an_empty_list_that_nobody_vouches_for_deletes_nothing(settings: Settings) -> None:
    network, did = one_account(25, unknown_repo="empty", sync_methods=False)
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.drop_repo(did)
        result = service.import_user_collection(did, POST, refresh=True)
        assert not result.completed
        assert len(stored(settings, did, POST)) == 25


def test_an_account_that_deleted_all_its_records_is_believed(settings: Settings) -> None:
    network, did = one_account(5)
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        for rkey in list(network.records(did, POST)):
            network.delete_record(did, POST, rkey)
        assert service.import_user_collection(did, POST, refresh=True).is_success
        assert stored(settings, did, POST) == {}
        assert network.log.count(method="getRepoStatus") == 1


# I10
def test_a_list_that_was_empty_for_a_moment_is_read_again_though_the_revision_is_the_same(settings: Settings) -> None:
    network, did = one_account(5)
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.put_record(did, POST)
        network.behave(faults=[{"kind": "no-records", "method": "listRecords"}])
        assert service.import_user_collection(did, POST, refresh=True).completed
        network.behave_normally()
        assert service.import_user_collection(did, POST, refresh=True).completed
        assert_equal(settings, network, did, POST)
        requests = network.log.count(method="listRecords")
        assert service.import_user_collection(did, POST, refresh=True).completed
        assert network.log.count(method="listRecords") == requests


def move_after(network: SampleNetwork, service: ImportService, did: str, old: Any) -> ImportResult:
    """Import three pages, move the account, and import again."""
    network.behave(did=did, faults=[{"kind": "503", "method": "listRecords", "skip": 3}])
    assert service.import_user_collection(did, POST).records_synced == 30
    network.behave(did=did)
    network.behave_normally()
    network.behave(host="pds-2", dialect="arroba")
    network.migrate(did, "pds-2", old=old)
    network.log.clear()
    return service.import_user_collection(did, POST)


@pytest.mark.parametrize("old", ["deactivated", "gone"])
def test_q12_a_moved_account_is_read_from_the_start_on_its_new_host(settings: Settings, old: str) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 57}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        result = move_after(network, service, did, old)
        assert (result.completed, result.records_synced) == (True, 57)
        assert network.log.entries(host="pds-2", method="listRecords")[0].cursor is None, (
            "a cursor is bound to its host"
        )
        state = service.get_status(did, POST)
        assert state is not None
        assert (state.pds, state.walk) == (network.hosts["pds-2"].url, 2)
        assert_equal(settings, network, did, POST)


def test_q12_an_account_that_moves_in_the_middle_of_a_walk_is_followed(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 57}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        moved: list[Any] = []

        def on_progress(event: Any) -> None:
            if not moved and event.pages == 2:
                network.migrate(did, "pds-2")
                moved.append(event)

        result = service.import_user_collection(did, POST, on_progress)
        assert moved
        assert (result.completed, result.records_synced) == (True, 57)
        assert_equal(settings, network, did, POST)


# I1
@pytest.mark.parametrize("sync_methods", [True, False])
def test_q12_what_the_new_host_told_live_is_not_measured_by_what_the_old_one_still_serves(
    settings: Settings, sync_methods: bool
) -> None:
    network = SampleNetwork(hosts=2, seed=21)
    network.behave(sync_methods=sync_methods)
    did = network.add_account({POST: 25, LIKE: 3}, host="pds-1")
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, LIKE).completed
        network.migrate(did, "pds-2", old="stale")
        rkey = network.put_record(did, POST)
        cid, value = network.records(did, POST)[rkey]
        service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])
        assert service.import_user_collection(did, POST).completed
        assert_equal(settings, network, did, POST)


def test_q12_when_the_old_host_is_dead_the_account_is_found_on_its_new_one(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 57, LIKE: 5}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        assert service.import_user(did, [LIKE]).completed
        network.migrate(did, "pds-2")
        network.take_down_host("pds-1")
        assert service.import_user_collection(did, POST).completed
        assert_equal(settings, network, did, POST)


def test_q6_a_cursor_is_not_handed_to_the_host_an_account_has_moved_to(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 57}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
        assert service.import_user_collection(did, POST).is_failed
        network.migrate(did, "pds-2", old="stale")
        query(settings, "DELETE FROM parity_identities")  # as after a day
        assert service.import_user_collection(did, POST).completed
        assert network.log.entries(host="pds-2", method="listRecords")[0].cursor is None
        assert_equal(settings, network, did, POST)


def test_q12_an_equal_revision_on_another_host_is_read_once_and_noted(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 12}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        assert service.import_user_collection(did, POST).completed
        before = service.get_status(did, POST)
        network.migrate(did, "pds-2", old="stale")
        query(settings, "DELETE FROM parity_identities")
        assert service.import_user_collection(did, POST, refresh=True).completed
        after = service.get_status(did, POST)
        assert before is not None
        assert after is not None
        assert (before.rev, after.rev, after.pds) == (network.rev(did), before.rev, network.hosts["pds-2"].url)
        assert network.log.entries(host="pds-2", method="listRecords")


def test_q5_what_an_inclusive_cursor_repeats_is_in_no_figure(settings: Settings) -> None:
    network, did = one_account(57, dialect="arroba")
    figures = []
    with importing(settings, network, page_size=10) as (service, _):
        service.import_user_collection(did, POST, lambda event: figures.append(event.records_synced))
    assert figures == sorted(figures)
    assert figures[-1] == 57


def test_a_walk_whose_pair_was_taken_away_asks_for_no_more_pages(settings: Settings) -> None:
    network, did = one_account(400)
    with importing(settings, network, page_size=2, page_delay=20) as (service, _):

        def reset(event: Any) -> None:
            if event.pages == 3:
                service.reset(did, POST)

        assert service.import_user_collection(did, POST, reset).error_code == "busy"
        # those that were on their way when the next commit found out
        assert network.log.count(method="listRecords") < 100


@pytest.mark.parametrize("status", quick(1, [400, 500]))
def test_q13_a_page_that_fails_is_asked_for_in_smaller_pieces_up_to_the_bad_record(
    settings: Settings, status: int
) -> None:
    network, did = one_account(57)
    rkeys = sorted(network.records(did, POST), reverse=True)
    network.behave(host="pds-1", poison=(rkeys[33],), poison_status=status)
    result = run(settings, network, did)
    assert not result.completed
    assert result.records_synced >= 32, "all that can be read before it is stored"
    network.behave_normally()
    assert run(settings, network, did).completed
    assert_equal(settings, network, did, POST)


def test_q14_uris_that_echo_a_handle_or_name_somebody_else_are_not_trusted(settings: Settings) -> None:
    network, did = one_account(5)
    network.add_odd(did, POST, ["wrong-authority", "wrong-collection"])
    result = run(settings, network, did)
    assert (result.records_synced, result.records_failed) == (5, 2)
    assert query(settings, "SELECT count(*) FROM atproto_records WHERE did <> %s OR collection <> %s", did, POST) == [
        (0,)
    ]


def test_q15_q33_double_wrapped_and_cidless_records_are_stored(settings: Settings) -> None:
    network, did = one_account(5)
    made = network.add_odd(did, POST, ["double-wrapped", "missing-cid", "null-cid"])
    assert run(settings, network, did).records_synced == 8
    rows = stored(settings, did, POST)
    assert [rows[rkey][1]["text"] for rkey in made] == ["odd"] * 3


def test_q21_record_keys_of_every_kind_are_stored(settings: Settings) -> None:
    network, did = one_account(5)
    network.add_odd(did, POST, ["long-rkey", "odd-rkey"])
    network.put_record(did, POST, {"a": 1}, rkey="self")
    assert run(settings, network, did).records_synced == 8
    assert_equal(settings, network, did, POST)


def test_q23_records_written_during_a_walk_come_with_the_next_refresh(settings: Settings) -> None:
    network, did = one_account(57)
    with importing(settings, network, page_size=10) as (service, _):
        written: list[str] = []

        def on_progress(event: Any) -> None:
            if not written:
                written.append(network.put_record(did, POST))

        assert service.import_user_collection(did, POST, on_progress).completed
        assert written
        assert service.import_user_collection(did, POST, refresh=True).completed
        assert_equal(settings, network, did, POST)


def test_q26_what_describe_repo_claims_is_not_asked_for(settings: Settings) -> None:
    network, did = one_account(5, listed_collections=[])
    assert run(settings, network, did).records_synced == 5
    assert network.log.count(method="describeRepo") == 0


@pytest.mark.parametrize(
    ("dialect", "what"),
    quick(
        2,
        [
            *(("millipds", "gone"), ("cocoon", "deactivated"), ("reference", "deactivated for a while")),
            *(("rsky", "gone"), ("millipds", "deactivated"), ("cocoon", "deactivated for a while")),
            *(("reference", "gone"), ("rsky", "deactivated"), ("millipds", "deactivated for a while")),
            *(("cocoon", "gone"), ("reference", "deactivated"), ("rsky", "deactivated for a while")),
        ],
    ),
)
def test_q11_q12_an_account_that_leaves_in_the_middle_of_a_refresh_loses_nothing(
    settings: Settings, dialect: str, what: Any
) -> None:
    network = SampleNetwork(hosts=2)
    network.behave(host="pds-1", dialect=dialect)
    did = network.add_account({POST: 45}, host="pds-1")
    with importing(settings, network, page_size=10) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.put_record(did, POST)
        network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
        assert service.import_user_collection(did, POST, refresh=True).error_code == "server_error"
        network.behave(host="pds-1", faults=[])
        if what == "deactivated for a while":
            network.set_status(did, "deactivated")
            assert service.import_user_collection(did, POST).is_failed
            ((rows,),) = query(settings, "SELECT count(*) FROM atproto_records")
            assert rows >= 45, "hidden, not deleted"
            network.set_status(did, "active")
        else:
            network.migrate(did, "pds-2", old=what)
        assert service.import_user_collection(did, POST).completed
        assert_equal(settings, network, did, POST)


def test_q11_what_a_host_said_before_a_page_does_not_vouch_for_what_the_page_shows(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    network.behave(host="pds-1", dialect="millipds")
    did = network.add_account({POST: 250, LIKE: 5}, host="pds-1")
    with importing(settings, network, page_size=10, page_delay=20) as (service, _):
        assert service.import_user(did, [POST, LIKE]).completed
        for rkey in network.records(did, LIKE):
            network.delete_record(did, LIKE, rkey)
        network.put_record(did, POST)
        before = network.log.count(method="getRepoStatus")
        left: list[int] = []

        def on_progress(event: Any) -> None:
            asked = network.log.count(method="getRepoStatus") > before
            if not left and asked and event.collection == POST and event.records_synced:
                network.migrate(did, "pds-2", old="gone")
                left.append(event.records_synced)

        result = service.import_user(did, [POST, LIKE], on_progress, refresh=True)
        assert left, "the host was asked about the likes while the posts were read"
        assert left[0] < 250, "the account left amid its posts"
        assert result.completed
        assert_equal(settings, network, did, POST)


@pytest.mark.parametrize(
    "kind", quick(2, ["bad-utf8", "wrong-shape", "502", "html", "empty-body", "bad-json", "truncated-json"])
)
def test_q28_bodies_that_are_not_json_are_errors_and_the_walk_goes_on_later(settings: Settings, kind: str) -> None:
    network, did = one_account(30, faults=[{"kind": kind, "method": "listRecords", "skip": 1}])
    result = run(settings, network, did)
    assert result.error_code in ("server_error", "malformed_answer")
    assert result.records_synced == 10
    network.behave_normally()
    assert run(settings, network, did).completed
    assert_equal(settings, network, did, POST)


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("https://pds.example.org/path", "blocked_endpoint"),
        ("ftp://pds.example.org", "blocked_endpoint"),
        ("an image, base64", "blocked_endpoint"),
        ("", "no_pds"),
        (7, "no_pds"),
    ],
)
def test_q31_service_endpoints_that_are_no_origin_are_refused(settings: Settings, endpoint: Any, code: str) -> None:
    network, did = one_account(5)
    service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint}
    network.set_document(did, {"id": did, "service": [service]})
    assert run(settings, network, did).error_code == code


def test_q32_did_web_takes_a_plain_host_name_only(settings: Settings) -> None:
    network = SampleNetwork()
    strict = {"allow_private_hosts": False}
    for did in (
        "did:web:example.com:user",
        "did:web:example.com%3A8443",
        "did:web:example.com%2Fa",
        "did:web:localhost",
    ):
        assert run(settings, network, did, **strict).error_code == "invalid_identifier"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"message":"gone"}', 410, "deleted"),
        (b'{"message":"no"}', 404, "did_not_found"),
        (b"oops", 503, "server_error"),
        (b"<html>maintenance</html>", 200, "malformed_answer"),
        (b'{"id":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}', 200, "malformed_answer"),
        (b"[" * 60_000, 200, "malformed_answer"),
        (b'{"id":"DID","service":[{"id":"#atproto_pds","type":"\xff"}]}', 200, "no_pds"),
        (b'{"id":"DID","alsoKnownAs":["at://\xff"],"service":[' + b"[" * 9_000, 200, "malformed_answer"),
        (b'{"id":"x","a":"' + b"x" * 70_000 + b'"}', 200, "malformed_answer"),
    ],
)
def test_what_the_directory_answers_decides_the_error(settings: Settings, body: bytes, status: int, code: str) -> None:
    network, did = one_account(5)
    network.set_document(did, body.replace(b"DID", did.encode()), status=status)
    result = run(settings, network, did)
    assert result.error_code == code
    assert len(result.error or "") <= 500


def test_a_did_document_just_under_the_cap_is_read(settings: Settings) -> None:
    network, did = one_account(5)
    with importing(settings, network) as (service, _):
        network.set_document(
            did,
            {
                "id": did,
                "alsoKnownAs": ["at://" + "x" * 60_000],
                "service": [
                    {"id": "#other", "type": "X", "serviceEndpoint": {"uri": "x"}},
                    {
                        "id": f"{did}#atproto_pds",
                        "type": "AtprotoPersonalDataServer",
                        "serviceEndpoint": network.hosts["pds-1"].url + "/",
                    },
                ],
            },
        )
        assert service.import_user_collection(did, POST).records_synced == 5


def test_a_cursor_that_is_refused_restarts_the_walk_once(settings: Settings) -> None:
    # Three times: a page that is refused is asked for in smaller pieces first.
    network, did = one_account(57, faults=[{"kind": "refuse-cursor", "with_cursor": True, "skip": 2, "times": 3}])
    result = run(settings, network, did)
    assert (result.completed, result.records_synced) == (True, 57)
    assert network.log.cursors(did, POST).count(None) == 2
    assert_equal(settings, network, did, POST)


def test_a_cursor_that_is_refused_again_ends_the_import(settings: Settings) -> None:
    network, did = one_account(57, faults=[{"kind": "refuse-cursor", "with_cursor": True, "skip": 1}])
    result = run(settings, network, did)
    assert (result.completed, result.error_code) == (False, "request_refused")
    assert "reset" in (result.error or "")
    assert network.log.cursors(did, POST).count(None) == 2


@pytest.mark.parametrize("kind", quick(2, ["bad-utf8", "wrong-shape", "html", "truncated-json", "empty-body"]))
def test_nonsense_about_revision_and_status_is_survived(settings: Settings, kind: str) -> None:
    network, did = one_account(25, faults=[{"kind": kind, "method": "getLatestCommit"}])
    assert run(settings, network, did).records_synced == 25, "a revision is a help, not a need"
    empty = network.add_account()
    network.behave(host="pds-1", faults=[{"kind": kind, "method": "getRepoStatus"}])
    result = run(settings, network, empty)
    assert result.error_code == "malformed_answer", "an empty list is not believed without a status"


# I11
def test_q11_a_list_that_breaks_off_on_a_host_that_knows_nothing_any_more_is_not_complete(settings: Settings) -> None:
    network, did = one_account(25, unknown_repo="empty", sync_methods=False)

    def forget(event: ImportEvent) -> None:
        if isinstance(event, ImportProgress):
            network.drop_repo(did)

    with importing(settings, network, page_size=10, page_delay=500) as (service, _):
        (result,) = service.import_pairs([Pair(did, POST)], on_event=forget)
        assert result.error_code == "server_error"
        assert result.records_synced == 10
