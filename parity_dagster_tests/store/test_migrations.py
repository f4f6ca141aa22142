"""The migrations: on every supported PostgreSQL, once, and again."""

from __future__ import annotations

import ast
import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from psycopg.types.json import Json
from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from parity_dagster.errors import DatabaseError, MigrationNeeded, SettingsError
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, Running, SampleNetwork
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store import migrations
from parity_dagster.store.database import connect, migrate
from parity_dagster.store.schema import SCHEMA_REVISION
from parity_dagster.store.typed import BLUESKY_VIEWS, make_view
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for
from parity_dagster_tests.quick import quick

POSTS = BLUESKY_VIEWS[0]
TABLES = {
    "atproto_records",
    "parity_import_states",
    "parity_failed_records",
    "parity_walk_pages",
    "parity_importers",
    "parity_identities",
    "parity_directory",
    "parity_tombstones",
    "parity_announcements",
    "parity_named_accounts",
    "parity_host_importers",
    "parity_host_lists",
    "parity_state_tables",
    "parity_upgrades",
    "parity_discoveries",
    "parity_alembic_version",
}
# atp-parity's schema of the state table.
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
    """Folders with the programs of PostgreSQL before 18 that the system has."""
    found = Path("/usr/lib/postgresql").glob("1[5-7]/bin")
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
            from parity_dagster.embedded_postgres.programs import server_account

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


