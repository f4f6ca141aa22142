"""The inbox: whatever is dropped into the folder has a defined outcome, and nothing is imported twice."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest

from parity_dagster.inbox.files import MAX_FILE_BYTES
from parity_dagster.inbox.progress import load_cursor
from parity_dagster.inbox.reading import MAX_WAITING_HANDLES
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.inbox import Look, look_into_inbox
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect

A, B, C, D = (f"did:plc:{letter * 24}" for letter in "abcd")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"collections": (POST, LIKE), "inbox": tmp_path / "inbox"})


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as temporary:
        yield temporary


class Inbox:
    """The folder of a test, and what the looks at it said."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings = settings
        self.instance = instance
        self.folder = settings.inbox
        self.folder.mkdir()
        self.cursor: str | None = None

    def drop(self, content: str | bytes, name: str = "dids.txt", age: float = 60) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def look(self, **options: Any) -> Look:
        look = look_into_inbox(self.instance, self.settings, self.cursor, **options)
        self.cursor = look.cursor
        return look

    def outcome(self, **options: Any) -> dict[str, Any]:
        """The metadata of the single list that this look ended."""
        (event,) = self.look(**options).events
        assert isinstance(event, dg.AssetMaterialization), event.description
        return {
            name: list(value.records) if isinstance(value, dg.TableMetadataValue) else value.value
            for name, value in event.metadata.items()
        }

    def refusal(self) -> str:
        (event,) = self.look().events
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
    assert inbox.look().events == []
    inbox.drop(content, age=30)  # written anew, with the same content
    assert inbox.look().events == []
    inbox.drop(content, name="copy.txt")
    assert inbox.outcome()["new_imports"] == 0
    inbox.cursor = None  # the cursor was reset in the UI
    assert [event.metadata["new_imports"].value for event in inbox.look().events] == [0, 0]
    assert len(inbox.pending) == 4


