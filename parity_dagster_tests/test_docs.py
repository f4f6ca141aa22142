"""The documentation: every Python example runs, and every word of atp-parity's import manual has its counterpart."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from parity_dagster import ImportState, load_settings
from parity_dagster.sample_network import FOLLOW, LIKE, POST, PROFILE, REPOST, Running, SampleNetwork, run_in_thread
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import call, run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MISSION_DIDS = (
    "did:plc:z72i7hdynmk6r22z27h6tvur",
    "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
    "did:plc:ragtjsm2j2vknwkz3zp4oxrd",
)
_BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[str]:
    """The page's Python blocks, with blank lines before them so that a traceback shows the page's line."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        before = text.count("\n", 0, match.start(2))
        code = "".join(line.removeprefix(match[1]) for line in match[2].splitlines(keepends=True))
        found.append("\n" * before + code)
    return found


class Recorder:
    """What the examples call `Metrics` and `Alert`: it notes what was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    return template_with_dagster


@pytest.fixture
def network() -> Iterator[Running]:
    network = SampleNetwork(hosts=2, seed=71)
    for did in MISSION_DIDS:
        network.add_account({POST: 120, LIKE: 8, REPOST: 2, FOLLOW: 3, PROFILE: 1}, did=did)
    with run_in_thread(network) as running:
        yield running


@pytest.fixture
def environment(
    database_url: str, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """The variables under which the examples run, and the names that their texts introduce."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE_URL": database_url,
        "HOME": str(tmp_path),
        "PLC_URL": network.plc_url,
        "RELAY_URL": network.relay_url,
        "ALLOW_PRIVATE_HOSTS": "1",
        "PAGE_DELAY": "0",
    }.items():
        monkeypatch.setenv(f"PARITY_{name}", value)

    def firehose(did: str) -> Iterator[dict[str, Any]]:
        """Two commits as a decoder of the firehose gives them."""
        rkey = network.network.put_record(did, POST, {"$type": POST, "text": "live"})
        cid = network.network.records(did, POST)[rkey][0]
        op = {"action": "create", "path": f"{POST}/{rkey}", "cid": cid, "record": {"$type": POST, "text": "live"}}
        yield {"repo": did, "rev": network.network.rev(did), "ops": [op]}
        network.network.delete_record(did, POST, rkey)
        yield {
            "repo": did,
            "rev": network.network.rev(did),
            "ops": [{"action": "delete", "path": op["path"]}, {"action": "delete", "path": "com.example.x/y"}],
        }

    with dg.DagsterInstance.ephemeral() as instance:
        yield {
            "__name__": "example",
            "did": MISSION_DIDS[0],
            "collection": POST,
            "firehose": firehose,
            "instance": instance,
            "Metrics": Recorder(),
            "Alert": Recorder(),
        }
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.get_name() == "parity"]:
        root.removeHandler(handler)
    logging.getLogger("parity_dagster").setLevel(logging.NOTSET)


# collections.md needs its modules on the path: test_collections_doc runs it; analysis.md has shell commands, too
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if examples(page) and page.name not in ("collections.md", "analysis.md")],
    ids=lambda page: page.name,
)
def test_every_python_example_runs(
    page: Path, environment: dict[str, Any], network: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in examples(page):
        exec(compile(code, str(page), "exec"), environment)
    with connect(load_settings()) as connection:
        rows = connection.execute("SELECT rkey, cid FROM atproto_records WHERE did = %s AND collection = %s",
                                  (MISSION_DIDS[0], POST)).fetchall()  # fmt: skip
    truth = {rkey: cid for rkey, (cid, _) in network.network.records(MISSION_DIDS[0], POST).items()}
    assert dict(rows) == truth
    if page.name == "monitoring.md":
        assert ("increment", "parity.import.completed") in environment["Metrics"].calls
        assert 'parity_records_total{collection="app.bsky.feed.post",outcome="synced"} 120.0' in capsys.readouterr().out


@pytest.mark.long
def test_the_way_from_an_import_to_a_plot_can_be_walked(
    environment: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="a plot needs matplotlib, of the extra `test`")
    page = ROOT / "docs" / "analysis.md"
    commands = 0
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, str(page), "exec"), environment)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "parity"
            if arguments[0] == "psql":  # a process of its own
                assert run(*arguments).returncode == 0
            else:
                done = call(*arguments)
                assert done.exit_code == 0, done.output
            commands += 1
    assert commands == 5
    assert (tmp_path / "posts.png").stat().st_size > 5_000
    assert "120 posts, " in capsys.readouterr().out
    assert (tmp_path / "posts.csv").read_bytes().count(b"\n") == 121


