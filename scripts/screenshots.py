"""Take the pictures of the documentation from the real UI.

    python scripts/screenshots.py

Starts the sample network and `parity dev` on an embedded database, imports some accounts, some of them with planted
failures, and photographs the UI with headless Chromium into docs/images. Needs `pip install -e .[test,dev]` and
Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from parity_dagster.sample_network import LIKE, POST, Fault, demo_network, run_in_thread  # noqa: E402
from parity_dagster_tests.dagster_ui import DagsterUI, browser, dagster_ui, eventually  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COLOURS = 128
WIDTH = 1440
SETTLE = 4000  # milliseconds in which the UI loads what it shows
TARGET = "/assets/atproto/records"


def save(page: Page, name: str, height: float | None = None) -> None:
    """Keep what the page shows, or its upper part, as a small PNG."""
    size = page.viewport_size
    assert size is not None
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]})
    # the other methods merge the few pixels of a legend into the nearest big colour
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    palette = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    palette.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} kB")


def tall(page: Page, height: int, width: int = WIDTH) -> None:
    """Give the page more room."""
    page.set_viewport_size({"width": width, "height": height})


def overview(page: Page, ui: DagsterUI, name: str) -> None:
    """The markdown of `import_overview`, from its top."""
    tall(page, 1180)
    page.goto(f"{ui.url}/assets/import_overview")
    page.get_by_text("[Show Markdown]").first.click()
    page.get_by_role("img", name="Pairs by collection").wait_for()
    page.wait_for_timeout(1500)
    page.get_by_role("dialog").last.evaluate("dialog => dialog.scrollIntoView()")
    page.wait_for_timeout(500)
    save(page, name)


def partitions(page: Page, ui: DagsterUI, name: str) -> None:
    """The matrix, and the metadata of one cell."""
    tall(page, 1500, 1760)
    account = first_account(ui)
    page.goto(f"{ui.url}{TARGET}?view=partitions&partition={POST}%7C{account}")
    page.get_by_text("records_synced").first.wait_for()
    page.wait_for_timeout(1500)
    save(page, name)


def first_account(ui: DagsterUI) -> str:
    """A DID that is known to Dagster."""
    answer = ui.ask(
        '{ assetNodeOrError(assetKey: {path: ["atproto", "records"]}) { ... on AssetNode {'
        " partitionKeysByDimension { name partitionKeys } } } }"
    )
    dimensions = answer["assetNodeOrError"]["partitionKeysByDimension"]
    return str(next(dimension["partitionKeys"][0] for dimension in dimensions if dimension["name"] == "did"))


def dialog(page: Page, ui: DagsterUI, name: str) -> None:
    """The backfill dialog with an account and all of its collections chosen."""
    tall(page, 900)
    page.goto(f"{ui.url}{TARGET}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    shown = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    account = first_account(ui)
    shown.get_by_text("Select a partition or create one").last.click()
    page.get_by_role("menuitem").filter(has_text=account).locator("label").click()
    shown.get_by_text("Launch runs to materialize").click()
    shown.get_by_role("button", name="All", exact=True).first.click()
    shown.get_by_text("5 partitions", exact=True).wait_for()
    page.wait_for_timeout(1000)
    save(page, name)


def lineage(page: Page, ui: DagsterUI, name: str) -> None:
    """From the inbox to the overview."""
    tall(page, 1150)
    page.goto(f"{ui.url}/assets/import_overview?view=lineage&lineageScope=upstream&lineageDepth=5")
    page.get_by_text("did_lists").first.wait_for()
    page.wait_for_timeout(2 * SETTLE)
    save(page, name)


def check(which: str) -> Callable[[Page, DagsterUI, str], None]:
    """One check, and the table of what it found."""

    def take(page: Page, ui: DagsterUI, name: str) -> None:
        tall(page, 900)
        page.goto(f"{ui.url}/assets/import_checks?view=checks&checkDetail={which}")
        page.get_by_text("Latest execution").first.wait_for()
        page.wait_for_timeout(SETTLE)
        plots = page.get_by_text("Plots", exact=True).first.bounding_box()
        save(page, name, plots["y"] - 20 if plots else None)
        page.get_by_text("[Show Markdown]").first.click()
        page.wait_for_timeout(1500)
        box = page.get_by_role("dialog").last.bounding_box()
        save(page, f"{name}-found", min(900, box["y"] + box["height"] + 20) if box else None)

    return take


def typed(page: Page, ui: DagsterUI, name: str) -> None:
    """A typed view's page with its columns."""
    tall(page, 1372)
    page.goto(f"{ui.url}/assets/posts")
    page.get_by_text("Column name").first.wait_for()
    page.wait_for_timeout(SETTLE)
    save(page, name)


def runs(page: Page, ui: DagsterUI, name: str) -> None:
    """The list of runs."""
    tall(page, 900)
    page.goto(f"{ui.url}/runs")
    page.get_by_text("refresh_overview").first.wait_for()
    page.wait_for_timeout(SETTLE)
    save(page, name, 560)


def is_done(ui: DagsterUI) -> bool:
    """Whether nothing is waiting or going on any more."""
    statuses = [state["status"] for state in json.loads(ui.parity("import-status", "--json").stdout or "[]")]
    return bool(statuses) and not {"pending", "in_progress"} & set(statuses)


def is_quiet(ui: DagsterUI) -> bool:
    """Whether the overview's sensor has launched its run, and no run is going on."""
    answer = ui.ask("{ runsOrError(limit: 20) { ... on Runs { results { status tags { key value } } } } }")
    found = answer["runsOrError"]["results"]
    launched = any({"key": "dagster/sensor_name", "value": "overview_sensor"} in run["tags"] for run in found)
    return launched and all(run["status"] in ("SUCCESS", "FAILURE") for run in found)


def main() -> None:
    """Make a world, plant failures, take the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    network = demo_network(9, 24_000, 3, seed=5)
    with tempfile.TemporaryDirectory() as folder, run_in_thread(network) as running:
        network.set_status(network.dids[3], "takendown")
        network.add_odd(network.dids[1], POST, ["nul", "lone-surrogate", "malformed-created-at", "missing-text"])
        second_page = Fault(kind="503", method="listRecords", with_cursor=True)
        network.behave(did=network.dids[5], collection=LIKE, faults=(second_page,))
        for host in list(network.hosts)[:2]:
            network.behave(host=host, latency=0.15)
        with dagster_ui(Path(folder) / "here", running, PARITY_CONCURRENCY="8", PARITY_RETRY_DELAY="3600") as ui:
            (ui.folder / "inbox" / "dids.txt").write_text("".join(f"{did}\n" for did in network.dids))
            eventually(lambda: is_done(ui), "the list is imported", 180)
            for job in ("refresh_overview", "run_all_checks"):
                print(job, ui.run_job(job, 240))
            eventually(lambda: is_quiet(ui), "the runs of the sensors have ended", 120)
            pictures = {
                "lineage": lineage,
                "partitions": partitions,
                "backfill-dialog": dialog,
                "overview": overview,
                "check-failed-imports": check("no_failed_imports"),
                "check-audit": check("sample_audit"),
                "posts": typed,
                "runs": runs,
            }
            with browser(Path(folder) / "light", height=1000) as context:
                page = context.new_page()
                page.set_default_timeout(60_000)
                for name, take in pictures.items():
                    take(page, ui, name)
            with browser(Path(folder) / "dark", dark=True, height=1000) as context:
                page = context.new_page()
                page.set_default_timeout(60_000)
                overview(page, ui, "overview-dark")


if __name__ == "__main__":
    main()
