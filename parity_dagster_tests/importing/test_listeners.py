"""Listeners: who is called, in which order, and what happens when one of them is slow, raises, or dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from textwrap import dedent

import pytest

from parity_dagster import (
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    ImportService,
    ImportStarted,
    ImportStatus,
    ImportUserJob,
    Pair,
    Settings,
    SettingsError,
    load_settings,
)
from parity_dagster.importing.outbox import CROWDED, EventQueue
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.quick import quick


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})


def pending(settings: Settings) -> int:
    with connect(settings) as connection:
        row = connection.execute("SELECT count(*) FROM parity_announcements").fetchone()
    assert row is not None
    return int(row[0])


def script(settings: Settings, folder: Path, code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program that finds modules and plugins in `folder`."""
    env = {**os.environ, **variables(settings, PARITY_COLLECTIONS=",".join(settings.collections), **more)}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-c", dedent(code)], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_listener_hears_of_every_pair_in_order_and_after_the_commit(settings: Settings, network: Running) -> None:
    dids = [network.network.add_account({POST: 250, LIKE: 3}) for _ in range(3)]
    network.network.set_status(dids[2], "suspended")
    heard: dict[Pair, list[ImportEvent]] = defaultdict(list)
    records_seen: list[bool] = []
    with connect(settings, autocommit=True) as connection:

        def listen(event: ImportEvent) -> None:
            heard[Pair(event.did, event.collection)].append(event)
            if isinstance(event, ImportProgress):
                row = connection.execute(
                    "SELECT count(*) FROM atproto_records WHERE did = %s AND collection = %s",
                    (event.did, event.collection),
                ).fetchone()
                records_seen.append(row is not None and row[0] >= event.records_synced)

        pairs = [Pair(did, nsid) for did in dids for nsid in (POST, LIKE)]
        with ImportService(settings, [listen], report=False) as service:
            service.import_pairs(pairs)
    assert records_seen
    assert all(records_seen)
    assert set(heard) == set(pairs)
    for pair, events in heard.items():
        assert isinstance(events[0], ImportStarted)
        if pair.did == dids[2]:
            assert isinstance(events[-1], ImportFailed)
            assert events[-1].error_code == "suspended"
            continue
        assert isinstance(events[-1], ImportCompleted)
        progress = [event for event in events[1:-1] if isinstance(event, ImportProgress)]
        assert len(progress) == len(events) - 2
        assert [event.pages for event in progress] == list(range(1, len(progress) + 1))
        assert progress[-1].records_synced == events[-1].result.records_synced
    assert pending(settings) == 0


def test_an_ending_tells_the_seconds_since_its_start_and_none_without_one(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 250})
    gone = network.network.add_account({POST: 1})
    network.network.set_status(gone, "suspended")
    seconds: dict[str, float | None] = {}

    def listen(event: ImportEvent) -> None:
        if isinstance(event, ImportCompleted | ImportFailed):
            seconds[event.did] = event.seconds

    began = time.monotonic()
    with ImportService(settings, [listen], report=False) as service:
        service.import_pairs([Pair(did, POST), Pair(gone, POST), Pair("nonsense", POST)])
        took = time.monotonic() - began
        assert 0 < (seconds[did] or 0) < took
        assert 0 < (seconds[gone] or 0) < took
        assert seconds["nonsense"] is None
        service.import_pairs([Pair(did, POST)])
        assert seconds[did] is None, "it was complete, and no walk began"


def test_listeners_named_in_settings_are_called(settings: Settings, network: Running, tmp_path: Path) -> None:
    did = network.network.add_account({POST: 5})
    (tmp_path / "shop_hooks.py").write_text(
        "heard = []\nclass Hooks:\n    @staticmethod\n    def on_event(event):\n        heard.append(event)\n"
        "def second(event):\n    heard.append(event)\n"
    )
    done = script(
        settings,
        tmp_path,
        f"""
        from parity_dagster import ImportService
        with ImportService(report=False) as service:
            service.import_user_collection({did!r}, {POST!r})
        import shop_hooks
        print([type(event).__name__ for event in shop_hooks.heard if getattr(event, 'pages', 1) == 1])
        """,
        PARITY_LISTENERS="shop_hooks:Hooks.on_event, shop_hooks:second",
    )
    assert done.returncode == 0, done.stderr
    names = [name for name in ("ImportStarted", "ImportProgress", "ImportCompleted") for _ in range(2)]
    assert done.stdout.strip() == str(names)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_module_of_mine:listen", "no_such_module_of_mine"),
        ("os.path:no_such_function", "no_such_function"),
        ("os:sep", "not a function"),
    ],
)
def test_a_listener_that_cannot_be_loaded_is_named_before_anything_is_imported(
    settings: Settings, network: Running, name: str, complaint: str
) -> None:
    did = network.network.add_account({POST: 5})
    with ImportService(settings.model_copy(update={"listeners": (name,)}), report=False) as service:
        with pytest.raises(SettingsError, match=f"PARITY_LISTENERS.*{complaint}"):
            service.import_user(did)
        assert service.get_status_for_user(did) == []


