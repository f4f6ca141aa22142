"""A real PostgreSQL for every test, surroundings that are the same on every machine, and who runs when.

The server is the embedded one in a temporary folder, shared by the workers of one run, or the one that
PARITY_TEST_DSN names. Each test gets a database of its own, copied from a migrated template.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import dns.asyncresolver
import hypothesis
import psycopg
import pytest
from psycopg import sql

from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.errors import ParityError
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store import migrations
from parity_dagster.store.database import connect, migrate
from parity_dagster.store.schema import MIGRATION_LOCK
from parity_dagster_tests.chromium import NO_CHROMIUM, find_chromium
from parity_dagster_tests.names import Names

if TYPE_CHECKING:
    from dagster import DagsterInstance

GIVEN_DSN = os.environ.get("PARITY_TEST_DSN")
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

# What the person running the tests has set must not decide what they see: no locale, PG*, PYTHON*, proxy, CI or
# PARITY_* gets through. Kept is what finds programs and libraries, and what is meant for the tests.
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "USER", "LOGNAME")
MEANT_FOR_TESTS = ("PARITY_TEST_", "PYTEST_", "COVERAGE_")
MEMORY = "/dev/shm"
ROOM = 3 * 2**30
if not IS_WORKER:  # workers inherit what is left
    for _name in [name for name in os.environ if name not in KEPT and not name.startswith(MEANT_FOR_TESTS)]:
        del os.environ[_name]
    os.environ["HOME"] = tempfile.mkdtemp(prefix="parity-home-")
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
    # Databases and folders of tests are in memory where there is room: making them on a disk takes longer than most
    # tests do. A TMPDIR that is given is respected.
    if "TMPDIR" not in os.environ and Path(MEMORY).is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY
    # Nobody's zone, so that a time whose zone was forgotten is wrong on every machine.
    os.environ["TZ"] = "<+0545>-5:45"
time.tzset()

# A shell that starts the tests in the background has them ignore Ctrl-C, and nohup has them ignore a hang-up, which the
# programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How quick a machine is decides nothing.
hypothesis.settings.register_profile("ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ours")


def _place_of_servers() -> Path:
    """In memory where that has room: making a database there takes a tenth of the time, and each test has its own."""
    memory = Path("/dev/shm")
    has_room = os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free > 4 * 2**30
    return memory if has_room else Path(tempfile.gettempdir())


SERVERS = _place_of_servers()
# Nothing in a test outlives a crash of the machine, so nothing waits for the disk.
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "'256MB'"}
LEFTOVER_AGE = 3600  # seconds

# Words in the command line of a program that stays until it is told to end.
DAEMONS = {"dev", "sample-network", "parity_dagster.sample_network", "--serve", "dagster-webserver", "dagster._daemon"}
DAEMONS |= {"dagster-daemon", "dagster_webserver", "demo"}
# Tests of these files wait for long, so they begin first; a worker that is done takes over what another has left.
LONGEST = ("test_network_model.py", "test_crash.py", "test_live.py", "test_jobs.py", "test_ratelimit.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage in what is loaded, neither now nor later, which takes a tenth of the time that this takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out `long` and `soak` unless -m names them, whatever else it says, and `processes` beside other tests."""
    left_out = {name for name in ("long", "soak") if name not in config.option.markexpr}
    if IS_WORKER:
        left_out.add("processes")
    chosen: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        (dropped if any(mark.name in left_out for mark in item.iter_markers()) else chosen).append(item)
    items[:] = sorted(chosen, key=lambda item: item.path.name not in LONGEST)
    config.hook.pytest_deselected(items=dropped)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run a test in the browser where there is one."""
    if item.get_closest_marker("browser") and find_chromium() is None:
        if os.environ.get("PARITY_TEST_BROWSER") == "required":
            pytest.fail(NO_CHROMIUM, pytrace=False)
        pytest.skip(NO_CHROMIUM)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what did not run, and how it will."""
    browser = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    if browser:
        terminalreporter.section("BROWSER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{len(browser)} not run: {NO_CHROMIUM}.")
    if config.getoption("numprocesses", None) and "processes" not in config.option.markexpr:
        terminalreporter.section("TESTS THAT START DAEMONS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line("They run one after the other, without -n: pytest -m processes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let only tests marked `processes` start what stays: it disturbs tests beside it, and they disturb it."""
    _unmarked[:] = [] if item.get_closest_marker("processes") else [item.nodeid]
    try:
        return (yield)
    finally:
        _unmarked.clear()


_unmarked: list[str] = []


def _refuse_daemons(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or not _unmarked:
        return
    words = {os.fsdecode(word) for word in arguments[1]}
    if DAEMONS & words and "--help" not in words:
        raise RuntimeError(f"{_unmarked[0]} starts {arguments[1]}: mark it with pytest.mark.processes")


sys.addaudithook(_refuse_daemons)


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
    """Stop the servers of runs that were killed; one process of all that run tests now does it."""
    with (SERVERS / f"parity-tests.{os.geteuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for home in SERVERS.glob("parity-tests-*"):
            # a run that ends just now removes its own
            with suppress(OSError, ParityError):
                if home.stat().st_uid == os.geteuid() and time.time() - home.stat().st_mtime > LEFTOVER_AGE:
                    embedded.acquire(home)
                    if embedded.release(home):
                        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def admin(database_server: str) -> Iterator[psycopg.Connection]:
    """A connection that makes and drops databases."""
    with psycopg.connect(database_server, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def plain_template(database_server: str, admin: psycopg.Connection) -> str:
    """Name of a migrated database to copy from; nobody else connects to it."""
    sources = sorted(Path(migrations.__path__[0]).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return _template(
        database_server,
        admin,
        f"parity_template_{digest}",
        "template1",
        lambda url: migrate(load_settings(database_url=url)),
    )


@pytest.fixture(scope="session")
def template_with_dagster(database_server: str, admin: psycopg.Connection, plain_template: str) -> str:
    """The same with Dagster's tables, which take a second to make; for folders whose tests need them."""
    from parity_dagster.dagster_instance.storage import make_tables, storage_url

    name = f"{plain_template}_dagster_{version('dagster').replace('.', '_')}"
    return _template(
        database_server,
        admin,
        name,
        plain_template,
        lambda url: make_tables(storage_url(load_settings(database_url=url))),
    )


def _template(server: str, admin: psycopg.Connection, name: str, source: str, fill: Callable[[str], object]) -> str:
    admin.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
        making = f"{name}_making"
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(making)))
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        admin.execute(create.format(sql.Identifier(making), sql.Identifier(source)))
        fill(database_of(server, making))
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        admin.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    admin.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return name


