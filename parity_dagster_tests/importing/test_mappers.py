"""Mappers: what they skip is skipped, what they refuse becomes a failed record, and their rows commit with the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from parity_dagster.errors import SettingsError
from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import ImportResult, Pair
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster_tests.quick import quick
from parity_dagster_tests.sample_mappers import ARTICLES

HERE = "parity_dagster_tests.sample_mappers"
Connection = psycopg.Connection[Any]


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "mappers": (f"{HERE}:Articles", f"{HERE}:NoLikes")})


@pytest.fixture
def conn(settings: Settings) -> Iterator[Connection]:
    with closing(connect(settings, autocommit=True)) as connection:
        connection.execute(ARTICLES)
        yield connection


def post(text: str, **fields: Any) -> dict[str, Any]:
    return {"$type": POST, "text": text, "createdAt": "2024-01-01T00:00:00Z", **fields}


def imported(settings: Settings, did: str, collection: str = POST, *, refresh: bool = False) -> ImportResult:
    with ImportService(settings, report=False) as service:
        return service.import_user_collection(did, collection, refresh=refresh)


def counts(result: ImportResult) -> tuple[int, int, int]:
    return result.records_synced, result.records_skipped, result.records_failed


def titles(conn: Connection) -> list[str]:
    return [title for (title,) in conn.execute("SELECT title FROM articles ORDER BY title")]


def failures(conn: Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT reason, detail FROM parity_failed_records").fetchall())


def stored(conn: Connection, collection: str = POST) -> int:
    row = conn.execute("SELECT count(*) FROM atproto_records WHERE collection = %s", (collection,)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_row_of_the_users_table_is_written_for_each_record(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({POST: [post("two words", langs=["en", "de"]), post("one")]})
    result = imported(settings, did)
    assert result.is_success
    assert counts(result) == (2, 0, 0)
    rows = conn.execute(
        "SELECT did, collection, title, words, langs, raw->>'uri' FROM articles ORDER BY words"
    ).fetchall()
    (one, two) = sorted(network.network.records(did, POST), reverse=True)
    assert rows == [
        (did, POST, "one", 1, None, f"at://{did}/{POST}/{one}"),
        (did, POST, "two words", 2, ["en", "de"], f"at://{did}/{POST}/{two}"),
    ]


def test_a_record_that_is_not_wanted_counts_as_skipped_and_is_not_stored(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({POST: [post(f"{'skip' if n % 3 == 0 else 'keep'} {n}") for n in range(250)]})
    result = imported(settings.model_copy(update={"page_size": 40}), did)
    assert result.is_success
    assert counts(result) == (166, 84, 0)
    assert stored(conn) == len(titles(conn)) == 166


def test_a_collection_of_which_nothing_is_wanted_is_complete(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({LIKE: 230})
    result = imported(settings, did, LIKE)
    assert result.is_success
    assert counts(result) == (0, 230, 0)
    assert stored(conn, LIKE) == 0


@pytest.mark.parametrize(
    ("record", "why"),
    quick(
        3,
        [
            (post("bad"), "Articles, validate: ValueError: this is no article"),
            (post("x", title={"a": 1}), "cannot adapt type"),
            (post("x", words=100), 'violates check constraint "articles_words_check"'),
            ({"$type": POST}, "Articles, should_import: KeyError: no field 'text'"),
            (post("surprise"), "Articles, to_row: ValueError: not among the mapper's columns: nonsense"),
            (post("x", words="many"), 'invalid input syntax for type integer: "many"'),
            (post("x", title=None), "null value in column"),
        ],
    ),
)
def test_a_record_that_the_mapper_or_its_table_refuses_costs_only_itself(
    settings: Settings, network: Running, conn: Connection, record: dict[str, Any], why: str
) -> None:
    did = network.network.add_account({POST: [post(f"good {n}") for n in range(60)]})
    rkey = network.network.put_record(did, POST, record)
    other = network.network.add_account({POST: [post("other")]})
    with ImportService(settings, report=False) as service:
        results = [service.import_user_collection(account, POST) for account in (did, other)]
    assert [counts(result) for result in results] == [(60, 0, 1), (1, 0, 0)]
    assert all(result.is_success for result in results)
    assert stored(conn) == len(titles(conn)) == 61
    (detail,) = failures(conn).values()
    assert why in detail
    row = conn.execute("SELECT did, rkey, reason, convert_from(body, 'UTF8') FROM parity_failed_records").fetchone()
    assert row is not None
    assert row[:3] == (did, rkey, "mapper_refused")
    assert network.network.records(did, POST)[rkey][1].decode() in row[3]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nul", "Hostile, validate: ValueError: a\\x00b"),
        ("surrogate", "Hostile, validate: ValueError: a\\ud800b"),
        ("unreadable", "Hostile, validate: Unreadable: its text cannot be read"),
    ],
)
def test_a_mapper_whose_error_is_no_text_costs_one_record(
    settings: Settings, network: Running, conn: Connection, text: str, why: str
) -> None:
    here = settings.model_copy(update={"mappers": (f"{HERE}:Hostile",)})
    did = network.network.add_account({POST: [post("good"), post(text), post("better")]})
    others = [network.network.add_account({POST: 3}) for _ in range(20)]
    with ImportService(here, report=False) as service:
        results = service.import_pairs([Pair(account, POST) for account in (did, *others)])
        assert [counts(result) for result in results] == [(2, 0, 1), *[(3, 0, 0)] * 20]
        assert all(result.is_success for result in results)
        assert failures(conn) == {"mapper_refused": why}
        assert service.retry_failed_records() == (0, 1)
        assert failures(conn) == {"mapper_refused": why}
        uri = f"at://{did}/{POST}/3jzfcijpj2z2a"
        assert service.upsert_records([LiveRecord(uri, "3kbbbbbbbbb2a", "bafylive", post(text))]) == 1
    assert conn.execute("SELECT detail FROM parity_failed_records").fetchall() == [(why,)] * 2


def test_a_page_that_is_refused_for_no_records_sake_costs_one_pair(
    settings: Settings, network: Running, conn: Connection
) -> None:
    """A trigger of the user's, for one: the pair says so, those that came in the same transaction are stored."""
    dids = [network.network.add_account({LIKE: 3}) for _ in range(30)]
    conn.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.did = '{dids[7]}' THEN
                RAISE EXCEPTION 'not this one' USING ERRCODE = 'data_exception';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON atproto_records FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    here = settings.model_copy(update={"mappers": (), "writers": 1})
    with ImportService(here, report=False) as service:
        results = service.import_pairs([Pair(did, LIKE) for did in dids])
        assert [result.did for result in results if not result.is_success] == [dids[7]]
        assert "not this one" in (results[7].error or "")
        state = service.get_status(dids[7], LIKE)
        assert state is not None
        assert (state.status, state.error_code, state.next_attempt_at) == ("failed", "database", None)
        assert stored(conn, LIKE) == 29 * 3
        conn.execute("DROP TRIGGER refuse ON atproto_records")
        assert service.resume(state).is_success
        assert stored(conn, LIKE) == 30 * 3


