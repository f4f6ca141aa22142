"""Take the pictures of the documentation from the real UI.

    python scripts/screenshots.py

Starts the sample network and `parity dev` on an embedded database, imports some accounts, some of them with planted
failures, and photographs the UI with headless Chromium into docs/images. Needs `pip install -e .[test]` and Chromium
(Debian: apt-get install chromium).
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from parity_dagster.sample_network import LIKE, POST, Fault, demo_network, run_in_thread  # noqa: E402
from parity_dagster_tests.dagster_ui import DagsterUI, browser, dagster_ui  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COLOURS = 128
SETTLE = 4000  # milliseconds in which the UI loads what it shows
TARGET = "/assets/atproto/records"


def save(page: Page, name: str, box: dict[str, float] | None = None) -> None:
    """Keep what the page shows as a small PNG."""
    shot = page.screenshot(clip=box) if box else page.screenshot()  # type: ignore[arg-type]
    image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    image.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} kB")


def overview(page: Page, ui: DagsterUI, name: str) -> None:
    """The markdown of `import_overview`, from its top."""
    page.goto(f"{ui.url}/assets/import_overview")
    page.get_by_text("[Show Markdown]").first.click()
    page.get_by_role("img", name="Pairs by collection").wait_for()
    page.wait_for_timeout(1000)
    page.get_by_role("img", name="Pairs by collection").evaluate("image => image.scrollIntoView({block: 'center'})")
    page.locator("h2", has_text="Completeness").evaluate("heading => heading.scrollIntoView()")
    page.wait_for_timeout(500)
    save(page, name)


def partitions(page: Page, ui: DagsterUI, name: str) -> None:
    """The matrix, and the metadata of one cell."""
    did = ui.ask('{ assetNodeOrError(assetKey: {path: ["atproto", "records"]}) { ... on AssetNode {'
                 " partitionKeysByDimension { name partitionKeys } } } }")  # fmt: skip
    dimensions = did["assetNodeOrError"]["partitionKeysByDimension"]
    account = next(d["partitionKeys"][0] for d in dimensions if d["name"] == "did")
    page.goto(f"{ui.url}{TARGET}?view=partitions&partition={POST}%7C{account}")
    page.get_by_text("records_synced").first.wait_for()
    page.wait_for_timeout(1500)
    save(page, name)


def dialog(page: Page, ui: DagsterUI, name: str) -> None:
    """The backfill dialog with everything chosen."""
    page.goto(f"{ui.url}{TARGET}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    for button in page.get_by_role("button", name="All", exact=True).all():
        button.click()
    page.wait_for_timeout(1500)
    save(page, name)


def lineage(page: Page, ui: DagsterUI, name: str) -> None:
    """From the inbox to the overview."""
    page.goto(f"{ui.url}/assets/import_overview?view=lineage&lineageScope=upstream&lineageDepth=5")
    page.get_by_text("did_lists").first.wait_for()
    page.wait_for_timeout(2 * SETTLE)
    save(page, name)


def check(which: str) -> Callable[[Page, DagsterUI, str], None]:
    """One check with what it found."""

    def take(page: Page, ui: DagsterUI, name: str) -> None:
        page.goto(f"{ui.url}{TARGET}?view=checks&checkDetail={which}")
        page.get_by_text("Latest execution").first.wait_for()
        page.wait_for_timeout(SETTLE)
        save(page, name)

    return take


def typed(page: Page, ui: DagsterUI, name: str) -> None:
    """A typed view's page with its columns."""
    page.goto(f"{ui.url}/assets/posts")
    page.get_by_text("Column").first.wait_for()
    page.wait_for_timeout(SETTLE)
    save(page, name)


def run_page(page: Page, ui: DagsterUI, name: str) -> None:
    """The list of runs."""
    page.goto(f"{ui.url}/runs")
    page.get_by_text("refresh_overview").first.wait_for()
    page.wait_for_timeout(SETTLE)
    save(page, name)


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
            print(ui.parity("import", *network.dids).stdout[-300:])
            # One that is waiting, and one that is there only in part, as on any day.
            for job in ("refresh_overview", "run_all_checks"):
                print(job, ui.run_job(job, 240))
            pictures = {
                "lineage": lineage,
                "partitions": partitions,
                "backfill-dialog": dialog,
                "overview": overview,
                "check-failed-imports": check("no_failed_imports"),
                "check-audit": check("sample_audit"),
                "posts": typed,
                "runs": run_page,
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
