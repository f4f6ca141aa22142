"""What `--progress` shows: bars on a terminal, bounded in number, with records/s that are true."""

import io
import time

import pytest
from rich.console import Console

from parity_dagster.cli.progress import ProgressDisplay, Rate
from parity_dagster.events import ImportFailed, ImportProgress, ImportStarted
from parity_dagster.models import ImportResult

NSIDS = ("app.bsky.feed.post", "app.bsky.feed.like")


def did(number: int) -> str:
    return f"did:plc:{number:024d}"


def page(number: int, nsid: str, pages: int, synced: int) -> ImportProgress:
    return ImportProgress(did(number), nsid, "https://pds.example.com", "c", pages, synced, 0, 0)


def shown(display: ProgressDisplay) -> list[str]:
    out = Console(file=io.StringIO(), width=120, force_terminal=False)
    out.print(display)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def test_few_imports_have_a_bar_each_with_records_pages_rate_and_state():
    display = ProgressDisplay(2)
    for nsid in NSIDS:
        display(ImportStarted(did(1), nsid, "https://pds.example.com", None))
    display(page(1, NSIDS[0], 1, 100))
    display(page(1, NSIDS[0], 2, 1200))
    display(ImportFailed(did(1), NSIDS[1], "no", "no", ImportResult(did(1), NSIDS[1], error="no"), None))
    post, like, total = shown(display)
    assert "app.bsky.feed.post" in post
    assert "1,200 records" in post
    assert "2 pages" in post
    assert "/s" in post
    assert post.rstrip().endswith("reading")
    assert like.rstrip().endswith("failed")
    assert "1 of 2 done, 1 failed; 1,200 records in 2 pages" in total


def test_thousands_of_imports_have_a_bar_per_collection_and_a_bounded_number_of_lines():
    display = ProgressDisplay(6000)
    for number in range(3000):
        for nsid in NSIDS:
            display(ImportStarted(did(number), nsid, "https://pds.example.com", None))
            display(page(number, nsid, 1, 10))
    lines = shown(display)
    assert len(lines) <= 2 + 6 + 1
    assert "0/3,000" in lines[0]
    assert "30,000 records" in lines[0]
    assert "60,000 records in 6,000 pages" in lines[-1]


def test_ended_imports_take_no_memory_when_there_are_many():
    display = ProgressDisplay(None)
    for number in range(1000):
        event = ImportFailed(did(number), NSIDS[0], "no", "no", ImportResult(did(number), NSIDS[0], error="no"), None)
        display(event)
    assert len(display._walks) <= 12
    assert "1,000 done, 1,000 failed" in shown(display)[-1]


def test_what_an_earlier_process_read_does_not_count_as_speed():
    display = ProgressDisplay(1)
    display(ImportStarted(did(1), NSIDS[0], "https://pds.example.com", "cursor"))
    display(page(1, NSIDS[0], 5001, 500_100))
    display(page(1, NSIDS[0], 5002, 500_200))
    assert "; 100 records in 2 pages" in shown(display)[-1]
    assert "500,200 records" in shown(display)[0]


@pytest.mark.parametrize(("after", "expected"), [(2.0, 1000.0), (60.0, 0.0)])
def test_the_rate_is_that_of_the_last_seconds(after, expected):
    rate = Rate()
    began = time.monotonic()
    for step in range(21):
        rate.add(100 if step else 0, began + step / 10)
    assert rate.total == 2000
    assert rate.per_second(began + after) == pytest.approx(expected, rel=0.1)
