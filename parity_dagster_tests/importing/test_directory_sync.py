"""The directory's log fills the identities, whatever it does and whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import Pair
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.sample_network.behaviour import EXPORT_LIES
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import PROGRAM, variables
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for
from parity_dagster_tests.quick import quick


def identities(settings: Settings) -> dict[str, tuple[str | None, str, str | None]]:
    """What the table says of each account."""
    rows = query(settings, "SELECT did, handle, pds, signing_key FROM parity_identities")
    return {did: (handle, pds, key) for did, handle, pds, key in rows}


def true(network: SampleNetwork, *dids: str) -> dict[str, tuple[str | None, str, str | None]]:
    """The same as the network has it."""
    accounts = [network.accounts[did] for did in dids or network.dids]
    return {one.did: (one.shown_handle, one.host.url, one.key.multibase) for one in accounts}


def with_accounts(count: int, hosts: int = 2) -> SampleNetwork:
    """A network of accounts with a record each."""
    network = SampleNetwork(hosts=hosts)
    for _ in range(count):
        network.add_account({POST: 1})
    return network


def set_back(network: SampleNetwork, *, seconds: int) -> None:
    """Let everything that was logged so far be so long ago."""
    log = network.operations._log
    log[:] = [one._replace(at=one.at - seconds * 1000) for one in log]


def spread(network: SampleNetwork) -> None:
    """Let what was logged so far be an hour ago, and each operation have a millisecond for itself."""
    log = network.operations._log
    log[:] = [one._replace(at=log[0].at - 3_600_000 + number) for number, one in enumerate(log)]


def test_accounts_that_are_wanted_are_imported_without_a_look_up(settings: Settings) -> None:
    network = with_accounts(40)
    wanted = network.dids[::2]
    with importing(settings, network) as (service, _):
        service.enqueue([Pair(did, POST) for did in wanted])
        found = service.sync_directory()
        assert (found.operations, found.stored, found.is_caught_up, found.error) == (40, 20, True, None)
        assert identities(settings) == true(network, *wanted), "nobody asked for the others"
        assert all(result.completed for result in service.import_pairs(Pair(did, POST) for did in wanted))
        assert network.log.count(method="did") == 0
        assert_equal(settings, network, wanted[0], POST)


def test_everything_is_stored_if_it_is_asked_for(settings: Settings) -> None:
    network = with_accounts(30)
    with importing(settings, network) as (service, _):
        service.enqueue([Pair(network.dids[0], POST)])
        assert not service.sync_directory().is_whole
        assert set(identities(settings)) == {network.dids[0]}
        assert not service.sync_directory(everything=True).is_whole, "what was passed by is not there"
        found = service.sync_directory(everything=True, again=True)
        assert found.is_whole
        assert found.operations == 30
        assert identities(settings) == true(network)


def test_what_changed_since_is_in_the_next_call(settings: Settings) -> None:
    network = with_accounts(8)
    moved, renamed, rotated, gone, recovered, back, plain, late = network.dids
    with importing(settings, network) as (service, _):
        service.sync_directory(everything=True)
        network.migrate(moved, "pds-2" if network.accounts[moved].host.name == "pds-1" else "pds-1")
        network.change_handle(renamed, "new.sample.test")
        network.rotate_key(rotated)
        network.tombstone(gone)
        network.change_handle(recovered, "wrong.sample.test")
        network.recover(recovered)
        network.tombstone(back)
        network.recover(back)
        found = service.sync_directory()
        assert found.operations == 8
        assert found.removed == 1
        expected = true(network)
        del expected[gone]
        assert identities(settings) == expected
        assert service.import_user(gone, [POST]).error_code == "deleted", "as the document says"
        network.change_handle(plain, "once.sample.test")
        network.change_handle(plain, "twice.sample.test")
        assert service.sync_directory().operations == 2
        assert identities(settings)[plain] == true(network, plain)[plain]
        assert identities(settings)[late] == true(network, late)[late]
        assert service.sync_directory().operations == 0


def test_an_account_that_became_known_later_is_looked_up_or_the_log_read_again(settings: Settings) -> None:
    network = with_accounts(6)
    first, second, *_ = network.dids
    set_back(network, seconds=3600)
    network.change_handle(network.dids[-1], "new.sample.test")
    with importing(settings, network) as (service, _):
        service.enqueue([Pair(first, POST)])
        service.sync_directory()
        service.enqueue([Pair(second, POST)])
        assert service.sync_directory().stored == 0
        assert second not in identities(settings)
        assert service.sync_directory(again=True).operations == 7
        assert identities(settings) == true(network, first, second)


def test_what_is_known_from_the_log_is_believed_as_long_as_the_log_was_read_lately(settings: Settings) -> None:
    network = with_accounts(3)
    old, new, other = network.dids
    with importing(settings, network) as (service, _):
        service.sync_directory(everything=True)
        query(settings, "UPDATE parity_identities SET resolved_at = '2023-01-01'")
        assert service.import_user(old, [POST]).completed
        assert network.log.count(method="did") == 0, "an old operation, and none came after it"
        query(settings, "UPDATE parity_directory SET read_to = now() - interval '25 hours'")
        assert service.import_user(new, [POST]).completed
        assert network.log.count(method="did") == 1
        # the log is being read again, and is at operations of long ago
        query(settings, "UPDATE parity_directory SET read_to = NULL")
        assert service.import_user(other, [POST]).completed
        assert network.log.count(method="did") == 2


@pytest.mark.parametrize("old", ["deactivated", "gone"])
def test_what_the_log_says_is_refreshed_when_the_host_denies_it(settings: Settings, old: Any) -> None:
    network = with_accounts(2)
    did = network.dids[0]
    with importing(settings, network) as (service, _):
        service.sync_directory(everything=True)
        network.migrate(did, "pds-2" if network.accounts[did].host.name == "pds-1" else "pds-1", old=old)
        assert service.import_user(did, [POST]).completed
        assert_equal(settings, network, did, POST)
        assert identities(settings)[did][1] == network.accounts[did].host.url


def test_a_look_up_is_newer_than_the_operations_before_it(settings: Settings) -> None:
    """The log of an account's whole past is read after its document, and must not bring back its old host."""
    network = with_accounts(1)
    (did,) = network.dids
    with importing(settings, network) as (service, _):
        assert service.import_user(did, [POST]).completed
        query(settings, "UPDATE parity_identities SET pds = 'https://newer.example', resolved_at = now() + '1 hour'")
        assert service.sync_directory().stored == 0
        assert identities(settings)[did][1] == "https://newer.example"
        query(settings, "UPDATE parity_identities SET resolved_at = now() - interval '1 hour'")
        assert service.sync_directory().stored == 1
        assert identities(settings)[did][1] == network.accounts[did].host.url


