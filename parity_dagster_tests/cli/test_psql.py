"""`parity psql` reaches the database that imports go to, and shows no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _psql(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("parity")
    return subprocess.run(
        [program, "psql", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_psql_opens_the_database_in_use(database_url):
    done = _psql("-Atc", "SELECT count(*) FROM parity_import_states", PARITY_DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.processes
def test_psql_starts_the_embedded_server_if_it_has_to(tmp_path):
    done = _psql("-Atc", "SELECT current_database()", PARITY_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.long
def test_psql_ends_with_the_exit_code_of_psql(database_url):
    done = _psql("-v", "ON_ERROR_STOP=1", "-c", "SELECT nonsense", PARITY_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "nonsense" in done.stderr


@pytest.mark.long
def test_psql_gets_every_option_of_the_url_that_libpq_has_a_variable_for(database_url):
    url = f"{database_url}{'&' if '?' in database_url else '?'}application_name=asked-for"
    done = _psql("-Atc", "SHOW application_name", PARITY_DATABASE_URL=url, PGAPPNAME="another")
    assert (done.returncode, done.stdout) == (0, "asked-for\n"), done.stderr