def test_a_row_follows_its_record_through_changes_and_deletion(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({POST: [post("first"), post("second"), post("third")]})
    imported(settings, did)
    third, second, first = sorted(network.network.records(did, POST), reverse=True)
    network.network.put_record(did, POST, post("changed"), rkey=first)
    network.network.delete_record(did, POST, second)
    network.network.put_record(did, POST, post("skip now"), rkey=third)
    result = imported(settings, did, refresh=True)
    assert counts(result) == (1, 1, 0)
    assert titles(conn) == ["changed"]


def test_rows_are_made_for_records_that_were_stored_before_there_was_a_mapper(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({POST: [post(f"{n}") for n in range(150)]})
    imported(settings.model_copy(update={"mappers": ()}), did)
    assert titles(conn) == []
    with ImportService(settings, report=False) as service:
        service.reset(did, POST)
        assert service.import_user_collection(did, POST).is_success
    assert len(titles(conn)) == 150


def test_a_page_that_is_older_than_what_is_stored_writes_no_row(
    settings: Settings, network: Running, conn: Connection
) -> None:
    did = network.network.add_account({POST: [post("old")]})
    (rkey,) = network.network.records(did, POST)
    conn.execute(
        "INSERT INTO atproto_records (did, collection, rkey, cid, value, rev) VALUES (%s, %s, %s, 'newer', '{}', %s)",
        (did, POST, rkey, "z" * 13),
    )
    assert imported(settings, did).is_success
    assert titles(conn) == []


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((f"{HERE}:Nobody",), "cannot be loaded"),
        (("no.such.module:X",), "cannot be loaded"),
        ((f"{HERE}:ARTICLES",), "cannot be loaded"),
        ((f"{HERE}:NoLikes", f"{HERE}:Second"), "second mapper"),
        ((f"{HERE}:WithoutColumns",), "needs both"),
        ((f"{HERE}:WithoutCollection",), "collection"),
        ((f"{HERE}:KeyColumn",), "'rkey' cannot be one"),
        ((f"{HERE}:Articles",), "primary key"),
    ],
)
def test_a_mapper_that_cannot_work_is_told_before_anything_is_imported(
    settings: Settings, network: Running, names: tuple[str, ...], why: str
) -> None:
    did = network.network.add_account({POST: 3})
    before = len(network.network.log.entries())
    with pytest.raises(SettingsError, match=why):
        imported(settings.model_copy(update={"mappers": names}), did)
    assert len(network.network.log.entries()) == before