def test_the_log_vouches_for_a_look_up_only_if_it_says_the_same(settings: Settings) -> None:
    """A mirror that lies, or is behind, is believed for a day, and not for as long as the log is read."""
    network = with_accounts(3)
    set_back(network, seconds=3600)
    _, lied, rotated = network.dids
    with importing(settings, network) as (service, _):
        for did in network.dids:
            assert service.import_user(did, [POST]).completed
        query(settings, "UPDATE parity_identities SET pds = 'https://liar.example' WHERE did = %s", lied)
        query(settings, "UPDATE parity_identities SET signing_key = 'zLiar' WHERE did = %s", rotated)
        service.sync_directory()
        query(settings, "UPDATE parity_identities SET resolved_at = now() - interval '25 hours'")
        network.log.clear()
        assert all(service.import_user(did, [LIKE]).completed for did in network.dids)
        assert network.log.count(method="did") == 2
        assert identities(settings) == true(network)
        # a look-up that says what the log has said takes nothing from it
        query(settings, "UPDATE parity_identities SET is_logged = true, resolved_at = now() - interval '25 hours'")
        query(settings, "UPDATE parity_identities SET pds = 'https://liar.example' WHERE did = %s", lied)
        query(settings, "UPDATE parity_directory SET read_to = now() - interval '25 hours'")
        assert all(service.import_user(did, [POST], refresh=True).completed for did in network.dids)
        assert network.log.count(method="did") == 5
        assert query(settings, "SELECT did FROM parity_identities WHERE NOT is_logged") == [(lied,)]


