"""What the tests of imports share: a service on a sample network, and the comparison of table and network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import AsyncConnection

from parity_dagster.sample_network import ODD_KINDS, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.states import StateStore

DAMAGED_IN_LISTS = {
    *("entry-null", "entry-string", "missing-cid", "missing-uri", "missing-value", "null-cid", "number-cid"),
    *("uri-not-a-string", "uri-with-spaces", "uri-without-rkey", "wrong-authority", "wrong-collection"),
}
"""Odd entries of lists, whose records are sound in the repository."""
ONLY_IN_LISTS = {"huge-exponent", "giant-int", "null-cid", "missing-cid"}
"""Odd records that are stored if they come from a list: they are no DAG-CBOR, or have no cid there."""


def settings_for(settings: Settings, running: Running, **changes: Any) -> Settings:
    """The test's settings, pointed at a network."""
    return settings.model_copy(update={"plc_url": running.plc_url, "relay_url": running.relay_url, **changes})


@contextmanager
def importing(settings: Settings, network: SampleNetwork, **changes: Any) -> Iterator[tuple[ImportService, Running]]:
    """A service that imports from a network, both running."""
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running, **changes), report=False) as service,
    ):
        yield service, running


OF_THIS_DATABASE = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
"""Of pg_locks: tests that run at the same time share a server, and their databases have the same tables and numbers."""


def query(settings: Settings, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a statement on the test's database."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as conn:
        cursor = conn.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


async def new_importer(conn: AsyncConnection, states: StateStore) -> int:
    """An importer that lives as long as the connection."""
    importer_id = await states.new_importer_id(conn)
    await states.register_importer(conn, importer_id, None)
    return importer_id


def loads(text: str | bytes) -> Any:
    """JSON with exact numbers of any size."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def stored(settings: Settings, did: str, nsid: str) -> dict[str, tuple[str | None, Any]]:
    """rkey → (cid, value) of a pair's active rows."""
    rows = query(
        settings,
        "SELECT rkey, cid, value::text FROM atproto_records WHERE did = %s AND collection = %s AND active",
        did,
        nsid,
    )
    return {rkey: (cid, loads(value)) for rkey, cid, value in rows}


def listed(network: SampleNetwork, did: str, nsid: str) -> dict[str, tuple[str | None, Any]]:
    """The same as the network holds it, without records that cannot be stored."""
    odd = network.odd_records(did, nsid)
    return {
        rkey: (None if odd.get(rkey) == "null-cid" else cid, loads(value))
        for rkey, (cid, value) in network.records(did, nsid).items()
        if not odd.get(rkey) or ODD_KINDS[odd[rkey]].storable
    }


def assert_equal(settings: Settings, network: SampleNetwork, did: str, nsid: str) -> None:
    """The table holds exactly what the network does, and the state row counts it."""
    assert stored(settings, did, nsid) == listed(network, did, nsid)
    ((status, synced, skipped, failed),) = query(
        settings,
        "SELECT status, records_synced, records_skipped, records_failed FROM parity_import_states"
        " WHERE did = %s AND collection = %s",
        did,
        nsid,
    )
    assert status == "completed"
    assert synced == len(listed(network, did, nsid))
    assert synced + skipped + failed == len(network.records(did, nsid))