@pytest.mark.parametrize("wrong", ["listen", "a.b", "a:b:c", "a:", ":b", "a b:c"])
def test_a_listener_of_the_wrong_form_is_refused_with_the_settings(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"PARITY_LISTENERS.*package\.module:"):
        load_settings(listeners=wrong)


def plugin(folder: Path) -> None:
    """Install a package that brings a listener, as pip would."""
    (folder / "their_plugin.py").write_text("def listen(event):\n    print('listener', type(event).__name__)\n")
    info = folder / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    # the second is what an installation of 0.1.0 names: nobody asks for it any more
    (info / "entry_points.txt").write_text(
        "[parity_dagster.listeners]\nmine = their_plugin:listen\n"
        "[parity_dagster.reporters]\ndagster = parity_dagster.orchestration.reporter:reporter\n"
    )


@pytest.mark.parametrize("report", quick(1, [True, False]))
def test_installed_listeners_are_called(settings: Settings, network: Running, tmp_path: Path, report: bool) -> None:
    did = network.network.add_account({POST: 0})
    plugin(tmp_path)
    code = f"""
    from parity_dagster import ImportService
    with ImportService(report={report}) as service:
        service.import_user_collection({did!r}, {POST!r})
    """
    done = script(settings, tmp_path, code)
    assert done.returncode == 0, done.stderr
    names = ("ImportStarted", "ImportProgress", "ImportCompleted")
    assert done.stdout.splitlines() == [f"listener {name}" for name in names]


def test_a_listener_that_raises_breaks_neither_the_import_nor_the_other_listeners(
    settings: Settings, network: Running
) -> None:
    did = network.network.add_account({POST: 150, LIKE: 2})
    heard: list[ImportEvent] = []

    def broken(event: ImportEvent) -> None:
        raise RuntimeError("the hook's own trouble")

    with ImportService(settings, [broken, heard.append], report=False) as service:
        result = service.import_user(did)
    assert result.is_success
    assert result.records_synced == 152
    assert sum(isinstance(event, ImportCompleted) for event in heard) == 2
    assert pending(settings) == 0


def test_a_listener_that_is_stuck_does_not_hold_up_the_import(settings: Settings, network: Running) -> None:
    dids = [network.network.add_account({POST: 300}) for _ in range(4)]
    release = threading.Event()

    def stuck(event: ImportEvent) -> None:
        release.wait(30)

    with ImportService(settings, [stuck], report=False) as service:
        importing = threading.Thread(target=service.import_pairs, args=([Pair(did, POST) for did in dids],))
        importing.start()
        try:
            with ImportService(settings, report=False) as other:
                deadline = time.monotonic() + 20
                while not all(other.is_imported(did, POST) for did in dids):
                    assert time.monotonic() < deadline, "the import waits for its listener"
                    time.sleep(0.05)
        finally:
            release.set()
            importing.join()


def test_a_hundred_thousand_pages_wait_in_a_small_queue_and_the_newest_progress_is_told() -> None:
    queue = EventQueue()
    pairs = [Pair(f"did:plc:{number}", POST) for number in range(20)]
    for page in range(1, 5_001):
        for pair in pairs:
            queue.put(ImportProgress(*pair, "https://pds", None, page, page * 100, 0, 0))
    assert len(queue) <= CROWDED + len(pairs)
    queue.put(ImportStarted(*pairs[0], "https://pds", None))
    queue.put(ImportProgress(*pairs[0], "https://pds", None, 1, 7, 0, 0))
    queue.close()
    told: dict[Pair, list[ImportEvent]] = defaultdict(list)
    while (event := queue.get()) is not None:
        told[Pair(event.did, event.collection)].append(event)
    for pair in pairs[1:]:
        pages = [event.pages for event in told[pair] if isinstance(event, ImportProgress)]
        assert pages == sorted(pages)
        assert pages[-1] == 5_000
    *_, newest, started, after = told[pairs[0]]
    assert isinstance(newest, ImportProgress)
    assert newest.pages == 5_000
    assert isinstance(started, ImportStarted)
    assert isinstance(after, ImportProgress)
    assert after.records_synced == 7


KILLED = """
import os
from parity_dagster import ImportCompleted, ImportFailed, ImportService, Pair

def die(event):
    if isinstance(event, (ImportCompleted, ImportFailed)):
        os._exit(9)

with ImportService(listeners=[die], report=False) as service:
    service.import_pairs([Pair(did, {nsid!r}) for did in {dids!r}])
"""


