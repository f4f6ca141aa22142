"""Reading lists: from their lines to accounts that are registered and queued, and to what was found on the way.

A list is read as a stream: memory does not grow with it. Everything done here may be done again, so a reading that was
killed is made good by reading the list once more from its start, which adds nothing twice.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from parity_dagster.errors import HandleNotFound, ParityError, TransientError
from parity_dagster.importing.retry_policy import next_try
from parity_dagster.inbox.did_list import read_did_list
from parity_dagster.inbox.files import (
    MAX_REPORTED,
    FileChanged,
    Found,
    NotAList,
    Signature,
    digest_of,
    find_lists,
    has_changed,
    opened,
    printable,
    report_name,
    write_report,
)
from parity_dagster.settings import Settings
from parity_dagster.threads import DaemonThreads

CHUNK = 1000
"""Accounts registered and queued at once."""

MAX_WAITING_HANDLES = 10_000
"""Handles that wait for another try, at most; lists are not read on while there are more."""

LONGEST_PAUSE = 3600.0
"""Seconds until a handle is tried again, whatever a server asks for."""

_HANDLES_AT_ONCE = 16
_HANDLES_PER_ROUND = 256
_LINES_PER_LOOK = 10_000
_SECONDS_BETWEEN_NOTES = 10.0


class Destination(NamedTuple):
    """Where the accounts of a list go."""

    register: Callable[[Sequence[str]], tuple[int, int]]
    """Makes DIDs known; says how many are new, and how many are not known because there are too many."""
    queue: Callable[[Sequence[str]], int]
    """Queues the imports of DIDs; says how many imports nobody had asked for before."""
    resolve: Callable[[str], str]
    """The DID behind a handle; raises a `ParityError`. Called from several threads."""


@dataclass(eq=False)
class ReadList:
    """What became of one list."""

    found: Found
    digest: str = ""
    """SHA-256 of what was read."""
    lines: int = 0
    accounts: int = 0
    """Lines that name an account."""
    new_accounts: int = 0
    beyond: int = 0
    """Accounts that are no partitions, because there are as many as there may be."""
    new_imports: int = 0
    invalid: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Number and problem of the invalid lines, the first `MAX_REPORTED` of them."""
    problem: str = ""
    """Why it was refused, or what else the operator should know."""
    is_refused: bool = False
    handles: int = 0
    """Handles that nobody could resolve yet."""
    has_changed: bool = False
    """Whether the file was found to be another one while it was read."""

    def reject(self, line: int, problem: str) -> None:
        """Note a line that names no account."""
        self.invalid += 1
        if len(self.problems) < MAX_REPORTED:
            self.problems.append((line, problem))


class _Handle(NamedTuple):
    due: float
    number: int  # in the order of the lists, so that no two are equal
    of: ReadList
    line: int
    name: str
    attempts: int = 0


