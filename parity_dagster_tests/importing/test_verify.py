"""The table compared with the signed repositories: what is wrong is found, what is no fault is told apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result

from parity_dagster.atproto.archive.cbor import cid_of
from parity_dagster.errors import DatabaseError
from parity_dagster.importing.archives import IDLE_BYTES, PAGE_RECORDS, SMALL_BYTES
from parity_dagster.importing.audit import PairAudit, audit
from parity_dagster.importing.live import LiveRecord
from parity_dagster.importing.pair_task import tid_of
from parity_dagster.importing.verify import AHEAD, EXAMPLES, is_same_json
from parity_dagster.models import Pair, Source, Verification
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.atproto.archives import CODES, WRONG_CASES
from parity_dagster_tests.command_line import call, start, variables
from parity_dagster_tests.imports import importing, query
from parity_dagster_tests.quick import quick

COUNTS = ("missing", "different", "surplus", "newer", "changed", "failed", "unverifiable")
SOURCES: tuple[Source, ...] = ("repo", "list")


@pytest.fixture
def network() -> SampleNetwork:
    return SampleNetwork()


@pytest.fixture
def served(settings: Settings, network: SampleNetwork) -> Iterator[tuple[ImportService, Running]]:
    with importing(settings, network, source="repo", collections=(POST, LIKE)) as opened:
        yield opened


@pytest.fixture
def service(served: tuple[ImportService, Running]) -> ImportService:
    return served[0]


def verified(service: ImportService, did: str, **options: Any) -> dict[str, Verification]:
    return {found.collection: found for found in service.verify([did], **options)}


def differences(found: Verification) -> dict[str, int]:
    return {name: count for name in COUNTS if (count := getattr(found, name))}


def parity(service: ImportService, *arguments: str) -> Result:
    return call(*arguments, env=variables(service.settings, PARITY_COLLECTIONS=f"{POST},{LIKE}"))


def tamper(settings: Settings, did: str, how: str) -> str:
    """Change one row of an account's posts by hand, and say which."""
    ((found,),) = query(settings, "SELECT min(rkey) FROM atproto_records WHERE did = %s AND collection = %s", did, POST)
    rkey = str(found) if how != "add" else "zzzz"
    statement = {
        "value": """UPDATE atproto_records SET value = value || '{"text": "forged"}'""",
        "cid": "UPDATE atproto_records SET cid = 'bafyforged'",
        "delete": "DELETE FROM atproto_records",
        "hide": "UPDATE atproto_records SET active = false",
        "add": "INSERT INTO atproto_records (did, collection, rkey, cid, value)"
        """ VALUES (%s, %s, %s, 'bafyforged', '{"text": "added"}')""",
    }[how]
    only = "" if how == "add" else " WHERE did = %s AND collection = %s AND rkey = %s"
    query(settings, statement + only, did, POST, rkey)
    return rkey


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_imported_is_equal(
    settings: Settings, network: SampleNetwork, service: ImportService, source: Source
) -> None:
    did = network.add_account({POST: 2 * PAGE_RECORDS + 7, LIKE: 0})
    service.import_pairs([Pair(did, POST), Pair(did, LIKE)], source=source)
    network.log.clear()
    counted: list[int] = []
    found = verified(service, did, on_progress=counted.append)
    assert {nsid: (each.outcome, each.equal) for nsid, each in found.items()} == {
        POST: ("equal", 2 * PAGE_RECORDS + 7),
        LIKE: ("equal", 0),
    }
    assert sum(counted) == 2 * PAGE_RECORDS + 7
    assert found[POST].commit == found[LIKE].commit != None  # noqa: E711 - also that it is there
    assert found[POST].rev is not None
    assert found[POST].pds is not None
    assert network.log.count(method="com.atproto.sync.getRepo") == 1
    assert network.log.count(method="com.atproto.repo.listRecords") == 0


