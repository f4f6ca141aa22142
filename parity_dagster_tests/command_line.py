"""Calls of the command `parity` for tests: in this process, or as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from click.testing import CliRunner, Result

from parity_dagster.cli import parity
from parity_dagster.settings import Settings

UNUSED = {
    "alembic", "dagster", "numpy", "pandas", "parity_dagster.embedded_postgres.server", "psutil", "psycopg2",
    "sqlalchemy",
}  # fmt: skip
"""What importing records into a database of one's own must not load, nor a command that only asks it."""

PROGRAM = [sys.executable, "-c", "from parity_dagster.cli import main; main()"]


def variables(settings: Settings, **more: str) -> dict[str, str]:
    """The environment in which a command has a test's settings."""
    given = {
        "PARITY_DATABASE_URL": settings.database_url.get_secret_value() if settings.database_url else "",
        "PARITY_HOME": str(settings.home),
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_DELAY": "0",
        "PARITY_PLC_URL": settings.plc_url,
    }
    return {**given, **more}


def call(*arguments: str, env: dict[str, str] | None = None, stdin: str | bytes | IO[bytes] | None = None) -> Result:
    """Run a command in this process; quick, and its output is no terminal."""
    return CliRunner().invoke(parity, arguments, env=env, input=stdin)


def run(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process and wait for it."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def start(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, stdin: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command as a process, which a failing test does not wait for."""
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
