"""The lines that a run says of itself while it works."""

from __future__ import annotations

import queue
from dataclasses import replace

from parity_dagster.events import ImportCompleted, ImportFailed, ImportProgress, ImportStarted
from parity_dagster.models import ImportResult, Pair
from parity_dagster.orchestration.run_progress import RunProgress, saying
from parity_dagster.sample_network import POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings


def test_it_says_how_far_it_is_how_fast_when_it_is_done_and_who_is_slow(settings: Settings, network: Running) -> None:
    now = 100.0
    progress = RunProgress(10, lambda: now)
    assert progress.line() == "0 of 10 pairs, 0 records, 0/s"
    did = network.network.add_account({POST: 130})
    with ImportService(settings, report=False) as service:
        service.import_user_collection(did, POST)
        state = service.get_status(did, POST)
    assert state is not None
    result = ImportResult.from_state(state)
    for host, seconds in (("https://slow.test", 60.0), ("https://quick.test", 1.0)):
        progress(ImportStarted(host, POST, host, None))
        for pages, records in ((1, 100), (2, 130)):
            progress(ImportProgress(host, POST, host, None, pages, records, 0, 0))
        ended = replace(state, did=host, pds=host, pages=2)
        progress(ImportCompleted(ImportResult.from_state(ended), ended, True, seconds))
    for code in ("server_error", "deactivated"):
        failed = result.with_error("no", code)
        progress(ImportFailed(code, POST, "no", code, failed, None))
    now += 20
    assert progress.line() == (
        "4 of 10 pairs, 1 failed, 1 of accounts that are gone, 260 records, 13/s, about 30 s left; slowest host:"
        " https://slow.test (30.0 s per page)"
    )
    # a walk that is gone on with was counted in part by whoever began it
    pair = Pair("did:plc:resumed", POST)
    progress(ImportStarted(*pair, "https://quick.test", "cursor"))
    for records in (5000, 5100):
        progress(ImportProgress(*pair, "https://quick.test", None, 50, records, 0, 0))
    now += 10
    assert "360 records, 10/s" in progress.line()


def test_it_goes_on_saying_so_while_nothing_happens_and_ends_with_the_run() -> None:
    said: queue.Queue[str] = queue.Queue()
    with saying(said.put, RunProgress(10), seconds=0.01):
        assert [said.get(timeout=30) for _ in range(3)] == ["0 of 10 pairs, 0 records, 0/s"] * 3
    while not said.empty():
        said.get()
    assert said.empty(), "nothing is said after its end"


def test_a_line_that_cannot_be_written_is_not_the_last_one() -> None:
    said: queue.Queue[str] = queue.Queue()
    attempts = iter(range(10**6))

    def say(line: str) -> None:
        if next(attempts) == 0:
            raise OSError("the database is away")
        said.put(line)

    with saying(say, RunProgress(10), seconds=0.01):
        assert said.get(timeout=30) == "0 of 10 pairs, 0 records, 0/s"
