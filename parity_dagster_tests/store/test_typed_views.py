"""Typed views: every record of a collection as columns, and nothing that a record holds can make them fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from psycopg.types.json import Jsonb

from parity_dagster.errors import SettingsError
from parity_dagster.sample_network import (
    FOLLOW,
    LIKE,
    ODD_KINDS,
    POST,
    PROFILE,
    REPOST,
    Running,
)
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.typed import BLUESKY_VIEWS, Column, TypedView, find_samples, make_view, summarize_view
from parity_dagster_tests.quick import quick

DID = "did:plc:" + "a" * 24
BY_NAME = {view.name: view for view in BLUESKY_VIEWS}


@pytest.fixture
def conn(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(settings, autocommit=True)) as connection:
        yield connection


def store(conn: psycopg.Connection[Any], collection: str, value: Any, rkey: str = "one") -> None:
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, cid, value) VALUES (%s, %s, %s, 'bafy', %s)"
        " ON CONFLICT (did, collection, rkey) DO UPDATE SET value = EXCLUDED.value",
        (DID, collection, rkey, Jsonb(value)),
    )


def test_a_migrated_database_has_the_five_views(conn: psycopg.Connection[Any]) -> None:
    for view in BLUESKY_VIEWS:
        assert make_view(conn, view) is False, f"{view.name} had to be made"
        assert conn.execute(f"SELECT count(*) FROM {view.name}").fetchone() == (0,)


@pytest.mark.parametrize("view", quick(2, BLUESKY_VIEWS), ids=lambda view: view.name)
def test_a_view_holds_every_odd_record_of_its_collection(
    settings: Settings, network: Running, conn: psycopg.Connection[Any], view: TypedView
) -> None:
    did = network.network.add_account({view.collection: 20})
    network.network.add_odd(did, view.collection)
    here = settings.model_copy(update={"plc_url": network.plc_url})
    with ImportService(here, report=False) as service:
        result = service.import_user_collection(did, view.collection)
    assert result.is_success, result.error
    make_view(conn, view)
    # DISTINCT over the whole row makes PostgreSQL compute every column
    row = conn.execute(f"SELECT count(*), count(DISTINCT v::text) FROM {view.name} v").fetchone()
    assert row is not None
    assert row[0] == row[1] == result.records_synced
    storable = sum(kind.storable is True for kind in ODD_KINDS.values())
    assert row[0] >= storable
    summary = summarize_view(conn, view, settings.state_table)
    assert summary.rows == result.records_synced
    assert summary.nulls["created_at"] >= 4, "malformed, missing, number and ancient createdAt"
    assert len(find_samples(conn, view)) == 5


def test_of_a_large_table_a_part_is_looked_at_and_the_rows_are_those_that_the_imports_counted(
    settings: Settings, network: Running, conn: psycopg.Connection[Any]
) -> None:
    here = settings.model_copy(update={"plc_url": network.plc_url})
    dids = [network.network.add_account({POST: 900}) for _ in range(2)]
    with ImportService(here, report=False) as service:
        for did in dids:
            service.import_user_collection(did, POST)
    (view,) = (view for view in BLUESKY_VIEWS if view.collection == POST)
    conn.execute("UPDATE atproto_records SET value = value - 'text'")
    few = conn.execute("SELECT pg_relation_size('atproto_records') / 4").fetchall()[0][0]
    summary = summarize_view(conn, view, settings.state_table, counted_bytes=few)
    assert (summary.rows, summary.accounts) == (1800, 2)
    assert summary.sampled is not None
    assert 0 < summary.sampled < 1500
    assert summary.nulls["text"] == 1800, "of a part all, so of the whole all"
    assert summary.nulls["created_at"] == 0
    assert len(find_samples(conn, view, counted_bytes=few)) == 5
    assert summarize_view(conn, view, settings.state_table).sampled is None


def test_a_post_has_its_fields_as_columns(conn: psycopg.Connection[Any]) -> None:
    root, parent, quoted = (f"at://{DID}/{POST}/{name}" for name in ("root", "parent", "quoted"))
    value = {
        "$type": POST,
        "createdAt": "2024-07-01T12:00:00.123+02:00",
        "text": "héllo 🪶",
        "langs": ["de", "en"],
        "reply": {"root": {"uri": root, "cid": "x"}, "parent": {"uri": parent, "cid": "y"}},
        "embed": {"$type": "app.bsky.embed.record", "record": {"uri": quoted, "cid": "z"}},
        "tags": ["a"],
    }
    store(conn, POST, value)
    row = conn.execute(
        "SELECT did, rkey, uri, cid, created_at, text, langs, reply_root, reply_parent, embed_type, quoted, tags,"
        " active FROM posts"
    ).fetchone()
    assert row == (
        DID, "one", f"at://{DID}/{POST}/one", "bafy", datetime(2024, 7, 1, 10, 0, 0, 123000, UTC), "héllo 🪶",
        ["de", "en"], root, parent, "app.bsky.embed.record", quoted, ["a"], True,
    )  # fmt: skip


def test_likes_reposts_and_follows_have_their_subject(conn: psycopg.Connection[Any]) -> None:
    uri = f"at://{DID}/{POST}/one"
    for collection, name in ((LIKE, "likes"), (REPOST, "reposts")):
        store(conn, collection, {"subject": {"uri": uri, "cid": "c"}, "createdAt": "2024-01-01T00:00:00Z"})
        assert conn.execute(f"SELECT subject, subject_cid FROM {name}").fetchone() == (uri, "c")
    store(conn, FOLLOW, {"subject": DID, "createdAt": "2024-01-01T00:00:00Z"})
    assert conn.execute("SELECT subject FROM follows").fetchone() == (DID,)


def test_a_profile_has_name_description_and_picture(conn: psycopg.Connection[Any]) -> None:
    avatar = {"$type": "blob", "ref": {"$link": "bafkrei"}, "mimeType": "image/png", "size": 1}
    store(conn, PROFILE, {"displayName": "Ada", "description": "x\ny", "avatar": avatar}, "self")
    row = conn.execute("SELECT display_name, description, avatar, created_at FROM profiles").fetchone()
    assert row == ("Ada", "x\ny", "bafkrei", None)


@pytest.mark.parametrize(
    ("given_text", "moment"),
    [
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("1985-04-12T23:20:50.123456Z", datetime(1985, 4, 12, 23, 20, 50, 123456, UTC)),
        ("1985-04-12T23:20:50.1234567890123-07:00", datetime(1985, 4, 13, 6, 20, 50, 123457, UTC)),
        ("9999-12-31T23:59:59.999Z", datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)),
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("2023-02-29T00:00:00Z", None),
        ("2024-04-31T00:00:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-01-01T24:00:00Z", None),
        ("2024-01-01T00:60:00Z", None),
        ("2024-01-01T00:00:00", None),
        ("2024-01-01", None),
        ("2024-01-01T00:00:00+99:99", None),
        ("2024-01-01T00:00:00." + "1" * 200 + "Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("٢٠٢٤-01-01T00:00:00Z", None),
        ("now", None),
        ("infinity", None),
        ("2024-01-01T00:00:00Z\n", None),
        ("", None),
    ],
)
def test_a_datetime_is_a_time_or_null(conn: psycopg.Connection[Any], given_text: str, moment: datetime | None) -> None:
    assert conn.execute("SELECT parity_timestamp(%s)", (given_text,)).fetchone() == (moment,)


times = st.from_regex(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{0,25})?(Z|[+-][0-9]{2}:[0-9]{2})?", fullmatch=True
)
plain = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | plain | times
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3))
fields = st.sampled_from(
    sorted({step for view in BLUESKY_VIEWS for column in view.columns for step in column.path.split(".")})
)
records = st.dictionaries(fields, st.recursive(values, lambda inner: st.dictionaries(fields, inner, max_size=3)))


@pytest.mark.long
def test_no_value_whatever_makes_a_view_fail(conn: psycopg.Connection[Any]) -> None:
    everything = TypedView(
        "everything",
        POST,
        tuple(
            Column(f"{kind}_{number}", path, kind)
            for kind in ("text", "timestamp", "texts", "integer", "number", "boolean", "json")
            for number, path in enumerate(("createdAt", "subject", "reply.root.uri", "langs"))
        ),
    )
    make_view(conn, everything)

    @hypothesis_settings(max_examples=50, deadline=None)
    @given(records)
    def holds(record: dict[str, Any]) -> None:
        store(conn, POST, record)
        for name in ("everything", "posts"):
            row = conn.execute(f"SELECT count(DISTINCT v::text) FROM {name} v").fetchone()
            assert row == (1,)

    holds()


def test_a_field_that_is_no_string_is_never_written_out(conn: psycopg.Connection[Any]) -> None:
    """Ten thousand numbers of eight bytes are more than a gigabyte of digits, which no view may ask for."""
    grows = "[" + ",".join(["1e131071"] * 10_000) + "]"
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, value) VALUES (%s, %s, 'grows', %s::jsonb)",
        (DID, POST, f'{{"createdAt":{grows},"text":{grows}}}'),
    )
    row = conn.execute("SELECT created_at, text, langs FROM posts").fetchone()
    assert row == (None, None, None)


def test_a_new_definition_with_the_same_columns_leaves_what_depends_on_the_view(conn: psycopg.Connection[Any]) -> None:
    assert make_view(conn, TypedView("events", "com.example.event", (Column("name", "name"),)))
    conn.execute("CREATE VIEW mine AS SELECT name FROM events")
    assert make_view(conn, TypedView("events", "com.example.event", (Column("name", "title"),)))
    store(conn, "com.example.event", {"title": "x"})
    assert conn.execute("SELECT name FROM mine").fetchone() == ("x",)


def test_a_new_definition_replaces_the_view(conn: psycopg.Connection[Any]) -> None:
    before = TypedView("events", "com.example.event", (Column("name", "name"),))
    after = TypedView("events", "com.example.event", (Column("size", "size", "integer"),), "Events")
    store(conn, "com.example.event", {"name": "x", "size": 7})
    assert make_view(conn, before)
    assert not make_view(conn, before)
    assert make_view(conn, after)
    assert conn.execute("SELECT size FROM events").fetchone() == (7,)


def test_a_table_of_the_users_is_never_touched(conn: psycopg.Connection[Any]) -> None:
    conn.execute("CREATE TABLE events (id int)")
    with pytest.raises(SettingsError, match="rename that table"):
        make_view(conn, TypedView("events", "com.example.event", ()))
    assert conn.execute("SELECT count(*) FROM events").fetchone() == (0,)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TypedView("drop table", POST, ()),
        lambda: TypedView("posts2", "not an nsid", ()),
        lambda: TypedView("posts2", POST, (Column("did", "x"),)),
        lambda: Column("a b", "x"),
        lambda: Column("a", "x'; DROP TABLE atproto_records; --"),
        lambda: Column("a", "x", "money"),  # type: ignore[arg-type]
    ],
)
def test_a_definition_that_cannot_work_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(SettingsError):
        wrong()
