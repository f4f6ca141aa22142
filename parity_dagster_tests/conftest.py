"""A real PostgreSQL for every test, and settings that no environment variable can change.

The server is the embedded one in a temporary folder, shared by the workers of one run, or the one that
PARITY_TEST_DSN names. Each test gets a database of its own, copied from a migrated template.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from parity_dagster.settings import Settings, load_settings
from parity_dagster.store import embedded, migrations
from parity_dagster.store.database import MIGRATION_LOCK, migrate

GIVEN_DSN = os.environ.get("PARITY_TEST_DSN")
# What the person running the tests has set must not decide what they see.
for _name in [name for name in os.environ if name.startswith("PARITY_") or name == "DAGSTER_HOME"]:
    del os.environ[_name]

# A shell that starts the tests in the background has them ignore Ctrl-C, which the programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

SERVERS = Path(tempfile.gettempdir())
# Nothing in a test outlives a crash of the machine, so nothing waits for the disk.
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
LEFTOVER_AGE = 3600  # seconds


def database_of(url: str, name: str) -> str:
    """The same server's URL with another database name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """URL of the maintenance database of a running server on which databases can be created."""
    if GIVEN_DSN:
        yield GIVEN_DSN
        return
    _remove_leftovers()
    # Not pytest's folder: each new pytest session of the same user closes the folders above it, and the
    # server's user is another one when root runs the tests.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    home = SERVERS / f"parity-tests-{run}"
    yield database_of(embedded.acquire(home, UNSAFE_BUT_FAST), "postgres")
    if embedded.release(home):
        shutil.rmtree(home, ignore_errors=True)


def _remove_leftovers() -> None:
    """Stop the servers of runs that were killed."""
    for home in SERVERS.glob("parity-tests-*"):
        if home.stat().st_uid != os.geteuid() or time.time() - home.stat().st_mtime < LEFTOVER_AGE:
            continue
        embedded.acquire(home)
        if embedded.release(home):
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(database_server: str) -> str:
    """Name of a migrated database to copy from; nobody else connects to it."""
    sources = sorted(Path(migrations.__path__[0]).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    name = f"parity_template_{digest}"
    with psycopg.connect(database_server, autocommit=True) as admin:
        admin.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if found is None:
            making = f"{name}_making"
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(making)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(making)))
            migrate(load_settings(database_url=database_of(database_server, making)))
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            admin.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    return name


@pytest.fixture
def database_url(database_server: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database without rows, dropped after the test."""
    yield from _new_database(database_server, template_database)


@pytest.fixture
def empty_database_url(database_server: str) -> Iterator[str]:
    """URL of a database without tables, dropped after the test."""
    yield from _new_database(database_server, "template0")


def _new_database(server: str, template: str) -> Iterator[str]:
    name = f"parity_test_{uuid.uuid4().hex[:16]}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    yield database_of(server, name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(drop.format(sql.Identifier(name)))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings for a test: its own database, loopback hosts allowed, no pause between pages."""
    return load_settings(database_url=database_url, home=tmp_path, allow_private_hosts=True, page_delay=0)
