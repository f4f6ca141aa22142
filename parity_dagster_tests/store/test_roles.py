"""A server of one's own: three roles that may do no more than they must, and migrations that can be read first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.errors import DatabaseError
from parity_dagster.models import Pair
from parity_dagster.orchestration.report import Report, report_pending
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect, migrate, plan_migration
from parity_dagster.store.overview import read_holdings
from parity_dagster.store.typed import BLUESKY_VIEWS, summarize_view
from parity_dagster_tests.command_line import call, variables
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import assert_equal

PAGE = Path(__file__).parents[2] / "docs" / "postgresql.md"
ROLES = ("parity_owner", "parity_import", "parity_read")


@pytest.fixture
def roles(empty_database_url: str, tmp_path: Path, network: Running) -> Iterator[dict[str, Settings]]:
    """Settings of each role of the page, in a database that the page's statements have prepared."""
    statements, _ = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    settings = Settings(
        database_url=empty_database_url, home=tmp_path, plc_url=network.plc_url, allow_private_hosts=True,
        page_delay=0, collections=(POST, LIKE),
    )  # fmt: skip
    own = {role: f"{role}_{tmp_path.name.lower()}_{id(settings)}" for role in ROLES}
    for role, name in own.items():
        statements = statements.replace(role, name)
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(statements.encode())
        try:
            yield {
                role: settings.model_copy(update={"database_url": SecretStr(_as(name, settings))})
                for role, name in own.items()
            }
        finally:
            for name in own.values():
                conn.execute(f"DROP OWNED BY {name} CASCADE".encode())
            for name in own.values():
                conn.execute(f"DROP ROLE {name}".encode())


def _as(role: str, settings: Settings) -> str:
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    return re.sub(r"//([^@/]*@)?", f"//{role}@", url, count=1)


