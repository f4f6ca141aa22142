"""`parity dev`: one signal ends everything it started."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

import parity_dagster
from parity_dagster.cli.process_tree import ProcessTree
from parity_dagster_tests.command_line import PROGRAM, call, variables

pytestmark = pytest.mark.processes

# A program like Dagster at its worst: a child that ignores SIGTERM in a session of its own, an orphan whose
# parent is gone, and a program that does not react to SIGTERM itself.
STUBBORN = """
import os, signal, subprocess, sys, time
stay = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", stay], start_new_session=True)
orphaning = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
subprocess.run([sys.executable, "-c", orphaning, stay])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_alive(process: psutil.Process) -> bool:
    # an orphan's remains may wait for ever for an init that does not collect them
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_tree_of_stubborn_processes_and_orphans_is_ended_to_the_last():
    tree = ProcessTree([sys.executable, "-c", STUBBORN], dict(os.environ))
    assert wait_for(lambda: len(tree.remaining()) == 3, 20)
    processes = tree.remaining()
    began = time.monotonic()
    tree.stop(patience=0.5)
    assert time.monotonic() - began < 15
    assert tree.remaining() == []
    assert not any(is_alive(process) for process in processes)


def test_a_second_request_does_not_wait():
    tree = ProcessTree([sys.executable, "-c", STUBBORN], dict(os.environ))
    assert wait_for(lambda: len(tree.remaining()) == 3, 20)
    began = time.monotonic()
    tree.stop(patience=60, hurry=lambda: True)
    assert time.monotonic() - began < 15
    assert tree.remaining() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_killed_parent_takes_the_program_with_it():
    code = (
        "import os, signal, sys, time\n"
        "from parity_dagster.cli.process_tree import ProcessTree\n"
        "tree = ProcessTree([sys.executable, '-c', 'import time; time.sleep(600)'], dict(os.environ))\n"
        "print(tree.remaining()[0].pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert wait_for(lambda: not is_alive(child), 10)


def test_processes_of_others_are_left_alone():
    other = ProcessTree([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    tree = ProcessTree([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    tree.stop(patience=5)
    assert other.exit_code is None
    other.kill()


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "is_project"),
    [
        pytest.param(signal.SIGTERM, False, id="sigterm"),
        pytest.param(signal.SIGINT, True, id="ctrl-c"),
    ],
)
def test_dev_serves_the_ui_and_one_signal_ends_all_of_it(settings, tmp_path, number, is_project):
    if is_project:
        checkout = Path(parity_dagster.__file__).parent.parent
        for name in ("workspace.yaml", "dagster.yaml"):
            (tmp_path / name).write_text((checkout / name).read_text())
    port = free_port()
    process = subprocess.Popen(
        [*PROGRAM, "dev", "--port", str(port)],
        env={**os.environ, **variables(settings)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a signal to the terminal's group reaches nobody else of this test
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said: list[str] = []
        while f"Dagster UI: http://127.0.0.1:{port}" not in "".join(said):
            said.append(process.stdout.readline())
            assert said[-1], process.communicate()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql",
            data=b'{"query": "{assetNodes {assetKey {path}}}"}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert {"assetKey": {"path": ["atproto", "records"]}} in json.load(answer)["data"]["assetNodes"]
        everything = psutil.Process(process.pid).children(recursive=True)
        names = " ".join(" ".join(child.cmdline()) for child in everything)
        assert re.search(r"dagster_webserver", names)
        assert re.search(r"dagster\._daemon", names)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert not [child for child in everything if is_alive(child) and child.name() != "postgres"]
        assert wait_for(lambda: not _listens(port), 5)
    finally:
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        for started in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                started.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_taken_port_is_one_line_that_names_another(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = call("dev", "--port", str(port), env=variables(settings))
    assert result.exit_code == 2
    assert f"parity dev --port {port + 1}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