@pytest.mark.parametrize("source", quick(1, SOURCES))
@pytest.mark.parametrize(
    ("how", "what"),
    [("value", "different"), ("cid", "different"), ("delete", "missing"), ("hide", "missing"), ("add", "surplus")],
)
@pytest.mark.parametrize("has_moved", quick(1, [False, True]))
def test_a_row_that_was_tampered_with_is_named(
    settings: Settings,
    network: SampleNetwork,
    service: ImportService,
    how: str,
    what: str,
    source: Source,
    has_moved: bool,
) -> None:
    did = network.add_account({POST: 30, LIKE: 5})
    service.import_pairs([Pair(did, POST), Pair(did, LIKE)], source=source)
    rkey = tamper(settings, did, how)
    if has_moved:
        network.put_record(did, POST)
    found = verified(service, did)
    assert differences(found[POST]) == {what: 1, **({"changed": 1} if has_moved else {})}
    assert found[POST].examples == [f"{what} {rkey}"]
    assert found[POST].is_fault
    assert found[LIKE].outcome == "equal"

    said = parity(service, "verify", did)
    assert said.exit_code == 1
    assert f"{what} {rkey}" in said.stdout
    assert "--reread" in said.stdout
    service.import_pairs([Pair(did, POST)], reread=True)
    assert verified(service, did)[POST].outcome == "equal"
    assert parity(service, "verify", did).exit_code == 0


def test_many_differences_are_counted_and_some_of_them_named(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: PAGE_RECORDS + 50})
    service.import_user_collection(did, POST)
    query(settings, "DELETE FROM atproto_records")
    query(
        settings,
        "INSERT INTO atproto_records (did, collection, rkey, cid, value)"
        " SELECT %s, %s, 'z' || n, 'bafyforged', '{}' FROM generate_series(1, 1500) n",
        did,
        POST,
    )
    (found,) = service.verify([did])
    assert differences(found) == {"missing": PAGE_RECORDS + 50, "surplus": 1500}
    assert len(found.examples) == EXAMPLES


@pytest.mark.parametrize("source", quick(1, SOURCES))
@pytest.mark.parametrize("tells_revisions", [True, False])
def test_what_live_events_brought_after_the_revision_is_no_fault(
    settings: Settings, network: SampleNetwork, service: ImportService, source: Source, tells_revisions: bool
) -> None:
    """A consumer of events is ahead of the repository that the host gives."""
    did = network.add_account({POST: 30})
    if not tells_revisions:
        network.behave(faults=(Fault(kind="501", method="getLatestCommit"),))
    service.import_pairs([Pair(did, POST)], source=source)
    (found,) = service.verify([did])
    assert found.outcome == "equal"
    rkeys = sorted(network.records(did, POST))
    later = tid_of(datetime.now(UTC) + timedelta(hours=1))
    service.upsert_records(
        [
            LiveRecord(f"at://{did}/{POST}/{rkeys[0]}", later, cid_of(b'{"text":"edited"}'), {"text": "edited"}),
            LiveRecord(f"at://{did}/{POST}/{later}", later, cid_of(b'{"text":"new"}'), {"text": "new"}),
        ]
    )
    assert service.delete_record(f"at://{did}/{POST}/{rkeys[1]}", later)
    (found,) = service.verify([did])
    assert differences(found) == {"newer": 3}
    assert (found.outcome, found.equal) == ("equal", 28)
    assert parity(service, "verify", did).exit_code == 0
    query(settings, """UPDATE atproto_records SET value = '{"text": "forged"}' WHERE rev = %s""", later)
    (found,) = service.verify([did])
    assert differences(found) == {"different": 1, "surplus": 1, "newer": 1}, "live or not, they are not what was signed"


@pytest.mark.parametrize("source", quick(1, SOURCES))
@pytest.mark.parametrize("tells_revisions", [True, False])
def test_what_the_account_has_written_since_is_told_apart(
    settings: Settings, network: SampleNetwork, service: ImportService, source: Source, tells_revisions: bool
) -> None:
    did = network.add_account({POST: 30})
    if not tells_revisions:
        network.behave(faults=(Fault(kind="501", method="getLatestCommit"),))
    service.import_pairs([Pair(did, POST)], source=source)
    network.set_clock(did)
    rkeys = sorted(network.records(did, POST))
    network.put_record(did, POST)
    network.put_record(did, POST, {"$type": POST, "text": "edited"}, rkey=rkeys[0])
    network.delete_record(did, POST, rkeys[1])
    (found,) = service.verify([did])
    assert differences(found) == {"changed": 3}
    assert (found.outcome, found.is_fault) == ("outdated", False)
    assert service.import_user_collection(did, POST, refresh=True).completed
    (found,) = service.verify([did])
    assert (found.outcome, found.equal) == ("equal", 30)


