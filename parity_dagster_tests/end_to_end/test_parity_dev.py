"""`parity dev` as a person meets it: a real webserver, daemon and browser, whole imports, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from parity_dagster.dagster_instance.run_server import WORKER_TAG
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.sample_network import (
    FOLLOW,
    LIKE,
    POST,
    PROFILE,
    REPOST,
    Fault,
    Running,
    SampleNetwork,
    run_in_thread,
)
from parity_dagster.settings import load_settings
from parity_dagster_tests.dagster_ui import DagsterUI, browser, dagster_ui, eventually

pytestmark = pytest.mark.processes

COUNTS = {POST: 231, LIKE: 120, REPOST: 15, FOLLOW: 42, PROFILE: 1}
SECONDS = 1000  # playwright counts milliseconds
expect.set_options(timeout=30 * SECONDS)


@pytest.fixture(scope="module")
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=23)) as running:
        yield running


@pytest.fixture(scope="module")
def ui(network: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUI]:
    with dagster_ui(tmp_path_factory.mktemp("ui") / "here", network) as running:
        yield running


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile", height=1100) as context:
        context.set_default_timeout(30 * SECONDS)
        opened = context.new_page()
        yield opened
        opened.screenshot(path=tmp_path / "last.png")  # pytest keeps the folders of its last runs


def open_dialog(page: Page, ui: DagsterUI) -> Locator:
    page.goto(f"{ui.url}/assets/atproto/records?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    return page.get_by_role("dialog").filter(has_text="Launch runs to materialize")


def backfill_in_the_dialog(page: Page, ui: DagsterUI, did: str) -> None:
    """What a person clicks to import an account that Dagster has never heard of."""
    dialog = open_dialog(page, ui)
    dialog.get_by_text("Add a partition").click()
    adding = page.get_by_role("dialog").filter(has_text="Partition name")
    adding.get_by_role("textbox").fill(did)
    adding.get_by_role("button", name="Save").click()
    expect(adding).to_have_count(0)
    # Dagster's dialog does not launch what was added in it: it says "Could not find partition" until it is opened anew.
    dialog = open_dialog(page, ui)
    dialog.get_by_role("button", name="All", exact=True).first.click()
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_placeholder("Filter partitions").fill(did)
    page.get_by_role("menuitem").filter(has_text=did).locator("label").click()
    dialog.get_by_text("Launch runs to materialize").click()
    expect(dialog.get_by_text(f"{len(COUNTS)} partitions", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_have_count(0)


def expect_numbers(page: Page, ui: DagsterUI, did: str, counts: dict[str, int]) -> None:
    """What the UI shows of partitions."""
    for collection, count in counts.items():
        page.goto(f"{ui.url}/assets/atproto/records?view=partitions&partition={collection}%7C{did}")
        metadata = page.get_by_role("table").filter(has_text="records_synced")
        row = metadata.get_by_role("row").filter(has_text="records_synced")
        expect(row).to_contain_text(str(count))
        expect(metadata.get_by_role("row").filter(has_text="status").first).to_contain_text("completed")
        expect(page.get_by_role("link", name=f"https://bsky.app/profile/{did}")).to_be_visible()


@pytest.mark.long
@pytest.mark.browser
def test_an_account_is_imported_watched_and_summed_up_in_the_browser(
    page: Page, ui: DagsterUI, network: Running
) -> None:
    did = network.network.add_account(COUNTS, handle="ada.sample.test")

    # A backfill for one account, through the dialog, until all of it is green.
    backfill_in_the_dialog(page, ui, did)
    page.goto(f"{ui.url}/assets/atproto/records?view=partitions")
    expect(page.get_by_text(f"Materialized ({len(COUNTS)})")).to_be_visible(timeout=60 * SECONDS)
    expect(page.get_by_text("Missing (0)")).to_be_visible()

    expect_numbers(page, ui, did, {collection: COUNTS[collection] for collection in (POST, PROFILE)})

    # The overview with its charts.
    assert ui.run_job("refresh_overview") == "SUCCESS"
    page.goto(f"{ui.url}/assets/import_overview")
    page.get_by_text("[Show Markdown]").first.click()
    for title in ("Pairs by collection", re.compile("Records of completed pairs"), "Records of the largest accounts"):
        chart = page.get_by_role("img", name=title)
        expect(chart).to_be_visible()
        assert chart.evaluate("image => image.complete && image.naturalWidth") == 760
    expect(page.get_by_text("5 of 5 pairs complete")).to_be_visible()
    expect(page.get_by_role("cell", name="ada.sample.test")).to_be_visible()

    # The path from the inbox to the overview.
    page.goto(f"{ui.url}/assets/import_overview?view=lineage&lineageScope=upstream&lineageDepth=5")
    for name in ("did_lists", "records", "posts", "likes", "reposts", "follows", "profiles", "import_overview"):
        expect(page.locator("svg").get_by_text(name, exact=True).first).to_be_visible()


PROGRESS = """{
    assetNodeOrError(assetKey: {path: ["atproto", "records"]}) {
        ... on AssetNode { partitionStats { numMaterialized } }
    }
    runsOrError(filter: {pipelineName: "import_records"}) { ... on Runs { results { status runId } } }
}"""


@pytest.fixture(scope="module")
def dropped(ui: DagsterUI, network: Running) -> list[str]:
    """Accounts whose list was put into the inbox, and that are imported."""
    dids = [network.network.add_account({POST: 7, LIKE: 3}) for _ in range(4)]
    path = ui.folder / "inbox" / "dids.txt"
    path.write_text("".join(f"{did}\n" for did in dids))
    os.utime(path, (1, 1))  # or it is left alone for a while, as it may still be being written

    def is_imported() -> bool:
        said = ui.ask(PROGRESS)
        assert not [run for run in said["runsOrError"]["results"] if run["status"] == "FAILURE"]
        return bool(said["assetNodeOrError"]["partitionStats"]["numMaterialized"] == 5 * len(network.network.dids))

    assert eventually(is_imported, "the list is imported")
    return dids


def test_a_dropped_list_is_imported_by_runs_that_are_forked(ui: DagsterUI, dropped: list[str]) -> None:
    home = ui.folder / "home"
    with parity_instance(load_settings(home=home)) as instance:
        assert all(WORKER_TAG in run.tags for run in instance.get_runs())
    embedded.release(home)


@pytest.mark.browser
def test_what_was_imported_is_seen_in_the_browser(page: Page, ui: DagsterUI, dropped: list[str]) -> None:
    did = dropped[0]
    expect_numbers(page, ui, did, {POST: 7})
    page.goto(f"{ui.url}/assets/atproto/records?view=partitions")
    expect(page.get_by_text("Missing (0)")).to_be_visible()


FAILURES = """{
    assetNodeOrError(assetKey: {path: ["atproto", "records"]}) {
        ... on AssetNode { partitionStats { numFailed numMaterializing } }
    }
    runsOrError(filter: {pipelineName: "import_records"}) { ... on Runs { results { runId status parentRunId } } }
}"""
REEXECUTE = """mutation($run: String!) {
    launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: ALL_STEPS}) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    }
}"""
MATERIALIZE = """mutation($repository: String!, $location: String!, $partition: String!) {
    launchRun(executionParams: {
        selector: {jobName: "__ASSET_JOB", repositoryName: $repository, repositoryLocationName: $location,
            assetSelection: [{path: ["atproto", "records"]}], assetCheckSelection: null},
        runConfigData: {}, executionMetadata: {tags: [{key: "dagster/partition", value: $partition}]}
    }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""


@pytest.mark.browser
@pytest.mark.long
def test_what_failed_is_red_with_its_reason_and_tried_again_and_a_green_cell_changes_no_verdict(
    page: Page, ui: DagsterUI, network: Running, dropped: list[str]
) -> None:
    bad = network.network.add_account({POST: 3})
    gone = network.network.add_account({POST: 3}, status="deactivated")
    network.network.behave(did=bad, faults=(Fault(kind="400", method="listRecords"),))
    path = ui.folder / "inbox" / "failing.txt"
    path.write_text(f"{bad}\n{gone}\n")
    os.utime(path, (1, 1))

    def failed_run() -> str | None:
        runs = ui.ask(FAILURES)["runsOrError"]["results"]
        return next((str(run["runId"]) for run in runs if run["status"] == "FAILURE"), None)

    def number_of_red() -> int:
        stats = ui.ask(FAILURES)["assetNodeOrError"]["partitionStats"]
        assert not stats["numMaterializing"]
        return int(stats["numFailed"])

    run_id = eventually(failed_run, "the run of the list fails", 180)
    assert number_of_red() == 5, "of the account that is gone none"
    page.goto(f"{ui.url}/assets/atproto/records?view=partitions&partition={POST}%7C{bad}")
    expect(page.get_by_text("Failed (5)")).to_be_visible()
    expect(page.get_by_text(f"Run {run_id[:8]} failed, and did not materialize this asset.")).to_be_visible()
    page.get_by_text(re.compile("View all historical events")).click()
    page.get_by_role("dialog").get_by_role("button").first.click()  # unfolds the observation
    expect(page.get_by_text("request_refused").first).to_be_visible()

    # The verdict of the whole, and what materializing a green cell by hand makes of it: nothing.
    assert ui.run_job("refresh_overview", 240) == "SUCCESS"
    launched = ui.ask(MATERIALIZE, partition=f"{POST}|{dropped[0]}", **ui._location())["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    eventually(lambda: ui._ended(launched["run"]["runId"]), "the green cell is materialized", 180)
    page.goto(f"{ui.url}/assets/import_checks?view=checks&checkDetail=no_failed_imports")
    expect(page.get_by_text("5 pairs failed: request_refused (5)").first).to_be_visible()
    expect(page.get_by_text("Not Evaluated")).to_have_count(3)

    # Executed again, it tries its failed pairs.
    network.network.behave(did=bad, faults=())
    again = ui.ask(REEXECUTE, run=run_id)["launchRunReexecution"]
    assert again["__typename"] == "LaunchRunSuccess", again
    assert eventually(lambda: ui._ended(again["run"]["runId"]), "it is executed again", 180) == "SUCCESS"
    assert number_of_red() == 0
    page.goto(f"{ui.url}/assets/atproto/records?view=partitions&partition={POST}%7C{bad}")
    expect(page.get_by_text("Failed (0)")).to_be_visible()


def test_ctrl_c_ends_everything(ui: DagsterUI) -> None:
    started = psutil.Process(ui.process.pid).children(recursive=True)
    commands = " ".join(" ".join(child.cmdline()) for child in started)
    assert "dagster_webserver" in commands
    assert "dagster._daemon" in commands
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(60) == 0, (ui.folder / "dev.log").read_text()[-3000:]
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not (ui.folder / "home" / "postgres" / "postmaster.pid").exists()
    with pytest.raises(OSError, match="refused"):
        ui.ask("{ version }")