# I15
def test_what_a_killed_process_did_not_tell_is_told_by_the_next_one_once(
    settings: Settings, network: Running, tmp_path: Path
) -> None:
    good, bad, other = (network.network.add_account({POST: 120}) for _ in range(3))
    network.network.set_status(bad, "takendown")
    done = script(settings, tmp_path, KILLED.format(nsid=POST, dids=[good, bad]))
    assert done.returncode == 9, done.stderr
    assert pending(settings) >= 1
    with connect(settings) as connection:
        ended = connection.execute(
            "SELECT did FROM parity_import_states WHERE status IN ('completed', 'failed')"
        ).fetchall()
    heard: list[ImportEvent] = []
    with ImportService(settings, [heard.append], report=False) as service:
        service.import_pairs([Pair(other, POST)])
        first = [event for event in heard if event.did != other]
        service.import_pairs([Pair(other, LIKE)])
        assert [event for event in heard if event.did != other] == first
    assert sorted(event.did for event in first) == sorted(did for (did,) in ended)
    for event in first:
        if event.did == good:
            assert isinstance(event, ImportCompleted)
            assert event.fetched
            assert event.state.status is ImportStatus.COMPLETED
            assert event.result.records_synced == 120
        else:
            assert isinstance(event, ImportFailed)
            assert event.error_code == "takendown"
    assert heard.index(first[0]) == 0, "what happened before is told before anything new"
    assert pending(settings) == 0


def test_what_a_listener_could_not_deliver_stays_noted(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 5})

    class Mailbox:
        def __call__(self, event: ImportEvent) -> None:
            pass

        def flush(self) -> None:
            raise ConnectionError("the mail server is away")

    with ImportService(settings, [Mailbox()], report=False) as service:
        assert service.import_user_collection(did, POST).is_success
    assert pending(settings) == 1
    heard: list[ImportEvent] = []
    with ImportService(settings, [heard.append], report=False) as service:
        service.import_pairs([])
    assert [type(event) for event in heard] == [ImportCompleted]
    assert pending(settings) == 0


@pytest.mark.long
def test_what_has_ended_is_delivered_while_the_last_pair_takes_its_time(settings: Settings, network: Running) -> None:
    gone, slow = network.network.add_account({POST: 1}, status="deactivated"), network.network.add_account({POST: 1})
    network.network.behave(did=slow, latency=20.0)

    told: list[type[ImportEvent]] = []

    class Collects:
        def __call__(self, event: ImportEvent) -> None:
            told.append(type(event))

        def flush(self) -> None:
            if ImportFailed in told:
                raise KeyboardInterrupt

    with ImportService(settings, [Collects()]) as service, pytest.raises(KeyboardInterrupt):
        service.import_pairs([Pair(gone, POST), Pair(slow, POST)])
    assert told[-1] is ImportFailed, "nothing has happened since"


@pytest.mark.long
@pytest.mark.processes
def test_a_listener_named_in_settings_is_called_in_a_run_that_the_daemon_launched(
    settings: Settings, network: Running, tmp_path: Path
) -> None:
    did = network.network.add_account({POST: 7})
    heard = tmp_path / "heard.jsonl"
    (tmp_path / "file_hook.py").write_text(
        "import json, os\n"
        "def note(event):\n"
        f"    with open({str(heard)!r}, 'a') as file:\n"
        "        run_id = getattr(getattr(event, 'state', None), 'run_id', None)\n"
        "        print(json.dumps([type(event).__name__, event.did, run_id, os.getpid()]), file=file)\n"
    )
    project = Path(__file__).parents[2]
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(project / name, tmp_path)
    env = {**os.environ, **variables(settings, PARITY_COLLECTIONS=POST, PARITY_LISTENERS="file_hook:note")}
    env |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(project)]), "DAGSTER_HOME": str(tmp_path)}
    log = tmp_path / "daemon.log"
    with log.open("w") as output:
        daemon = subprocess.Popen(
            [Path(sys.executable).with_name("dagster-daemon"), "run"],
            cwd=tmp_path,
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        queued = ImportUserJob.dispatch(did, POST, settings=settings)
        assert queued.wait(timeout=120).records_synced == 7, log.read_text()[-5000:]
        deadline = time.monotonic() + 20
        while "ImportCompleted" not in (heard.read_text() if heard.exists() else ""):
            assert time.monotonic() < deadline, "the pair is complete and the listener does not know"
            time.sleep(0.1)
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(30)
    (state,) = queued.states()
    lines = [json.loads(line) for line in heard.read_text().splitlines()]
    assert state.run_id is not None
    assert ["ImportCompleted", did, state.run_id] in [line[:3] for line in lines]
    assert os.getpid() not in [line[3] for line in lines]