@pytest.mark.long
def test_odd_records_are_equal_or_kept_as_failed_records(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 20})
    network.add_odd(did, POST)
    service.import_user_collection(did, POST)
    failed = len(service.find_failed_records(did))
    (found,) = service.verify([did])
    assert differences(found) == {"failed": failed}
    assert found.outcome == "equal"
    query(settings, "DELETE FROM parity_failed_records")
    (found,) = service.verify([did])
    assert differences(found) == {"missing": failed}


@pytest.mark.parametrize("source", SOURCES)
def test_a_failed_record_excuses_no_other_version_of_it(
    network: SampleNetwork, service: ImportService, source: Source
) -> None:
    did = network.add_account({POST: 5})
    network.add_odd(did, POST, ["nul", "missing-value"])
    service.import_pairs([Pair(did, POST)], source=source)
    network.set_clock(did)
    network.put_record(did, LIKE)
    kept = service.find_failed_records(did)
    (found,) = service.verify([did])
    assert differences(found) == {"failed": len(kept)}, "they are as they were"
    for failed in kept:
        assert failed.rkey is not None
        network.put_record(did, POST, {"$type": POST, "text": "corrected"}, rkey=failed.rkey)
    (found,) = service.verify([did])
    assert (differences(found), found.outcome) == ({"changed": len(kept)}, "outdated")


@pytest.mark.parametrize(
    ("stored", "is_different"),
    [
        ({"n": 1.5}, False),
        ('{"n": 1.500}', False),
        ('{"n": 1.5000000000000000000001}', True),
        ({"n": True}, True),
    ],
)
def test_floats_are_compared_to_their_last_digit(
    settings: Settings, network: SampleNetwork, service: ImportService, stored: Any, is_different: bool
) -> None:
    did = network.add_account({POST: [{"n": 1.5}]})
    service.import_user_collection(did, POST)
    text = stored if isinstance(stored, str) else json.dumps(stored)
    query(settings, "UPDATE atproto_records SET value = value || %s::jsonb", text)
    (found,) = service.verify([did])
    assert differences(found) == ({"different": 1} if is_different else {})


def test_more_digits_than_a_float_has_are_no_fault_of_a_row_that_was_read_from_a_list(
    network: SampleNetwork, service: ImportService
) -> None:
    value = b'{"$type":"app.bsky.feed.post","n":0.1000000000000000055511151231257827}'  # as some servers write 0.1
    did = network.add_account({POST: 1})
    network.put_record(did, POST, value)
    service.import_pairs([Pair(did, POST)], source="list")
    (found,) = service.verify([did])
    assert (found.outcome, differences(found)) == ("unverifiable", {"unverifiable": 1})
    network.put_record(did, POST)
    service.import_pairs([Pair(did, POST)], refresh=True)
    (found,) = service.verify([did])
    assert (found.outcome, found.equal) == ("equal", 3), "the repository has its own digits"


