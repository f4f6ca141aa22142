"""The view `accounts`: what it says of an account, and what asking it costs."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import psycopg
import pytest

from parity_dagster.definitions import build_defs
from parity_dagster.errors import GONE
from parity_dagster.models import Pair
from parity_dagster.sample_network import LIKE, POST, Fault, SampleNetwork
from parity_dagster.settings import Settings
from parity_dagster.store.accounts_view import COLUMNS, AccountsView
from parity_dagster.store.database import connect, migrate
from parity_dagster.store.typed import make_view
from parity_dagster_tests.imports import importing, query


def row(settings: Settings, did: str, view: str = "accounts") -> dict[str, Any]:
    """What the view says of an account."""
    (found,) = query(settings, f"SELECT {', '.join(COLUMNS)} FROM {view} WHERE did = %s", did)
    return dict(zip(COLUMNS, found, strict=True))


def test_an_account_is_one_row_with_what_is_known_of_it(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    did = network.add_account({POST: 7, LIKE: 5}, handle="alice.sample.test")
    other = network.add_account({POST: 1})
    with importing(settings, network) as (service, _):
        service.enqueue([Pair(other, POST)])
        waiting = row(settings, other)
        assert (waiting["status"], waiting["handle"], waiting["records"], waiting["pairs"]) == (None, None, 0, 1)
        assert waiting["last_seen_at"] is waiting["stalest_at"] is None
        assert service.import_user(did, [POST]).completed
        first = row(settings, did)
        assert service.import_user(did, [LIKE]).completed
        found = row(settings, did)
        assert found == {
            "did": did,
            "handle": "alice.sample.test",
            "handle_verified": False,
            "pds": network.accounts[did].host.url,
            "status": "active",
            "last_seen_at": found["last_seen_at"],
            "records": 12,
            "pairs": 2,
            "pairs_completed": 2,
            "pairs_failed": 0,
            "stalest_at": first["last_seen_at"],
        }
        assert found["last_seen_at"] > found["stalest_at"]
        query(settings, "UPDATE parity_import_states SET confirmed_at = now() + '1 day' WHERE collection = %s", POST)
        assert row(settings, did)["stalest_at"] == found["last_seen_at"], "confirmed is as good as read"
        joined = query(settings, "SELECT DISTINCT handle FROM posts JOIN accounts USING (did)")
        assert joined == [("alice.sample.test",)]


def test_a_copy_that_was_confirmed_counts_no_more_once_reading_it_again_has_failed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3, LIKE: 2})
    with importing(settings, network) as (service, _):
        assert service.import_user(did, [POST, LIKE]).completed
        query(
            settings,
            "UPDATE parity_import_states SET confirmed_at = now() - '1 day'::interval WHERE collection = %s",
            POST,
        )
        network.put_record(did, POST)
        network.behave(collection=POST, did=did, faults=(Fault(kind="503", method="listRecords"),))
        assert not service.import_user(did, [POST], refresh=True).completed
        found = row(settings, did)
        (liked,) = query(settings, "SELECT completed_at FROM parity_import_states WHERE collection = %s", LIKE)
        assert (found["last_seen_at"], found["stalest_at"], found["status"]) == (*liked, *liked, "active")


@pytest.mark.parametrize("status", ["deactivated", "takendown", "suspended"])
def test_who_is_gone_has_a_status_until_he_is_seen_again(settings: Settings, status: Any) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3, LIKE: 2})
    with importing(settings, network) as (service, _):
        assert service.import_user(did, [POST]).completed
        network.set_status(did, status)
        assert service.import_user(did, [POST], refresh=True).error_code == status
        found = row(settings, did)
        assert (found["status"], found["pairs_failed"], found["pairs_completed"]) == (status, 1, 0)
        network.set_status(did, "active")
        assert service.import_user(did, [LIKE]).completed
        assert row(settings, did)["status"] == "active"


def test_every_way_to_be_gone_is_a_status(settings: Settings) -> None:
    for number, code in enumerate(sorted(GONE)):
        query(
            settings,
            "INSERT INTO parity_import_states (did, collection, status, error_code) VALUES (%s, 'a.b.c', 'failed', %s)",
            f"did:plc:{number}",
            code,
        )
    found = query(settings, "SELECT status FROM accounts ORDER BY did")
    assert [code for (code,) in found] == sorted(GONE)


def test_a_handle_is_verified_when_it_was_looked_up_and_as_long_as_it_is_claimed(settings: Settings) -> None:
    import asyncio

    from parity_dagster.store.connecting import open_async_connection
    from parity_dagster.store.identities import CachedIdentity, save_identities

    did = "did:plc:z72i7hdynmk6r22z27h6tvur"
    query(settings, "INSERT INTO parity_import_states (did, collection) VALUES (%s, 'a.b.c')", did)

    def save(handle: str, *, verified: bool = False) -> bool:
        async def work() -> None:
            assert settings.database_url is not None
            conn = await open_async_connection(settings.database_url.get_secret_value())
            identity = CachedIdentity(did, handle, "https://pds.example")
            await save_identities(conn, [identity], verified=verified)
            await conn.close()

        asyncio.run(work())
        return bool(row(settings, did)["handle_verified"])

    assert not save("alice.example.com")
    assert save("alice.example.com", verified=True)
    assert save("alice.example.com"), "a look-up of the document says nothing else"
    assert not save("bob.example.com")
    assert not save("alice.example.com"), "nobody has looked since"


def test_each_state_table_has_a_view_of_its_own(settings: Settings) -> None:
    theirs = settings.model_copy(update={"state_table": "their_states"})
    migrate(theirs)
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(theirs, network) as (service, _):
        assert service.import_user(did, [POST]).completed
    assert row(settings, did, "their_states_accounts")["records"] == 3
    assert query(settings, "SELECT count(*) FROM accounts") == [(0,)]


def test_a_new_database_has_the_view_of_this_version(settings: Settings) -> None:
    """Where it has not, a revision with the new definition is missing."""
    theirs = settings.model_copy(update={"state_table": "their_states"})
    migrate(theirs)
    with connect(settings) as conn:
        for table in ("parity_import_states", "their_states"):
            assert not make_view(conn, AccountsView(table))
            (shown,) = conn.execute("SELECT pg_get_viewdef(%s::regclass)", (AccountsView(table).name,)).fetchone() or (
                "",
            )
            conn.execute(f"DROP VIEW {AccountsView(table).name}".encode())
            assert make_view(conn, AccountsView(table))
            again = conn.execute("SELECT pg_get_viewdef(%s::regclass)", (AccountsView(table).name,)).fetchone()
            assert again == (shown,)
        found = conn.execute(
            "SELECT attname, format_type(atttypid, NULL), col_description(attrelid, attnum) FROM pg_attribute"
            " WHERE attrelid = 'accounts'::regclass AND attnum > 0 ORDER BY attnum"
        ).fetchall()
    short = {"timestamptz": "timestamp with time zone"}
    assert found == [(name, short.get(kind, kind), comment) for name, (kind, comment) in COLUMNS.items()]


def test_a_name_that_something_else_bears_is_left_alone(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("CREATE TABLE accounts (id integer)")
    from parity_dagster.settings import load_settings

    settings = load_settings(database_url=empty_database_url)
    migrate(settings)
    assert query(settings, "SELECT count(*) FROM accounts WHERE id = 1") == [(0,)]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All steps of a plan."""
    return [plan, *(node for part in plan.get("Plans", []) for node in nodes(part))]


