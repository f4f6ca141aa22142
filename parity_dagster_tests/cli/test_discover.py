"""`parity discover` against a real network and database: what is found, queued, written, said and returned."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from parity_dagster.sample_network import FOLLOW, LIKE, POST, Fault, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import PROGRAM, UNUSED, call, run, start, variables
from parity_dagster_tests.imports import query


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=29)) as running:
        yield running


@pytest.fixture
def env(settings: Settings, network: Running) -> dict[str, str]:
    more = {"PLC_URL": network.plc_url, "RELAY_URL": network.relay_url, "COLLECTIONS": f"{POST},{LIKE}"}
    return variables(settings, **{f"PARITY_{name}": value for name, value in more.items()})


def add(network: Running, count: int, nsid: str = POST) -> list[str]:
    return [network.network.add_account({nsid: 1}) for _ in range(count)]


def pending(settings: Settings) -> set[tuple[str, str]]:
    return set(query(settings, "SELECT did, collection FROM parity_import_states WHERE status = 'pending'"))


def test_a_collections_accounts_are_queued_and_imported_by_the_next_command(
    env: dict[str, str], network: Running, settings: Settings
) -> None:
    dids = add(network, 3)
    result = call("discover", POST, env=env)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"{POST} of {network.relay_url}: 3 accounts, 0 of them known.",
        "Queued 6 imports under parity-import; a running `parity dev` or Dagster daemon imports them,"
        " `parity import-status --pending` shows them.",
    ]
    assert pending(settings) == {(did, nsid) for did in dids for nsid in (POST, LIKE)}
    again = call("discover", POST, "--queue", env=env)
    assert again.stdout.splitlines()[-1] == "Nothing new to queue."
    assert call("import", "--resume", env=env).exit_code == 0
    assert query(settings, "SELECT count(*) FROM atproto_records") == [(3,)]


def test_what_is_to_be_imported_can_be_narrowed_and_must_be_registered(
    env: dict[str, str], network: Running, settings: Settings
) -> None:
    (did,) = add(network, 1, FOLLOW)
    refused = call("discover", FOLLOW, env=env)
    assert refused.exit_code == 2
    assert f"{FOLLOW} is not a registered collection" in refused.stderr
    assert call("discover", FOLLOW, "--collection", LIKE, env=env).exit_code == 0
    assert pending(settings) == {(did, LIKE)}


def test_a_servers_accounts_can_be_queued(env: dict[str, str], network: Running, settings: Settings) -> None:
    dids = add(network, 4)
    network.network.set_status(dids[2], "deactivated")
    result = call("discover", "--pds", network.pds_urls["pds-1"], env=env)
    assert (
        f"All accounts of {network.pds_urls['pds-1']}: 1 account, 0 of them known; 1 more not active." in result.stdout
    )
    assert {did for did, _ in pending(settings)} == {dids[0]}
    other = call("discover", POST, "--pds", network.pds_urls["pds-2"], "--json", env=env)
    (found,) = json.loads(other.stdout)
    assert (found["collection"], found["accounts"], found["queued"]) == (None, 2, 2)


def test_a_dry_run_says_how_many_there_are_and_what_they_take(
    env: dict[str, str], network: Running, settings: Settings
) -> None:
    first, *_ = add(network, 5)
    call("import", first, env=env)
    network.network.behave(host="relay", account_lies=("repeated", "invalid"))
    result = call("discover", POST, "--dry-run", env=env)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].endswith("5 accounts, 1 of them known; 2 repeated entries; 17 invalid entries.")
    assert lines[1] == f"5 accounts, 1 of them known. To import: 8 pairs of 4 accounts ({POST}, {LIKE})."
    assert [line.split()[0] for line in lines[2:5]] == ["source", "list", "repo"]
    assert pending(settings) == set()
    plan = json.loads(call("discover", POST, "--dry-run", "--json", env=env).stdout)
    assert (plan["accounts"], plan["known"], plan["missing_accounts"], plan["missing_pairs"]) == (5, 1, 4, 8)
    assert [one["source"] for one in plan["estimates"]] == ["list", "repo"]
    assert plan["estimates"][1]["requests"] == 8
    assert plan["lists"][0]["invalid"] == 17
    wider = call("discover", FOLLOW, "--dry-run", env=env)
    assert wider.exit_code == 0
    assert f"Not registered yet: {FOLLOW}" in wider.stdout


@pytest.mark.long
def test_accounts_are_written_to_a_file_that_import_reads(
    env: dict[str, str], network: Running, settings: Settings, tmp_path: Path
) -> None:
    dids = add(network, 5)
    network.network.behave(host="relay", page_cap=2, account_lies=("repeated",))
    path = tmp_path / "dids.txt"
    result = call("discover", POST, "--output", str(path), env=env)
    assert result.exit_code == 0, result.output
    assert path.read_text().split() == dids
    assert result.stdout.splitlines()[-1] == f"Wrote 5 accounts to {path}."
    assert pending(settings) == set()
    assert query(settings, "SELECT count(*) FROM parity_discoveries") == [(0,)]
    refused = call("discover", POST, "--output", str(path), env=env)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert call("discover", POST, "--output", str(path), "--overwrite", "--limit", "2", env=env).exit_code == 0
    assert path.read_text().split() == dids[:2]
    piped = run("discover", POST, "--output", "-", "--json", env=env)
    assert piped.stdout.split() == dids
    assert json.loads(piped.stderr.splitlines()[-1])["accounts"] == 5
    assert call("import", "--file", str(path), env=env).exit_code == 0
    full = run("discover", POST, "--output", "/dev/full", env=env)
    assert full.returncode == 1
    assert "error: /dev/full could not be written: No space left on device; free some space" in full.stderr


@pytest.mark.long
def test_what_came_before_a_refusal_is_kept_and_the_exit_code_tells(
    env: dict[str, str], network: Running, settings: Settings, tmp_path: Path
) -> None:
    dids = add(network, 6)
    add(network, 1, LIKE)
    faults = (Fault(kind="503", method="listReposByCollection", skip=1, times=3),)
    network.network.behave(host="relay", collection=POST, page_cap=2, faults=faults)
    path = tmp_path / "dids.txt"
    written = call("discover", POST, "--output", str(path), env=env)
    assert written.exit_code == 1
    assert path.read_text().split() == dids[:2]
    assert "error: " in written.stderr
    network.network.behave(host="relay", collection=POST, page_cap=2, faults=faults)
    result = call("discover", POST, LIKE, "--json", env=env)
    assert result.exit_code == 1
    posts, likes = json.loads(result.stdout)
    assert (posts["accounts"], posts["error_code"], posts["is_success"]) == (2, "server_error", False)
    assert (likes["accounts"], likes["is_success"]) == (1, True)
    assert call("discover", POST, env=env).exit_code == 0
    assert {did for did, _ in pending(settings)} >= set(dids)
    unknown = call("discover", POST, "--relay", network.pds_urls["pds-1"], env=env)
    assert unknown.exit_code == 1
    assert "name a relay or a directory of collections" in unknown.stderr


@pytest.mark.long
def test_killed_in_the_middle_the_same_command_goes_on(
    env: dict[str, str], network: Running, settings: Settings
) -> None:
    dids = add(network, 40)
    network.network.behave(host="relay", page_cap=4, latency=0.03)
    for number in (signal.SIGKILL, signal.SIGINT):
        before = len(pending(settings))
        with start("discover", POST, env=env) as process:
            while len(pending(settings)) <= before:
                time.sleep(0.005)
            os.kill(process.pid, number)
            process.wait(30)
            assert process.stderr is not None
            said = process.stderr.read()
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        assert (number == signal.SIGKILL) or "the same command goes on behind it" in said
    (found,) = json.loads(call("discover", POST, "--json", env=env).stdout)
    assert found["is_resumed"] is True
    assert found["known"] == 0
    assert pending(settings) == {(did, nsid) for did in dids for nsid in (POST, LIKE)}


@pytest.mark.long
def test_progress_tells_accounts_a_second(env: dict[str, str], network: Running) -> None:
    add(network, 12)
    for way in ([], ["--dry-run"], ["--output", "-"]):
        result = run("discover", POST, "--progress", *way, env=env)
        assert re.search(r"12 accounts, [\d,]+ accounts/s", result.stderr), result.stderr


@pytest.mark.long
def test_a_terminal_shows_a_bar_without_being_asked_to(env: dict[str, str], network: Running) -> None:
    add(network, 12)
    terminal, its_end = pty.openpty()
    given = {**os.environ, **env, "TERM": "xterm"}
    with subprocess.Popen(
        [*PROGRAM, "discover", POST], env=given, stdout=subprocess.DEVNULL, stderr=its_end
    ) as process:
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # whoever wrote has left
            while piece := os.read(terminal, 65_536):
                shown += piece
        os.close(terminal)
    assert process.returncode == 0
    assert re.search(rb"found .*12/\?.* accounts/s", shown), shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give an NSID, or --pds."),
        ([POST, "--relay", "a.example", "--pds", "b.example"], "exclude each other"),
        ([POST, "--dry-run", "--queue"], "--dry-run and --queue exclude each other"),
        ([POST, "--output", "a", "--queue"], "--queue and --output exclude each other"),
        ([POST, "--dry-run", "--from-start"], "--from-start is for --queue"),
        ([POST, "--overwrite"], "--overwrite goes with --output"),
        ([POST, "--output", "a", "--collection", POST], "--output imports nothing"),
        ([POST, "--limit", "0"], "--limit"),
        ([POST, "--relay", "ftp://a.example"], "is not contacted"),
        (["post"], "post"),
        ([POST, "--output", "no/such/folder/dids.txt"], "there is no folder"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    env: dict[str, str], network: Running, arguments: list[str], sentence: str
) -> None:
    result = call("discover", *arguments, env=env)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert network.network.log.count() == 0


def test_an_internal_server_is_wrong_usage_and_the_setting_too(env: dict[str, str]) -> None:
    public = {**env, "PARITY_ALLOW_PRIVATE_HOSTS": "0"}
    refused = call("discover", POST, "--relay", "https://10.0.0.1", env=public)
    assert refused.exit_code == 2
    assert "is not contacted" in refused.stderr
    assert call("discover", POST, env=public).exit_code == 1
    for wrong in ("relay", "https://relay.example.com/xrpc"):
        assert call("discover", POST, env={**env, "PARITY_RELAY_URL": wrong}).exit_code == 2


def test_discovering_loads_neither_dagster_nor_what_it_does_not_use(env: dict[str, str], network: Running) -> None:
    add(network, 1)
    code = (
        f"import sys\nfrom parity_dagster.cli import main\nsys.argv = ['parity', 'discover', {POST!r}]\n"
        f"try:\n    main()\nexcept SystemExit:\n    print({UNUSED} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