@pytest.fixture(scope="session")
def template_database(plain_template: str) -> str:
    """What the databases of a folder's tests are copied from."""
    return plain_template


@pytest.fixture
def database_url(database_server: str, new_database: Callable[[str], str], template_database: str) -> str:
    """URL of a migrated database without rows, dropped after the test."""
    return database_of(database_server, new_database(template_database))


@pytest.fixture
def empty_database_url(database_server: str, new_database: Callable[[str], str]) -> str:
    """URL of a database without tables, dropped after the test."""
    return database_of(database_server, new_database("template0"))


@pytest.fixture
def new_database(admin: psycopg.Connection, drop_later: Callable[[str], None]) -> Iterator[Callable[[str], str]]:
    """What makes a test's databases: the copy of a template, of which it returns the name."""
    made = []
    # Copying the files takes half of the time that copying through the log takes, which is PostgreSQL's choice.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")

    def make(template: str) -> str:
        name = f"parity_test_{uuid.uuid4().hex[:16]}"
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        made.append(name)
        return name

    yield make
    for name in made:
        drop_later(name)


@pytest.fixture(scope="session")
def drop_later(admin: psycopg.Connection) -> Iterator[Callable[[str], None]]:
    """What drops a database when two more tests have ended: while a session of it is only about to be gone, PostgreSQL
    looks for that every 100 ms, which is longer than most tests take."""
    ended: deque[str] = deque()

    def drop() -> None:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(ended.popleft())))

    def later(name: str) -> None:
        ended.append(name)
        if len(ended) > 2:
            drop()

    yield later
    while ended:
        drop()


@pytest.fixture(scope="session")
def put_server() -> Iterator[Callable[[Path], None]]:
    """What puts a migrated embedded server into a PARITY_HOME: copied, because making one takes more than a second."""
    made = SERVERS / f"parity-made-{uuid.uuid4().hex[:8]}"
    connect(load_settings(home=made)).close()
    assert embedded.release(made)
    source = embedded.data_folder(made)
    owner = source.stat()

    def put(home: Path) -> None:
        target = embedded.data_folder(home)
        shutil.copytree(source, target)
        for path in (target, *target.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)

    yield put
    shutil.rmtree(made)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings for a test: its own database, loopback hosts allowed, no pause between pages."""
    return load_settings(database_url=database_url, home=tmp_path, allow_private_hosts=True, page_delay=0)


@pytest.fixture
def network() -> Iterator[Running]:
    """A network of one host, without accounts."""
    with run_in_thread(SampleNetwork(seed=17)) as running:
        yield running


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """Dagster in memory."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def settings_of_environment(
    database_url: str, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings that the environment and the folder give, for what looks there."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE_URL": database_url,
        "HOME": str(tmp_path),
        "PLC_URL": network.plc_url,
        "COLLECTIONS": f"{POST},{LIKE}",
        "ALLOW_PRIVATE_HOSTS": "1",
        "PAGE_DELAY": "0",
    }.items():
        monkeypatch.setenv(f"PARITY_{name}", value)
    return load_settings()


@pytest.fixture
def names() -> Iterator[Names]:
    """What this process asks about handles."""
    server = Names()
    before = dns.asyncresolver.default_resolver
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
    dns.asyncresolver.default_resolver = resolver  # type: ignore[assignment]
    yield server
    dns.asyncresolver.default_resolver = before
    server.socket.close()
