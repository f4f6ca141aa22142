"""Sessions mean the same whatever a role, a database, the URL or the environment sets, and some servers are refused."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from parity_dagster.dagster_instance.storage import ParityStorage
from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.errors import DatabaseError, SettingsError, UnsupportedServer
from parity_dagster.events import ImportProgress
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.connecting import OLDEST_SERVER, check_server
from parity_dagster.store.database import connect, connection_url, migrate, unreachable
from parity_dagster.store.sessions import Session, open_session
from parity_dagster_tests.conftest import database_of
from parity_dagster_tests.imports import OF_THIS_DATABASE, importing, settings_for

PINNED = {
    "client_encoding": ("LATIN1", "UTF8"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "TimeZone": ("Pacific/Auckland", "UTC"),
    "DateStyle": ("German", "ISO, MDY"),
    "IntervalStyle": ("sql_standard", "postgres"),
    "standard_conforming_strings": ("off", "on"),
    "array_nulls": ("off", "on"),
    "bytea_output": ("escape", "hex"),
    "extra_float_digits": ("-10", "1"),
    "exit_on_error": ("on", "off"),
    "statement_timeout": ("50s", "0"),
    "lock_timeout": ("1ms", "0"),
    "idle_in_transaction_session_timeout": ("51s", "0"),
    "idle_session_timeout": ("52s", "0"),
}
"""What somebody else sets, and what a session of ours has all the same."""
PLACES = ["database", "role", "URL", "PGOPTIONS", "variables"]
TEXT = "héllo 日本 \\ \"NULL\" 'ø' 🦋"


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    return template_with_dagster


@pytest.fixture(params=PLACES)
def meddled(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose sessions would begin with other values than a server's usual ones."""
    return meddle(settings, request.param, {name: wrong for name, (wrong, _) in PINNED.items()}, monkeypatch)


def meddle(settings: Settings, where: str, values: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    url = connection_url(settings)
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in values.items())
    if where == "URL":
        given = f"{url}{'&' if '?' in url else '?'}options={quote(options)}&client_encoding=latin1"
        return settings.model_copy(update={"database_url": load_settings(database_url=given).database_url})
    if where == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    elif where == "variables":
        for name, value in {"PGCLIENTENCODING": "LATIN1", "PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German"}.items():
            monkeypatch.setenv(name, value)
    else:
        with psycopg.connect(url, autocommit=True) as conn:
            for name, value in values.items():
                whose = "ROLE CURRENT_USER IN DATABASE {}" if where == "role" else "DATABASE {}"
                statement = sql.SQL(f"ALTER {whose} SET {name} = {{}}")
                conn.execute(statement.format(sql.Identifier(conn.info.dbname), sql.Literal(value)))
    return settings


# I16
def test_every_kind_of_session_has_our_settings(meddled: Settings) -> None:
    wanted = {name: ours for name, (_, ours) in PINNED.items()}
    with connect(meddled) as conn:
        assert {name: (conn.execute(f"SHOW {name}").fetchone() or ("",))[0] for name in wanted} == wanted

    async def look() -> dict[str, Any]:
        async with await open_session(meddled) as conn:
            return {name: (await (await conn.execute(f"SHOW {name}")).fetchone() or ("",))[0] for name in wanted}

    assert asyncio.run(look()) == wanted
    storage = ParityStorage(meddled)
    with storage._run_storage._engine.connect() as dagsters:
        shown = {name: dagsters.exec_driver_sql(f"SHOW {name}").scalar_one() for name in wanted}
        assert shown == {**wanted, "client_encoding": "UTF8"}
        assert dagsters.exec_driver_sql("SHOW search_path").scalar_one() == "dagster"
    storage._run_storage._engine.dispose()


def test_what_people_write_arrives_as_they_wrote_it(meddled: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: [{"text": TEXT, "n": n} for n in range(25)]})
    network.add_odd(did, POST, ["null-cid", "nul"])
    with importing(meddled, network, page_size=10) as (service, _):
        for refresh in (False, True):
            result = service.import_user_collection(did, POST, refresh=refresh)
            assert (result.completed, result.error) == (True, None)
            network.put_record(did, POST, {"text": TEXT, "n": 99})
    with connect(meddled) as conn:
        texts = conn.execute("SELECT value->>'text', cid FROM atproto_records WHERE value ? 'n'").fetchall()
        assert {text for text, _ in texts} == {TEXT}
        assert len(texts) == 26
        assert conn.execute("SELECT count(*) FROM atproto_records WHERE cid = 'NULL'").fetchone() == (0,)
        (body,) = conn.execute("SELECT body FROM parity_failed_records").fetchone() or (b"",)
        assert json.loads(body)["uri"].startswith(f"at://{did}/")


