"""What a batch is made of: rows as COPY reads them, counts that need no second look, identities saved together."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import psycopg
import pytest
from hypothesis import example, given, settings as hypothesis_settings, strategies as st

from parity_dagster.importing.batch import by_pair
from parity_dagster.importing.pair_task import FetchedPage, PairTask, WalkEnd
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.sample_network import POST, SampleNetwork
from parity_dagster.settings import Settings
from parity_dagster.store.copy_text import Row, encode_rows
from parity_dagster.store.sessions import enlarge_send_buffer, open_session
from parity_dagster.store.states import Claim
from parity_dagster.store.writes import Ending
from parity_dagster_tests.imports import importing, query

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

rkeys = st.text("abcXYZ019._:~-", min_size=1, max_size=12)
cids = st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
values = st.text(st.characters(exclude_characters="\n\r\t\x00", exclude_categories=["Cs"]), max_size=30).map(str.encode)


@pytest.mark.long
def test_rows_arrive_as_they_were_encoded(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "CREATE TEMPORARY TABLE taken (did text, collection text, rkey text, cid text, value text, rev text)"
        )

        @hypothesis_settings(max_examples=100, deadline=None)
        @given(st.lists(st.tuples(rkeys, cids, values), max_size=8))
        @example([("a", None, b"{}"), ("b", "", b"\\"), ("c", "\\N", b"\\N"), ("d", "x\ty\nz\\", b'{"a":"\\u00e9"}')])
        @example([("NULL", "NULL", b"\\."), ("-", "\\.", b"")])
        def check(rows: list[Row]) -> None:
            with conn.cursor() as cursor:
                with cursor.copy("COPY taken FROM STDIN") as copy:
                    copy.write(encode_rows(DID, POST, "3kaaaaaaaaaaa", rows))
                found = cursor.execute("SELECT * FROM taken ORDER BY ctid").fetchall()
                assert found == [(DID, POST, key, cid, value.decode(), "3kaaaaaaaaaaa") for key, cid, value in rows]
                cursor.execute("TRUNCATE taken")

        check()


def a_task() -> PairTask:
    state = ImportState(
        1, DID, POST, ImportStatus.PENDING, None, 0, 0, 0, None, None, None, NOW, NOW,
        None, None, 0, 0, 0, None, None, None, 1,
    )  # fmt: skip
    return PairTask.from_claim(Claim(state, is_mine=True, holder=None, is_fresh=True, refresh=False))


pages = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4), max_size=6)
cuts = st.lists(st.booleans(), min_size=7, max_size=7)


# I9
@hypothesis_settings(max_examples=300, deadline=None)
@given(pages, cuts)
@example([["d", "c"], ["c", "b"]], [True] * 7)
@example([["d", "c"], [], ["d"]], [True] * 7)
@example([["d", "c"], ["b", "a"]], [False] * 7)
def test_counts_that_are_called_exact_are(shown: list[list[str]], ends_batch: list[bool]) -> None:
    task = a_task()
    task.begin("https://pds", None, None)
    items: list[FetchedPage | WalkEnd] = []
    for number, (keys, ends) in enumerate(zip(shown, ends_batch, strict=False), 1):
        rows: list[Row] = [(key, "bafy", b"{}") for key in keys]
        items.append(FetchedPage(task, replace(task.here, pages=number, cursor="next"), rows, [], b""))
        if ends:
            (batch,) = by_pair(items)
            batch.committed()
            items = []
    (last,) = by_pair([*items, WalkEnd(task, task.here, Ending(), 0)])
    every = [key for keys in shown for key in keys]
    descends = all(later < earlier for earlier, later in pairwise(every))
    if last.write.is_counted:
        assert last.write.counts.synced == len(set(every))
    elif descends:
        # only a page without any record at the very beginning makes it forget what it knows
        assert any(not keys for keys in shown)


def test_a_copy_finds_room_in_a_local_socket(settings: Settings) -> None:
    async def look() -> None:
        conn = await open_session(settings)
        with socket.socket(fileno=os.dup(conn.fileno())) as own:
            before = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            enlarge_send_buffer(conn)
            after = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert (after > before) == (own.family == socket.AF_UNIX)
        await conn.close()

    asyncio.run(look())


def test_accounts_that_are_resolved_at_the_same_time_are_saved_together(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 1}) for _ in range(120)]
    query(settings, "CREATE TABLE saved (at timestamptz)")
    query(
        settings,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO saved VALUES (now()); RETURN NULL; END $$",
    )
    query(
        settings,
        "CREATE TRIGGER note AFTER INSERT ON parity_identities FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    with importing(settings, network) as (service, _):
        results = service.import_pairs([Pair(did, POST) for did in dids])
    assert all(result.is_success for result in results)
    ((statements,),) = query(settings, "SELECT count(*) FROM saved")
    ((accounts,),) = query(settings, "SELECT count(*) FROM parity_identities")
    assert accounts == len(dids)
    assert 1 <= statements < len(dids) / 2


def test_a_table_that_is_empty_to_the_planner_is_looked_up_by_key(settings: Settings, database_url: str) -> None:
    explain = (
        "EXPLAIN UPDATE parity_import_states s SET updated_at = now() FROM unnest(ARRAY[1, 2, 3]::bigint[]) u(id)"
        " WHERE s.id = u.id"
    )

    async def plan() -> str:
        conn = await open_session(settings)
        lines = await (await conn.execute(explain)).fetchall()
        await conn.close()
        return str(lines)

    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE parity_import_states")
        assert "Seq Scan" in str(conn.execute(explain).fetchall()), "what there would be to avoid"
    assert "Seq Scan" not in asyncio.run(plan())
