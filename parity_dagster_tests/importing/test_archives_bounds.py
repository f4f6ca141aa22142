"""What reading repositories may take of a machine, whatever hosts send and however many accounts there are."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parity_dagster.atproto.archive import RepositoryArchive
from parity_dagster.importing.archives import LONG_BLOCK, PAGE_SECONDS, SMALL_BYTES, read_pages
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, Fault, SampleNetwork
from parity_dagster.settings import Settings
from parity_dagster_tests.atproto.archives import DID, KEY, public, repository
from parity_dagster_tests.imports import assert_equal, importing


def _spools(folder: Path) -> int:
    """Temporary files that this process has open in a folder."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += link.readlink().is_relative_to(folder)
        except FileNotFoundError:
            continue
    return found


@contextmanager
def most_spools(folder: Path) -> Iterator[list[int]]:
    """The greatest number of temporary files that were seen open at once."""
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.002):
            most[0] = max(most[0], _spools(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()


@pytest.mark.long
def test_accounts_that_wait_for_their_hosts_have_no_file_open_yet(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = SampleNetwork(hosts=5)
    dids = [network.add_account({POST: 12}, host=f"pds-{number % 5 + 1}") for number in range(50)]
    network.behave(archive_surplus=SMALL_BYTES, faults=(Fault(kind="latency", method="getRepo", seconds=0.3),))
    with (
        most_spools(tmp_path) as most,
        importing(settings, network, source="repo", concurrency=16) as (service, _),
    ):
        results = service.import_pairs([Pair(did, POST) for did in dids])
        assert all(result.completed for result in results)
        assert {state.source for state in service.find_states()} == {"repo"}
    assert 1 <= most[0] <= 10, "four are fetched and verified at a time; some more are being written, or closed"
    assert _spools(tmp_path) == 0
    for did in dids[::10]:
        assert_equal(settings, network, did, POST)


def test_what_takes_long_to_read_is_read_a_little_at_a_time() -> None:
    block = b"\xa1\x61a\x9a" + (100_000).to_bytes(4) + bytes(100_000)  # a list of zeros
    records = {f"{POST}/3kaaaaaaaa{number:03d}": block for number in range(5)}
    archive = RepositoryArchive(repository(records).archive().car())
    archive.verify(did=DID, key=public(KEY))
    assert archive.longest > LONG_BLOCK, "it is read on another thread"
    pages = list(read_pages(archive, DID, POST))
    assert [len(page.rows) for page in pages] == [1] * 5
    assert all(page.seconds >= PAGE_SECONDS for page in pages)
