"""What the tests themselves promise: they see the same surroundings everywhere, and say what they leave out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import os, subprocess, sys, pytest
from parity_dagster_tests.quick import quick

def test_surroundings():
    assert not {"PGUSER", "PGCLIENTENCODING", "PYTHONWARNINGS", "LC_ALL", "https_proxy", "CI"} & os.environ.keys()
    assert not os.listdir(os.environ["HOME"])
    assert os.environ["TZ"] == "<+0545>-5:45"

@pytest.mark.browser
def test_browser():
    pass

def test_unmarked():
    subprocess.Popen([sys.executable, "-c", "pass", "dev"]).wait()

@pytest.mark.processes
def test_marked():
    assert subprocess.Popen([sys.executable, "-c", "pass", "dev"]).wait() == 0

@pytest.mark.long
def test_long():
    pass

@pytest.mark.parametrize(("number", "text"), quick(1, [(1, "a"), pytest.param(2, "b", id="second"), (3, "c")]))
def test_cases(number, text):
    assert number < 3
"""


def pytest_says(folder: Path, *arguments: str, **variables: str) -> str:
    (folder / "test_some.py").write_text(TESTS)
    # or it takes itself for a worker of the run that it is part of
    ours = ("PYTEST_XDIST_", "PARITY_TEST_")
    surroundings = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "parity_dagster_tests.conftest",
                "-c",
                str(ROOT / "pyproject.toml"),
            ),
            *("-p", "no:cacheprovider", "-q", str(folder / "test_some.py"), *arguments),
        ],
        cwd=folder,
        env={**surroundings, "PYTHONPATH": str(ROOT), "PARITY_TEST_CHROMIUM": "/no/such/browser", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_what_is_left_out_is_said_and_what_a_developer_has_set_reaches_no_test(tmp_path: Path) -> None:
    said = pytest_says(
        tmp_path, PGUSER="me", PGCLIENTENCODING="LATIN1", PYTHONWARNINGS="ignore", LC_ALL="C", https_proxy="x", CI="1"
    )
    assert "BROWSER TESTS DID NOT RUN" in said
    assert "apt-get install chromium" in said
    assert "mark it with pytest.mark.processes" in said
    assert "1 failed, 3 passed, 1 skipped, 3 deselected" in said


@pytest.mark.long
def test_where_a_browser_is_required_its_absence_is_an_error_and_what_takes_long_runs_if_it_is_named(
    tmp_path: Path,
) -> None:
    said = pytest_says(tmp_path, "-m", "browser or long", PARITY_TEST_BROWSER="required")
    assert "no Chromium found" in said
    assert "::test_cases[3-c]" in said
    assert "1 failed, 2 passed, 4 deselected, 1 error" in said


@pytest.mark.long
def test_daemons_never_run_beside_others(tmp_path: Path) -> None:
    said = pytest_says(tmp_path, "-n", "1")
    assert "TESTS THAT START DAEMONS DID NOT RUN" in said
    assert "1 failed, 2 passed, 1 skipped" in said
