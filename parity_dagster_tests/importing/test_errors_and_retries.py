"""Each class of error: its code, its sentence, and whether it is tried again."""

from __future__ import annotations

import inspect
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from parity_dagster import errors
from parity_dagster.errors import ParityError, PermanentError, RateLimited, TransientError
from parity_dagster.importing.retry_policy import MAX_ERROR_TEXT, after_failure
from parity_dagster.models import ImportResult, ImportState, Pair, Source
from parity_dagster.sample_network import LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for
from parity_dagster_tests.quick import quick

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, ParityError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawing = (errors.__doc__ or "").splitlines()
    for kind in CLASSES[1:]:
        (line,) = [line for line in drawing if f"── {kind.__name__} " in line]
        shared = kind.__subclasses__() or kind.code == "transient"
        assert kind.code in line or shared, f"{kind.__name__} is drawn with another code than {kind.code}"
        (parent,) = [line for line in drawing if line.split("─")[-1].split()[:1] == [kind.__mro__[1].__name__]]
        assert line.index("──") > parent.index(kind.__mro__[1].__name__) - 8


def test_every_code_is_a_word_of_its_own() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def make(kind: type[ParityError], text: str = "what happened") -> ParityError:
    return RateLimited(text, retry_after=400.0) if kind is RateLimited else kind(text)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_transient_errors_are_tried_three_times_and_permanent_ones_never_again(
    settings_without_database: Settings, kind: type[ParityError]
) -> None:
    settings = settings_without_database
    first, attempts = after_failure(make(kind), 0, settings)
    assert first.error_code == kind.code
    if kind is RateLimited:
        assert (first.retry_in, attempts) == (400.0, 0), "being asked to come back later is no failed try"
    elif issubclass(kind, TransientError) or kind.retryable:
        assert (first.retry_in, attempts) == (60.0, 1)
        second, attempts = after_failure(make(kind), attempts, settings)
        assert (second.retry_in, attempts) == (120.0, 2)
        third, attempts = after_failure(make(kind), attempts, settings)
        assert (third.retry_in, attempts) == (None, 3)
    else:
        assert first.retry_in is None
    if issubclass(kind, PermanentError):
        assert not kind.retryable
    assert first.deactivate == issubclass(kind, errors.AccountUnavailable)


@pytest.fixture
def settings_without_database() -> Settings:
    return Settings()


def test_an_error_text_is_capped(settings_without_database: Settings) -> None:
    ending, _ = after_failure(errors.ServerFailure("x" * 10_000), 0, settings_without_database)
    assert len(ending.error or "") == MAX_ERROR_TEXT


def run(settings: Settings, network: SampleNetwork, did: str, **changes: Any) -> tuple[ImportResult, ImportState]:
    with importing(settings, network, **{"page_size": 10} | changes) as (service, _):
        result = service.import_user_collection(did, POST)
        state = service.get_status(did, POST)
    assert state is not None
    assert (state.error, state.error_code) == (result.error, result.error_code)
    return result, state


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    quick(
        2,
        [
            ("503", "server_error", "answered 503"),
            ("reset", "unreachable", ""),
            ("truncated-json", "malformed_answer", "cut off"),
            ("400", "request_refused", "refuses"),
            ("404", "request_refused", "refuses"),
            ("500", "server_error", "answered 500"),
            ("502", "server_error", "answered 502"),
            ("cut", "unreachable", ""),
            ("hang", "unreachable", "within"),
            ("long-length", "unreachable", ""),
            ("html", "malformed_answer", ""),
            ("redirect", "malformed_answer", "redirect"),
            ("many-headers", "malformed_answer", ""),
            ("gzip-bomb", "malformed_answer", "larger"),
        ],
    ),
)
def test_each_failure_of_a_page_has_its_code_and_leaves_what_came_before(
    settings: Settings, fault: str, code: str, words: str
) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    spoiled = {"kind": fault, "method": "listRecords", "skip": 1, "size": 2**23 if fault == "gzip-bomb" else 0}
    network.behave(host="pds-1", faults=[spoiled])
    seconds = 2.0 if fault == "hang" else settings.request_timeout
    result, state = run(settings, network, did, max_page_bytes=2**22, request_timeout=seconds)
    assert (result.error_code, result.completed, result.records_synced) == (code, False, 10)
    assert words in (result.error or "")
    assert network.hosts["pds-1"].url.removeprefix("http://") in (result.error or ""), "names who failed"
    permanent = code == "request_refused"
    assert (state.next_attempt_at is None) == permanent
    assert state.attempts == 1
    network.behave_normally()
    result, state = run(settings, network, did)
    assert (result.completed, state.attempts, state.error, state.next_attempt_at) == (True, 0, None, None)
    assert_equal(settings, network, did, POST)


