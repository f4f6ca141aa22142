"""docs/collections.md does what it says: its code is run as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest

from parity_dagster import LiveRecord
from parity_dagster.sample_network import SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import connect
from parity_dagster_tests.dagster_runs import run

PAGE = Path(__file__).parent.parent / "docs" / "collections.md"
EVENT = "community.lexicon.calendar.event"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The page's modules on the path, and the settings that its shell lines export."""
    for code in blocks("python"):
        name = code.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    exported = dict(re.findall(r"export PARITY_(\w+)=(\S+)", "\n".join(blocks("bash"))))
    return {name.lower(): value for name, value in exported.items()}


def test_the_view_and_the_mapper_of_the_page_import_an_event(settings: Settings, variables: dict[str, str]) -> None:
    assert variables.keys() == {"collections", "typed_views", "mappers"}
    meeting = {
        "name": "Meeting",
        "startsAt": "2026-05-01T18:00:00Z",
        "seats": 12,
        "tags": ["a"],
        "location": {"name": "Hall"},
    }
    events = [
        meeting,
        {"name": "Off", "status": "cancelled"},
        {"name": " "},
        {"seats": 1},
        {"name": "Bad", "seats": -1},
    ]
    with run_in_thread(SampleNetwork(seed=29)) as network:
        did = network.network.add_account({EVENT: cast("Sequence[Mapping[str, Any]]", events)})
        assert settings.database_url is not None
        here = load_settings(
            database_url=settings.database_url, home=settings.home, allow_private_hosts=True, page_delay=0,
            plc_url=network.plc_url, **variables,
        )  # fmt: skip
        with closing(connect(here, autocommit=True)) as conn, ImportService(here, report=False) as service:
            for statement in blocks("sql"):
                conn.execute(statement.encode())
            result = service.import_user_collection(did, EVENT)
            assert (result.records_synced, result.records_skipped, result.records_failed) == (1, 1, 3)
            row = conn.execute("SELECT name, starts_at, seats, tags, raw FROM events").fetchall()
            (key,) = [rkey for rkey, (_, value) in network.network.records(did, EVENT).items() if b"Meeting" in value]
            raw = {"uri": f"at://{did}/{EVENT}/{key}", "location": {"name": "Hall"}}
            assert row == [("Meeting", datetime(2026, 5, 1, 18, tzinfo=UTC), 12, ["a"], raw)]
            live = f"at://{did}/{EVENT}/live"
            service.upsert_records([LiveRecord(live, "3kaaaaaaaaa2a", "bafya", {"name": "Told"})])
            assert conn.execute("SELECT name FROM events WHERE rkey = 'live'").fetchall() == [("Told",)]
            service.upsert_records(
                [LiveRecord(live, "3kbbbbbbbbb2a", "bafyb", {"name": "Told", "status": "cancelled"})]
            )
            assert conn.execute("SELECT name FROM events WHERE rkey = 'live'").fetchall() == []
            with dg.DagsterInstance.ephemeral() as instance:
                assert run(here, instance, "refresh_overview").success
            shown = conn.execute("SELECT name, starts_at, mode, place FROM calendar_events").fetchall()
            assert shown == [("Meeting", datetime(2026, 5, 1, 18, tzinfo=UTC), None, "Hall")]
    for name in ("calendar_views", "calendar_mapper"):
        sys.modules.pop(name, None)
