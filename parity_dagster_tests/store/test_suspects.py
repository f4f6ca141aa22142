"""What earlier versions may have left behind is found, named with its cure, and made good by it."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from click.testing import Result

from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.suspects import Report, find_suspects
from parity_dagster_tests.command_line import call, variables
from parity_dagster_tests.imports import assert_equal, query, settings_for

TEXTS = ["héllo 日本", "naïve", "Ã", "â€", "«Ünï»", "Ελληνικά", "🪶", "plain", "50 € – “quoted”", "Â", "ÃÂ"]


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings_for(settings, network, collections=(POST, LIKE))


def parity(settings: Settings, *arguments: str) -> Result:
    return call(*arguments, env=variables(settings, PARITY_COLLECTIONS=f"{POST},{LIKE}"))


@pytest.fixture
def did(settings: Settings, network: Running) -> str:
    """An account that was imported, before the revision that ended the faults."""
    texts = [{"text": f"{text} {n}"} for n in range(40) for text in TEXTS]
    account = network.network.add_account({POST: texts, LIKE: 250})
    with ImportService(settings, report=False) as service:
        assert service.import_user(account).is_success
    query(settings, "UPDATE parity_upgrades SET upgraded_at = now() + interval '1 hour'")
    return account


def looked(settings: Settings, **options: object) -> Report:
    with closing(connect(settings, autocommit=True)) as conn:
        return find_suspects(conn, settings.state_table, page_size=100, **options)  # type: ignore[arg-type]


def problems(settings: Settings) -> list[tuple[str, str, int]]:
    return [(suspect.collection, suspect.problem, suspect.records) for suspect in looked(settings).suspects]


def mend(settings: Settings, network: Running, did: str) -> None:
    """The command that is named makes the pair equal to the network, and then nothing is suspicious."""
    found = parity(settings, "doctor")
    assert found.exit_code == 1
    assert f"parity import {did} --collection" in found.stdout
    mended = parity(settings, "doctor", "--mend")
    assert mended.exit_code == 0, mended.stderr
    for nsid in (POST, LIKE):
        assert_equal(settings, network.network, did, nsid)
    again = parity(settings, "doctor")
    assert (again.exit_code, "Nothing suspicious" in again.stdout) == (0, True)


def test_what_is_right_is_not_suspected(settings: Settings, did: str) -> None:
    report = looked(settings)
    assert (report.suspects, report.pairs, report.records, report.is_whole) == ([], 2, 690, True)


def test_texts_that_are_utf8_taken_for_latin1_are_found(settings: Settings, network: Running, did: str) -> None:
    query(
        settings,
        "UPDATE atproto_records SET value = convert_from(convert_to(value::text, 'UTF8'), 'LATIN1')::jsonb"
        " WHERE collection = %s",
        POST,
    )
    ((nsid, problem, count),) = problems(settings)
    assert (nsid, problem) == (POST, "encoding")
    assert count == 40 * (len(TEXTS) - 1), "all but the plain ones"
    assert "'50 € – “quoted” 0'" in looked(settings).suspects[0].detail, "one of them, as it should be"
    mend(settings, network, did)


def test_texts_that_are_utf8_taken_for_windows_1252_are_found(settings: Settings, network: Running, did: str) -> None:
    garbled = "naïve – “x".encode().decode("cp1252")
    query(
        settings,
        "UPDATE atproto_records SET value = jsonb_build_object('text', %s::text) WHERE collection = %s AND rkey ="
        " (SELECT max(rkey) FROM atproto_records WHERE collection = %s)",
        garbled, POST, POST,
    )  # fmt: skip
    assert problems(settings) == [(POST, "encoding", 1)]
    assert "naïve – “x" in looked(settings).suspects[0].detail
    mend(settings, network, did)


def test_numbers_that_fill_gigabytes_are_found_and_never_written_out(
    settings: Settings, network: Running, did: str
) -> None:
    for value, count in (("1e131071", 10_000), ("1e-16000", 1), ("0e-16000", 1), ("9e900", 5_000)):
        query(
            settings,
            "UPDATE atproto_records SET value = ('{\"createdAt\":[' || repeat(%s || ',', %s) || '1]}')::jsonb"
            " WHERE collection = %s AND rkey = (SELECT min(rkey) FROM atproto_records WHERE collection = %s)",
            value, count, LIKE, LIKE,
        )  # fmt: skip
        assert problems(settings) == [(LIKE, "numbers", 1)]
    mend(settings, network, did)


@pytest.mark.parametrize("left", [0, 40])
def test_a_pair_that_was_emptied_is_found(settings: Settings, network: Running, did: str, left: int) -> None:
    """By the end of a walk that knew of no page, or not of all; its counts agree with what is left."""
    query(
        settings,
        "DELETE FROM atproto_records WHERE collection = %s AND rkey NOT IN (SELECT rkey FROM atproto_records"
        " WHERE collection = %s ORDER BY rkey LIMIT %s)",
        LIKE, LIKE, left,
    )  # fmt: skip
    query(settings, "UPDATE parity_import_states SET records_synced = %s WHERE collection = %s", left, LIKE)
    with ImportService(settings, report=False) as service:
        assert service.import_user(did, refresh=True).is_success
    assert problems(settings) == [(LIKE, "few", left)], "a refresh does not notice"
    mend(settings, network, did)


def test_a_pair_of_one_page_that_was_emptied_long_after_its_import_is_found(settings: Settings, did: str) -> None:
    query(settings, "DELETE FROM atproto_records WHERE collection = %s", LIKE)
    state = "UPDATE parity_import_states SET records_synced = 0, pages = 1, started_at = now() - interval '{}'"
    query(settings, state.format("1 minute") + " WHERE collection = %s", LIKE)
    assert problems(settings) == [], "as an account that has nothing"
    query(settings, state.format("2 days") + " WHERE collection = %s", LIKE)
    assert problems(settings) == [(LIKE, "few", 0)]


def test_rows_beside_the_count_are_found_whenever_that_was(settings: Settings, network: Running, did: str) -> None:
    query(settings, "UPDATE parity_upgrades SET upgraded_at = now() - interval '1 day'")
    query(settings, "DELETE FROM atproto_records WHERE collection = %s AND rkey LIKE '%%2'", LIKE)
    ((_, problem, missing),) = problems(settings)
    assert problem == "rows"
    assert missing < 0
    mend(settings, network, did)


def test_what_is_younger_than_the_faults_is_not_suspected(settings: Settings, did: str) -> None:
    query(settings, "UPDATE parity_upgrades SET upgraded_at = now() - interval '1 day'")
    query(
        settings,
        "UPDATE atproto_records SET value = convert_from(convert_to(value::text, 'UTF8'), 'LATIN1')::jsonb",
    )
    assert problems(settings) == [], "somebody wrote it so"


def test_looking_stops_when_time_is_up_and_begins_somewhere_else_each_time(settings: Settings, did: str) -> None:
    report = looked(settings, seconds=0)
    assert (report.pairs, report.is_whole) == (0, False)
    report = looked(settings, seconds=60)
    assert (report.pairs, report.is_whole) == (2, True), "wherever it begins, it comes round"
    assert looked(settings, did="did:plc:" + "a" * 24).pairs == 0


def test_what_is_found_can_be_read_by_programs(settings: Settings, did: str) -> None:
    query(settings, "DELETE FROM atproto_records WHERE collection = %s", LIKE)
    found = parity(settings, "doctor", did, "--json")
    assert found.exit_code == 1
    (suspect,) = json.loads(found.stdout)
    assert (suspect["did"], suspect["problem"], suspect["records"]) == (did, "rows", -250)
    assert suspect["mend"] == f"parity import {did} --collection {LIKE} --reread"