@pytest.mark.parametrize("page", [7, 0])
def test_operations_of_one_moment_are_not_lost_at_the_edge_of_a_page(settings: Settings, page: int) -> None:
    network = with_accounts(100)
    set_back(network, seconds=60)  # a reader ends at the moment it began in
    log = network.operations._log
    log[:] = [one._replace(at=log[0].at + number // 5) for number, one in enumerate(log)]
    network.behave(host="plc", export_page=page)
    with importing(settings, network) as (service, _):
        found = service.sync_directory(everything=True)
        assert (found.operations, found.stored >= 100) == (100, True)
        assert identities(settings) == true(network)


def test_more_operations_of_one_moment_than_a_page_holds_are_passed(settings: Settings) -> None:
    network = with_accounts(30)
    set_back(network, seconds=60)
    log = network.operations._log
    log[:] = [one._replace(at=log[0].at + (number > 20)) for number, one in enumerate(log)]
    network.behave(host="plc", export_page=10)
    with importing(settings, network) as (service, _):
        found = service.sync_directory(everything=True)
        assert found.error is None
        assert set(network.dids[21:]) <= set(identities(settings))


@pytest.mark.long
@pytest.mark.parametrize("lie", EXPORT_LIES)
def test_a_directory_that_lies_costs_nothing_that_was_stored(settings: Settings, lie: str) -> None:
    network = with_accounts(1300)
    moved = network.dids[:40]
    with importing(settings, network) as (service, _):
        service.enqueue([Pair(did, POST) for did in network.dids[:60]])
        for did in moved:
            network.change_handle(did, f"new-{did[-8:]}.sample.test")
        network.behave(host="plc", export=lie)
        found = service.sync_directory()
        assert network.log.count(method="/export") < 40, "there is an end to it"
        shown, whole = identities(settings), true(network, *network.dids[:60])
        assert shown.items() <= whole.items() or lie in ("same", "cut"), "nothing that is not so any more"
        if lie in ("shuffled", "repeated", "late"):
            assert shown == whole
            assert (found.error, found.is_caught_up) == (None, True)
        elif lie in ("broken", "cut"):
            assert found.error_code in (None, "malformed_answer")
        if lie == "broken":
            assert found.broken > 100
            assert len(shown) > 40
        elif lie in ("same", "future", "wide"):
            assert found.error_code == "malformed_answer"
            assert not found.is_caught_up
        network.behave_normally()
        found = service.sync_directory(again=lie == "broken")
        assert found.error is None
        assert identities(settings) == whole


def test_a_line_that_is_broken_makes_its_account_unknown(settings: Settings) -> None:
    """Whatever it said, the row from before it is not to be trusted."""
    network = with_accounts(12)
    spread(network)
    with importing(settings, network) as (service, _):
        service.sync_directory(everything=True)
        for did in network.dids:
            network.rotate_key(did)
        # each in a moment of its own: the last one comes again, and whole
        log = network.operations._log
        log[12:] = [one._replace(at=log[11].at + number) for number, one in enumerate(log[12:], 1)]
        network.behave(host="plc", export="broken")
        found = service.sync_directory()
        assert found.broken
        shown = identities(settings)
        assert shown.items() <= true(network).items()
        assert 8 < len(shown) < 12


def test_a_log_that_is_cut_in_the_middle_of_a_moment_is_not_at_its_end(settings: Settings) -> None:
    network = with_accounts(30)
    log = network.operations._log
    log[:] = [one._replace(at=log[0].at) for one in log]
    network.behave(host="plc", export="cut")
    with importing(settings, network) as (service, _):
        found = service.sync_directory(everything=True)
        assert (found.error_code, found.is_caught_up) == ("malformed_answer", False)


def test_an_operation_that_was_nullified_is_never_believed(settings: Settings) -> None:
    """Not even between it and the one that nullified it, where a call may end."""
    network = with_accounts(1)
    (did,) = network.dids
    network.change_handle(did, "stolen.sample.test")
    network.recover(did)
    spread(network)
    with importing(settings, network) as (service, _):
        assert service.sync_directory(everything=True, limit=2).operations == 2
        assert identities(settings) == true(network)


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        ({"operation": {"type": "plc_tombstone"}}, False),
        ({"operation": {}}, False),
        ({"operation": [1]}, False),
        ({"operation": {"type": "plc_operation", "services": {}, "alsoKnownAs": [], "verificationMethods": {}}}, False),
        (
            {"operation": {"type": "plc_operation", "services": {"atproto_pds": {"type": "X", "endpoint": "PDS"}}}},
            False,
        ),
        ({"pds": "ftp://pds.example.org"}, False),
        ({"pds": "an image, base64" * 9999}, False),
        ({"handle": "\u0000"}, True),
        ({"handle": "not a handle"}, True),
        ({"key": "did:key:zzz"}, True),
        ({"nullified": True}, None),
        ({"did": "did:plc:short"}, None),
        ({"did": "did:web:example.com"}, None),
        ({"createdAt": "yesterday"}, None),
        ({"createdAt": "9999-12-31T23:59:59.999+00:00"}, None),
        ({"createdAt": "0001-01-01T00:00:00+14:00"}, None),
        ({"createdAt": 7}, None),
    ],
)
def test_odd_operations_make_an_account_unknown_or_are_none(
    settings: Settings, line: dict[str, Any], is_read: bool | None
) -> None:
    from parity_dagster.atproto.export import parse_page

    did = "did:plc:z72i7hdynmk6r22z27h6tvur"
    operation = {
        "type": "plc_operation",
        "alsoKnownAs": ["https://example.com", f"at://{line.get('handle', 'alice.example.com')}"],
        "verificationMethods": {
            "atproto": line.get("key", "did:key:zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w")
        },
        "services": {
            "other": {"type": "Other", "endpoint": "https://other.example"},
            "atproto_pds": {
                "type": "AtprotoPersonalDataServer",
                "endpoint": line.get("pds", "https://pds.example.org"),
            },
        },
    }
    given = {"did": did, "createdAt": "2024-05-06T07:08:09.123Z", "nullified": False, "cid": "bafy"}
    given |= {"operation": operation} | {
        name: value for name, value in line.items() if name not in ("pds", "handle", "key")
    }
    good = {**given, "did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "operation": operation, "nullified": False}
    good["createdAt"] = "2024-05-06T07:08:09.124Z"
    body = b"\n".join(json.dumps(one).encode() for one in (given, good))
    page = parse_page(body, "https://plc.directory", after=None, allow_private=False)
    found = {one.did: one for one in page.operations}
    assert found["did:plc:ewvi7nxzyoun6zhxrhs64oiz"].at == datetime(2024, 5, 6, 7, 8, 9, 124_000, UTC)
    if is_read is None:
        assert page.broken == (not line.get("nullified"))
        assert did not in found or found[did].pds is None
    else:
        assert (found[did].pds == "https://pds.example.org") is is_read
        assert (found[did].handle, found[did].key) != (None, None) or not is_read


def test_an_export_that_is_too_large_is_an_error(settings: Settings) -> None:
    network = with_accounts(5)
    with importing(settings, network) as (service, _):
        for kind in ("padded", "gzip-bomb"):
            network.behave(host="plc", faults=[{"kind": kind, "method": "/export", "size": 17 * 2**20}])
            assert service.sync_directory(everything=True).error_code == "malformed_answer"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["429", "503", "cut", "html"])