def test_an_account_is_found_by_indexes_and_all_are_read_in_one_pass(settings: Settings) -> None:
    with connect(settings, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO parity_import_states (did, collection, status, completed_at, records_synced)"
            " SELECT 'did:plc:' || number, nsid, 'completed', now(), 3 FROM generate_series(1, 20000) number,"
            " unnest(ARRAY['a.b.c', 'a.b.d']) nsid"
        )
        conn.execute(
            "INSERT INTO parity_identities (did, handle, pds) SELECT DISTINCT did, 'x.example.com', 'https://pds.example'"
            " FROM parity_import_states"
        )
        conn.execute("ANALYZE parity_import_states, parity_identities")

        def plan(where: str) -> list[dict[str, Any]]:
            explained = conn.execute(f"EXPLAIN (FORMAT JSON) SELECT * FROM accounts {where}".encode()).fetchone()
            assert explained is not None
            return nodes(explained[0][0]["Plan"])

        for where in (
            "WHERE did = 'did:plc:77'",
            "JOIN (VALUES ('did:plc:77')) v (did) USING (did) WHERE did = 'did:plc:77'",
        ):
            found = plan(where)
            assert not [node for node in found if node["Node Type"] == "Seq Scan"], json.dumps(found)
            read = [node["Relation Name"] for node in found if "Relation Name" in node]
            assert sorted(read) == ["parity_identities", "parity_import_states"]
        for where in ("", "WHERE status = 'active'", "ORDER BY stalest_at LIMIT 5"):
            read = [node["Relation Name"] for node in plan(where) if "Relation Name" in node]
            assert sorted(read) == ["parity_identities", "parity_import_states"]
            assert not [node for node in plan(where) if node["Node Type"] == "Nested Loop"]
        assert conn.execute("SELECT count(*), sum(records) FROM accounts").fetchone() == (20000, 120000)


@pytest.mark.long
def test_the_view_is_an_asset_beside_the_typed_views(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3}, handle="alice.sample.test")
    with importing(settings, network) as (service, _):
        assert service.import_user(did, [POST]).completed
    with connect(settings, autocommit=True) as conn:
        conn.execute("DROP VIEW accounts")
    defs = build_defs(settings)
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("accounts")).parent_keys == {dg.AssetKey(["atproto", "records"])}
    with dg.instance_for_test() as instance:
        result = dg.materialize([defs.resolve_assets_def("accounts")], instance=instance)
        (event,) = result.asset_materializations_for_node("accounts")
    assert event.metadata["dagster/row_count"].value == 1
    assert event.metadata["with_handle"].value == 1
    assert event.metadata["definition_changed"].value is True
    assert "| active |" in str(event.metadata["by_status"].value)
    assert did in str(event.metadata["stalest"].value)
    assert row(settings, did)["handle"] == "alice.sample.test"
