"""`parity import` against a real network and database: what is imported, said and returned."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from parity_dagster.sample_network import FOLLOW, LIKE, POST, Fault, SampleNetwork, run_in_thread
from parity_dagster_tests.command_line import PROGRAM, call, start, variables
from parity_dagster_tests.quick import quick

UNKNOWN = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def network():
    with run_in_thread(SampleNetwork(hosts=2)) as running:
        yield running


@pytest.fixture
def env(settings, network):
    return variables(settings, PARITY_PLC_URL=network.plc_url, PARITY_COLLECTIONS=f"{POST},{LIKE}")


def records(settings) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute("SELECT count(*) FROM atproto_records").fetchone()
        assert row is not None
        return int(row[0])


def results(output: str) -> dict[tuple[str, str], str]:
    rows = [line.split() for line in output.splitlines() if line.startswith("did:")]
    return {(row[0], row[1]): row[2] for row in rows}


def test_an_account_is_imported_and_each_collection_has_its_line(env, network, settings):
    did = network.network.add_account({POST: 1234, LIKE: 5})
    result = call("import", did, env=env)
    assert result.exit_code == 0, result.output
    assert results(result.stdout) == {(did, POST): "completed", (did, LIKE): "completed"}
    assert "2 of 2 imports complete: 1,239 records" in result.stdout
    assert records(settings) == 1239


def test_the_source_can_be_chosen_and_the_status_says_which_it_was(env, network):
    listed, whole = (network.network.add_account({POST: 3, LIKE: 2}) for _ in range(2))
    by_pages = call("import", listed, env=env)
    assert by_pages.exit_code == 0
    assert "verified" not in by_pages.output
    as_a_whole = call("import", whole, "--source", "repo", env=env)
    assert as_a_whole.exit_code == 0
    assert "2 of them verified" in as_a_whole.stdout
    states = json.loads(call("import-status", "--json", env=env).stdout)
    assert {(state["did"], state["source"], state["commit"] is not None) for state in states} == {
        (listed, "list", False),
        (whole, "repo", True),
    }
    assert network.network.log.count(method="com.atproto.sync.getRepo") == 1
    third = network.network.add_account({POST: 3})
    assert call("import", third, env={**env, "PARITY_SOURCE": "repo"}).exit_code == 0
    assert network.network.log.count(method="com.atproto.sync.getRepo") == 2
    refused = call("import", third, "--source", "repo", "--queue", env=env)
    assert refused.exit_code == 2
    assert "PARITY_SOURCE" in refused.stderr


def test_what_is_complete_is_not_read_again_unless_a_refresh_is_asked_for(env, network):
    did = network.network.add_account({POST: 3})
    call("import", did, "--collection", POST, env=env)
    network.network.put_record(did, POST, {"$type": POST, "text": "new"})
    again = call("import", did, "--collection", POST, env=env)
    assert again.exit_code == 0
    assert "3 records" in again.stdout
    assert "Nothing new to read in 1 of them; --refresh asks" in again.stdout
    assert "4 records" in call("import", did, "--collection", POST, "--refresh", env=env).stdout
    assert "Nothing new to read in 1 of them." in call("import", did, "--collection", POST, "--refresh", env=env).stdout


def test_collections_can_be_chosen_and_one_that_is_not_registered_is_a_failed_result(env, network):
    did = network.network.add_account({POST: 3, LIKE: 3})
    result = call("import", did, "--collection", LIKE, "--collection", "com.example.thing", env=env)
    assert result.exit_code == 1
    assert results(result.stdout) == {(did, LIKE): "completed", (did, "com.example.thing"): "failed"}
    assert "PARITY_COLLECTIONS" in result.stdout
    assert "Traceback" not in result.output


def test_an_account_nobody_knows_fails_alone_and_says_why(env, network, settings):
    did = network.network.add_account({POST: 3})
    result = call("import", UNKNOWN, did, "--collection", POST, env=env)
    assert result.exit_code == 1
    assert results(result.stdout) == {(UNKNOWN, POST): "failed", (did, POST): "completed"}
    assert "check the DID" in result.stdout
    assert records(settings) == 3


def test_headers_that_are_no_numbers_do_no_harm(env, network, settings):
    did = network.network.add_account({POST: 3})
    network.network.behave(faults=(Fault(kind="headers", message="RateLimit-Remaining: nan"),))
    result = call("import", did, "--collection", POST, env=env)
    assert result.exit_code == 0, result.output
    assert results(result.stdout) == {(did, POST): "completed"}


def test_a_handle_that_leads_nowhere_fails_alone(env, network):
    did = network.network.add_account({POST: 3})
    result = call("import", "nobody.sample.test", did, "--collection", POST, env=env)
    assert result.exit_code == 1
    assert results(result.stdout)[did, POST] == "completed"
    assert "nobody.sample.test" in result.stdout


def test_json_prints_the_results_as_objects_and_nothing_else(env, network):
    did = network.network.add_account({POST: 3})
    result = call("import", did, UNKNOWN, "--collection", POST, "--json", env=env)
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert good == {
        "did": did, "collection": POST, "records_synced": 3, "records_skipped": 0, "records_failed": 0,
        "completed": True, "cursor": None, "error": None, "error_code": None, "status": "completed",
    }  # fmt: skip
    assert bad["status"] == "failed"
    assert bad["error_code"] == "did_not_found"


def test_a_file_is_imported_whatever_its_form_and_invalid_lines_are_named(env, network, tmp_path):
    one, two = (network.network.add_account({POST: 2}) for _ in range(2))
    path = tmp_path / "dids.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# people\r\n" + f"{one}\r\n\r\nnot one\r\n{two} # b\r\n{one}\r\n".encode() + b"\xff\r\n"
    )
    result = call("import", "--file", str(path), "--collection", POST, env=env)
    assert result.exit_code == 0
    assert results(result.stdout) == {(one, POST): "completed", (two, POST): "completed"}
    told = [line for line in result.stderr.splitlines() if line.startswith(str(path))]
    assert told[0].startswith(f"{path}:4: ")
    assert told[1].startswith(f"{path}:7: ")
    assert len(told) == 2
    assert f"2 invalid lines of {path} skipped." in result.stderr


def test_standard_input_is_a_file_too(env, network):
    did = network.network.add_account({POST: 2})
    result = call("import", "--file", "-", "--collection", POST, env=env, stdin=f"{did}\n")
    assert results(result.stdout) == {(did, POST): "completed"}


@pytest.mark.parametrize("content", [b"", b"# nobody\n\n", b"\x00\x01\x02" * 50_000])
def test_a_file_without_a_single_account_is_wrong_usage(env, tmp_path, content):
    path = tmp_path / "dids.txt"
    path.write_bytes(content)
    result = call("import", "--file", str(path), env=env)
    assert result.exit_code == 2
    assert "names no account" in result.stderr.splitlines()[-1]


def test_a_file_of_junk_does_not_flood_the_terminal(env, tmp_path):
    path = tmp_path / "dids.txt"
    path.write_bytes(b"junk \x1b[31m\n" * 5000)
    result = call("import", "--file", str(path), env=env)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) < 110
    assert "5,000 invalid lines" in result.stderr
    assert "\x1b" not in result.stderr


def test_many_results_are_summed_up_and_only_the_failed_ones_listed(env, network, tmp_path):
    dids = [network.network.add_account({POST: 1}) for _ in range(60)]
    path = tmp_path / "dids.txt"
    path.write_text("\n".join([*dids, UNKNOWN]))
    result = call("import", "--file", str(path), "--collection", POST, env=env)
    assert result.exit_code == 1
    assert results(result.stdout) == {(UNKNOWN, POST): "failed"}
    assert "60 of 61 imports complete: 60 records" in result.stdout


def test_resume_goes_on_with_what_failed_and_leaves_the_rest_alone(env, network, settings):
    did, other = (network.network.add_account({POST: 3, LIKE: 3}) for _ in range(2))
    assert call("import", "--resume", env=env).stdout == "Nothing to resume: every import is complete.\n"
    network.network.accounts[did].repo.status = "takendown"
    first = call("import", did, other, env=env)
    assert first.exit_code == 1
    assert list(results(first.stdout).values()).count("failed") == 2
    network.network.accounts[did].repo.status = "active"
    narrowed = call("import", "--resume", did, "--collection", LIKE, env=env)
    assert results(narrowed.stdout) == {(did, LIKE): "completed"}
    result = call("import", "--resume", env=env)
    assert result.exit_code == 0
    assert results(result.stdout) == {(did, POST): "completed"}
    assert records(settings) == 12


@pytest.mark.long
def test_what_failed_can_be_chosen_by_error_and_host_and_nothing_else_is_read(env, network, settings):
    refuses, fails, fine = (network.network.add_account({POST: 3}) for _ in range(3))
    network.network.behave(did=refuses, faults=(Fault(kind="400", method="listRecords"),))
    network.network.behave(did=fails, faults=(Fault(kind="500", method="listRecords"),))
    assert call("import", refuses, fails, fine, "--collection", POST, env=env).exit_code == 1
    for did in (refuses, fails):
        network.network.behave(did=did, faults=())

    def asked(*arguments: str) -> set[str]:
        before = len(network.network.log.entries())
        assert call("import", *arguments, env=env).exit_code == 0
        return {entry.did for entry in network.network.log.entries()[before:]} - {""}

    assert asked("--error", "request_refused", "--error", "cursor_loop", fails) == set()
    assert asked("--error", "request_refused") == {refuses}
    assert "Queued 1 import" in call("import", "--failed", "--queue", env=env).output
    assert asked("--resume") == {fails}
    assert asked("--failed") == set()
    host = json.loads(call("import-status", fine, "--json", env=env).stdout)[0]["pds"]
    assert asked("--pds", host) == set(), "it is complete"
    assert fine in asked("--pds", host.removeprefix("http://"), "--refresh")
    assert call("import", "--failed", "--resume", env=env).exit_code == 2
    for arguments in (["--failed"], ["--failed", "--queue"]):
        lost = call("import", "nobody.sample.test", *arguments, env=env)
        assert (lost.exit_code, "nobody.sample.test" in lost.output) == (1, True), lost.output


def test_queue_returns_at_once_and_leaves_pending_rows(env, network, settings, tmp_path):
    dids = [network.network.add_account({POST: 1}) for _ in range(3)]
    path = tmp_path / "dids.txt"
    path.write_text("\n".join(dids[1:]))
    assert "Queued 2 imports under parity-import" in call("import", dids[0], "--queue", env=env).stdout
    assert "Queued 4 imports" in call("import", "--file", str(path), "--queue", env=env).stdout
    assert "Nothing new to queue" in call("import", *dids, "--queue", env=env).stdout
    assert "6 pending" in call("import-status", "--pending", env=env).stdout
    assert records(settings) == 0
    assert network.network.log.count(method="com.atproto.repo.listRecords") == 0


REGISTERED_LATER = {"PARITY_COLLECTIONS": f"{POST},{LIKE},{FOLLOW}"}


@pytest.mark.parametrize("source", quick(1, ["list", "repo"]))
def test_a_collection_that_was_registered_later_is_imported_for_every_known_account(env, network, settings, source):
    dids = [network.network.add_account({POST: 2, FOLLOW: 3}) for _ in range(3)]
    assert call("import", *dids[:2], env=env).exit_code == 0
    assert call("import", dids[2], "--collection", POST, env=env).exit_code == 0
    before = len(network.network.log.entries(collection=POST))
    result = call("import", "--known", "--source", source, "--progress", env=env | REGISTERED_LATER)
    assert result.exit_code == 0, result.output
    wanted = {(did, FOLLOW) for did in dids} | {(dids[2], LIKE)}
    assert results(result.stdout) == dict.fromkeys(wanted, "completed")
    assert len(network.network.log.entries(collection=POST)) == before
    assert records(settings) == 15
    assert "Nothing is missing" in call("import", "--known", env=env | REGISTERED_LATER).stdout


def test_what_known_accounts_lack_is_queued_and_a_refresh_takes_what_they_have_as_well(env, network, settings):
    dids = [network.network.add_account({POST: 2}) for _ in range(3)]
    assert call("import", *dids[:2], env=env).exit_code == 0
    assert call("import", dids[2], "--queue", env=env).exit_code == 0
    later = env | REGISTERED_LATER
    queued = json.loads(call("import", "--known", "--collection", FOLLOW, "--queue", "--json", env=later).stdout)
    assert [(pair["did"], pair["collection"]) for pair in queued] == [(did, FOLLOW) for did in sorted(dids)]
    assert call("reset", dids[0], "--collection", FOLLOW, env=later).exit_code == 0
    assert "Queued 1 import under" in call("import", "--known", "--queue", env=later).stdout
    assert "Nothing new to queue" in call("import", "--known", "--queue", env=later).stdout
    # the two complete ones of each of two accounts; what is pending stays as it is
    assert "Queued 4 imports" in call("import", "--known", "--queue", "--refresh", env=later).stdout
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        found = connection.execute("SELECT did, collection, status, refresh FROM parity_import_states").fetchall()
    again = {(did, nsid) for did in dids[:2] for nsid in (POST, LIKE)}
    assert {(did, nsid): refresh for did, nsid, _, refresh in found} == {
        (did, nsid): (did, nsid) in again for did in dids for nsid in (POST, LIKE, FOLLOW)
    }
    assert {status for _, _, status, _ in found} == {"pending"}


def test_all_known_accounts_are_refreshed_without_a_list_of_them(env, network):
    dids = [network.network.add_account({POST: 2}) for _ in range(2)]
    assert call("import", *dids, env=env).exit_code == 0
    network.network.put_record(dids[1], POST)
    result = call("import", "--known", "--refresh", "--collection", POST, env=env)
    assert result.exit_code == 0
    assert "5 records" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ([UNKNOWN], "imported without it"),
        (["--file", "-"], "imported without it"),
        (["--resume"], "one after the other"),
        (["--queue", "--source", "repo"], "PARITY_SOURCE"),
    ],
)
def test_what_makes_no_sense_with_all_known_accounts_is_refused(env, arguments, cure):
    result = call("import", "--known", *arguments, env=env, stdin="")
    assert result.exit_code == 2
    assert cure in " ".join(result.stderr.split())


@pytest.mark.parametrize("more", [[], ["--queue"]])
def test_an_unregistered_collection_is_not_imported_for_known_accounts(env, more):
    result = call("import", "--known", "--collection", "com.example.thing", *more, env=env)
    assert result.exit_code == 1
    assert "PARITY_COLLECTIONS" in result.stderr


def test_an_unregistered_collection_cannot_be_queued(env):
    result = call("import", UNKNOWN, "--collection", "com.example.thing", "--queue", env=env)
    assert result.exit_code == 1
    assert "PARITY_COLLECTIONS" in result.stderr


@pytest.mark.parametrize(("number", "code"), quick(1, [(signal.SIGTERM, 143), (signal.SIGINT, 130)]))
def test_a_signal_ends_an_import_with_its_exit_code_and_resume_goes_on(env, network, settings, number, code):
    did = network.network.add_account({POST: 1000})
    network.network.behave(latency=0.4)
    with start("import", did, "--collection", POST, env=env) as process:
        deadline = time.monotonic() + 30
        while not records(settings) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "parity import --resume" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert 0 < records(settings) < 1000
    network.network.behave(latency=0.0)
    assert call("import", "--resume", env=env).exit_code == 0
    assert records(settings) == 1000


@pytest.mark.parametrize("number", quick(1, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
@pytest.mark.long
def test_what_an_open_pipe_named_is_imported_before_its_end_and_no_signal_waits_for_it(env, network, settings, number):
    dids = [network.network.add_account({POST: 2}) for _ in range(3)]
    with start("import", "--file", "-", "--collection", POST, env=env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{did}\n" for did in dids))
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while records(settings) < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert records(settings) == 6
        process.send_signal(number)
        sent = time.monotonic()
        process.wait(20)
        assert time.monotonic() - sent < 5
        assert process.returncode == 128 + number
        assert process.stderr is not None
        *_, last = process.stderr.read().splitlines()
        assert last.startswith("error: ")
        assert "parity import --resume" in last


def queued(settings) -> set[str]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        rows = connection.execute(f"SELECT did FROM {settings.state_table} WHERE status = 'pending'").fetchall()
        return {did for (did,) in rows}


def wait_for(what):
    deadline = time.monotonic() + 30
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.long
def test_what_is_typed_into_an_open_pipe_is_queued_before_its_end_and_a_signal_loses_nothing(env, settings):
    dids = [f"did:plc:{letter * 24}" for letter in "abc"]
    with start("import", "--file", "-", "--collection", POST, "--queue", env=env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for count, did in enumerate(dids, 1):
            process.stdin.write(f"{did}\n")
            process.stdin.flush()
            assert wait_for(lambda count=count: queued(settings) == set(dids[:count]))
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Queued 3 imports" in output
    assert errors.splitlines()[-1].startswith("error: ")
    assert queued(settings) == set(dids)


@pytest.mark.parametrize("option", quick(1, ["--queue", "--refresh"]))
def test_a_handle_from_an_open_pipe_is_looked_up_before_its_end(env, network, names, settings, option):
    did = network.network.add_account({POST: 2}, handle="ada.sample.test")
    names.records["_atproto.ada.sample.test"] = f"did={did}"
    reading, writing = os.pipe()
    in_time = []

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as stream:
            stream.write(b"nobody.sample.test\nada.sample.test\n")
            in_time.append(wait_for(lambda: queued(settings) == {did} or records(settings) == 2))

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        result = call("import", "--file", "-", "--collection", POST, option, env=env, stdin=stream)
    writer.join()
    assert in_time == [True]
    assert result.exit_code == 1, result.output
    assert "nobody.sample.test" in result.output


@pytest.mark.long
def test_a_look_up_that_takes_its_time_does_not_hold_up_the_end_of_the_process(env):
    """Nobody answers at that address, and the name server is asked for seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        program = (
            "import dns.asyncresolver\n"
            "resolver = dns.asyncresolver.Resolver(configure=False)\n"
            f"resolver.nameservers, resolver.port = ['127.0.0.1'], {silent.getsockname()[1]}\n"
            "dns.asyncresolver.default_resolver = resolver\n"
            "from parity_dagster.cli import main; main()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, "import", "ada.sample.test", "--queue"],
            env={**os.environ, **env}, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                silent.settimeout(30)
                silent.recv(4096)
                asked = time.monotonic()
                process.send_signal(signal.SIGTERM)
                process.wait(20)
                assert time.monotonic() - asked < 3, "or the look-up has been waited for"
                assert process.returncode == 143
            finally:
                process.kill()


@pytest.mark.long
def test_a_closed_standard_input_is_wrong_usage(env):
    command = f"{shlex.join([*PROGRAM, 'import', '--file', '-'])} <&-"
    result = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: Standard input is closed")


@pytest.mark.parametrize("closed", quick(1, [">&- 2>&-", ">&-", "2>&-"]))
@pytest.mark.long
def test_an_import_works_with_its_output_closed(env, network, settings, closed):
    did = network.network.add_account({POST: 2})
    command = f"{shlex.join([*PROGRAM, 'import', did, '--progress'])} {closed}"
    result = subprocess.run(["sh", "-c", command], env={**os.environ, **env}, timeout=60, check=False)
    assert result.returncode == 0
    assert records(settings) == 2


def test_progress_in_a_pipe_is_lines_on_stderr_with_records_per_second(env, network):
    did = network.network.add_account({POST: 250})
    result = call("import", did, "--collection", POST, "--progress", "--json", env=env)
    last = [line for line in result.stderr.splitlines() if "records/s" in line][-1]
    assert "1 of 1 done; 250 records in " in last
    assert json.loads(result.stdout)[0]["records_synced"] == 250
