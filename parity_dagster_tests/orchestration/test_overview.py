"""The overview: numbers that agree with the tables, and a page of markdown that anything can be in."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.freshness import FreshnessDaemon

from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.definitions import build_defs
from parity_dagster.models import Pair
from parity_dagster.orchestration import markdown
from parity_dagster.orchestration.charts import bar_chart, time_chart
from parity_dagster.orchestration.overview import look_for_changes
from parity_dagster.orchestration.overview_page import overview_metadata
from parity_dagster.sample_network import LIKE, POST, PROFILE, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import connect
from parity_dagster.store.forget import forget_account
from parity_dagster.store.overview import MOST, POINTS, read_holdings
from parity_dagster.store.states import LOCK_CLASS
from parity_dagster.store.typed import BLUESKY_VIEWS, Column, TypedView
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import query

EVENTS = TypedView(
    "calendar_events",
    "com.example.event",
    columns=(Column("name", "name"), Column("starts_at", "startsAt", "timestamp"), Column("size", "size", "integer")),
    comment="Events of a calendar",
)
ODD_NAME = "a|b](http://evil.example)<img src=x onerror=alert(1)>"


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=17)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(
        update={"plc_url": network.plc_url, "collections": (POST, LIKE, PROFILE, EVENTS.collection)}
    )


def metadata_of(result: dg.ExecuteInProcessResult, key: str) -> dict[str, dg.MetadataValue]:
    (found,) = [
        event.step_materialization_data.materialization.metadata
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == dg.AssetKey(key)
    ]
    return dict(found)


def images(text: str) -> list[str]:
    return [
        base64.b64decode(data).decode() for data in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    ]


def test_the_overview_answers_what_is_held_how_complete_it_is_and_what_failed(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    good = network.network.add_account({POST: 130, LIKE: 20, PROFILE: 1}, handle="ada.sample.test")
    bad = network.network.add_account({POST: 10})
    network.network.set_status(bad, "takendown")
    network.network.add_odd(good, POST, ["nul"])
    with ImportService(settings, report=False) as service:
        for did in (good, bad):
            service.import_user(did)
        assert service.import_pairs([Pair(good, LIKE)], source="repo", reread=True)[0].completed
    with closing(connect(settings, autocommit=True)) as conn:
        conn.execute("UPDATE parity_import_states SET completed_at = completed_at - interval '3 days' WHERE rev < 'z'")
        conn.execute("UPDATE parity_import_states SET confirmed_at = now() - interval '2 days' WHERE rev < 'z'")
    result = run(settings, instance, "refresh_overview")
    assert result.success
    found = metadata_of(result, "import_overview")
    numbers = {name: value.value for name, value in found.items() if name != "overview"}
    assert numbers.pop("stalest_copy_days") == 2.0
    assert numbers | {"table_megabytes": 0, "records_per_second": 0} == {
        "accounts": 2, "hosts": 2, "pairs": 8, "pairs_completed": 4, "pairs_failed": 4, "pairs_pending": 0,
        "pairs_in_progress": 0, "pairs_verified": 1, "pairs_gone": 4, "pairs_held": 0, "pairs_missing": 0,
        "completeness": 0.5, "records_synced": 151, "records_skipped": 0, "records_failed": 1,
        "table_megabytes": 0, "records_per_second": 0,
    }  # fmt: skip
    page = str(found["overview"].value)
    for said in (
        "confirmed 2.0 days ago",
        "takendown",
        "nul",
        good,
        bad,
        "ada.sample.test",
        "4 of 8 pairs complete",
        "1 of them verified",
        "0 failed, 4 of accounts that are gone",
        "Accounts that are gone",
        "As of 20",
        "Nothing is left to be imported",
        "Slowest",
        "Hosts",
        POST,
    ):
        assert said in page.replace("\\", ""), said
    drawn = images(page)
    assert len(drawn) == 3
    for image in drawn:
        ElementTree.fromstring(image)
    legend = re.findall(r'class="soft"[^>]*>([a-z_]+)<', drawn[0])
    coloured = {
        legend[int(series)] for series in re.findall(r'class="s(\d)"[^>]*width="[1-9][^>]*height="18"', drawn[0])
    }
    assert coloured == {"completed", "gone"}, "an account that is gone is not drawn as failed"
    views = {name: metadata_of(result, name)["dagster/row_count"].value for name in ("posts", "likes", "profiles")}
    assert views == {"posts": 130, "likes": 20, "profiles": 1}
    assert {found.check_name for found in result.get_asset_check_evaluations()} == {
        "no_failed_records",
        "no_failed_imports",
        "counts_match",
        "import_freshness",
        "no_missing_collections",
    }


def test_the_overview_of_nothing_is_an_overview(settings: Settings, instance: dg.DagsterInstance) -> None:
    result = run(settings, instance, "refresh_overview")
    assert result.success
    found = metadata_of(result, "import_overview")
    assert found["pairs"] == dg.IntMetadataValue(0)
    assert found["completeness"] == dg.FloatMetadataValue(0.0)


def test_fifty_thousand_pairs_are_summed_up_by_postgres_to_a_readable_page(settings: Settings) -> None:
    query(
        settings,
        "INSERT INTO parity_import_states (did, collection, status, records_synced, records_failed, pages, started_at,"
        " completed_at, error_code, pds, commit) SELECT 'did:plc:' || lpad((n / 5)::text, 24, '0'),"
        " 'com.example.c' || n % 5, CASE WHEN n % 9 = 0 THEN 'failed' ELSE 'completed' END, n % 97, n % 3, 2,"
        " '2026-01-01Z', '2026-01-01Z'::timestamptz + interval '1 s' * n, CASE WHEN n % 9 = 0 THEN 'server_error' END,"
        " 'https://pds-' || n % 40 || '.example.com', CASE WHEN n % 2 = 1 THEN 'bafyreicommit' END"
        " FROM generate_series(0, 49998) n",
    )
    registered = [f"com.example.c{number}" for number in range(6)]
    with connect(settings) as conn:
        holdings = read_holdings(conn, settings.state_table)
    found = overview_metadata(holdings, registered)
    numbers = range(49_999)
    assert len(str(found["overview"].value)) < 100_000
    assert found["pairs_missing"].value == 10_001
    assert "1 account has no row for com.example.c4, 10,000 for com.example.c5;" in str(found["overview"].value)
    assert found["pairs_failed"].value == len(numbers[::9])
    assert found["pairs_verified"].value == sum(1 for number in numbers[1::2] if number % 9)
    assert found["records_synced"].value == sum(number % 97 for number in numbers)
    assert (holdings.accounts, holdings.hosts) == (10_000, 40)
    assert sum(records for _, records in holdings.synced_over_time) == found["records_synced"].value
    assert len(holdings.synced_over_time) <= POINTS + 1
    (error,) = holdings.errors
    assert (error.error_code, error.pairs, error.hosts) == ("server_error", len(numbers[::9]), 40)
    assert error.example == Pair(f"did:plc:{0:024}", "com.example.c0")
    (host, *_) = holdings.largest_hosts
    ours = [number for number in numbers if f"https://pds-{number % 40}.example.com" == host.host]
    assert host.pairs == len(ours)
    assert host.seconds == median(ours)
    assert [pair.seconds for pair in holdings.slowest_pairs] == [49_998 - number for number in range(MOST)]
    sizes = Counter[int]()
    for number in numbers:
        sizes[number // 5] += number % 97
    assert [account.records_synced for account in holdings.largest_accounts] == [
        size for _, size in sizes.most_common(MOST)
    ]


def test_what_strangers_write_cannot_become_markup() -> None:
    cell = markdown.table(["name"], [[ODD_NAME]]).splitlines()[-1]
    assert "](" not in cell.replace("\\]\\(", "")
    assert "<" not in cell.replace("\\<", "")
    assert "|" not in cell.strip("| ").replace("\\|", "")
    assert "\n" not in markdown.text("a\nb\x00c\u202e")
    chart = images(bar_chart(ODD_NAME.replace("]", ""), [(ODD_NAME, [1.0])]))
    assert "<img" not in chart[0]
    ElementTree.fromstring(chart[0])


@pytest.mark.parametrize("address", ["https://evil.test/login", "HTTP://evil.test", "www.evil.test", "a@evil.test"])
def test_an_address_in_a_strangers_sentence_does_not_become_a_link(address: str) -> None:
    # the patterns of mdast-util-gfm-autolink-literal, which looks at the text after all escapes are undone
    automatic = re.compile(r"(https?://|www(?=\.))[-.\w]+|[-.\w+]+@[-\w]+(\.[-\w]+)+", re.IGNORECASE)
    shown = re.sub(r"\\(.)", r"\1", markdown.text(f"pds.test answered 400: your session ended, go to {address} now"))
    assert not automatic.search(shown)
    assert shown.replace("\u2060", "").endswith(f"go to {address} now")


def test_identifiers_are_shown_as_they_can_be_copied() -> None:
    for plain in ("did:web:www.example.com", "https://pds.example.com", "at://did:plc:x/app.bsky.feed.post/3k"):
        assert re.sub(r"\\(.)", r"\1", markdown.text(plain)) == plain


def test_a_chart_of_one_point_or_of_none_can_be_drawn() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert "Nothing" in time_chart("x", [])
    ElementTree.fromstring(images(time_chart("x", [(now, 0.0)]))[0])
    ElementTree.fromstring(images(time_chart("x", [(now, 5e9), (now + timedelta(days=400), 1)]))[0])


def test_the_lineage_leads_from_the_inbox_to_the_overview() -> None:
    graph = build_defs(load_settings()).resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {"atproto/records", "posts", "likes", "reposts", "follows", "profiles", "import_overview"} <= names
    records = dg.AssetKey(["atproto", "records"])
    assert dg.AssetKey("did_lists") in graph.get(records).parent_keys
    for name in ("posts", "likes", "reposts", "follows", "profiles"):
        node = graph.get(dg.AssetKey(name))
        assert node.parent_keys == {records}
        assert node.child_keys == {dg.AssetKey("import_overview")}
        assert {"dagster/table_name", "dagster/column_schema", "dagster/column_lineage"} <= node.metadata.keys()
        assert "dagster/code_references" in node.metadata
        assert node.owners
        assert node.kinds
        assert node.description


@pytest.mark.long
def test_the_described_columns_of_the_records_are_those_of_the_table(settings: Settings) -> None:
    schema = (
        build_defs(settings)
        .resolve_asset_graph()
        .get(dg.AssetKey(["atproto", "records"]))
        .metadata["dagster/column_schema"]
    )
    with closing(connect(settings)) as conn:
        columns = conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid ="
            " 'atproto_records'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ).fetchall()
    told = {column.name: column.type for column in schema.columns}
    assert told == {name: kind.replace("timestamp with time zone", "timestamptz") for name, kind in columns}


def test_a_collection_of_the_users_own_is_an_asset_with_a_few_lines(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    own = settings.model_copy(update={"typed_views": (f"{__name__}:EVENTS",)})
    event = {"name": "Meeting", "startsAt": "2026-05-01T18:00:00Z", "size": 12}
    did = network.network.add_account({EVENTS.collection: [event, {"name": 5, "startsAt": "soon", "size": 1.5}]})
    with ImportService(own, report=False) as service:
        assert service.import_user_collection(did, EVENTS.collection).is_success
    result = run(own, instance, "refresh_overview")
    assert result.success
    assert metadata_of(result, "calendar_events")["dagster/row_count"] == dg.IntMetadataValue(2)
    with closing(connect(own)) as conn:
        rows = conn.execute("SELECT name, starts_at, size FROM calendar_events ORDER BY name").fetchall()
    assert rows == [("Meeting", datetime(2026, 5, 1, 18, tzinfo=UTC), 12), (None, None, None)]


def test_a_materialization_of_a_pair_has_its_links(settings: Settings) -> None:
    pair = Pair("did:plc:" + "a" * 24, POST)
    assert "view=partitions" in markdown.partition_link(pair)
    assert markdown.record_url(*pair, "self") == f"https://pdsls.dev/at://{pair.did}/{POST}/self"


STANDING_ON_RECORDS = ("posts", "likes", "reposts", "follows", "profiles", "import_overview")


def test_views_and_overview_bear_a_code_version_and_a_freshness_policy() -> None:
    graph = build_defs(load_settings(stale_days=10)).resolve_asset_graph()
    versions = {name: graph.get(dg.AssetKey(name)).code_version for name in STANDING_ON_RECORDS}
    assert all(versions.values())
    assert len(set(versions.values())) == len(versions)
    for name in STANDING_ON_RECORDS:
        assert graph.get(dg.AssetKey(name)).freshness_policy == dg.FreshnessPolicy.time_window(
            fail_window=timedelta(days=10), warn_window=timedelta(days=5)
        )
    for key in (["did_lists"], ["atproto", "records"]):
        assert graph.get(dg.AssetKey(key)).freshness_policy is None
    never = build_defs(load_settings(stale_days=0)).resolve_asset_graph()
    assert never.get(dg.AssetKey("posts")).freshness_policy is None


def test_a_view_with_another_definition_has_another_code_version() -> None:
    view = BLUESKY_VIEWS[0]
    assert replace(view, comment="Other words").version() != view.version() == replace(view).version()


@pytest.mark.processes
def test_the_daemon_finds_what_was_made_fresh(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARITY_DATABASE_URL", database_url)
    monkeypatch.setenv("PARITY_HOME", str(tmp_path))
    target = ModuleTarget("parity_dagster.definitions", None, None, "parity")
    with parity_instance() as instance, WorkspaceProcessContext(instance, target) as workspace:
        instance.report_runless_asset_event(dg.AssetMaterialization("import_overview"))
        for _ in FreshnessDaemon().run_iteration(workspace):
            pass
        records = instance.get_freshness_state_records([dg.AssetKey(name) for name in STANDING_ON_RECORDS])
    found = {key.to_user_string(): record.freshness_state for key, record in records.items()}
    assert found.pop("import_overview") == FreshnessState.PASS
    assert set(found.values()) <= {FreshnessState.UNKNOWN}


def made_ago(settings: Settings, instance: dg.DagsterInstance, minutes: float, took: float = 5.0) -> None:
    """An overview was made so many minutes ago, and it took so many seconds."""
    job = build_defs(settings).resolve_job_def("refresh_overview")
    run_id = instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS).run_id
    began = datetime.now(UTC) - timedelta(minutes=minutes)
    times = {"create_timestamp": began, "start_time": began.timestamp(), "end_time": began.timestamp() + took}
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as conn:
        conn.execute(RunsTable.update().where(RunsTable.c.run_id == run_id).values(**times))


@contextmanager
def somebody_importing(settings: Settings, pair: Pair) -> Iterator[None]:
    """A live importer that holds a pair and does not move, as on a slow host."""
    with closing(connect(settings, autocommit=True)) as conn:
        conn.execute("SELECT pg_advisory_lock(%s, 99)", (LOCK_CLASS,))
        conn.execute(
            f"INSERT INTO {settings.state_table} (did, collection, status, importer_id) VALUES (%s, %s,"
            " 'in_progress', 99)",
            pair,
        )
        yield
        conn.execute(f"UPDATE {settings.state_table} SET status = 'completed', importer_id = NULL")


def test_while_something_is_imported_the_overview_is_renewed_and_once_more_when_it_ends(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert look_for_changes(instance, settings, None).reason == "Nothing has been imported yet."
    with somebody_importing(settings, Pair("did:plc:" + "a" * 24, POST)):
        first = look_for_changes(instance, settings, None)
        assert not first.reason, "nobody has an overview yet"
        made_ago(settings, instance, 4)
        assert look_for_changes(instance, settings, first.cursor).reason
        made_ago(settings, instance, 6)
        second = look_for_changes(instance, settings, first.cursor)
        assert not second.reason, "five minutes are over, and it is still going on"
        made_ago(settings, instance, 2)
        assert look_for_changes(instance, settings, second.cursor).reason
    last = look_for_changes(instance, settings, second.cursor)
    assert not last.reason, "it has ended: the five minutes are not waited for"
    assert (
        look_for_changes(instance, settings, last.cursor).reason == "Nothing has been imported since the last overview."
    )


def test_what_a_person_resets_forgets_or_stores_after_all_renews_the_overview_and_the_checks(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    key, (cid, value) = min(network.network.records(did, POST).items())

    def mark() -> str:
        return look_for_changes(instance, settings, None).cursor

    with closing(connect(settings, autocommit=True)) as conn, ImportService(settings, report=False) as service:
        service.import_user_collection(did, POST)
        conn.execute(
            "INSERT INTO parity_failed_records (did, collection, rkey, fingerprint, reason, detail, body, walk)"
            " VALUES (%s, %s, %s, 'f', 'too_deep', 'an older rule', %s, 1)",
            (
                did,
                POST,
                key,
                json.dumps({"uri": f"at://{did}/{POST}/{key}", "cid": cid, "value": json.loads(value)}).encode(),
            ),
        )
        conn.execute("DELETE FROM atproto_records WHERE rkey = %s", (key,))
        for change in (
            service.retry_failed_records,
            lambda: service.reset(did, POST),
            lambda: forget_account(conn, did),
        ):
            before = mark()
            assert mark() == before
            change()
            assert mark() != before


def test_pairs_that_wait_for_their_run_are_no_end_of_an_import(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    made_ago(settings, instance, 2)
    with ImportService(settings, report=False) as service:
        service.enqueue([Pair("did:plc:" + "a" * 24, POST)])
    assert look_for_changes(instance, settings, None).reason == "Imports are going on; the overview follows."


def test_an_overview_that_takes_long_is_made_more_rarely(settings: Settings, instance: dg.DagsterInstance) -> None:
    with somebody_importing(settings, Pair("did:plc:" + "a" * 24, POST)):
        made_ago(settings, instance, 14, took=90)
        assert look_for_changes(instance, settings, None).reason
        made_ago(settings, instance, 16, took=90)
        long = look_for_changes(instance, settings, None)
        assert not long.reason
        made_ago(settings, instance, 1, took=90)
    assert look_for_changes(instance, settings, long.cursor).reason == "The overview follows."
    made_ago(settings, instance, 2, took=90)
    last = look_for_changes(instance, settings, long.cursor)
    assert not last.reason, "a long import has ended: its last overview comes soon"
    with ImportService(settings, report=False) as service:
        service.enqueue([Pair("did:plc:" + "b" * 24, POST)])
    assert look_for_changes(instance, settings, last.cursor).reason
    unfinished = instance.create_run_for_job(build_defs(settings).resolve_job_def("refresh_overview"))
    assert look_for_changes(instance, settings, "").reason == "The overview is being made."
    instance.report_run_canceled(unfinished)


def test_what_stands_in_the_sensors_cursor_may_be_anything(settings: Settings, instance: dg.DagsterInstance) -> None:
    with ImportService(settings, report=False) as service:
        service.enqueue([Pair("did:plc:" + "a" * 24, POST)])
    for cursor in ("2026-11-01T00:00:00+00:00 2026-11-01T00:00:00+00:00", "x", " ", "in-between"):
        assert not look_for_changes(instance, settings, cursor).reason
