"""The inbox: whatever is dropped into the folder has a defined outcome, and nothing is imported twice."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.definitions import build_defs
from parity_dagster.errors import SettingsError
from parity_dagster.inbox.files import MAX_FILE_BYTES
from parity_dagster.inbox.reading import CHUNK, Destination, ListReader
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.inbox import (
    DID_LISTS_KEY,
    LIST_TAG,
    READ_DID_LIST,
    Look,
    dump_cursor,
    load_cursor,
    look_into_inbox,
    run_config,
)
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.queue import QUEUE_TAG
from parity_dagster.sample_network import FOLLOW, LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.names import Names
from parity_dagster_tests.quick import quick

A, B, C, D = (f"did:plc:{letter * 24}" for letter in "abcd")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"collections": (POST, LIKE), "inbox": tmp_path / "inbox"})


Event = dg.AssetMaterialization | dg.AssetObservation
RUN_KEY = "dagster/run_key"


def events_of(result: dg.ExecuteInProcessResult) -> list[Event]:
    """What a run told about lists."""
    told: list[Event] = []
    for event in result.all_events:
        if event.is_step_materialization and event.asset_key == DID_LISTS_KEY:
            told.append(event.materialization)
        elif event.is_asset_observation and event.asset_key == DID_LISTS_KEY:
            told.append(event.asset_observation_data.asset_observation)
    return told


class Inbox:
    """The folder of a test, what the sensor says of it, and the runs that it asks for."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.folder = settings.inbox
        self.folder.mkdir()
        self.cursor: str | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Load the code location anew, under other settings."""
        self.settings = settings
        self.definitions = build_defs(settings)

    def drop(self, content: str | bytes, name: str = "dids.txt", age: float = 60) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def notice(self, **options: Any) -> Look:
        """A tick of the sensor."""
        look = look_into_inbox(self.instance, self.settings, self.cursor, **options)
        self.cursor = look.cursor
        return look

    def launch(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult | None:
        """What the daemon does with a request: launch it, unless there was a run with this key."""
        assert request.run_key is not None
        if self.instance.get_runs_count(dg.RunsFilter(tags={RUN_KEY: request.run_key})):
            return None
        return self.definitions.resolve_job_def(READ_DID_LIST).execute_in_process(
            instance=self.instance,
            run_config=request.run_config,
            tags={**request.tags, RUN_KEY: request.run_key},
            raise_on_error=False,
        )

    def look(self, **options: Any) -> list[Event]:
        """A tick, the runs that it asks for, and the tick after them; what was told about lists."""
        told: list[Event] = []
        for _ in range(2):
            look = self.notice(**options)
            told += look.events
            for request in look.requests:
                result = self.launch(request)
                if result is None:
                    continue
                assert result.success, self.failure(result)
                told += events_of(result)
        return told

    def failure(self, result: dg.ExecuteInProcessResult) -> str:
        (event,) = [event for event in result.all_events if event.is_step_failure]
        said = event.step_failure_data.user_failure_data
        return str(said.description if said else event.step_failure_data.error_display_string)

    def outcome(self, **options: Any) -> dict[str, Any]:
        """The metadata of the single list that this look had read."""
        (event,) = self.look(**options)
        assert isinstance(event, dg.AssetMaterialization), event.description
        return {
            name: list(value.records) if isinstance(value, dg.TableMetadataValue) else value.value
            for name, value in event.metadata.items()
        }

    def refusal(self) -> str:
        (event,) = self.look()
        assert isinstance(event, dg.AssetObservation)
        return event.description or ""

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(DIDS))

    @property
    def pending(self) -> list[Pair]:
        with closing(ImportService(self.settings, report=False)) as service:
            return [state.pair for state in service.find_states(statuses=[ImportStatus.PENDING])]


@pytest.fixture
def inbox(settings: Settings, instance: dg.DagsterInstance) -> Inbox:
    return Inbox(settings, instance)


def test_each_account_becomes_a_partition_and_its_registered_collections_pending(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n{B}\n")
    outcome = inbox.outcome()
    assert inbox.partitions == [A, B]
    assert inbox.pending == [Pair(did, nsid) for did in (A, B) for nsid in (LIKE, POST)]
    counts = {"file": "dids.txt", "lines": 2, "accounts": 2, "new_accounts": 2, "new_imports": 4, "invalid_lines": 0}
    assert counts.items() <= outcome.items()
    assert [record.data["file"] for record in outcome["files"]] == ["dids.txt"]


def test_the_same_file_again_does_nothing(inbox: Inbox) -> None:
    content = f"{A}\n{B}\n"
    inbox.drop(content)
    inbox.look()
    assert inbox.look() == []
    inbox.drop(content, age=30)  # written anew, with the same content
    assert inbox.look() == []
    inbox.drop(content, name="copy.txt")
    assert inbox.outcome()["new_imports"] == 0
    inbox.cursor = None  # the cursor was reset in the UI
    assert [event.metadata["new_imports"].value for event in inbox.look()] == [0, 0]
    assert len(inbox.pending) == 4


def test_a_changed_file_imports_only_what_is_new(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n{B}\n")
    inbox.look()
    inbox.drop(f"{B}\n{C}\n{A}\n{D}\n", age=30)
    outcome = inbox.outcome()
    assert (outcome["accounts"], outcome["new_accounts"], outcome["new_imports"]) == (4, 2, 4)
    assert inbox.partitions == [A, B, C, D]


def test_a_list_that_names_accounts_again_queues_collections_that_were_registered_since(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n{B}\n")
    inbox.look()
    inbox.use(inbox.settings.model_copy(update={"collections": (POST, LIKE, FOLLOW)}))
    inbox.drop(f"{B}\n{C}\n", "more.txt")
    assert inbox.outcome()["new_imports"] == 1 + 3
    pairs = [Pair(A, LIKE), Pair(A, POST), *(Pair(did, nsid) for did in (B, C) for nsid in (LIKE, POST, FOLLOW))]
    assert inbox.pending == pairs


def test_what_failed_for_good_is_not_tried_again_because_a_list_names_it_again(
    inbox: Inbox, settings: Settings
) -> None:
    inbox.drop(f"{A}\n")
    inbox.look()
    with closing(connect(settings, autocommit=True)) as connection:
        connection.execute(f"UPDATE {settings.state_table} SET status = 'failed'")
    inbox.drop(f"# once more\n{A}\n", age=30)
    assert inbox.outcome()["new_imports"] == 0
    assert inbox.pending == []


def test_a_file_that_is_still_being_written_is_left_alone(inbox: Inbox) -> None:
    path = inbox.drop(f"{A}\n", age=0)
    assert inbox.look() == []
    with path.open("a") as writer:
        writer.write(f"{B}\n")
    time.sleep(1.2)
    assert inbox.look() == []
    time.sleep(1.0)
    assert inbox.outcome()["accounts"] == 2


def test_a_file_that_ends_within_a_line_must_be_quiet_for_longer(inbox: Inbox) -> None:
    inbox.drop(f"{A}\ndid:web:example.co", age=5)
    assert inbox.look() == []
    inbox.drop(f"{A}\ndid:web:example.com\n", age=5)
    assert inbox.outcome()["accounts"] == 2
    assert "did:web:example.co" not in inbox.partitions
    inbox.drop(f"{A}\n{B}", name="other.txt", age=11)
    assert inbox.outcome()["accounts"] == 2


@pytest.mark.long
def test_a_file_from_the_future_is_read_when_it_was_seen_unchanged(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n", age=-86_400)
    assert inbox.look() == []
    time.sleep(2.1)
    assert inbox.outcome()["accounts"] == 1


@pytest.mark.parametrize(
    "content",
    quick(
        3,
        [
            b"\xef\xbb\xbf" + f"{A}\r\n{B}\r\n".encode(),
            f"{A}\r\n{B}\r\n".encode("utf-16"),
            f"# our users\n\n   \n{A}  # first\n\t{B}\n{A}\n{B}".encode(),
            f"{A}\n{B}\n".encode(),
            b"\xfe\xff" + f"{A}\n{B}\n".encode("utf-16-be"),
        ],
    ),
    ids=["BOM and CRLF", "UTF-16", "comments, blanks and duplicates", "plain", "big-endian UTF-16"],
)
def test_lists_come_as_people_and_programs_write_them(inbox: Inbox, content: bytes) -> None:
    inbox.drop(content)
    assert inbox.outcome()["invalid_lines"] == 0
    assert inbox.partitions == [A, B]


def test_invalid_lines_are_named_in_the_ui_and_beside_the_file(inbox: Inbox) -> None:
    inbox.drop(f"{A}\nnonsense\n".encode() + b"\xe9t\xe9\n" + f"did:plc:short\n{B}\n".encode())
    outcome = inbox.outcome()
    assert (outcome["accounts"], outcome["invalid_lines"]) == (2, 3)
    assert [record.data["line"] for record in outcome["invalid"]] == [2, 3, 4]
    report = (inbox.folder / "dids.txt.errors").read_text().splitlines()
    assert "dids.txt" in report[0]
    assert [line.partition(":")[0] for line in report[1:]] == ["2", "3", "4"]
    assert inbox.partitions == [A, B]


def test_what_is_said_of_a_list_begins_with_its_name_and_names_the_first_invalid_line(inbox: Inbox) -> None:
    inbox.drop(f"{A}\nnonsense\ndid:plc:short\n".encode())
    (event,) = inbox.look()
    said = event.description or ""
    assert said.startswith("dids.txt: 1 accounts on 3 lines")
    assert "; 2 invalid lines (line 2: " in said
    assert "nonsense" in said


def test_the_report_of_a_corrected_file_disappears_and_nobody_elses_file_does(inbox: Inbox) -> None:
    inbox.drop("nonsense\n")
    inbox.look()
    mine = inbox.folder / "other.txt.errors"
    mine.write_text("my own")
    inbox.drop(f"{A}\n", age=30)
    inbox.drop(f"{B}\n", name="other.txt")
    inbox.look()
    assert not (inbox.folder / "dids.txt.errors").exists()
    assert mine.read_text() == "my own"


@pytest.mark.parametrize(
    "content", quick(1, [b"", b"\n\n", b"# nothing yet\n"]), ids=["no bytes", "blank lines", "a comment"]
)
def test_an_empty_list_is_read_and_names_nobody(inbox: Inbox, content: bytes) -> None:
    inbox.drop(content)
    assert inbox.outcome()["accounts"] == 0
    assert inbox.look() == []


def test_binary_junk_is_refused(inbox: Inbox) -> None:
    inbox.drop(b"\x7fELF\x02\x01\x00" + bytes(range(256)) * 100)
    assert "binary" in inbox.refusal()
    assert inbox.look() == []


def test_junk_that_looks_like_text_costs_only_its_lines(inbox: Inbox) -> None:
    inbox.drop(bytes(range(1, 256)) * 1000 + f"\n{A}\n".encode())
    outcome = inbox.outcome()
    assert outcome["accounts"] == 1
    assert outcome["invalid_lines"] > 1000 / 2


@pytest.mark.parametrize(
    "name", quick(2, ["a\nb\x1b[31m.txt", "-rf.txt", "my list (2).txt", "учётные записи 🦋.txt", "UPPER.TXT"])
)
def test_names_may_hold_anything(inbox: Inbox, name: str) -> None:
    inbox.drop(f"{A}\n?\n", name=name)
    shown = inbox.outcome()["file"]
    assert shown.isprintable()
    assert (inbox.folder / f"{name}.errors").exists()
    assert inbox.look() == []


def test_a_name_that_is_no_text_does_no_harm(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n", name=os.fsdecode(b"\xff\xfe.txt"))
    assert inbox.outcome()["file"] == "\\xff\\xfe.txt"
    assert inbox.look() == []


def test_symbolic_links_are_refused(inbox: Inbox, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere.txt"
    secret.write_text(f"{A}\n")
    (inbox.folder / "link.txt").symlink_to(secret)
    assert "symbolic link" in inbox.refusal()
    assert inbox.look() == []
    assert inbox.partitions == []


def test_a_report_does_not_follow_a_link(inbox: Inbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (inbox.folder / "dids.txt.errors").symlink_to(victim)
    inbox.drop("nonsense\n")
    inbox.look()
    assert victim.read_text() == "precious"
    assert "nonsense" in (inbox.folder / "dids.txt.errors").read_text()


def test_folders_and_other_things_are_refused_and_what_is_no_list_is_ignored(inbox: Inbox) -> None:
    (inbox.folder / "folder.txt").mkdir()
    os.mkfifo(inbox.folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(inbox.folder / "s.txt"))
    inbox.drop(f"{A}\n", name="notes.md")
    inbox.drop(f"{A}\n", name=".hidden.txt")
    events = inbox.look()
    assert [event.metadata["file"].value for event in events] == ["folder.txt", "pipe.txt", "s.txt"]
    assert all(isinstance(event, dg.AssetObservation) for event in events)
    (inbox.folder / "folder.txt" / "inside.txt").write_text(f"{A}\n")
    assert inbox.look() == []
    assert inbox.partitions == []


def test_a_file_that_is_too_large_is_refused(inbox: Inbox) -> None:
    path = inbox.drop("")
    os.truncate(path, MAX_FILE_BYTES + 1)
    assert "split it" in inbox.refusal()


@contextlib.contextmanager
def bound_by_modes() -> Iterator[None]:
    """Take from root, in this thread, the capabilities that let it read what a file's mode forbids."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    this_thread = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(this_thread, before) == 0
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~0b110  # of the effective ones: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(this_thread, less) == 0
    try:
        yield
    finally:
        assert libc.capset(this_thread, before) == 0