def test_a_moment_of_failure_is_not_even_noticed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 95})
    faults = [
        {"kind": kind, "method": "listRecords", "skip": n, "times": 1} for n, kind in enumerate(["503", "reset", "cut"])
    ]
    network.behave(host="pds-1", faults=faults)
    network.behave(host="plc", faults=[{"kind": "503", "times": 2}])
    result, state = run(settings, network, did)
    assert (result.completed, state.attempts) == (True, 0)
    assert_equal(settings, network, did, POST)


@pytest.mark.parametrize("kind", ["429", "429-date", "429-reset"])
@pytest.mark.long
def test_a_429_is_waited_out_and_no_failed_try(settings: Settings, kind: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    network.behave(host="pds-1", faults=[{"kind": kind, "method": "listRecords", "skip": 1, "times": 4, "seconds": 1}])
    began = time.monotonic()
    result, state = run(settings, network, did)
    assert (result.completed, state.attempts, state.error_code) == (True, 0, None)
    assert network.log.count(method="listRecords", status=429) == 4, "more refusals than tries a failure has"
    assert 3.5 < time.monotonic() - began < 30
    assert_equal(settings, network, did, POST)


def test_a_429_for_longer_than_an_import_waits_comes_back_when_the_host_said(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    network.behave(host="pds-1", faults=[{"kind": "429", "method": "listRecords", "skip": 1, "seconds": 7000}])
    result, state = run(settings, network, did)
    assert (result.error_code, result.records_synced, state.attempts) == ("rate_limited", 10, 0)
    ((seconds,),) = query(settings, "SELECT extract(epoch FROM next_attempt_at - now())::int FROM parity_import_states")
    assert 6900 < seconds <= 7000


def test_get_repo_status_is_asked_before_not_found_or_empty_is_believed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    network.behave(host="pds-1", faults=[{"kind": "400", "method": "listRecords", "name": "RepoNotFound"}])
    result, state = run(settings, network, did)
    assert result.error_code == "server_error", "the host contradicts itself, which may pass"
    assert state.next_attempt_at is not None
    assert network.log.count(method="getRepoStatus") >= 1
    empty = network.add_account({LIKE: 1})
    network.behave_normally()
    network.behave(host="pds-1", faults=[{"kind": "503", "method": "getRepoStatus"}])
    result, _ = run(settings, network, empty)
    assert (result.completed, result.error_code) == (False, "server_error"), "not believed without an answer"
    network.behave_normally()
    assert run(settings, network, empty)[0].is_success


# I11
@pytest.mark.parametrize(
    ("source", "method", "name"),
    quick(
        3,
        [
            ("repo", "getRepo", "RepoTakendown"),
            ("list", "getLatestCommit", "RepoNotFound"),
            ("list", "listRecords", "RepoDeactivated"),
            ("repo", "getRepo", "RepoNotFound"),
            ("repo", "getLatestCommit", "RepoTakendown"),
            ("list", "getLatestCommit", "RepoTakendown"),
        ],
    ),
)
def test_what_one_method_says_of_an_account_is_not_believed_while_its_status_says_otherwise(
    settings: Settings, source: Source, method: str, name: str
) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 5}, host="pds-1")
    with importing(settings, network, source=source) as (service, _):
        assert service.import_user_collection(did, POST).completed
        network.put_record(did, POST)
        network.behave(host="pds-1", faults=[{"kind": "400", "method": method, "name": name}])
        result = service.import_user_collection(did, POST, refresh=True)
        assert (result.completed, result.error_code) == (False, "server_error")
        assert f"getRepoStatus says that {did} is active, {method} says" in (result.error or "")
        assert query(settings, "SELECT next_attempt_at IS NULL FROM parity_import_states") == [(False,)]
        assert query(settings, "SELECT count(*) FROM atproto_records WHERE active") == [(5,)]
        network.migrate(did, "pds-2", old="stale")
        assert service.import_user_collection(did, POST).completed
    assert_equal(settings, network, did, POST)


