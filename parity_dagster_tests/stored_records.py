"""Records put into the table as they are, and a view of a test's own that has every kind of column."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from parity_dagster.sample_network import POST
from parity_dagster.settings import Settings

DID = "did:plc:" + "a" * 24
OTHER = "did:plc:" + "b" * 24
EVENT = "community.lexicon.calendar.event"

_EVENTS = """
from parity_dagster import Column, TypedView

EVENTS = TypedView(
    "events",
    "community.lexicon.calendar.event",
    (
        Column("starts_at", "startsAt", "timestamp"),
        Column("seats", "seats", "integer"),
        Column("price", "price", "number"),
        Column("is_open", "open", "boolean"),
        Column("raw", "place", "json"),
        Column("tags", "tags", "texts"),
        Column("select", "select"),
    ),
)
"""


def store(conn: psycopg.Connection[Any], value: Any, rkey: str = "one", collection: str = POST, did: str = DID) -> None:
    """Put a record into the table."""
    given = value if isinstance(value, Jsonb) else Jsonb(value)
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, cid, value) VALUES (%s, %s, %s, 'bafy', %s)",
        (did, collection, rkey, given),
    )


def raw(text: str) -> Jsonb:
    """JSON by its text."""
    return Jsonb(None, dumps=lambda _: text)


def store_events(conn: psycopg.Connection[Any]) -> None:
    """Put three events into the table: with every field, with nothing as it should be, and at the ends of what fits."""
    store(
        conn,
        raw(
            '{"startsAt": "9999-12-31T23:59:59.999999Z", "seats": 999999999999999999, "price": 1.10, "open": false,'
            ' "place": {"a": [1]}, "tags": [], "select": ""}'
        ),
        "a",
        EVENT,
    )
    store(conn, raw('{"startsAt": 1, "seats": 1e30, "price": 1e400, "open": 0, "tags": "x"}'), "b", EVENT)
    store(conn, raw('{"startsAt": "0001-01-01T00:00:00Z", "seats": -9007199254740993, "price": -1e400}'), "c", EVENT)


@contextmanager
def events_view(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with a view of the user's that was never materialized, of a module in a folder."""
    (folder / "stored_events.py").write_text(_EVENTS)
    monkeypatch.syspath_prepend(str(folder))
    yield settings.model_copy(update={"collections": (POST, EVENT), "typed_views": ("stored_events:EVENTS",)})
    sys.modules.pop("stored_events", None)
