"""The outbox: what is owed to listeners and to Dagster, row by row."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from parity_dagster.sample_network import POST
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect, connection_url
from parity_dagster.store.outbox import EVERYBODY, Delivered, Recipients, add_endings, drop_delivered

LISTENERS, DAGSTER = Recipients(dagster=False), Recipients(listeners=False)
ALICE = "did:plc:alice"


def end(settings: Settings, recipients: Recipients = EVERYBODY, did: str = ALICE) -> None:
    """What a writer does at the end of a pair."""

    async def add() -> None:
        async with await psycopg.AsyncConnection.connect(connection_url(settings)) as conn:
            await add_endings(conn, settings.state_table, 1, [(did, POST, True)], recipients)

    asyncio.run(add())


def owed(settings: Settings) -> dict[str, tuple[bool, bool]]:
    """Whom each account's ending has still to be told, listeners and Dagster."""
    with connect(settings) as conn:
        rows = conn.execute("SELECT did, deliver, report FROM parity_announcements ORDER BY did").fetchall()
    return {did: (deliver, report) for did, deliver, report in rows}


def tell(settings: Settings, recipients: Recipients, when: datetime | None = None) -> None:
    with connect(settings) as conn:
        told = [Delivered(ALICE, POST, when or datetime.now(UTC) + timedelta(hours=1))]
        drop_delivered(conn, settings.state_table, told, recipients)


@pytest.mark.parametrize(("first", "second"), [(LISTENERS, DAGSTER), (DAGSTER, LISTENERS)])
def test_an_ending_is_dropped_when_listeners_and_dagster_know(
    settings: Settings, first: Recipients, second: Recipients
) -> None:
    end(settings)
    end(settings, did="did:plc:bob")
    tell(settings, first)
    assert owed(settings) == {ALICE: (not first.listeners, not first.dagster), "did:plc:bob": (True, True)}
    tell(settings, first)
    assert ALICE in owed(settings)
    tell(settings, second)
    assert owed(settings) == {"did:plc:bob": (True, True)}


@pytest.mark.parametrize("only", [LISTENERS, DAGSTER])
def test_an_ending_that_one_side_waits_for_is_dropped_when_that_side_knows(
    settings: Settings, only: Recipients
) -> None:
    end(settings, only)
    tell(settings, Recipients(not only.listeners, not only.dagster))
    assert owed(settings) == {ALICE: tuple(only)}
    tell(settings, only)
    assert owed(settings) == {}


def test_an_ending_for_nobody_is_not_noted(settings: Settings) -> None:
    end(settings, Recipients(listeners=False, dagster=False))
    assert owed(settings) == {}


@pytest.mark.parametrize("told", [LISTENERS, DAGSTER, EVERYBODY])
def test_a_later_ending_of_the_pair_stays(settings: Settings, told: Recipients) -> None:
    before = datetime.now(UTC)
    end(settings)
    tell(settings, told, before)
    assert owed(settings) == {ALICE: (True, True)}


def test_whoever_was_owed_an_ending_is_owed_the_next_one(settings: Settings) -> None:
    end(settings, DAGSTER)
    end(settings, LISTENERS)
    assert owed(settings) == {ALICE: (True, True)}


def test_two_sides_that_are_told_at_the_same_moment_leave_nothing(settings: Settings) -> None:
    """The second waits for the row, and looks at what the first has left of it."""
    end(settings)
    with connect(settings) as first:
        drop_delivered(first, settings.state_table, [Delivered(ALICE, POST, datetime.now(UTC))], LISTENERS)
        other = threading.Thread(target=tell, args=(settings, DAGSTER))
        other.start()
        _wait_until_blocked(settings)
        first.commit()
        other.join()
    assert owed(settings) == {}


def test_an_ending_that_is_committed_while_the_one_before_is_dropped_stays(settings: Settings) -> None:
    end(settings)
    before = datetime.now(UTC)
    with connect(settings) as writer:
        writer.execute("UPDATE parity_announcements SET ended_at = now() + interval '1 minute'")
        other = threading.Thread(target=tell, args=(settings, EVERYBODY, before))
        other.start()
        _wait_until_blocked(settings)
        writer.commit()
        other.join()
    assert owed(settings) == {ALICE: (True, True)}


def _wait_until_blocked(settings: Settings) -> None:
    with connect(settings, autocommit=True) as conn:
        blocked = (
            "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
        )
        while conn.execute(blocked).fetchone() is None:
            time.sleep(0.01)