@pytest.mark.long
def test_each_role_can_do_its_work_and_no_other(
    roles: dict[str, Settings], network: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner, importer, reader = (roles[role] for role in ROLES)
    monkeypatch.chdir(tmp_path)
    did = network.network.add_account({POST: 130, LIKE: 4})
    network.network.add_odd(did, POST, ["nul"])
    for settings in (importer, reader):
        with pytest.raises(DatabaseError, match="GRANT CREATE ON SCHEMA"):
            migrate(settings)
    assert call("migrate", env=variables(owner)).exit_code == 0
    refused = call("prune", env=variables(importer))
    assert (refused.exit_code, "`parity migrate --dagster`" in refused.output) == (1, True), refused.output
    migrated = call("migrate", "--dagster", env=variables(owner))
    assert migrated.exit_code == 0, migrated.output

    with ImportService(importer) as service:
        assert service.import_user(did).is_success
        assert service.import_pairs([Pair(did, POST)], source="repo", reread=True)[0].completed
        network.network.put_record(did, POST)
        assert service.import_pairs([Pair(did, POST)], refresh=True)[0].completed
        assert service.retry_failed_records() == (0, 1)
        assert service.delete_record(f"at://{did}/{POST}/{min(network.network.records(did, POST))}", "3zzzzzzzzzz2a")
        assert {found.outcome for found in service.verify([did])} == {"equal"}
        service.reset(did, LIKE)
        service.enqueue([Pair(did, LIKE)])
    with parity_instance(importer) as instance:
        assert report_pending(instance, importer) == Report(written=1)
        assert run(importer, instance, "import_records", config={"dids": [did]}).success
        assert run(importer, instance, "refresh_overview").success
    assert_equal(importer, network.network, did, LIKE)

    env = variables(reader)
    for command in (["import-status", did], ["export", "posts", "--csv", "-"], ["failed-records"], ["doctor"]):
        said = call(*command, env=env)
        assert said.exit_code == 0, said.output
    with connect(reader) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("DELETE FROM atproto_records")
    refused = call("import", did, env=env)
    assert refused.exit_code == 1
    assert "grant the role" in refused.output
    refused = call("reset", did, env=env)
    assert (refused.exit_code, "a role may do it" in refused.output) == (1, True), refused.output
    refused = call("prune", env=env)
    assert (refused.exit_code, "grant this one what docs/postgresql.md names" in refused.output) == (1, True)
    refused = call("forget", did, "--yes", env=env)
    assert (refused.exit_code, "this role may not write" in refused.output) == (1, True), refused.output
    env = variables(importer)
    for command in (["import-status", "--summary"], ["reset", did], ["forget", did, "--yes"]):
        said = call(*command, env=env)
        assert said.exit_code == 0, said.output


def objects(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Everything that a migration makes."""
    return conn.execute(
        "SELECT table_name, column_name, data_type, column_default, is_nullable, collation_name, col_description"
        " (format('%I', table_name)::regclass, ordinal_position::int) FROM information_schema.columns"
        " WHERE table_schema = 'public' UNION ALL"
        " SELECT tablename, indexname, indexdef, NULL, NULL, NULL, NULL FROM pg_indexes WHERE schemaname = 'public'"
        " UNION ALL SELECT viewname, definition, NULL, NULL, NULL, NULL, NULL FROM pg_views"
        " WHERE schemaname = 'public' ORDER BY 1, 2, 3"
    ).fetchall()


def test_what_a_migration_would_execute_is_all_that_it_executes(
    database_server: str, empty_database_url: str, database_url: str, tmp_path: Path, admin: psycopg.Connection
) -> None:
    settings = Settings(database_url=empty_database_url, home=tmp_path)
    env = variables(settings)
    printed = call("migrate", "--sql", env=env)
    assert printed.exit_code == 0, printed.output
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        assert objects(conn) == []
        conn.execute(printed.output.encode())
        with psycopg.connect(database_url) as migrated:
            assert objects(conn) == objects(migrated)
    connect(settings).close()
    assert plan_migration(settings) == []
    assert call("migrate", "--sql", env=env).output == "-- Nothing to do: the tables are at this version's revision.\n"
    other = settings.model_copy(update={"state_table": "other_states"})
    statements = plan_migration(other)
    assert any("other_states" in statement for statement in statements)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(";".join(statements).encode())
    connect(other).close()


@pytest.mark.long
def test_records_divided_by_hash_of_did_are_imported_as_before(
    empty_database_url: str, network: Running, tmp_path: Path
) -> None:
    settings = Settings(
        database_url=empty_database_url, home=tmp_path, plc_url=network.plc_url, allow_private_hosts=True,
        page_delay=0, collections=(POST, LIKE),
    )  # fmt: skip
    migrate(settings)
    _, divide = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(divide.encode())
    assert call("migrate", "--dagster", env=variables(settings)).exit_code == 0
    dids = [network.network.add_account({POST: 60, LIKE: 4}) for _ in range(8)]
    with ImportService(settings) as service:
        assert all(service.import_user(did).is_success for did in dids[:4])
        pairs = [Pair(did, nsid) for did in dids[4:] for nsid in (POST, LIKE)]
        assert all(result.completed for result in service.import_pairs(pairs, source="repo"))
        for did in dids:
            gone, changed, *_ = network.network.records(did, POST)
            network.network.delete_record(did, POST, gone)
            network.network.put_record(did, POST, rkey=changed)
        assert all(result.completed for result in service.import_pairs([Pair(did, POST) for did in dids], refresh=True))
        rkey = next(iter(network.network.records(dids[0], LIKE)))
        network.network.delete_record(dids[0], LIKE, rkey)
        assert service.delete_record(f"at://{dids[0]}/{LIKE}/{rkey}", network.network.rev(dids[0]))
        assert service.import_pairs([Pair(dids[0], LIKE)], refresh=True)[0].completed
        assert {found.outcome for found in service.verify(dids)} == {"equal"}
    for did in dids:
        for nsid in (POST, LIKE):
            assert_equal(settings, network.network, did, nsid)
    with parity_instance(settings) as instance:
        assert run(settings, instance, "refresh_overview").success
    with connect(settings) as conn:
        (view,) = (view for view in BLUESKY_VIEWS if view.collection == POST)
        summary = summarize_view(conn, view, settings.state_table, counted_bytes=3 * 8192)
        assert summary.rows == 8 * 59
        assert summary.sampled is not None, "a part of the parts is looked at"
        assert read_holdings(conn, settings.state_table).table_bytes > 16 * 8192
        (parts,) = conn.execute("SELECT count(DISTINCT tableoid) FROM atproto_records").fetchone() or (0,)
        assert parts > 1
    exported = call("export", "posts", "--csv", "-", env=variables(settings))
    assert exported.exit_code == 0
    assert len(exported.stdout.splitlines()) == 8 * 59 + 1