def test_a_changed_file_imports_only_what_is_new(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n{B}\n")
    inbox.look()
    inbox.drop(f"{B}\n{C}\n{A}\n{D}\n", age=30)
    outcome = inbox.outcome()
    assert (outcome["accounts"], outcome["new_accounts"], outcome["new_imports"]) == (4, 2, 4)
    assert inbox.partitions == [A, B, C, D]


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
    assert inbox.look().events == []
    with path.open("a") as writer:
        writer.write(f"{B}\n")
    time.sleep(1.2)
    assert inbox.look().events == []
    time.sleep(1.0)
    assert inbox.outcome()["accounts"] == 2


def test_a_file_that_ends_within_a_line_must_be_quiet_for_longer(inbox: Inbox) -> None:
    inbox.drop(f"{A}\ndid:web:example.co", age=5)
    assert inbox.look().events == []
    inbox.drop(f"{A}\ndid:web:example.com\n", age=5)
    assert inbox.outcome()["accounts"] == 2
    assert "did:web:example.co" not in inbox.partitions
    inbox.drop(f"{A}\n{B}", name="other.txt", age=11)
    assert inbox.outcome()["accounts"] == 2


def test_a_file_from_the_future_is_read_when_it_was_seen_unchanged(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n", age=-86_400)
    assert inbox.look().events == []
    time.sleep(2.1)
    assert inbox.outcome()["accounts"] == 1


@pytest.mark.parametrize(
    "content",
    [
        f"{A}\n{B}\n".encode(),
        b"\xef\xbb\xbf" + f"{A}\r\n{B}\r\n".encode(),
        f"{A}\r\n{B}\r\n".encode("utf-16"),
        b"\xfe\xff" + f"{A}\n{B}\n".encode("utf-16-be"),
        f"# our users\n\n   \n{A}  # first\n\t{B}\n{A}\n{B}".encode(),
    ],
    ids=["plain", "BOM and CRLF", "UTF-16", "big-endian UTF-16", "comments, blanks and duplicates"],
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


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing yet\n"], ids=["no bytes", "blank lines", "a comment"])
def test_an_empty_list_is_read_and_names_nobody(inbox: Inbox, content: bytes) -> None:
    inbox.drop(content)
    assert inbox.outcome()["accounts"] == 0
    assert inbox.look().events == []


def test_binary_junk_is_refused(inbox: Inbox) -> None:
    inbox.drop(b"\x7fELF\x02\x01\x00" + bytes(range(256)) * 100)
    assert "binary" in inbox.refusal()
    assert inbox.look().events == []


def test_junk_that_looks_like_text_costs_only_its_lines(inbox: Inbox) -> None:
    inbox.drop(bytes(range(1, 256)) * 1000 + f"\n{A}\n".encode())
    outcome = inbox.outcome()
    assert outcome["accounts"] == 1
    assert outcome["invalid_lines"] > 1000 / 2


@pytest.mark.parametrize(
    "name", ["my list (2).txt", "учётные записи 🦋.txt", "-rf.txt", "UPPER.TXT", "a\nb\x1b[31m.txt"]
)
def test_names_may_hold_anything(inbox: Inbox, name: str) -> None:
    inbox.drop(f"{A}\n?\n", name=name)
    shown = inbox.outcome()["file"]
    assert shown.isprintable()
    assert (inbox.folder / f"{name}.errors").exists()
    assert inbox.look().events == []


def test_a_name_that_is_no_text_does_no_harm(inbox: Inbox) -> None:
    inbox.drop(f"{A}\n", name=os.fsdecode(b"\xff\xfe.txt"))
    assert inbox.outcome()["file"] == "\\xff\\xfe.txt"
    assert inbox.look().events == []


def test_symbolic_links_are_refused(inbox: Inbox, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere.txt"
    secret.write_text(f"{A}\n")
    (inbox.folder / "link.txt").symlink_to(secret)
    assert "symbolic link" in inbox.refusal()
    assert inbox.look().events == []
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
    events = inbox.look().events
    assert [event.metadata["file"].value for event in events] == ["folder.txt", "pipe.txt", "s.txt"]
    assert all(isinstance(event, dg.AssetObservation) for event in events)
    (inbox.folder / "folder.txt" / "inside.txt").write_text(f"{A}\n")
    assert inbox.look().events == []
    assert inbox.partitions == []


def test_a_file_that_is_too_large_is_refused(inbox: Inbox) -> None:
    path = inbox.drop("")
    os.truncate(path, MAX_FILE_BYTES + 1)
    assert "split it" in inbox.refusal()


def test_a_file_that_may_not_be_read_is_reported_and_read_when_it_may_be(inbox: Inbox) -> None:
    path = inbox.drop(f"{A}\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "Permission denied" in inbox.refusal()
    assert inbox.look().events == []
    path.chmod(0o644)
    assert inbox.outcome()["accounts"] == 1


def test_a_folder_that_cannot_be_written_costs_only_the_report(inbox: Inbox) -> None:
    inbox.drop(f"{A}\nnonsense\n")
    (inbox.folder / "dids.txt.errors").mkdir()  # nothing can take its place
    outcome = inbox.outcome()
    assert outcome["invalid_lines"] == 1
    assert "could not be written" in outcome["problem"]


def test_a_long_list_is_read_on_by_the_next_looks_within_the_time_and_each_line_once(inbox: Inbox) -> None:
    count = 30_000
    dids = [f"did:web:a{number}.example.com" for number in range(count)]
    lines = [f"{did}\n" for did in dids]
    for number in range(0, count, 1000):
        lines[number] = "nonsense\n"
    inbox.drop("".join(lines))
    looks = 0
    longest = 0.0
    while True:
        began = time.process_time()
        look = inbox.look(seconds=0.5)
        longest = max(longest, time.process_time() - began)
        looks += 1
        if look.events:
            break
        assert "read" in look.summary
    assert looks > 1
    assert longest < 5
    (event,) = look.events
    counts = {name: event.metadata[name].value for name in ("lines", "accounts", "invalid_lines", "new_imports")}
    assert counts == {"lines": count, "accounts": count - 30, "invalid_lines": 30, "new_imports": 2 * (count - 30)}
    report = (inbox.folder / "dids.txt.errors").read_text().splitlines()
    assert [int(line.partition(":")[0]) for line in report[1:]] == list(range(1, count, 1000))


def test_a_look_that_was_killed_is_repeated_without_harm(inbox: Inbox) -> None:
    inbox.drop("".join(f"did:web:a{number}.example.com\n" for number in range(5000)) + "nonsense\n")
    inbox.look(seconds=0)
    cursor = inbox.cursor
    while not inbox.look(seconds=0).events:
        pass
    inbox.cursor = cursor  # the daemon was killed before it could note where the reading was
    while not inbox.look(seconds=0).events:
        pass
    assert len(inbox.partitions) == 5000
    assert len(inbox.pending) == 10_000
    assert len((inbox.folder / "dids.txt.errors").read_text().splitlines()) == 2


def test_a_list_that_changes_between_two_looks_is_read_from_its_start(inbox: Inbox) -> None:
    inbox.drop("".join(f"did:web:a{number}.example.com\n" for number in range(5000)))
    assert inbox.look(seconds=0).events == []
    inbox.drop(f"{A}\n", age=30)
    assert inbox.outcome()["lines"] == 1
    assert A in inbox.partitions


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
    assert inbox.look().summary == "No list is new."
    assert inbox.folder.is_dir()


# Handles.


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=5)) as running:
        yield running


class Names:
    """A DNS server on loopback that this process asks; it knows the TXT records it is given."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, sender = self.socket.recvfrom(4096)
                query = dns.message.from_wire(wire)
                name = query.question[0].name
                answer = dns.message.make_response(query)
                if text := self.records.get(name.to_text(omit_final_dot=True)):
                    answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", f'"{text}"'))
                else:
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                self.socket.sendto(answer.to_wire(), sender)


@pytest.fixture
def names() -> Iterator[Names]:
    server = Names()
    before = dns.asyncresolver.default_resolver
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
    dns.asyncresolver.default_resolver = resolver  # type: ignore[assignment]
    yield server
    dns.asyncresolver.default_resolver = before
    server.socket.close()


def test_handles_are_resolved_and_those_that_lead_nowhere_are_reported_after_some_tries(
    inbox: Inbox, network: Running, names: Names
) -> None:
    inbox.settings = inbox.settings.model_copy(update={"plc_url": network.plc_url, "retry_delay": 0.2})
    alice = network.network.add_account({POST: 1}, handle="alice.sample.test")
    late = network.network.add_account({POST: 1}, handle="late.sample.test")
    names.records["_atproto.alice.sample.test"] = f"did={alice}"
    inbox.drop(f"alice.sample.test\n{A}\nnobody.sample.test\nlate.sample.test\n")
    look = inbox.look()
    assert "2 handles wait" in look.summary
    assert sorted(inbox.partitions) == sorted([alice, A])
    names.records["_atproto.late.sample.test"] = f"did={late}"  # the network is back
    while not (look := inbox.look()).events:
        time.sleep(0.1)
    (event,) = look.events
    assert sorted(inbox.partitions) == sorted([alice, late, A])
    assert event.metadata["accounts"].value == 4
    assert event.metadata["new_imports"].value == 6
    report = (inbox.folder / "dids.txt.errors").read_text().splitlines()
    assert report[1].startswith("3: ")
    assert "nobody.sample.test" in report[1]


def test_a_list_with_many_handles_is_read_on_while_they_are_resolved(
    inbox: Inbox, network: Running, names: Names
) -> None:
    inbox.settings = inbox.settings.model_copy(update={"plc_url": network.plc_url, "retry_delay": 0.1})
    dids = []
    for number in range(MAX_WAITING_HANDLES + 20):
        handle = f"a{number}.sample.test"
        dids.append(network.network.add_account({POST: 1}, handle=handle))
        names.records[f"_atproto.{handle}"] = f"did={dids[-1]}"
    inbox.drop("".join(f"a{number}.sample.test\n" for number in range(len(dids))))
    while not (look := inbox.look()).events:
        time.sleep(0.1)
    assert look.events[0].metadata["invalid_lines"].value == 0
    assert sorted(inbox.partitions) == sorted(dids)