def test_a_mirror_takes_over_where_another_fails(settings: Settings, kind: str) -> None:
    network = with_accounts(2500)
    network.add_mirror()
    fault = {"kind": kind, "method": "/export", "skip": 1, "seconds": 600}
    network.behave(host="plc", faults=[fault])
    with importing(settings, network) as (service, _):
        found = service.sync_directory(everything=True)
        assert (found.operations, found.error, found.is_caught_up) == (2500, None, True)
        assert identities(settings) == true(network)


def test_a_mirror_that_is_behind_does_not_end_the_log(settings: Settings) -> None:
    network = with_accounts(20)
    network.add_mirror()
    network.behave(host="plc-2", export_lag=3600)
    with importing(settings, network) as (service, _):
        for _ in range(2):
            assert service.sync_directory(everything=True).is_caught_up
            assert identities(settings) == true(network)
            network.change_handle(network.dids[0], "new.sample.test")


def test_a_log_that_is_behind_vouches_for_nothing(settings: Settings) -> None:
    network = with_accounts(3)
    set_back(network, seconds=2 * 86_400)
    with importing(settings, network) as (service, _):
        assert service.sync_directory(everything=True).is_caught_up
        assert service.import_user(network.dids[0], [POST]).completed
        assert network.log.count(method="did") == 1


