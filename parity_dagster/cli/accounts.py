"""The accounts a command is about: from arguments, from a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, BinaryIO

import click

from parity_dagster.cli.output import plural
from parity_dagster.errors import ParityError
from parity_dagster.identifiers import parse_account, parse_nsid
from parity_dagster.inbox.did_list import read_did_list
from parity_dagster.models import ALL_COLLECTIONS, ImportResult
from parity_dagster.text import escaped
from parity_dagster.threads import DaemonThreads

if TYPE_CHECKING:
    import psycopg

    from parity_dagster.settings import Settings

_MOST_NAMED = 5
"""Accounts named that claim the same handle."""
_MOST_REPORTED = 100
"""Invalid lines printed; of a file that is no list at all, more would only bury what matters."""
_MOST_WAITING = 1000
"""Accounts read ahead, and handles under way: a list is not held in memory."""
_HANDLES_AT_ONCE = 8


def checked_accounts(names: Iterable[str], settings: Settings) -> list[str]:
    """Check DIDs and handles from the command line; the distinct ones in their order, handles in lower case."""
    return list(dict.fromkeys(parse_account(name, allow_private=settings.allow_private_hosts) for name in names))


def checked_collections(names: Iterable[str]) -> list[str]:
    """Check collection names; the distinct, normalised NSIDs in their order, whether they are registered or not."""
    return list(dict.fromkeys(parse_nsid(name) for name in names))


def known_did(connection: psycopg.Connection, name: str, settings: Settings) -> str:
    """Turn a DID or the handle of an account that was imported before into the DID, without the network.

    Raises:
        InvalidIdentifier: it is neither a DID nor a handle.
        click.UsageError: no import has met the handle, or several accounts claim it.
    """
    from parity_dagster.store.listing import find_claimants

    account = parse_account(name, allow_private=settings.allow_private_hosts)
    if account.startswith("did:"):
        return account
    dids = find_claimants(connection, account, _MOST_NAMED + 1)
    if not dids:
        raise click.UsageError(f"No account with the handle {account} was imported yet; give its DID.")
    if len(dids) > 1:
        # any account may claim any handle, and to ask the network which one has it is not for a look into a table
        named = ", ".join(dids[:_MOST_NAMED]) + (" and more" if len(dids) > _MOST_NAMED else "")
        raise click.UsageError(
            f"Several accounts claim the handle {account}: {named}; give the DID of the one you mean."
        )
    return dids[0]


account_file = click.option(
    "--file",
    "path",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="Read accounts from a file, one per line; - reads standard input.",
)
"""The option for an `AccountFile`."""


class AccountFile:
    """The accounts in a `--file` (`-`: standard input), read as they are asked for; invalid lines go to stderr."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.path = path
        self.invalid = 0
        self._allow_private = settings.allow_private_hosts

    def accounts(self) -> Iterator[str]:
        """Read the file: the distinct accounts in its order; the first one has been read already.

        `click.UsageError` if it cannot be read, or no line of it names an account.
        """
        accounts = self._read()
        first = next(accounts, None)
        if first is None:
            invalid = f" ({plural(self.invalid, 'invalid line')})" if self.invalid else ""
            raise click.UsageError(f"{self._name()} names no account{invalid}; write one DID or handle per line")
        return chain([first], accounts)

    def _read(self) -> Iterator[str]:
        try:
            if self.path == "-":
                if sys.stdin is None:
                    raise click.UsageError("Standard input is closed; give --file a path, or pipe a list in")
                # Not through its buffer: whoever waits in there holds a lock that the end of the process needs.
                yield from self._lines(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
            else:
                with Path(self.path).open("rb", buffering=0) as stream:
                    yield from self._lines(stream)
        except OSError as exc:
            raise click.UsageError(f"{self._name()} cannot be read: {exc.strerror}") from None

    def _lines(self, stream: BinaryIO) -> Iterator[str]:
        seen: set[str] = set()
        for line in read_did_list(stream, allow_private=self._allow_private):
            if line.problem is not None:
                self.invalid += 1
                if self.invalid <= _MOST_REPORTED:
                    click.echo(f"{self._name()}:{line.number}: {line.problem}", err=True)
                elif self.invalid == _MOST_REPORTED + 1:
                    click.echo(f"{self._name()}: further invalid lines are skipped without a word", err=True)
            elif line.account is not None and line.account not in seen:
                seen.add(line.account)
                yield line.account

    def _name(self) -> str:
        return "<stdin>" if self.path == "-" else escaped(self.path)


class ResolvedAccounts:
    """The DIDs of accounts, each as soon as it is known; handles are looked up beside.

    Args:
        accounts: DIDs and handles. Read on a thread that nobody waits for, because it may be a pipe that stays open.
        resolve: the DID behind a handle; raises a `ParityError`. Called from several threads.
    """

    def __init__(self, accounts: Iterable[str], resolve: Callable[[str], str]) -> None:
        self.lost: list[ImportResult] = []
        """A failed result for each handle that leads nowhere."""
        self._accounts = accounts
        self._resolve = resolve
        self._found: Queue[str | None] = Queue(_MOST_WAITING)
        self._may_look_up = threading.BoundedSemaphore(_MOST_WAITING)
        self._threads = DaemonThreads(_HANDLES_AT_ONCE, "parity-handles")
        self._lock = threading.Lock()
        self._sources = 1
        self._error: BaseException | None = None
        self._has_ended = False
        threading.Thread(target=self._read, name="parity-accounts", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        while batch := self.take(1, 0):
            yield from batch

    def take(self, limit: int, seconds: float) -> list[str]:
        """Wait for a DID, and up to `seconds` longer for more.

        Returns:
            At least one; nothing at the end. What reading the accounts raises is raised here, at the end.
        """
        taken: list[str] = []
        deadline = 0.0
        while not self._has_ended and len(taken) < limit:
            try:
                did = self._found.get(timeout=max(0.0, deadline - time.monotonic()) if taken else None)
            except Empty:
                break
            if did is None:
                self._has_ended = True
            else:
                taken.append(did)
                deadline = deadline or time.monotonic() + seconds
        if not taken and self._error is not None:
            raise self._error
        return taken

    def _read(self) -> None:
        try:
            for account in self._accounts:
                if account.startswith("did:"):
                    self._found.put(account)
                else:
                    self._may_look_up.acquire()
                    with self._lock:
                        self._sources += 1
                    self._threads.submit(self._look_up, account)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it belongs to who takes
            self._error = exc
        self._end_source()

    def _look_up(self, handle: str) -> None:
        try:
            self._found.put(self._resolve(handle))
        except ParityError as exc:
            self.lost.append(ImportResult(handle, ALL_COLLECTIONS, error=str(exc), error_code=exc.code))
        finally:
            self._may_look_up.release()
            self._end_source()

    def _end_source(self) -> None:
        with self._lock:
            self._sources -= 1
            is_last = not self._sources
        if is_last:
            self._found.put(None)