@pytest.mark.long
def test_two_processes_that_migrate_at_once_both_succeed(empty_database_url: str) -> None:
    script = (
        "import sys; from parity_dagster.settings import load_settings;"
        " from parity_dagster.store.database import migrate;"
        " print(migrate(load_settings(database_url=sys.argv[1])))"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", script, empty_database_url], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in racing] == [SCHEMA_REVISION] * 2


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


def bring_to(url: str, revision: str, *state_tables: str) -> None:
    """Make the tables as an earlier version did, for projects with these state tables one after the other."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.begin() as connection:
        for name in state_tables:
            config = migrations._config(connection, name)
            command.upgrade(config, revision)
            if connection.exec_driver_sql(f"SELECT to_regclass('{name}')").scalar() is None:
                for step in reversed(list(ScriptDirectory.from_config(config).walk_revisions("base", revision))):
                    for statement in getattr(step.module, "STATE_TABLE", ()):
                        connection.exec_driver_sql(statement.format(state_table=name))
    engine.dispose()


def described(url: str) -> list[tuple[object, ...]]:
    """Every column, index, constraint, option, comment and definition of every table, view and function."""
    with psycopg.connect(url) as connection:
        return (
            connection.execute(
                "SELECT c.relname, c.relkind::text, c.reloptions, obj_description(c.oid),"
                " CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END,"
                " ARRAY(SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attcollation,"
                " attidentity, attgenerated, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))"
                " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
                " WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),"
                " ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1),"
                " ARRAY(SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = c.oid ORDER BY 1)"
                " FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2"
            ).fetchall()
            + connection.execute(
                "SELECT proname, pg_get_functiondef(oid), obj_description(oid, 'pg_proc') FROM pg_proc"
                " WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
            ).fetchall()
        )


@pytest.mark.parametrize("revision", quick(2, ["0001", "0005", "0002", "0003", "0004", "0006", "0007"]))
def test_upgraded_tables_are_the_same_as_new_ones(revision: str, database_url: str, empty_database_url: str) -> None:
    bring_to(empty_database_url, revision, "parity_import_states")
    assert migrate(load_settings(database_url=empty_database_url)) == SCHEMA_REVISION
    assert described(empty_database_url) == described(database_url)


def test_no_migration_makes_what_a_later_version_may_change() -> None:
    """A new database and an upgraded one would differ; what a revision makes stands in the revision."""
    folder = Path(migrations.__file__).parent
    imported = {
        str(node.module)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("parity_dagster.store.")
    }
    assert {name for name in imported if ".typed" in name} == set()


def test_a_new_database_has_the_typed_views_of_this_version(database_url: str) -> None:
    """Where it has not, a revision with the new definitions is missing."""
    with psycopg.connect(database_url) as connection:
        for view in BLUESKY_VIEWS:
            assert not make_view(connection, view), view.name


def test_a_database_of_the_first_version_becomes_the_same_as_a_new_one(
    database_url: str, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        # the dump serves every server, and one of 18 does not store what it can work out
        kind = "VIRTUAL" if connection.info.server_version >= 180_000 else "STORED"
        dump = (Path(__file__).parents[1] / "data" / "revision_0005.sql").read_text()
        connection.execute(dump.replace(") STORED", f") {kind}").encode())
    migrate(load_settings(database_url=empty_database_url))
    assert described(empty_database_url) == described(database_url)


@pytest.mark.long
@pytest.mark.parametrize("revision", ["0001", "0005"])
def test_two_projects_that_share_a_database_are_upgraded_one_after_the_other(
    revision: str, empty_database_url: str
) -> None:
    bring_to(empty_database_url, revision, "ours", "theirs")
    ours, theirs = (load_settings(database_url=empty_database_url, state_table=name) for name in ("ours", "theirs"))
    assert migrate(ours) == SCHEMA_REVISION
    connect(ours).close()
    with pytest.raises(MigrationNeeded, match=r"theirs .* run `parity migrate`"):
        connect(theirs)
    assert migrate(theirs) == SCHEMA_REVISION
    for each in (ours, theirs):
        with connect(each) as connection:
            connection.execute(f"SELECT batch, fence_rev, reread FROM {each.state_table}")


def test_typed_views_of_an_earlier_version_are_replaced_and_nothing_else_is(empty_database_url: str) -> None:
    bring_to(empty_database_url, "0006", "parity_import_states")
    safe = POSTS.select()
    unsafe = re.sub(r"CASE WHEN [^\n]* (parity_timestamp\([^\n]*\)) END AS", r"\1 AS", safe)
    assert unsafe != safe
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(f"CREATE OR REPLACE VIEW posts AS {unsafe}".encode())
        connection.execute("COMMENT ON VIEW posts IS 'Posts [parity_dagster 0123456789ab]'")
        connection.execute("CREATE VIEW mine AS SELECT created_at FROM posts")
        connection.execute("DROP VIEW likes")
        connection.execute("DROP VIEW reposts")
        connection.execute("CREATE VIEW reposts AS SELECT 1 AS one")
        connection.execute(
            "INSERT INTO atproto_records (did, collection, rkey, value) VALUES ('did:plc:a', %s, 'one', %s)",
            (POSTS.collection, '{"createdAt":[' + "1e131071," * 10_000 + "1]}"),
        )
    migrate(load_settings(database_url=empty_database_url))
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT created_at FROM mine").fetchall() == [(None,)]
        assert connection.execute("SELECT one FROM reposts").fetchall() == [(1,)]
        assert connection.execute("SELECT to_regclass('likes')").fetchone() == (None,)
        connection.execute("SELECT FROM parity_upgrades WHERE upgraded_at <= now()")


def test_failed_live_records_learn_their_revision(empty_database_url: str) -> None:
    """Each has left a tombstone of the same revision, beside which it could never be stored again."""
    bring_to(empty_database_url, "0006", "parity_import_states")
    with psycopg.connect(empty_database_url) as connection:
        for rkey, pds in (("live", None), ("page", "https://pds.test")):
            connection.execute(
                "INSERT INTO parity_failed_records (did, collection, rkey, fingerprint, reason, detail, body, pds,"
                " walk) VALUES ('did:plc:a', 'a.b.c', %s, %s, 'r', 'd', '', %s, 1)",
                (rkey, rkey, pds),
            )
            connection.execute("INSERT INTO parity_tombstones VALUES ('did:plc:a', 'a.b.c', %s, '3kb')", (rkey,))
    migrate(load_settings(database_url=empty_database_url))
    with psycopg.connect(empty_database_url) as connection:
        rows = connection.execute("SELECT rkey, rev FROM parity_failed_records ORDER BY rkey").fetchall()
    assert rows == [("live", "3kb"), ("page", None)]


def test_a_state_table_that_an_upgrade_has_passed_by_is_brought_up(empty_database_url: str) -> None:
    """The database was upgraded with another table's name, and the old name is used again."""
    bring_to(empty_database_url, "0003", "before")
    bring_to(empty_database_url, "0005", "after")
    before = load_settings(database_url=empty_database_url, state_table="before")
    with ImportService(before, report=False) as service, pytest.raises(MigrationNeeded, match="run `parity migrate`"):
        service.enqueue([Pair("did:plc:z72i7hdynmk6r22z27h6tvur", "app.bsky.feed.post")])
    migrate(before)
    with ImportService(before, report=False) as service:
        assert service.enqueue([Pair("did:plc:z72i7hdynmk6r22z27h6tvur", "app.bsky.feed.post")])


def test_a_state_table_brought_back_from_a_backup_is_taken_up_again(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("CREATE TABLE copy (LIKE parity_import_states INCLUDING ALL)")
        connection.execute("DROP TABLE parity_import_states CASCADE")
        connection.execute("ALTER TABLE copy RENAME TO parity_import_states")
    with pytest.raises(MigrationNeeded, match="run `parity migrate`"):
        connect(settings)
    assert migrate(settings) == SCHEMA_REVISION
    connect(settings).close()


def test_a_table_of_somebody_else_is_not_taken_for_a_state_table(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("CREATE TABLE orders (id integer)")
    with pytest.raises(SettingsError, match=r"orders is not one of parity_dagster's.*PARITY_STATE_TABLE"):
        migrate(settings.model_copy(update={"state_table": "orders"}))


def copy_interrupted(settings: Settings, url: str, table: str) -> None:
    """Copy what an interrupted import has left into the tables of revision 0005."""
    for name, target, columns in (
        ("atproto_records", "atproto_records", "did, collection, rkey, cid, value, rev, active"),
        ("parity_identities", "parity_identities", "did, handle, pds, resolved_at"),
        ("parity_failed_records", "parity_failed_records",
         "did, collection, rkey, fingerprint, reason, detail, body, pds, walk"),
        ("parity_walk_pages", "parity_walk_pages", "state_id, page, rkeys, skipped_rkeys"),
        ("parity_import_states", table,
         "id, did, collection, status, cursor, records_synced, records_skipped, records_failed, started_at, error, pds,"
         " rev, walk, pages, attempts, error_code, refresh"),
    ):  # fmt: skip
        rows = query(settings, f"SELECT {columns} FROM {name}")
        marks = ", ".join(["%s"] * len(columns.split(",")))
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            is_identity = "OVERRIDING SYSTEM VALUE" if columns.startswith("id,") else ""
            cursor.executemany(
                f"INSERT INTO {target} ({columns}) {is_identity} VALUES ({marks}) ON CONFLICT DO NOTHING",
                [[Json(value) if isinstance(value, dict) else value for value in row] for row in rows],
            )


@pytest.fixture
def interrupted(settings: Settings) -> Iterator[tuple[Settings, Running, str]]:
    """A second walk that broke off after three of six pages; two records could not be stored."""
    network = SampleNetwork()
    did = network.add_account({POST: 45})
    network.add_odd(did, POST, ["nul", "value-null"])
    with importing(settings, network, page_size=10) as (service, running):
        service.import_user_collection(did, POST)
        for rkey in sorted(network.records(did, POST).keys() - network.odd_records(did, POST).keys())[::9]:
            network.delete_record(did, POST, rkey)
        network.behave(faults=[{"kind": "503", "method": "listRecords", "skip": 3, "times": 9}])
        assert service.import_user_collection(did, POST, refresh=True).error_code == "server_error"
        network.behave_normally()
        yield settings, running, did


def test_an_interrupted_walk_of_the_revision_before_goes_on_after_the_upgrade(
    interrupted: tuple[Settings, Running, str], empty_database_url: str
) -> None:
    settings, running, did = interrupted
    bring_to(empty_database_url, "0005", "parity_import_states")
    copy_interrupted(settings, empty_database_url, "parity_import_states")
    upgraded = settings_for(settings, running, database_url=SecretStr(empty_database_url), page_size=10)
    migrate(upgraded)
    running.network.log.clear()
    with ImportService(upgraded, report=False) as service:
        assert service.import_user_collection(did, POST).completed
        assert len(service.find_failed_records()) == 2
    assert None not in running.network.log.cursors(did, POST), "no committed page is read again"
    assert_equal(upgraded, running.network, did, POST)


@pytest.mark.parametrize("problem", quick(1, ["a page is missing", "whose?", "newer rows"]))
def test_an_interrupted_walk_that_cannot_go_on_after_the_upgrade_begins_again(
    problem: str, interrupted: tuple[Settings, Running, str], empty_database_url: str
) -> None:
    settings, running, did = interrupted
    bring_to(empty_database_url, "0005", "parity_import_states", *["theirs"] * (problem == "whose?"))
    copy_interrupted(settings, empty_database_url, "parity_import_states")
    upgraded = settings_for(settings, running, database_url=SecretStr(empty_database_url), page_size=10)
    if problem == "a page is missing":
        query(upgraded, "DELETE FROM parity_walk_pages WHERE page = 2")
    elif problem == "newer rows":
        newer = "UPDATE atproto_records SET rev = '3zzzzzzzzzz2a' WHERE rkey = (SELECT min(rkey) FROM atproto_records)"
        query(upgraded, newer)
    migrate(upgraded)
    running.network.log.clear()
    with ImportService(upgraded, report=False) as service:
        assert service.import_user_collection(did, POST).completed
    assert running.network.log.cursors(did, POST)[0] is None
    if problem != "newer rows":
        assert_equal(upgraded, running.network, did, POST)


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