def test_a_file_that_may_not_be_read_is_reported_and_read_when_it_may_be(inbox: Inbox) -> None:
    path = inbox.drop(f"{A}\n")
    path.chmod(0)
    with bound_by_modes():
        assert "Permission denied" in inbox.refusal()
        assert inbox.look() == []
    path.chmod(0o644)
    assert inbox.outcome()["accounts"] == 1


def test_a_folder_that_cannot_be_written_costs_only_the_report(inbox: Inbox) -> None:
    inbox.drop(f"{A}\nnonsense\n")
    (inbox.folder / "dids.txt.errors").mkdir()  # nothing can take its place
    outcome = inbox.outcome()
    assert outcome["invalid_lines"] == 1
    assert "could not be written" in outcome["problem"]


def ignore(note: str) -> None:
    """How far a reading is."""


def numbered(start: int, count: int) -> Iterator[str]:
    return (f"did:web:a{number}.example.com\n" for number in range(start, start + count))


@pytest.mark.long
def test_a_long_list_is_read_by_one_run_and_each_line_once(inbox: Inbox) -> None:
    lines = list(numbered(0, 6000))
    for number in range(0, 6000, 1000):
        lines[number] = "nonsense\n"
    inbox.drop("".join(lines))
    outcome = inbox.outcome()
    counts = {"lines": 6000, "accounts": 5994, "invalid_lines": 6, "new_accounts": 5994, "new_imports": 2 * 5994}
    assert counts.items() <= outcome.items()
    report = (inbox.folder / "dids.txt.errors").read_text().splitlines()
    assert [int(line.partition(":")[0]) for line in report[1:]] == list(range(1, 6000, 1000))