@pytest.mark.parametrize("source", SOURCES)
def test_a_row_without_a_cid_is_compared_by_its_value_if_it_is_of_a_list(
    settings: Settings, network: SampleNetwork, service: ImportService, source: Source
) -> None:
    did = network.add_account({POST: 5})
    odd = network.add_odd(did, POST, ["null-cid", "missing-cid"])
    service.import_pairs([Pair(did, POST)], source=source)
    if source == "list":
        assert query(settings, "SELECT count(*) FROM atproto_records WHERE cid IS NULL") == [(len(odd),)]
        assert [found.outcome for found in service.verify([did])] == ["equal"]
    rkey = min(network.records(did, POST))
    query(settings, "UPDATE atproto_records SET cid = NULL WHERE rkey = %s", rkey)
    (found,) = service.verify([did])
    assert differences(found) == ({} if source == "list" else {"different": 1})
    query(settings, """UPDATE atproto_records SET value = '{"text": "forged"}' WHERE cid IS NULL AND rkey = %s""", rkey)
    (found,) = service.verify([did])
    assert (differences(found), found.examples) == ({"different": 1}, [f"different {rkey}"])


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (b'{"a":1,"b":[1,2]}', b'{"b": [1, 2], "a": 1}', True),
        (b"[1]", b"[true]", False),
        (b"[1.0]", b"[true]", False),
        (b"[1.0]", b"[1]", True),
        (b"[1]", b'["1"]', False),
        (b"[0.1]", b"[0.1000000000000000055]", False),
        (b"[1e22]", b"[10000000000000000000000]", True),
        (b"[18446744073709551617]", b"[18446744073709551616]", False),
        (b"[1,2]", b"[2,1]", False),
        ('["é"]'.encode(), b'["\\u00e9"]', True),
        (b"[" * 100_000 + b"]" * 100_000, b"[0.5]", None),
    ],
)
def test_json_values_are_the_same_or_not(left: bytes, right: bytes, is_same: bool | None) -> None:
    assert is_same_json(left, right) is is_same
    assert is_same_json(right, left) is is_same


@pytest.mark.parametrize("name", WRONG_CASES)
def test_a_wrong_archive_proves_nothing(
    settings: Settings, network: SampleNetwork, service: ImportService, name: str
) -> None:
    did = network.add_account({POST: 40})
    service.import_pairs([Pair(did, POST)], source="list")
    network.behave(did=did, archive=name)
    (found,) = service.verify([did])
    assert found.error_code == CODES[name]
    if CODES[name]:
        assert (found.outcome, found.compared) == ("unread", 0)
        assert "\n" not in (found.error or "")
    else:
        assert found.outcome == "equal"


def test_a_host_without_archives_is_said_per_account(network: SampleNetwork, service: ImportService) -> None:
    first, second = network.add_account({POST: 5}), network.add_account({POST: 5})
    service.import_pairs([Pair(first, POST), Pair(second, POST)])
    network.behave(did=first, faults=(Fault(kind="501", method="getRepo"),))
    said = parity(service, "verify", first, second, "--json")
    assert said.exit_code == 1
    given = {each["did"]: (each["outcome"], each["error_code"]) for each in json.loads(said.stdout)}
    assert given == {first: ("unread", "archive_unavailable"), second: ("equal", None)}


def test_an_older_repository_than_the_imported_one_proves_nothing(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 5})
    service.import_user_collection(did, POST)
    query(settings, "UPDATE parity_import_states SET rev = 'z' || substr(rev, 2), fence_rev = NULL")
    (found,) = service.verify([did])
    assert (found.outcome, found.error_code) == ("unread", "archive_outdated")


def test_a_pair_that_is_imported_anew_while_its_repository_waits_is_compared_with_the_one_of_now(
    network: SampleNetwork, service: ImportService
) -> None:
    first, did = network.add_account({POST: 5}), network.add_account({LIKE: 5, POST: 5})
    service.import_pairs([Pair(first, POST), Pair(did, LIKE), Pair(did, POST)])
    network.log.clear()
    results = service.verify([first, did])
    assert next(results).did == first
    while network.log.count(method="getRepo") < 2:
        time.sleep(0.01)
    network.put_record(did, POST)
    service.import_pairs([Pair(did, POST)], refresh=True)
    assert [(found.collection, found.outcome, found.equal) for found in results] == [
        (LIKE, "equal", 5),
        (POST, "equal", 6),
    ]