class ListReader:
    """Reads lists of one folder.

    Args:
        note: called now and then with a sentence about how far the reading is.
        most_waiting: handles that wait for another try, at most.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        settings: Settings,
        note: Callable[[str], None],
        *,
        most_waiting: int = MAX_WAITING_HANDLES,
    ) -> None:
        self._folder = folder
        self._destination = destination
        self._settings = settings
        self._note = note
        self._most_waiting = most_waiting
        self._open: list[ReadList] = []  # read to the end, but for handles
        self._handles: list[_Handle] = []  # a heap
        self._numbers = count()
        self._noted = time.monotonic()
        self._pool = DaemonThreads(_HANDLES_AT_ONCE, "inbox-handles")

    def read(self, wanted: Mapping[str, str]) -> Iterator[ReadList]:
        """Read some lists, the small ones first; those with handles that do not answer end last.

        Args:
            wanted: digest by name; empty for whatever the list holds now.

        Yields:
            Each list at its end. One that is another file by now, or becomes one meanwhile, is left alone.
        """
        found = {entry.name: entry for entry in find_lists(self._folder)}
        gone = [Found(name, _NO_FILE, "it is not in the inbox any more") for name in wanted if name not in found]
        there = sorted((found[name] for name in wanted if name in found), key=lambda entry: entry.signature.size)
        try:
            for entry in gone + there:
                if entry.problem:
                    yield ReadList(entry, problem=entry.problem, is_refused=True)
                    continue
                try:
                    self._read_list(entry, wanted[entry.name])
                except FileChanged:
                    self._leave(entry)
                except NotAList as exc:
                    yield ReadList(entry, problem=str(exc), is_refused=True)
                except OSError as exc:
                    yield ReadList(entry, problem=f"it cannot be read: {exc.strerror}", is_refused=True)
                yield from self._ended()
            while self._open:
                self._resolve_some()
                yield from self._ended()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _read_list(self, entry: Found, wanted: str) -> None:
        with opened(self._folder, entry) as stream:
            read = ReadList(entry, digest_of(stream))
            if wanted and read.digest != wanted:
                raise FileChanged
            dids: dict[str, None] = {}
            lines = read_did_list(stream, allow_private=self._settings.allow_private_hosts)
            for turn, line in enumerate(lines, 1):
                read.lines = line.end.line
                if line.problem is not None:
                    read.reject(line.number, line.problem)
                elif line.account is not None:
                    read.accounts += 1
                    if line.account.startswith("did:"):
                        dids[line.account] = None
                    else:
                        self._wait(_Handle(0.0, next(self._numbers), read, line.number, line.account))
                if len(dids) >= CHUNK or turn % _LINES_PER_LOOK == 0:
                    self._add(read, dids)
                    dids = {}
                    self._tell(read, f"{line.end.offset / entry.signature.size:.0%} read")
                while len(self._handles) >= self._most_waiting:
                    self._resolve_some()
            self._add(read, dids)
        self._open.append(read)

    def _add(self, read: ReadList, dids: Iterable[str]) -> None:
        if self._has_changed(read):
            raise FileChanged
        if wanted := list(dids):
            new, beyond = self._destination.register(wanted)
            read.new_accounts += new
            read.beyond += beyond
            read.new_imports += self._destination.queue(wanted)

    def _has_changed(self, read: ReadList) -> bool:
        read.has_changed = read.has_changed or has_changed(self._folder, read.found)
        return read.has_changed

    def _ended(self) -> Iterator[ReadList]:
        for read in self._open[:]:
            if self._has_changed(read):
                self._leave(read.found)
            elif not read.handles:
                self._open.remove(read)
                read.problems.sort()
                try:
                    write_report(self._folder, read.found.name, read.invalid, read.problems)
                except OSError as exc:
                    read.problem = f"{printable(report_name(read.found.name))} could not be written: {exc.strerror}"
                yield read

    def _leave(self, entry: Found) -> None:
        self._open = [read for read in self._open if read.found is not entry]
        self._handles = [handle for handle in self._handles if handle.of.found is not entry]
        heapq.heapify(self._handles)
        self._note(f"{printable(entry.name)} has changed; it is read anew when it has been quiet.")

    # Handles.

    def _wait(self, handle: _Handle) -> None:
        heapq.heappush(self._handles, handle)
        handle.of.handles += 1

    def _resolve_some(self) -> None:
        """Ask for the handles that are due; if none is, wait a moment."""
        now = time.monotonic()
        due: list[_Handle] = []
        while self._handles and self._handles[0].due <= now and len(due) < _HANDLES_PER_ROUND:
            due.append(heapq.heappop(self._handles))
        if not due and self._handles:
            time.sleep(min(self._handles[0].due - now, 1.0))
        found: dict[ReadList, list[str]] = {}
        for handle, answer in zip(due, self._pool.map(self._ask, due), strict=True):
            read = handle.of
            read.handles -= 1
            if isinstance(answer, str):
                found.setdefault(read, []).append(answer)
                continue
            pause, attempts = next_try(answer, handle.attempts, self._settings)
            # a server that always asks for later does not hold up the list for ever
            attempts = max(attempts, handle.attempts + 1)
            if pause is None or attempts >= self._settings.retry_attempts:
                read.reject(handle.line, str(answer))
            else:
                due_at = time.monotonic() + min(pause, LONGEST_PAUSE)
                self._wait(handle._replace(due=due_at, attempts=attempts))
        for read, dids in found.items():
            with suppress(FileChanged):  # noted; whoever goes on with this list sees it
                self._add(read, dids)
        if due:
            self._tell(due[0].of, f"{len(self._handles):,} handles wait for an answer")

    def _ask(self, handle: _Handle) -> str | ParityError:
        try:
            return self._destination.resolve(handle.name)
        except HandleNotFound as exc:
            # without a network, nobody can tell whether a handle exists
            return TransientError(str(exc))
        except ParityError as exc:
            return exc

    def _tell(self, read: ReadList, how_far: str) -> None:
        if time.monotonic() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self._noted = time.monotonic()
            self._note(f"{printable(read.found.name)}: {read.accounts:,} accounts, {how_far}.")


_NO_FILE = Signature(0, 0, 0, 0)