def test_a_limit_is_kept_and_the_next_call_goes_on(settings: Settings) -> None:
    network = with_accounts(50)
    spread(network)
    with importing(settings, network) as (service, _):
        found = service.sync_directory(everything=True, limit=20)
        assert (found.operations, found.is_caught_up) == (20, False)
        assert identities(settings) == true(network, *network.dids[:20])
        assert service.sync_directory(everything=True, limit=20).operations == 20
        found = service.sync_directory(everything=True, limit=20)
        assert (found.operations, found.is_caught_up) == (10, True)
        assert identities(settings) == true(network)


def test_a_log_that_grows_is_read_to_where_it_was_at_the_beginning(settings: Settings) -> None:
    """On the real directory something is always new."""
    network = with_accounts(5)
    now = datetime.now(UTC) + timedelta(minutes=5)
    log = network.operations._log
    log.append(log[-1]._replace(at=int(now.timestamp() * 1000)))
    with importing(settings, network) as (service, _):
        assert service.sync_directory(everything=True).requests == 1


def test_two_readers_do_not_mix(settings: Settings) -> None:
    network = with_accounts(2500)
    with importing(settings, network) as (service, _):

        def interfere(count: int) -> None:
            query(settings, "UPDATE parity_directory SET read_to = '2024-01-01'")

        found = service.sync_directory(everything=True, on_progress=interfere)
        assert found.error_code == "interrupted"
        (known,) = query(settings, "SELECT count(*) FROM parity_identities")
        assert known == (1000,), "the page that was not counted was not stored"


def test_accounts_of_every_project_of_the_database_are_known(settings: Settings) -> None:
    from parity_dagster.store.database import migrate

    network = with_accounts(4)
    theirs = settings.model_copy(update={"state_table": "Other States"})
    migrate(theirs)
    with run_in_thread(network) as running:
        with ImportService(settings_for(theirs, running), report=False) as service:
            service.enqueue([Pair(network.dids[0], LIKE)])
        with ImportService(settings_for(settings, running), report=False) as service:
            service.enqueue([Pair(network.dids[1], POST)])
            assert service.sync_directory().stored == 2