def test_what_is_not_imported_to_its_end_is_said(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did, unknown = network.add_account({POST: 5, LIKE: 5}), network.add_account({POST: 5})
    service.import_user(did)
    query(settings, "UPDATE parity_import_states SET status = 'failed' WHERE collection = %s", LIKE)
    found = verified(service, did)
    assert {nsid: each.outcome for nsid, each in found.items()} == {POST: "equal", LIKE: "incomplete"}
    assert parity(service, "verify", did).exit_code == 0
    assert parity(service, "verify", did, "--collection", LIKE).exit_code == 1, "nothing was verified"

    (nothing,) = service.verify([unknown])
    assert (nothing.collection, nothing.outcome, nothing.error_code) == ("*", "unread", "not_imported")
    said = parity(service, "verify", unknown)
    assert said.exit_code == 1
    assert f"parity import {unknown}" in said.stdout


def test_offline_every_cid_is_recomputed_and_nobody_is_asked(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: [*({"text": f"é {n}"} for n in range(600)), {"n": 1.0}], LIKE: 5})
    service.import_user(did)
    network.log.clear()
    assert {each.outcome for each in service.verify([did], offline=True)} == {"equal"}
    query(settings, "UPDATE atproto_records SET value = value || '{\"n\": 2.5}' WHERE value ? 'n'")
    before = verified(service, did, offline=True)
    assert differences(before[POST]) == {"unverifiable": 1}
    assert (before[POST].outcome, before[LIKE].outcome) == ("unverifiable", "equal")
    assert parity(service, "verify", did, "--offline").exit_code == 0
    rkey = tamper(settings, did, "value")
    ((other,),) = query(settings, "SELECT max(rkey) FROM atproto_records WHERE collection = %s", LIKE)
    query(settings, "UPDATE atproto_records SET cid = 'bafyforged' WHERE rkey = %s", other)
    found = verified(service, did, offline=True)
    assert differences(found[POST]) == {"different": 1, "unverifiable": 1}
    assert f"different {rkey}" in found[POST].examples
    assert found[LIKE].examples == [f"different {other}"]
    assert parity(service, "verify", "--all", "--offline", "--json").exit_code == 1
    assert network.log.entries() == []


def test_all_accounts_or_a_sample_of_them_are_verified(network: SampleNetwork, service: ImportService) -> None:
    assert parity(service, "verify", "--all").exit_code == 0, "nothing is there, and nothing is wrong"
    dids = sorted(network.add_account({POST: 3, LIKE: 2}) for _ in range(9))
    for did in dids:
        service.import_user(did)
    said = parity(service, "verify", "--all", "--json")
    assert said.exit_code == 0
    assert [each["did"] for each in json.loads(said.stdout)] == [did for did in dids for _ in (POST, LIKE)]
    assert "18 imports: 18 equal; 45 records are what was signed." in said.stderr
    said = parity(service, "verify", "--sample", "3", "--collection", POST, "--json", "--progress")
    assert len({each["did"] for each in json.loads(said.stdout)} & set(dids)) == 3
    assert "9 records" in said.stderr
    assert [found.did for found in service.verify(collections=[LIKE])] == dids
    service.reset_user(dids[0])
    service.import_user_collection(dids[0], POST)
    for each in dids[1:]:
        service.reset(each, POST)
    said = parity(service, "verify", "--sample", "3", "--collection", POST, "--json")
    assert [each["did"] for each in json.loads(said.stdout)] == dids[:1], "drawn from those that have the collection"
    (found,) = service.verify([dids[1]], [POST])
    assert found.error == f"no {POST} of {dids[1]} was imported; `parity import {dids[1]} --collection {POST}` does"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--all", "--sample", "3"], ["did:plc:z72i7hdynmk6r22z27h6tvur", "--all"], ["--sample", "0"], ["no_account"]],
)
def test_wrong_usage(service: ImportService, arguments: list[str]) -> None:
    said = parity(service, "verify", *arguments)
    assert said.exit_code == 2
    assert said.stderr.startswith("error: ")


def test_what_a_mapper_declines_is_not_missed_and_what_it_refuses_is_kept_as_failed(
    settings: Settings, network: SampleNetwork
) -> None:
    did = network.add_account({POST: [{"text": "fine"}, {"text": "nul"}], LIKE: 5})
    mappers = ("parity_dagster_tests.sample_mappers:NoLikes", "parity_dagster_tests.sample_mappers:Hostile")
    with importing(settings, network, collections=(POST, LIKE), mappers=mappers) as (service, _):
        service.import_user(did)
        found = verified(service, did)
        assert (differences(found[LIKE]), found[LIKE].outcome) == ({}, "equal")
        assert (differences(found[POST]), found[POST].equal) == ({"failed": 1}, 1)
        query(settings, "DELETE FROM parity_failed_records")
        assert differences(verified(service, did)[POST]) == {"missing": 1}