def test_a_look_is_over_in_a_moment_whatever_was_dropped(inbox: Inbox) -> None:
    inbox.drop("".join(numbered(0, 200_000)))
    inbox.notice()  # opens what is opened once
    inbox.drop("".join(numbered(0, 300_000)))
    began = time.process_time()
    (request,) = inbox.notice().requests
    assert time.process_time() - began < 0.3
    assert request.tags[LIST_TAG] == "dids.txt"


def test_files_of_one_moment_are_read_by_one_run_and_each_has_its_event(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n{B}\n", name="first.txt")
    inbox.drop(f"{C}\nnonsense\n", name="second.txt")
    (inbox.folder / "third.txt").mkdir()
    look = inbox.notice()
    (request,) = look.requests
    assert [event.metadata["file"].value for event in look.events] == ["third.txt"]
    result = inbox.launch(request)
    assert result is not None
    read = events_of(result)
    assert sorted(str(event.metadata["file"].value) for event in read) == ["first.txt", "second.txt"]
    table = read[-1].metadata["files"]
    assert isinstance(table, dg.TableMetadataValue)
    # what needs a look comes first
    assert {record.data["file"] for record in table.records[:1]} == {"second.txt"}
    assert inbox.look() == []


def test_a_run_is_asked_for_once_whatever_becomes_of_the_cursor(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    (request,) = inbox.notice().requests
    assert inbox.launch(request) is not None
    inbox.cursor = None
    (again,) = inbox.notice().requests
    assert inbox.launch(again) is None
    assert inbox.look() == []


def test_a_request_that_the_daemon_did_not_get_to_is_repeated(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    (request,) = inbox.notice().requests
    (again,) = inbox.notice().requests
    assert (request.run_key, request.run_config) == (again.run_key, again.run_config)
    assert inbox.launch(again) is not None
    assert inbox.notice().requests == []


@pytest.mark.long
def test_a_list_whose_runs_fail_is_asked_for_again_and_every_failure_is_told(inbox: Inbox, settings: Settings) -> None:
    inbox.use(settings.model_copy(update={"retry_delay": 1.0}))
    inbox.drop(f"{A}\n")
    with closing(connect(settings, autocommit=True)) as connection:
        connection.execute(f"ALTER TABLE {settings.state_table} RENAME TO elsewhere")
        (request,) = inbox.notice().requests
        result = inbox.launch(request)
        assert result is not None
        assert "PostgreSQL failed" in inbox.failure(result) or "parity migrate" in inbox.failure(result)
        look = inbox.notice()
        assert "ended early (failure)" in str(look.events[0].description)
        (request,) = look.requests  # at once
        assert inbox.launch(request) is not None
        look = inbox.notice()
        assert "starts in 1 s" in str(look.events[0].description)
        assert look.requests == []
        connection.execute(f"ALTER TABLE elsewhere RENAME TO {settings.state_table}")
    assert inbox.look() == []
    time.sleep(1.1)
    assert inbox.outcome()["new_imports"] == 2
    assert inbox.look() == []


def test_a_list_that_was_changed_after_it_was_asked_for_is_left_until_it_is_quiet(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    (request,) = inbox.notice().requests
    inbox.drop(f"{B}\n{C}\n", age=30)
    result = inbox.launch(request)
    assert result is not None
    assert events_of(result) == []
    assert inbox.partitions == []
    assert inbox.outcome()["lines"] == 2
    assert inbox.partitions == [B, C]


@pytest.mark.parametrize("change", ["replace", "append", "remove"])
def test_a_list_that_changes_while_it_is_read_is_read_anew_and_one_that_is_removed_to_its_end(
    inbox: Inbox, change: str
) -> None:
    path = inbox.drop("".join([*numbered(0, 3000), "nonsense\n"]))
    added: list[str] = []

    def register(dids: Sequence[str]) -> tuple[int, int]:
        if not added and change == "replace":
            (inbox.folder / "new").write_text(f"{A}\n")
            (inbox.folder / "new").rename(path)
        elif not added and change == "append":
            with path.open("a") as writer:
                writer.write("did:web:half.exam")
        elif not added:
            path.unlink()
        added.extend(dids)
        return len(dids), 0

    reader = ListReader(inbox.folder, Destination(register, len, str), inbox.settings, ignore)
    read = list(reader.read({"dids.txt": ""}))
    if change == "remove":
        assert [(entry.lines, entry.invalid) for entry in read] == [(3001, 1)]
    else:
        assert read == []
        assert len(added) == 1000
        assert not (inbox.folder / "dids.txt.errors").exists()


def test_a_changed_file_goes_back_to_what_it_was_and_is_read_again(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    inbox.look()
    inbox.drop(f"{B}\n", age=30)
    inbox.look()
    with closing(ImportService(inbox.settings, report=False)) as service:
        service.reset_user(A)
    inbox.drop(f"{A}\n", age=20)
    assert inbox.outcome()["new_imports"] == 2


def test_a_run_by_hand_reads_what_is_there_and_nothing_outside_of_the_inbox(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text(f"{B}\n")
    inbox.drop(f"{A}\n", name="учётные записи.txt")
    (inbox.folder / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    lists = {"../elsewhere.txt": "", "link.txt": "", "учётные записи.txt": ""}
    result = inbox.launch(dg.RunRequest("by hand", run_config(lists)))
    assert result is not None
    told = {str(event.metadata["file"].value): event.description or "" for event in events_of(result)}
    assert "not in the inbox" in told["../elsewhere.txt"]
    assert "symbolic link" in told["link.txt"]
    assert "1 accounts" in told["учётные записи.txt"]
    assert inbox.partitions == [A]


def test_a_run_that_names_no_list_says_how_to(inbox: Inbox) -> None:
    result = inbox.launch(dg.RunRequest("by hand", run_config({})))
    assert result is not None
    assert "dids.txt" in inbox.failure(result)


def test_a_run_of_this_job_takes_no_place_of_the_imports(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    (request,) = inbox.notice().requests
    assert QUEUE_TAG not in request.tags


@pytest.mark.long
def test_many_lists_and_many_things_that_are_none_are_told_a_bit_at_a_time(inbox: Inbox) -> None:
    for number in range(60):
        (inbox.folder / f"link{number}.txt").symlink_to("nowhere")
        inbox.drop(f"did:web:a{number}.example.com\n", name=f"list{number}.txt")
    told: list[Event] = []
    for _ in range(4):
        told += inbox.look()
    assert len(told) == len({event.metadata["file"].value for event in told}) == 120  # more than one tick tells
    assert len(inbox.partitions) == 60


MEASURED = """
import resource
from parity_dagster.definitions import defs
from parity_dagster.orchestration.inbox import run_config
from parity_dagster.dagster_instance.storage import parity_instance
with parity_instance() as instance:
    def read(name):
        job = defs.resolve_job_def("read_did_list")
        result = job.execute_in_process(instance=instance, run_config=run_config({name: ""}), raise_on_error=False)
        assert result.success, result.all_events
    read("small.txt")  # whatever is loaded once is loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read("large.txt")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [50_000, 1_000_000])
def test_one_run_reads_a_list_of_any_length_in_bounded_memory(inbox: Inbox, tmp_path: Path, count: int) -> None:
    inbox.drop("".join(numbered(0, 2000)), name="small.txt")
    inbox.drop("".join(numbered(2000, count)), name="large.txt")
    settings = inbox.settings.model_copy(update={"collections": (POST,)})
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", MEASURED],
        cwd=tmp_path,
        env={**os.environ, **variables(settings, PARITY_COLLECTIONS=POST, PARITY_INBOX=str(inbox.folder))},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    print(f"{count:,} lines in {time.monotonic() - began:.0f} s, {process.stdout.strip()} KiB more")
    assert int(process.stdout) < 48 * 1024  # KiB
    with closing(connect(settings, autocommit=True)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {settings.state_table}").fetchone() == (count + 2000,)


KILLED = """
import sys, json
from parity_dagster.definitions import defs
from parity_dagster.dagster_instance.storage import parity_instance
request = json.load(sys.stdin)
with parity_instance() as instance:
    defs.resolve_job_def("read_did_list").execute_in_process(instance=instance, **request)
"""


@pytest.mark.long
def test_a_run_that_is_killed_half_way_is_made_good_by_the_next_one(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * CHUNK
    environment = variables(inbox.settings, PARITY_COLLECTIONS=f"{POST},{LIKE}", PARITY_INBOX=str(inbox.folder))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with parity_instance() as inbox.instance, closing(connect(inbox.settings, autocommit=True)) as connection:
        inbox.drop("".join([*numbered(0, count), "nonsense\n"]))
        (request,) = inbox.notice().requests
        # the second of three chunks waits
        connection.execute("SELECT pg_advisory_lock(7)")
        connection.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF EXISTS (SELECT FROM {inbox.settings.state_table}) THEN PERFORM pg_advisory_xact_lock(7); END IF;"
            " RETURN NULL; END $$;"
            f"CREATE TRIGGER wait BEFORE INSERT ON {inbox.settings.state_table} EXECUTE FUNCTION wait()"
        )
        process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, text=True)
        assert process.stdin is not None
        tags = {**request.tags, RUN_KEY: str(request.run_key)}
        process.stdin.write(json.dumps({"run_config": request.run_config, "tags": tags}))
        process.stdin.close()
        rows = f"SELECT count(*) FROM {inbox.settings.state_table}"
        while not (connection.execute(rows).fetchone() or (0,))[0]:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        connection.execute("SELECT pg_advisory_unlock(7)")
        assert 0 < (connection.execute(rows).fetchone() or (0,))[0] < 2 * count
        assert inbox.look() == []  # nobody has noticed yet
        (run,) = inbox.instance.get_runs()
        inbox.instance.report_run_failed(run, "what run monitoring says of a run whose process is gone")
        told = inbox.look()
        assert "ended early (failure)" in str(told[0].description)
        (event,) = told[1:]
        assert event.metadata["lines"].value == count + 1
        assert connection.execute(rows).fetchone() == (2 * count,)
        assert len(inbox.partitions) == count
    assert len((inbox.folder / "dids.txt.errors").read_text().splitlines()) == 2


FOLDER = "it is a folder; put its lists directly into the inbox"
OLD_CURSOR = {
    "done.txt": {
        "first_seen": 1.0, "stage": "done", "accounts": 1, "new_accounts": 1, "new_imports": 2, "ended": 2.0,
        "position": [33, 1, "utf-8", False], "samples": [[1, "x"]], "report_bytes": 10,
    },
    "refused.txt": {"first_seen": 1.0, "stage": "refused", "problem": FOLDER},
    "partly.txt": {
        "first_seen": 1.0, "stage": "reading", "accounts": 1, "position": [33, 1, "utf-8", False],
        "handles": [[1, "a.example.com", 1, 5.0]],
    },
}  # fmt: skip


def test_the_cursor_of_the_version_before_is_understood(inbox: Inbox) -> None:
    """What it had read is not read again, what it was reading is read from its start."""
    done = inbox.drop(f"{A}\n", name="done.txt")
    partly = inbox.drop(f"{B}\n", name="partly.txt")
    refused = inbox.folder / "refused.txt"
    refused.mkdir()
    old: dict[str, dict[str, Any]] = {name: dict(entry) for name, entry in OLD_CURSOR.items()}
    for path in (done, partly, refused):
        status = path.stat()
        old[path.name]["signature"] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    old["done.txt"]["digest"] = hashlib.sha256(done.read_bytes()).hexdigest()
    old["partly.txt"]["digest"] = hashlib.sha256(partly.read_bytes()).hexdigest()
    inbox.cursor = json.dumps(old)
    assert inbox.outcome()["file"] == "partly.txt"
    inbox.drop(f"{A}\n", name="done.txt", age=30)  # touched
    assert inbox.look() == []
    assert inbox.partitions == [B]


NO_CURSORS = [
    "", "null", "[]", "7", '"text"', "{", "[" * 100_000, '{"dids.txt": null}', '{"dids.txt": {}}',
    '{"dids.txt": {"signature": [1], "first_seen": 1}}',
    '{"dids.txt": {"signature": [1, 2, 3, 1e999], "first_seen": 1}}',
    '{"dids.txt": {"signature": [1, 2, 3, 4], "first_seen": "soon"}}',
    '{"dids.txt": {"signature": [1, 2, 3, 4], "first_seen": NaN, "stage": ["done"]}}',
    '{"dids.txt": {"signature": [1, 2, 3, 4], "stage": "asked", "run_key": "none"}}',
]  # fmt: skip


def test_no_cursor_whatever_stops_the_sensor(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    for cursor in NO_CURSORS:
        inbox.cursor = cursor
        assert len(inbox.notice().requests) == 1, cursor
    inbox.cursor = NO_CURSORS[-1]
    assert inbox.outcome()["accounts"] == 1
    assert inbox.look() == []


@pytest.mark.long
def test_a_clock_that_is_set_back_holds_up_no_list(inbox: Inbox) -> None:
    path = inbox.drop(f"{A}\n", age=-86_400)
    inbox.notice()
    later = load_cursor(inbox.cursor)["dids.txt"]
    inbox.cursor = dump_cursor({path.name: replace(later, first_seen=time.time() + 86_400)})
    assert inbox.look() == []
    time.sleep(2.1)
    assert inbox.outcome()["accounts"] == 1


def test_an_inbox_that_is_no_folder_is_named_with_its_variable(inbox: Inbox) -> None:
    inbox.folder.rmdir()
    inbox.folder.write_text("")
    with pytest.raises(SettingsError, match="PARITY_INBOX"):
        inbox.notice()


def test_a_cursor_that_cannot_be_read_starts_over(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n")
    inbox.cursor = '{"dids.txt": {"signature": [1]}}'
    assert inbox.outcome()["accounts"] == 1


def test_the_cursor_forgets_files_that_are_gone(inbox: Inbox) -> None:
    path = inbox.drop(f"{A}\n")
    inbox.look()
    path.unlink()
    inbox.look()
    assert load_cursor(inbox.cursor) == {}


def test_a_folder_that_is_missing_is_made(inbox: Inbox) -> None:
    inbox.folder.rmdir()
    assert inbox.notice().summary == "No list is new."
    assert inbox.folder.is_dir()


# Handles.


def test_handles_are_resolved_and_those_that_lead_nowhere_are_reported_after_some_tries(
    inbox: Inbox, network: Running, names: Names
) -> None:
    inbox.use(inbox.settings.model_copy(update={"plc_url": network.plc_url, "retry_delay": 0.2}))
    alice = network.network.add_account({POST: 1}, handle="alice.sample.test")
    late = network.network.add_account({POST: 1}, handle="late.sample.test")
    names.records["_atproto.alice.sample.test"] = f"did={alice}"
    inbox.drop(f"alice.sample.test\n{A}\nnobody.sample.test\nlate.sample.test\n")
    names.after(1, "_atproto.late.sample.test", f"did={late}")  # the network comes back
    outcome = inbox.outcome()
    assert sorted(inbox.partitions) == sorted([alice, late, A])
    assert (outcome["accounts"], outcome["new_imports"], outcome["invalid_lines"]) == (4, 6, 1)
    report = (inbox.folder / "dids.txt.errors").read_text().splitlines()
    assert report[1].startswith("3: ")
    assert "nobody.sample.test" in report[1]


@pytest.mark.long
def test_a_list_with_many_handles_is_read_on_while_they_are_resolved(
    inbox: Inbox, network: Running, names: Names
) -> None:
    settings = inbox.settings.model_copy(update={"plc_url": network.plc_url, "retry_delay": 0.1})
    dids = []
    for number in range(30):
        handle = f"a{number}.sample.test"
        dids.append(network.network.add_account({POST: 1}, handle=handle))
        names.records[f"_atproto.{handle}"] = f"did={dids[-1]}"
    inbox.drop("".join(f"nobody{number}.sample.test\na{number}.sample.test\n" for number in range(30)))
    added: list[str] = []
    with closing(ImportService(settings, report=False)) as service:

        def register(dids: Sequence[str]) -> tuple[int, int]:
            added.extend(dids)
            return len(dids), 0

        destination = Destination(register, len, service.resolve)
        reader = ListReader(inbox.folder, destination, settings, ignore, most_waiting=5)
        (read,) = reader.read({"dids.txt": ""})
    assert sorted(added) == sorted(dids)
    assert (read.lines, read.accounts, read.new_accounts, read.invalid) == (60, 60, 30, 30)
    assert [line for line, _ in read.problems] == list(range(1, 60, 2))


@pytest.mark.long
def test_handles_without_an_answer_hold_up_no_other_list(inbox: Inbox, network: Running, names: Names) -> None:
    settings = inbox.settings.model_copy(update={"plc_url": network.plc_url, "retry_delay": 1})
    inbox.drop("nobody.sample.test\n", name="handles.txt")
    inbox.drop(f"{A}\n{B}\n", name="dids.txt")
    with closing(ImportService(settings, report=False)) as service:
        destination = Destination(lambda dids: (len(dids), 0), len, service.resolve)
        reader = ListReader(inbox.folder, destination, settings, ignore)
        lists = reader.read({"handles.txt": "", "dids.txt": ""})
        began = time.monotonic()
        assert next(lists).found.name == "dids.txt"
        assert time.monotonic() - began < 1
        assert next(lists).found.name == "handles.txt"
