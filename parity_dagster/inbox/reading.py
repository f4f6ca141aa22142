"""Reading one list of the inbox, as far as the time allows.

What lives here: from a list's lines to partitions and pending rows, and to a report of those that name no account.
What must not: which list is read when, or what the UI shows of it (`inbox`).

Everything done here may be done again: a tick that is killed leaves the cursor where it was, and the next one
reads the same lines once more, which adds nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import BinaryIO

import dagster as dg
import psycopg

from parity_dagster.errors import HandleNotFound, ParityError, TransientError
from parity_dagster.inbox.did_list import read_did_list
from parity_dagster.inbox.files import (
    Found,
    drop_report,
    ends_a_line,
    opened,
    printable,
    report_name,
    write_report,
)
from parity_dagster.inbox.progress import MAX_SAMPLES, ListProgress, Stage, WaitingHandle
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import REGISTER_CHUNK, register_dids
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.queue import add_pending

MAX_REPORTED = 10_000
"""Invalid lines that the report beside a file lists."""

MAX_WAITING_HANDLES = 200
"""Handles kept for a later look; a list is not read on while so many could not be resolved."""

UNFINISHED_QUIET = 10.0
"""Seconds for which a file that ends in the middle of a line must not change before it is read."""

_HANDLES_AT_ONCE = 16
_HANDLE_TIMEOUT = 5.0  # seconds per request
_LINES_PER_LOOK_AT_THE_CLOCK = 2000
_HASH_BLOCK = 1 << 20


class ListReader:
    """Reads lists on behalf of one tick.

    Args:
        instance: where accounts become partitions.
        connection: an autocommit connection to our tables.
        settings: of this tick.
        deadline: monotonic time after which nothing new is begun.
    """

    def __init__(
        self, instance: dg.DagsterInstance, connection: psycopg.Connection, settings: Settings, deadline: float
    ) -> None:
        self._instance = instance
        self._connection = connection
        self._settings = settings
        self._folder = settings.inbox
        self._deadline = deadline
        self._report: list[str] = []

    @property
    def is_out_of_time(self) -> bool:
        """Whether the rest has to wait for the next tick."""
        return time.monotonic() >= self._deadline

    def read(self, found: Found, progress: ListProgress) -> ListProgress:
        """Read a list from where the last look ended.

        Args:
            found: the list.
            progress: how far it was read.

        Returns:
            How far it is read now; its stage tells whether it is done.

        Raises:
            FileChanged: it is another file by now.
            OSError: it cannot be read.
            DatabaseError: Postgres failed; nothing is lost.
        """
        self._report = []
        with opened(self._folder, found) as stream:
            if progress.stage is Stage.WAITING:
                progress = self._begin(stream, progress)
                if progress.stage is not Stage.READING:
                    return progress
            self._settle_handles(progress)
            if len(progress.handles) < MAX_WAITING_HANDLES:
                is_read = self._read_lines(stream, progress)
                self._settle_handles(progress)
                if is_read and not progress.handles:
                    progress.stage, progress.ended = Stage.DONE, time.time()
        self._write_report(found, progress)
        return progress

    def _begin(self, stream: BinaryIO, progress: ListProgress) -> ListProgress:
        age = time.time() - progress.signature.mtime_ns / 1e9
        seen_for = time.time() - progress.first_seen
        if not ends_a_line(stream) and max(age, seen_for) < UNFINISHED_QUIET:
            return progress
        stream.seek(0)
        start = stream.read(8192)
        if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return replace(progress, stage=Stage.REFUSED, problem="it is a binary file, not a list of accounts")
        digest = hashlib.sha256(start)
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
        if progress.digest == digest.hexdigest():
            return replace(progress, stage=Stage.DONE)
        return progress.restarted(digest.hexdigest())

    def _read_lines(self, stream: BinaryIO, progress: ListProgress) -> bool:
        """Read on until the end (True), the deadline, or too many waiting handles (False)."""
        stream.seek(progress.position.offset)
        dids: dict[str, None] = {}
        lines = read_did_list(stream, progress.position, allow_private=self._settings.allow_private_hosts)
        for count, line in enumerate(lines, 1):
            progress.position = line.end
            if line.problem is not None:
                self._reject(progress, line.number, line.problem)
            elif line.account is not None:
                progress.accounts += 1
                if line.account.startswith("did:"):
                    dids[line.account] = None
                else:
                    progress.handles.append(WaitingHandle(line.number, line.account, 0, 0.0))
            if len(dids) >= REGISTER_CHUNK:
                self._add(progress, dids)
                dids = {}
            if len(progress.handles) >= MAX_WAITING_HANDLES:
                self._settle_handles(progress)
                if len(progress.handles) >= MAX_WAITING_HANDLES:
                    break
            if count % _LINES_PER_LOOK_AT_THE_CLOCK == 0 and self.is_out_of_time:
                break
        else:
            self._add(progress, dids)
            return True
        self._add(progress, dids)
        return False

    def _add(self, progress: ListProgress, dids: Iterable[str]) -> None:
        wanted = list(dids)
        if not wanted:
            return
        progress.new_accounts += len(register_dids(self._instance, wanted))
        pairs = (Pair(did, nsid) for did in wanted for nsid in self._settings.collections)
        progress.new_imports += add_pending(self._connection, self._settings.state_table, pairs)

    def _reject(self, progress: ListProgress, line: int, problem: str) -> None:
        progress.invalid += 1
        if len(progress.samples) < MAX_SAMPLES:
            progress.samples.append((line, problem))
        if progress.invalid <= MAX_REPORTED:
            self._report.append(f"{line}: {problem}")

    # Handles.

    def _settle_handles(self, progress: ListProgress) -> None:
        due = [handle for handle in progress.handles if handle.due <= time.time()]
        if not due or self.is_out_of_time:
            return
        waiting = [handle for handle in progress.handles if handle.due > time.time()]
        dids: dict[str, None] = {}
        for handle, answer in zip(due, self._resolve(due), strict=True):
            if isinstance(answer, str):
                dids[answer] = None
            elif answer is None:  # no time was left for it
                waiting.append(handle)
            elif _may_pass(answer) and handle.attempts + 1 < self._settings.retry_attempts:
                pause = self._settings.retry_delay * 2**handle.attempts
                waiting.append(WaitingHandle(handle.line, handle.handle, handle.attempts + 1, time.time() + pause))
            else:
                self._reject(progress, handle.line, str(answer))
        progress.handles = sorted(waiting)
        self._add(progress, dids)

    def _resolve(self, handles: list[WaitingHandle]) -> list[str | ParityError | None]:
        """DIDs, errors, or None where time ran out."""
        hurried = self._settings.model_copy(update={"request_timeout": _HANDLE_TIMEOUT})
        with ImportService(hurried, report=False) as service:
            pool = ThreadPoolExecutor(_HANDLES_AT_ONCE, thread_name_prefix="inbox-handles")
            try:
                asked = [pool.submit(service.resolve, handle.handle) for handle in handles]
                wait(asked, timeout=max(_HANDLE_TIMEOUT, self._deadline - time.monotonic()))
                answers: list[str | ParityError | None] = []
                for future in asked:
                    if future.cancel():
                        answers.append(None)
                        continue
                    try:
                        answers.append(future.result(timeout=0))
                    except TimeoutError:
                        answers.append(TransientError("nobody answered in time"))
                    except ParityError as exc:
                        answers.append(exc)
                return answers
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    # The report beside the file.

    def _write_report(self, found: Found, progress: ListProgress) -> None:
        lines = self._report
        is_new = not progress.report_bytes
        if is_new and lines:
            lines = [f"# These lines of {printable(found.name)} name no account and were passed over.", *lines]
        if progress.stage is Stage.DONE and progress.invalid > MAX_REPORTED:
            lines = [*lines, f"# … and {progress.invalid - MAX_REPORTED:,} more"]
        try:
            if lines:
                progress.report_bytes = write_report(self._folder, found.name, lines, progress.report_bytes)
            elif is_new and progress.stage is Stage.DONE and progress.has_old_report:
                drop_report(self._folder, found.name)
                progress.has_old_report = False
        except OSError as exc:
            progress.problem = f"{printable(report_name(found.name))} could not be written: {exc.strerror}"


def _may_pass(error: ParityError) -> bool:
    # without a network, nobody can tell whether a handle exists
    return error.retryable or isinstance(error, HandleNotFound)
