"""A signal at any moment of its start ends `parity import` at once, with its exit code, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.sample_network import POST, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import load_settings
from parity_dagster.store.database import connect
from parity_dagster_tests.quick import quick

AT_ONCE = 5.0
"""Seconds from the signal to the end of the process on a busy machine; on one that is not, it takes less than one."""
START = 2.0
"""Seconds over which the signals are spread."""

# What Python does with a signal while it starts itself is not ours: the program says when it begins, and its first
# statement is repeated before that, so that no signal comes in between.
PROGRAM = """
import os, signal
from parity_dagster.__main__ import main
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.write(1, b".")
main()
"""


@pytest.fixture
def slow() -> Iterator[tuple[Running, str]]:
    """A network whose one account takes minutes to import."""
    network = SampleNetwork()
    did = network.add_account({POST: 10_000})
    network.behave(latency=0.5)
    with run_in_thread(network) as running:
        yield running, did


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.gettempdir()) / f"parity-signals-{uuid.uuid4().hex[:8]}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def running_under(home: Path) -> list[str]:
    """Processes that work in a folder."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(home):
                found.append(process.info["name"])
    return found


def interrupted(slow: tuple[Running, str], home: Path, number: signal.Signals, delay: float) -> str:
    """Start an import, send it a signal after a while, and say what is wrong with the way it ended."""
    running, did = slow
    given = {"PARITY_HOME": str(home), "PARITY_ALLOW_PRIVATE_HOSTS": "1", "PARITY_PLC_URL": running.plc_url}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "import", did, "--collection", POST],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.read(1)
            time.sleep(delay)
            process.send_signal(number)
            sent = time.monotonic()
            _, errors = process.communicate(timeout=60)
            took = time.monotonic() - sent
        finally:
            process.kill()
    # the warning that loopback is allowed is no news of the signal's
    lines = [line for line in errors.decode().splitlines() if "PARITY_ALLOW_PRIVATE_HOSTS" not in line]
    problems = []
    if took > AT_ONCE:
        problems.append(f"ended after {took:.1f} s")
    if process.returncode not in (-number, 128 + number):
        problems.append(f"exit code {process.returncode}")
    if len(lines) > 1 or (lines and not lines[0].startswith("error: ")):
        problems.append(f"said {lines}")
    deadline = time.monotonic() + AT_ONCE
    while (left := running_under(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        problems.append(f"left {left} running")
    return f"{number.name} after {delay:.3f} s: {', '.join(problems)}" if problems else ""


def check(
    slow: tuple[Running, str],
    home: Path,
    put_server: Callable[[Path], None],
    numbers: list[signal.Signals],
    count: int,
    at_once: int,
) -> None:
    """Send signals at moments spread over the start of a process whose server was made before, or never."""
    load = partial(load_settings, allow_private_hosts=True, plc_url=slow[0].plc_url)
    moments = [
        (numbers[index % len(numbers)], START * index / count, home / "fresh" / str(index) if index % 3 == 2 else None)
        for index in range(count)
    ]
    places = [home / f"made-{index}" for index in range(at_once)]
    for place in places:
        put_server(place)

    def one(place: int) -> list[str]:
        return [
            interrupted(slow, fresh or places[place], number, delay) for number, delay, fresh in moments[place::at_once]
        ]

    with ThreadPoolExecutor(at_once) as pool:
        problems = [problem for found in pool.map(one, range(at_once)) for problem in found if problem]
    assert problems == []
    for place in places:
        with connect(load(home=place)) as conn:
            assert conn.execute("SELECT count(*) FROM parity_importers").fetchone() == (0,)
        assert embedded.release(place)


@pytest.mark.processes
@pytest.mark.parametrize("count", quick(1, [6, 18]))
def test_a_signal_at_any_moment_of_the_start_ends_an_import_and_leaves_nothing(
    slow: tuple[Running, str], home: Path, put_server: Callable[[Path], None], count: int
) -> None:
    check(slow, home, put_server, [signal.SIGINT, signal.SIGTERM], count, at_once=3)


@pytest.mark.processes
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_hundreds_of_signals_over_the_start(
    slow: tuple[Running, str], home: Path, put_server: Callable[[Path], None]
) -> None:
    check(slow, home, put_server, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], count=400, at_once=3)