def test_repositories_are_fetched_while_others_are_compared_and_leave_nothing_behind(
    settings: Settings, network: SampleNetwork, service: ImportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dids = sorted(network.add_account({POST: 3}) for _ in range(12))
    service.import_pairs([Pair(did, POST) for did in dids])
    network.log.clear()
    results = service.verify(dids)
    assert next(results).did == dids[0]
    assert network.log.count(method="com.atproto.sync.getRepo") <= AHEAD
    results.close()  # type: ignore[attr-defined]  # a generator, which the annotation does not promise
    assert spooled(tmp_path) == []
    assert [found.outcome for found in service.verify(dids)] == ["equal"] * 12


def spooled(folder: Path) -> list[int]:
    """The file descriptors of what lies in a folder."""
    return [int(link.name) for link in Path("/proc/self/fd").iterdir() if str(folder) in os.path.realpath(link)]


@pytest.mark.parametrize("how", ["truncated", "unreadable"])
def test_a_disk_that_does_not_give_a_repository_back_costs_one_account(
    network: SampleNetwork, service: ImportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    posts = [{"text": "x" * 20_000} for _ in range(2 * SMALL_BYTES // 20_000)]
    first, second = sorted(network.add_account({POST: posts, LIKE: 1}) for _ in range(2))
    service.import_pairs([Pair(did, nsid) for did in (first, second) for nsid in (POST, LIKE)])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    results = service.verify(iter([first]))
    assert next(results).collection == LIKE
    spoilt = spooled(tmp_path)
    assert spoilt
    for number in spoilt:
        if how == "truncated":
            os.ftruncate(number, 5)
        else:  # every read of it is an OSError, as of a disk that fails
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
    assert [(each.outcome, each.error_code) for each in results] == [("unread", "archive_truncated")]
    assert {each.outcome for each in service.verify([second])} == {"equal"}


def test_the_audit_counts_nothing_as_proven_that_can_be_compared_with_nothing(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: [{"n": 1.5}, {"n": 1}]})
    service.import_pairs([Pair(did, POST)], source="list")
    assert [(pair.outcome, pair.compared) for pair in audit(service.settings).pairs] == [("proven", 2)]
    query(settings, """UPDATE atproto_records SET value = value || '{"text": "forged"}' WHERE value @> '{"n": 1.5}'""")
    report = audit(service.settings)
    (pair,) = report.pairs
    assert (pair.outcome, pair.compared, pair.unverifiable, report.proven) == ("unverifiable", 1, 1, 1)


def test_the_audit_leaves_out_what_is_not_complete_any_more(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 5, LIKE: 5})
    service.import_user(did)
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    before = [pid for (pid,) in query(settings, sessions)]
    audits: list[PairAudit] = []
    auditing = threading.Thread(target=lambda: audits.extend(audit(service.settings).pairs))
    with network.lock:  # the hosts answer nothing
        auditing.start()
        deadline = time.monotonic() + 30
        idle = f"{sessions} AND state = 'idle' AND query = 'COMMIT' AND pid <> ALL(%s)"
        while not query(settings, idle, before):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        query(settings, "UPDATE parity_import_states SET status = 'failed' WHERE collection = %s", POST)
    auditing.join()
    assert [(pair.collection, pair.outcome) for pair in audits] == [(LIKE, "proven")]


@pytest.mark.long
def test_large_repositories_wait_for_their_turn_and_are_not_closed_meanwhile(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    dids = sorted(network.add_account({POST: 3}) for _ in range(6))
    service.import_pairs([Pair(did, POST) for did in dids])
    network.behave(archive_surplus=IDLE_BYTES // 2)
    assert [found.outcome for found in service.verify(dids)] == ["equal"] * 6


def test_a_database_that_ends_the_session_is_one_line(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 3})
    service.import_user(did)
    query(settings, "ALTER TABLE atproto_records RENAME TO hidden")
    said = parity(service, "verify", did)
    assert said.exit_code == 1
    assert "error: PostgreSQL failed: " in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code", "said"),
    quick(
        1,
        [
            (signal.SIGINT, 130, "error: interrupted; nothing was changed; start it again"),
            (signal.SIGTERM, 143, "error: stopped by SIGTERM; nothing was changed; start it again"),
        ],
    ),
)
@pytest.mark.parametrize("where", quick(1, ["comparing", "fetching"]))
def test_a_signal_in_the_middle_ends_it_at_once(
    settings: Settings,
    network: SampleNetwork,
    service: ImportService,
    tmp_path: Path,
    where: str,
    number: signal.Signals,
    code: int,
    said: str,
) -> None:
    did = network.add_account({POST: 50})
    service.import_user_collection(did, POST)
    folder = tmp_path / "spool"
    folder.mkdir()
    env = variables(service.settings, TMPDIR=str(folder))
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as holder:
        if where == "comparing":
            holder.execute("LOCK TABLE atproto_records IN ACCESS EXCLUSIVE MODE")
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        else:
            network.log.clear()
            network.behave(faults=(Fault(kind="hang", method="getRepo"),))
        with start("verify", did, env=env) as process:
            deadline = time.monotonic() + 30
            while not (query(settings, waits) if where == "comparing" else network.log.entries(method="did")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=30)
    lines = [line for line in stderr.splitlines() if "PARITY_ALLOW_PRIVATE_HOSTS" not in line]
    assert (process.returncode, stdout, lines) == (code, "", [said])
    assert list(folder.iterdir()) == []


def test_offline_no_connection_is_opened_and_nothing_heavy_is_loaded(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 5})
    service.import_user(did)
    code = (
        "import socket, sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith(('socket.connect', 'socket.getaddrinfo', 'socket.gethostby', 'socket.sendto')):\n"
        "        raise RuntimeError(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "try:\n    socket.create_connection(('127.0.0.1', 1))\n"
        "except RuntimeError:\n    print('refused', file=sys.stderr)\n"
        "from parity_dagster.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    print(sorted({'dagster', 'httpx', 'aiohttp', 'sqlalchemy', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    offline = subprocess.run(
        [sys.executable, "-c", code, "verify", did, "--offline"],
        env={**os.environ, **variables(service.settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (offline.returncode, offline.stderr) == (0, "refused\n[]\n")
    assert "5 records have the CID of their value." in offline.stdout


def end_sessions(settings: Settings) -> None:
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    query(settings, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


@pytest.mark.long
@pytest.mark.parametrize("offline", [False, True])
def test_a_database_that_is_lost_in_the_middle_is_waited_for(
    settings: Settings, network: SampleNetwork, service: ImportService, offline: bool
) -> None:
    did, second = network.add_account({POST: 3 * PAGE_RECORDS, LIKE: 5}), network.add_account({POST: 5})
    service.import_pairs([Pair(did, POST), Pair(did, LIKE), Pair(second, POST)])
    ends = iter([True, False, True])

    def end(count: int) -> None:
        if next(ends, False):
            end_sessions(settings)

    results = list(service.verify([did, second], offline=offline, on_progress=end))
    assert [(found.did, found.collection, found.outcome, found.equal) for found in results] == [
        (did, LIKE, "equal", 5),
        (did, POST, "equal", 3 * PAGE_RECORDS),
        (second, POST, "equal", 5),
    ]
    assert next(ends, None) is None
    # more than what the sockets of a session that has ended may still hold
    query(settings, "UPDATE atproto_records SET value = value || jsonb_build_object('text', repeat('x', 20000))")
    impatient = service.settings.model_copy(update={"database_patience": 0.5})
    with ImportService(impatient, report=False) as hurried, pytest.raises(DatabaseError, match=r"and try again$"):
        list(hurried.verify([did], [POST], offline=offline, on_progress=lambda _: end_sessions(settings)))