def test_the_pages_that_the_mission_needs_have_examples() -> None:
    have = {page.name for page in PAGES if examples(page)}
    assert {"README.md", "python-api.md", "events.md", "monitoring.md", "firehose.md"} <= have
    assert sum(len(examples(page)) for page in PAGES) > 20


# What stands in code in the import manual of atp-parity, and the spelling here.
MISSION_CODE = {
    "importUser(": "import_user(",
    "importUserCollection(": "import_user_collection(",
    "function ($progress)": "lambda progress",
    "recordsSynced": "records_synced",
    "recordsSkipped": "records_skipped",
    "recordsFailed": "records_failed",
    "->completed": "result.completed",
    "->cursor": "result.cursor",
    "->error": "result.error",
    "isSuccess()": "is_success",
    "isPartial()": "is_partial",
    "isFailed()": "is_failed",
    "isImported(": "is_imported(",
    "getStatus(": "get_status(",
    "getStatusForUser(": "get_status_for_user(",
    "canResume()": "can_resume",
    "->resume(": "service.resume(",
    "resumeAll()": "resume_all()",
    "->reset(": "service.reset(",
    "resetUser(": "reset_user(",
    "ImportUserJob::dispatch('did": "ImportUserJob.dispatch(did)",
    "ImportUserJob::dispatch(did, collection": "ImportUserJob.dispatch(did, collection)",
    "ImportStarted::class": "ImportStarted",
    "ImportProgress::class": "ImportProgress",
    "ImportCompleted::class": "ImportCompleted",
    "ImportFailed::class": "ImportFailed",
    "'page_size'": "page_size=100",
    "'page_delay'": "page_delay=100",
    "'queue'": 'queue="parity-import"',
    "'state_table'": 'state_table="parity_import_states"',
    "Metrics::increment('parity.import.completed')": 'Metrics.increment("parity.import.completed")',
    "Metrics::gauge": "Metrics.gauge(",
    "Metrics::increment('parity.import.failed')": 'Metrics.increment("parity.import.failed")',
    "Alert::send": "Alert.send(",
    "signal:consume": "upsert_records(",
}


@pytest.mark.parametrize(("theirs", "ours"), MISSION_CODE.items(), ids=list(MISSION_CODE))
def test_every_example_of_the_mission_has_its_counterpart_in_one_that_runs(theirs: str, ours: str) -> None:
    assert any(ours in code for page in PAGES for code in examples(page)), f"{theirs} has no counterpart {ours}"


def migration_table() -> str:
    return (ROOT / "docs" / "from-atp-parity.md").read_text()


@pytest.mark.parametrize(
    "word",
    [
        *("vendor:publish", "php artisan migrate", "--collection=", "--progress", "--queue", "--file=dids.txt"),
        *("--resume", "parity:import-status", "--pending", "--failed"),
        *("importUser(", "importUserCollection(", "isImported(", "getStatus(", "getStatusForUser(", "resume($state)"),
        *("resumeAll()", "reset($did", "resetUser(", "canResume()", "ImportUserJob::dispatch($did)", "upsert()"),
        *("ImportUserJob::dispatch($did, $collection)", "$onProgress"),
        *("recordsSynced", "recordsSkipped", "recordsFailed", "->completed", "->cursor", "->error"),
        *("isSuccess()", "isPartial()", "isFailed()"),
        *("ImportStarted::class", "ImportProgress::class", "ImportCompleted::class", "ImportFailed::class"),
        *("'page_size'", "'page_delay'", "'queue'", "'state_table'", "signal:consume"),
    ],
)
def test_the_migration_table_has_a_row_for_each_word_of_the_mission(word: str) -> None:
    rows = [line for line in migration_table().splitlines() if line.startswith("|") and word in line.split("|")[1]]
    assert rows, word
    assert all(len(row.split("|")) == 4 and row.split("|")[2].strip() for row in rows)


def test_the_migration_table_has_a_row_for_each_column() -> None:
    from dataclasses import fields

    listed = set(re.findall(r"`([a-z_]+)`", migration_table().partition("## Columns")[2]))
    assert {field.name for field in fields(ImportState)} <= listed


def test_the_names_that_the_migration_table_promises_exist() -> None:
    from parity_dagster import ImportService
    from parity_dagster.cli import parity

    section = migration_table().partition("## ImportService")[2].partition("##")[0]
    methods = re.findall(r"^\| `(\w+)\(\$", section, re.MULTILINE)
    assert len(methods) > 6
    for method in methods:
        name = re.sub(r"([A-Z])", r"_\1", method).lower()
        assert hasattr(ImportService, name), name
    for command, options in re.findall(r"\| `parity ([a-z-]+)([^`]*)`", migration_table()):
        found = parity.commands[command]
        known = {option for parameter in found.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {os.fspath(target)}"
