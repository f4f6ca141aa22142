"""`read_records`: typed frames of views and of records as they are, whatever the records hold."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import psycopg
import pytest
from psycopg.types.json import Jsonb

from parity_dagster import DatabaseError, InvalidIdentifier, SettingsError, read_records
from parity_dagster.sample_network import LIKE, POST, PROFILE, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import connect
from parity_dagster.store.typed import BLUESKY_VIEWS
from parity_dagster_tests.stored_records import DID, EVENT, OTHER, events_view, raw, store, store_events

POSTS_TYPES = {
    **dict.fromkeys(("did", "rkey", "uri", "cid"), "string"),
    **dict.fromkeys(("text", "reply_root", "reply_parent", "embed_type", "quoted"), "string"),
    **dict.fromkeys(("langs", "tags", "facets", "labels"), "object"),
    **dict.fromkeys(("created_at", "first_seen_at", "updated_at"), "datetime64[us, UTC]"),
    "active": "boolean",
}


@pytest.fixture
def conn(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(settings, autocommit=True)) as connection:
        yield connection


def test_a_view_is_a_frame_of_its_columns_with_proper_types(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    facets = [{"index": {"byteStart": 0}}]
    written = {"text": "Hi", "createdAt": "2024-07-01T12:00:00.123456Z", "langs": ["en", 1, "de"], "facets": facets}
    store(conn, written)
    store(conn, {}, "two")
    frame = read_records("posts", settings=settings).sort_values("rkey", ignore_index=True)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == POSTS_TYPES
    first, second = frame.iloc[0], frame.iloc[1]
    assert (first.did, first.uri, first.text, first.active) == (DID, f"at://{DID}/{POST}/one", "Hi", True)
    assert first.created_at == datetime(2024, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert (first.langs, first.facets) == (["en", "de"], facets)
    assert pd.isna(second.text)
    assert pd.isna(second.created_at)
    assert (second.langs, second.facets) == (None, None)
    assert abs(second.updated_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_collection_is_a_frame_of_the_records_as_they_are(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    value = {"text": "Hi", "n": [1, 2.5, None, True, {"a": "ü\n\u2028\t\\"}]}
    store(conn, value)
    store(conn, {"name": "Meeting"}, collection=EVENT)  # not registered, and held
    frame = read_records(POST, settings=settings)
    assert list(frame) == ["did", "rkey", "uri", "cid", "value", "active", "first_seen_at", "updated_at"]
    assert frame["value"].tolist() == [value]
    assert read_records(EVENT, settings=settings)["value"].tolist() == [{"name": "Meeting"}]


@pytest.mark.parametrize("name", ["posts", "likes", "reposts", "follows", "profiles", LIKE])
def test_nothing_imported_is_a_frame_without_rows_of_the_same_types(
    settings: Settings, conn: psycopg.Connection[Any], name: str
) -> None:
    empty = read_records(name, settings=settings)
    assert len(empty) == 0
    collection = {view.name: view.collection for view in BLUESKY_VIEWS}.get(name, name)
    store(conn, {"createdAt": "2024-01-01T00:00:00Z"}, collection=collection)
    full = read_records(name, settings=settings)
    assert len(full) == 1
    assert full.dtypes.equals(empty.dtypes)


def test_accounts_columns_and_a_time_narrow_it_down(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    for did in (DID, OTHER):
        store(conn, {"createdAt": "2023-12-31T23:59:59.999999Z"}, "old", did=did)
        store(conn, {"createdAt": "2024-01-01T01:00:00+01:00"}, "new", did=did)
        store(conn, {"createdAt": "long ago"}, "malformed", did=did)
        store(conn, {}, "missing", did=did)

    def found(**given: Any) -> set[tuple[str, str]]:
        frame = read_records("posts", columns=["rkey", "did"], settings=settings, **given)
        assert list(frame) == ["rkey", "did"]
        return set(zip(frame["did"], frame["rkey"], strict=True))

    assert len(found()) == 8
    assert found(dids=[DID]) == found(dids=DID) == {(DID, rkey) for rkey in ("old", "new", "malformed", "missing")}
    assert found(dids=[]) == set()
    assert found(dids=(did for did in [OTHER]), since="2024-01-01") == {(OTHER, "new")}
    assert found(dids=[DID], since=date(2024, 1, 1)) == {(DID, "new")}
    assert found(dids=[DID], since=datetime(2024, 1, 1)) == {(DID, "new")}  # noqa: DTZ001
    assert found(dids=[DID], since=pd.Timestamp("2024-01-01")) == {(DID, "new")}
    assert found(dids=[DID], since=datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == {
        (DID, "new"),
        (DID, "old"),
    }
    assert found(since="2024-01-01T00:00:00.000001Z") == set()
    assert found(since="0001-01-01T00:00:00+05:00") == {(did, rkey) for did in (DID, OTHER) for rkey in ("old", "new")}


@pytest.mark.parametrize(
    ("given", "kind", "cure"),
    [
        ({"collection": "postz"}, SettingsError, "did you mean posts?"),
        ({"collection": "postz"}, SettingsError, "posts, likes, reposts, follows, profiles"),
        ({"collection": "app.bsky.feed.psot"}, SettingsError, "did you mean app.bsky.feed.post?"),
        ({"collection": "com.example.never"}, SettingsError, "PARITY_COLLECTIONS"),
        ({"collection": "posts; --\nDROP"}, SettingsError, "NSID"),
        ({"collection": "posts", "columns": ["txt"]}, SettingsError, "did you mean text?"),
        ({"collection": "posts", "columns": ["value"]}, SettingsError, "there are did, rkey"),
        ({"collection": POST, "columns": ["text"]}, SettingsError, "there are did, rkey, uri, cid, value"),
        ({"collection": "posts", "columns": []}, SettingsError, "there are did, rkey"),
        ({"collection": "posts", "since": "yesterday"}, SettingsError, "2024-07-01T12:00:00Z"),
        ({"collection": "posts", "since": pd.NaT}, SettingsError, "2024-07-01T12:00:00Z"),
        ({"collection": "posts", "dids": ["alice.bsky.social"]}, InvalidIdentifier, "did:plc:"),
        ({"collection": "posts", "chunksize": 0}, SettingsError, "1 or more"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_what_can(
    settings: Settings, given: dict[str, Any], kind: type[Exception], cure: str
) -> None:
    for chunks in ({}, {"chunksize": 5}):
        with pytest.raises(kind) as caught:
            read_records(settings=settings, **{**chunks, **given})
        assert cure in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_chunks_are_frames_of_one_moment(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    for number in range(25):
        store(conn, {"text": str(number)}, f"r{number}")
    with read_records("posts", columns="text", chunksize=10, settings=settings) as frames:
        first = next(frames)
        conn.execute("DELETE FROM atproto_records")
        store(conn, {"text": "later"})
        rest = list(frames)
        assert next(frames, None) is None
    assert [len(frame) for frame in (first, *rest)] == [10, 10, 5]
    assert sorted(pd.concat([first, *rest])["text"].astype(int)) == list(range(25))
    assert {str(frame.dtypes["text"]) for frame in rest} == {"string"}
    (only,) = read_records("likes", chunksize=10, settings=settings)
    assert len(only) == 0
    conn.execute("DELETE FROM atproto_records")
    for number in range(20):  # a whole number of frames
        store(conn, {}, f"r{number}")
    assert [len(frame) for frame in read_records("posts", chunksize=10, settings=settings)] == [10, 10]


def sessions(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_frames_that_are_left_alone_let_go_of_the_database(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, value) SELECT %s, %s, 'r' || i,"
        " jsonb_build_object('text', repeat('x', 1000)) FROM generate_series(1, 20000) i",
        (DID, POST),
    )
    frames = read_records("posts", chunksize=10, settings=settings)
    next(frames)
    assert sessions(conn) == 1
    frames.close()
    assert next(frames, None) is None
    never_read = read_records("posts", chunksize=10, settings=settings)
    del never_read
    for _ in range(100):
        if not sessions(conn):
            break
        threading.Event().wait(0.05)
    assert sessions(conn) == 0


@pytest.mark.long
def test_no_record_whatever_makes_a_frame_fail(settings: Settings) -> None:
    """Each is stored or kept aside; what is stored is read."""
    with run_in_thread(SampleNetwork(seed=12)) as network:
        did = network.network.add_account({POST: 5, LIKE: 5, PROFILE: 1})
        for collection in (POST, LIKE, PROFILE):
            network.network.add_odd(did, collection)
        here = settings.model_copy(update={"plc_url": network.plc_url})
        with ImportService(here, report=False) as service:
            synced = {
                collection: service.import_user_collection(did, collection).records_synced
                for collection in (POST, LIKE, PROFILE)
            }
    for name, collection in (("posts", POST), ("likes", LIKE), ("profiles", PROFILE)):
        assert synced[collection] > 10
        assert len(read_records(name, settings=settings)) == synced[collection]
        frame = read_records(collection, settings=settings).set_index("rkey")
        assert len(frame) == synced[collection]
        with closing(connect(settings)) as conn:
            stored = conn.execute(
                "SELECT rkey, value::text FROM atproto_records WHERE collection = %s", (collection,)
            ).fetchall()
        for rkey, text in stored:
            truth = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 99 else Decimal(digits))
            assert frame.loc[rkey, "value"] == truth


def test_values_beyond_what_pythons_readers_take_come_whole(settings: Settings, conn: psycopg.Connection[Any]) -> None:
    depth = 1_000
    store(conn, raw('{"a": ' + "[" * depth + "]" * depth + "}"), "deep")
    store(conn, raw('{"a": ' + "9" * 5_000 + "}"), "long")
    store(conn, raw('{"a": ' + "9" * 400 + ".5}"), "wide")
    store(conn, raw('{"a": 9007199254740993, "b": 0.1}'), "exact")
    values = read_records(POST, settings=settings).set_index("rkey")["value"]
    nested, found = values["deep"]["a"], 1
    while nested:
        nested, found = nested[0], found + 1
    assert found == depth
    assert values["long"] == {"a": Decimal("9" * 5_000)}
    assert values["wide"] == {"a": Decimal("9" * 400 + ".5")}
    assert values["exact"] == {"a": 2**53 + 1, "b": 0.1}


@pytest.fixture
def events(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    with events_view(settings, tmp_path, monkeypatch) as here:
        yield here


def test_a_view_of_the_users_has_every_kind_of_column(events: Settings, conn: psycopg.Connection[Any]) -> None:
    store_events(conn)
    frame = read_records("events", settings=events).sort_values("rkey", ignore_index=True)
    dtypes = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert (dtypes["seats"], dtypes["price"], dtypes["is_open"], dtypes["raw"]) == (
        "Int64",
        "Float64",
        "boolean",
        "object",
    )
    first, second, third = (frame.iloc[index] for index in range(3))
    assert first["starts_at"].to_pydatetime() == datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert first["seats"] == 999_999_999_999_999_999
    assert (first["price"], first["is_open"], first["raw"], first["tags"]) == (1.1, False, {"a": [1]}, [])
    assert first["select"] == ""
    assert pd.isna([second["starts_at"], second["seats"], second["price"], second["is_open"]]).all()
    assert (second["raw"], second["tags"]) == (None, None)
    assert third["starts_at"].to_pydatetime() == datetime(1, 1, 1, tzinfo=UTC)
    assert third["seats"] == -9_007_199_254_740_993
    assert len(read_records("events", since="2024-01-01", settings=events)) == 0  # none says when it was written


def test_a_schema_of_its_own_and_a_role_that_may_only_read(empty_database_url: str, tmp_path: Path) -> None:
    from parity_dagster.store.database import migrate

    in_schema = f"{empty_database_url}{'&' if '?' in empty_database_url else '?'}options=-csearch_path%3Dmine"
    owner = load_settings(database_url=in_schema, home=tmp_path)
    role = f"reader_{urlsplit(empty_database_url).path[-16:]}"
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA mine")
        migrate(owner)
        admin.execute(
            "INSERT INTO mine.atproto_records (did, collection, rkey, value) VALUES (%s, %s, 'one', %s)",
            (DID, POST, Jsonb({"text": "Hi"})),
        )
        admin.execute("CREATE TABLE posts (x int)")  # public's, and none of ours
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret-word'".encode())
        try:
            reader = owner.model_copy(update={"database_url": _as_role(owner, role)})
            with pytest.raises(DatabaseError, match=r"grant the role SELECT|parity migrate") as refused:
                read_records("posts", settings=reader)
            assert "secret-word" not in str(refused.value)
            admin.execute(f"GRANT USAGE ON SCHEMA mine TO {role}".encode())
            with pytest.raises(DatabaseError, match="grant the role SELECT"):
                read_records("posts", settings=reader)
            admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA mine TO {role}".encode())
            admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on".encode())
            assert read_records("posts", settings=reader)["text"].tolist() == ["Hi"]
        finally:
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())


def _as_role(settings: Settings, role: str) -> Any:
    from pydantic import SecretStr

    assert settings.database_url is not None
    url = urlsplit(settings.database_url.get_secret_value())
    host = url.netloc.rpartition("@")[2]
    return SecretStr(url._replace(netloc=f"{role}:secret-word@{host}").geturl())


def test_pandas_is_loaded_with_the_first_frame_and_not_before(settings: Settings) -> None:
    assert settings.database_url is not None
    code = (
        "import sys\n"
        "from parity_dagster import read_records, load_settings\n"
        f"settings = load_settings(database_url={settings.database_url.get_secret_value()!r})\n"
        "frames = read_records('posts', chunksize=5, settings=settings)\n"
        "print({'pandas', 'numpy', 'dagster', 'sqlalchemy', 'httpx', 'aiohttp'} & set(sys.modules))\n"
        "print(len(next(frames)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["set()", "0"], done.stderr