def test_what_a_host_says_twice_of_an_account_is_asked_once_for_all_its_collections(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5, LIKE: 5}, status="takendown")
    for source in ("list", "repo"):
        network.log.clear()
        with importing(settings, network, source=source) as (service, _):
            results = service.import_pairs([Pair(did, POST), Pair(did, LIKE)])
        assert [result.error_code for result in results] == ["takendown", "takendown"]
        asked = "getRepo" if source == "repo" else "getLatestCommit"
        assert (network.log.count(method=asked), network.log.count(method="getRepoStatus")) == (1, 1)
        query(settings, "DELETE FROM parity_import_states")


def free_port_with_501() -> int:
    port: int
    for port in (*range(50100, 50200), *range(25010, 25020), 10501, 11501, 12501, 13501):
        with socket.socket() as door, suppress(OSError):
            door.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port with 501 in it")


@pytest.mark.parametrize("where", ["text", "port"])
@pytest.mark.long
def test_a_503_is_no_501_whatever_else_has_a_501_in_it(settings: Settings, where: str) -> None:
    """Only a host that lacks getRepoStatus (501) may leave an empty list unconfirmed."""
    network = SampleNetwork()
    message = "upstream timed out after 1501 ms, see ticket 501" if where == "text" else ""
    port = free_port_with_501() if where == "port" else 0
    known, fresh = network.add_account({POST: 25}), network.add_account({POST: 25})
    with (
        run_in_thread(network, pds_port=port) as running,
        ImportService(settings_for(settings, running), report=False) as service,
    ):
        assert service.import_user_collection(known, POST).completed
        for did in (known, fresh):
            network.drop_repo(did)
        methods = ("getLatestCommit", "getRepoStatus")
        faults = [{"kind": "503", "method": method, "message": message} for method in methods]
        network.behave(host="pds-1", unknown_repo="empty", faults=faults)
        for did in (known, fresh):
            result = service.import_user_collection(did, POST, refresh=True)
            assert (result.completed, result.error_code) == (False, "server_error")
            assert "501" in (result.error or "")
    assert query(settings, "SELECT did, count(*) FROM atproto_records GROUP BY 1") == [(known, 25)]


@pytest.mark.long
def test_attempts_grow_with_each_failed_call_and_a_success_forgets_them(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25})
    network.behave(host="pds-1", faults=[{"kind": "reset", "method": "listRecords"}])
    with importing(settings, network) as (service, _):
        due = []
        for attempts in (1, 2, 3):
            service.import_user_collection(did, POST)
            state = service.get_status(did, POST)
            assert state is not None
            assert state.attempts == attempts
            due.append(state.next_attempt_at is not None)
            query(settings, "SELECT 1")
            time.sleep(0)
        assert due == [True, True, False]
    network.behave_normally()
    result, state = run(settings, network, did)
    assert (result.completed, state.attempts) == (True, 0)


def test_a_pds_that_is_away_for_a_while_is_read_to_the_end_when_it_is_back(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    away = network.add_account({POST: 60}, host="pds-1")
    other = network.add_account({POST: 60}, host="pds-2")
    with importing(settings, network, page_size=10, page_delay=200) as (service, running):

        def leave(event: Any) -> None:
            if getattr(event, "pages", 0) == 3 and event.did == away:
                network.take_down_host("pds-1")

        results = service.import_pairs([(away, POST), (other, POST)], on_event=leave)  # type: ignore[list-item]
        assert [(result.completed, result.error_code) for result in results] in (
            [(False, "unreachable"), (True, None)],
            [(False, "host_paused"), (True, None)],
        )
        network.bring_up_host("pds-1")
        # A new service, which remembers nothing of any host, as a later run of the queue is.
        with ImportService(settings_for(settings, running, page_size=10), report=False) as later:
            assert [result.completed for result in later.resume_all()] == [True]
        assert network.log.cursors(away, POST).count(None) == 1
        for did in (away, other):
            assert_equal(settings, network, did, POST)