@contextmanager
def syncing(settings: Settings, running: Running, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`parity directory sync` as a process."""
    process = subprocess.Popen(
        [*PROGRAM, "directory", "sync", *options],
        env={**os.environ, **variables(settings, PARITY_PLC_URL=running.plc_url)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_the_command_goes_on_where_it_was_killed(settings: Settings) -> None:
    network = with_accounts(5000)
    spread(network)
    assert settings.database_url is not None
    with run_in_thread(network) as running:
        # it hangs at its third page, with two stored or about to be
        network.behave(host="plc", faults=[{"kind": "hang", "method": "/export", "skip": 2}])
        with (
            psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as conn,
            syncing(settings, running, "--all") as process,
        ):
            while conn.execute("SELECT count(*) FROM parity_identities").fetchone() != (1999,):
                assert process.poll() is None
                conn.execute("SELECT pg_sleep(0.02)")
            process.send_signal(signal.SIGKILL)
            process.wait()
        network.behave_normally()
        network.log.clear()
        with syncing(settings, running, "--all", "--json", "--progress") as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        found = json.loads(out)
        assert found["operations"] == 3001
        assert found["is_caught_up"] is True
        assert "operations/s" in err
        assert identities(settings) == true(network)
        network.behave(host="plc", export="future")
        with syncing(settings, running, "--again") as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "error: " in err
        assert "0 operations" in out


@pytest.mark.long
@pytest.mark.parametrize("seed", quick(1, [1, 2, 3]))
def test_whatever_happened_the_table_is_the_network(settings: Settings, seed: int) -> None:
    """Random changes between calls that are limited, lied to and cut."""
    import random

    rng = random.Random(seed)
    network = with_accounts(60, hosts=3)
    network.add_mirror()
    gone: set[str] = set()
    with importing(settings, network) as (service, _):
        for _ in range(25):
            did = rng.choice(network.dids)
            if did in gone:
                network.recover(did)
                gone.remove(did)
            else:
                move = rng.choice(["move", "rename", "rotate", "tombstone", "undo"])
                if move == "move":
                    network.migrate(
                        did, rng.choice([name for name in network.hosts if name != network.accounts[did].host.name])
                    )
                elif move == "rename":
                    network.change_handle(did, f"h{rng.randrange(10**6)}.sample.test")
                elif move == "rotate":
                    network.rotate_key(did)
                elif move == "tombstone":
                    network.tombstone(did)
                    gone.add(did)
                else:
                    network.rotate_key(did)
                    network.recover(did)
            network.behave(
                host=rng.choice(["plc", "plc-2"]),
                export=rng.choice(["", "shuffled", "repeated", "late", "cut", "same"]),
                export_page=rng.choice([0, 5, 20]),
            )
            service.sync_directory(everything=True, limit=rng.choice([None, 1, 10]))
        network.behave_normally()
        found = service.sync_directory(everything=True)
        assert found.error is None
        expected = {did: one for did, one in true(network).items() if did not in gone}
        assert identities(settings) == expected


@pytest.mark.long
def test_whole_repositories_are_verified_with_the_key_of_the_log(settings: Settings) -> None:
    network = with_accounts(6)
    rotated, *rest = network.dids
    with importing(settings, network, source="repo") as (service, _):
        service.sync_directory(everything=True)
        network.rotate_key(rotated)
        assert all(service.import_user(did, [POST]).completed for did in rest)
        assert network.log.count(method="did") == 0
        assert query(settings, "SELECT DISTINCT source, commit IS NOT NULL FROM parity_import_states") == [
            ("repo", True)
        ]
        assert service.import_user(rotated, [POST]).completed, "its document is read afresh"
        assert network.log.count(method="did") == 1
        query(settings, "UPDATE parity_identities SET signing_key = %s", network.accounts[rotated].key.multibase)
        assert all(service.import_user(did, [POST], reread=True).completed for did in rest)
        query(settings, "UPDATE parity_directory SET read_to = NULL")
        network.log.clear()
        assert all(service.import_user(did, [POST], reread=True).completed for did in rest)
        assert network.log.count(method="did") == len(rest), "a key that was only remembered is none"


@pytest.mark.parametrize("what", ["outdated", "bad-path", "forged"])
def test_an_archive_of_a_host_that_was_left_since_is_not_the_last_word(settings: Settings, what: str) -> None:
    network = with_accounts(0)
    did = network.add_account({POST: 12}, host="pds-1")
    with importing(settings, network, source="repo") as (service, _):
        service.sync_directory(everything=True)
        network.migrate(did, "pds-2", old="stale")
        if what != "outdated":
            network.behave(host="pds-1", archive=what)
        else:
            value = {"$type": POST, "text": "new", "createdAt": "2026-01-01T00:00:00Z"}
            rkey = network.put_record(did, POST, value)
            cid = network.records(did, POST)[rkey][0]
            service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])
        assert service.import_user(did, [POST]).completed
        assert_equal(settings, network, did, POST)
        assert network.log.count(method="did") == 1