def test_tables_are_made_the_same_whatever_is_set(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    values = {name: wrong for name, (wrong, _) in PINNED.items()}
    new = meddle(load_settings(database_url=empty_database_url), "database", values, monkeypatch)
    migrate(new)
    query = "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'parity%' ORDER BY 1"
    views = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1"
    with connect(new) as meddled, connect(settings) as usual:
        for statement in (query, views):
            assert meddled.execute(statement).fetchall() == usual.execute(statement).fetchall()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_page_that_waited_for_a_deletion_does_not_bring_the_record_back(
    settings: Settings, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's first statement is before the deletion's commit, so what it may see must not be fixed by then."""
    meddle(settings, "database", {"default_transaction_isolation": isolation}, monkeypatch)
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    rkey = next(iter(network.records(did, POST)))
    at_tombstones = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'parity_tombstones'::regclass"
        f" AND {OF_THIS_DATABASE}"
    )
    at_the_pair = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND {OF_THIS_DATABASE}"
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running), report=False) as service,
        psycopg.connect(connection_url(settings), autocommit=True) as watch,
        psycopg.connect(connection_url(settings)) as barrier,
        ThreadPoolExecutor() as threads,
    ):

        def wait_for(query: str) -> None:
            deadline = time.monotonic() + 60
            while watch.execute(query).fetchone() != (1,):
                assert time.monotonic() < deadline
                time.sleep(0.02)

        barrier.execute("LOCK TABLE parity_tombstones IN SHARE MODE")  # a claim may read it
        try:
            deletion = threads.submit(service.delete_record, f"at://{did}/{POST}/{rkey}", "3zzzzzzzzzzzz")
            wait_for(at_tombstones)
            page = threads.submit(service.import_user_collection, did, POST)
            wait_for(at_the_pair)
        finally:
            barrier.commit()
        assert deletion.result(60)
        assert page.result(60).completed
        rows = watch.execute("SELECT rkey FROM atproto_records").fetchall()
    assert len(rows) == 2
    assert (rkey,) not in rows


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_in_a_sentence(database_server: str, encoding: str) -> None:
    name = f"parity_test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(database_server, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0".encode()
        )
        try:
            settings = load_settings(database_url=database_of(database_server, name))
            assert_refused(settings, f"encoding {encoding}.*UTF8")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def assert_refused(settings: Settings, sentence: str) -> None:
    for attempt in (
        lambda: connect(settings),
        lambda: migrate(settings),
        lambda: asyncio.run(open_session(settings)),
        lambda: ImportService(settings, report=False).resume_all(),
        lambda: ParityStorage(settings),
    ):
        with pytest.raises(UnsupportedServer, match=sentence) as raised:
            attempt()
        assert "\n" not in str(raised.value)


@contextmanager
def server_of_version(version: str) -> Iterator[int]:
    """The port of a server that logs anybody in, says which version it is, and knows nothing else."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    def serve(connection: socket.socket) -> None:
        with connection:
            while True:
                (length,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
                (code,) = struct.unpack("!I", connection.recv(length - 4, socket.MSG_WAITALL)[:4])
                if code == 3 << 16:
                    break
                connection.sendall(b"N")  # no TLS, no GSSAPI
            told = {"server_version": version, "server_encoding": "UTF8", "client_encoding": "UTF8"}
            told |= {"standard_conforming_strings": "on", "integer_datetimes": "on", "DateStyle": "ISO, MDY"}
            answer = message(b"R", struct.pack("!I", 0))
            answer += b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in told.items())
            connection.sendall(answer + message(b"K", struct.pack("!II", 1, 1)) + message(b"Z", b"I"))
            connection.recv(1)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=accept, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("version", ["9.6.24", "13.16", f"{OLDEST_SERVER - 1}.9"])
def test_a_server_that_is_too_old_is_refused_in_a_sentence(version: str) -> None:
    with server_of_version(version) as port:
        settings = load_settings(database_url=f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable")
        assert_refused(settings, rf"is PostgreSQL {int(version.split('.')[0])}, and {OLDEST_SERVER} or newer is needed")


def test_the_versions_that_are_claimed_are_the_versions_that_are_tested() -> None:
    project = Path(__file__).parents[2]
    check_server(OLDEST_SERVER * 10_000, "UTF8")
    assert set(re.findall(r"PostgreSQL (\d+) or newer", (project / "README.md").read_text())) == {str(OLDEST_SERVER)}
    assert f"/usr/lib/postgresql/{OLDEST_SERVER}/bin" in (project / ".ci" / "run").read_text()


@pytest.fixture
def own_home(put_server: Callable[[Path], None]) -> Iterator[Path]:
    """A PARITY_HOME whose path is short enough for any server's user."""
    home = Path(tempfile.gettempdir(), f"parity-sessions-{time.time_ns()}")
    put_server(home)
    yield home
    embedded.release(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.processes
def test_an_embedded_server_that_is_killed_in_the_middle_is_started_again(own_home: Path) -> None:
    settings = load_settings(home=own_home, allow_private_hosts=True, page_delay=0, database_patience=60)
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    killed: list[int] = []

    def kill(event: object) -> None:
        if isinstance(event, ImportProgress) and not killed:
            killed.append(int((own_home / "postgres" / "postmaster.pid").read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    with importing(settings, network, page_size=5, page_delay=20) as (service, _):
        result = service.import_user_collection(did, POST, on_progress=kill)
        assert killed
        assert (result.completed, result.records_synced, result.error) == (True, 60, None)
    with connect(settings) as conn:
        assert conn.execute("SELECT count(*) FROM atproto_records").fetchone() == (60,)


@pytest.mark.long
def test_a_session_that_ends_amid_a_pipeline_is_opened_again(settings: Settings) -> None:
    """One in six that are ended so is neither closed nor broken to the driver, and does nothing any more."""

    async def end_some() -> None:
        session, other = Session(settings), await open_session(settings)
        for _ in range(50):
            calls = 0

            async def work(conn: psycopg.AsyncConnection[Any]) -> None:
                nonlocal calls
                calls += 1
                await conn.execute("SELECT 1")
                if calls > 1:
                    return
                await conn.execute("CREATE TEMPORARY TABLE IF NOT EXISTS numbers (number int)")
                ending = asyncio.create_task(end(conn.info.backend_pid))
                try:
                    while True:
                        async with conn.pipeline(), conn.transaction():
                            for number in range(5):
                                await conn.execute("INSERT INTO numbers VALUES (%s)", (number,))
                            await (await conn.execute("SELECT count(*) FROM numbers")).fetchall()
                finally:
                    await ending

            async def end(pid: int) -> None:
                await asyncio.sleep(random.uniform(0, 0.004))
                await other.execute("SELECT pg_terminate_backend(%s)", (pid,))

            await session.run(work, patience=2)
            assert calls > 1
        await session.close()
        await other.close()

    asyncio.run(end_some())


def test_an_unreachable_embedded_server_is_not_looked_for_in_a_url_that_nobody_gave(tmp_path: Path) -> None:
    url = "postgresql://postgres@/parity?host=/nowhere&port=5432"
    error = str(unreachable(load_settings(home=tmp_path), url, OSError("No space left on device")))
    assert "PARITY_DATABASE_URL" not in error
    assert str(tmp_path / "postgres" / "log") in error
    assert "PARITY_DATABASE_URL" in str(unreachable(load_settings(database_url="postgresql://h/d"), url, OSError()))


@pytest.mark.parametrize("name", ["PGHOSTADDR", "PGSERVICE"])
def test_a_variable_that_leads_past_the_embedded_server_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "203.0.113.7")
    with pytest.raises(SettingsError, match=f"{name} is set.*unset it"):
        connect(load_settings(home=tmp_path))


@pytest.mark.parametrize(
    ("setting", "cure"),
    [
        ("default_transaction_read_only = on", "default_transaction_read_only"),
        ("search_path = nowhere", "CREATE SCHEMA"),
    ],
)
def test_a_migration_that_fails_names_the_cure_for_what_failed(
    empty_database_url: str, setting: str, cure: str
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {setting}".encode())
    with pytest.raises(DatabaseError, match="the migration failed and nothing was changed") as raised:
        migrate(load_settings(database_url=empty_database_url))
    assert cure in str(raised.value)
    assert "GRANT" not in str(raised.value)
