"""The signed repositories of the accounts under way: fetched once per account, verified, then read pair by pair.

Nothing of an archive is handed on before all of it is verified: every block, the signature, the whole tree.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, TypeVar, cast

from parity_dagster.atproto.archive import Proof, RepositoryArchive, SigningKey, signing_key
from parity_dagster.atproto.pages import FailedEntry, Record
from parity_dagster.atproto.repo import MAX_CLOCK_SKEW, THREADED_BYTES, RepoClient
from parity_dagster.errors import (
    ArchiveTooBig,
    ArchiveTruncated,
    ArchiveUnavailable,
    ArchiveWrong,
    ParityError,
    RepoNotFound,
    SignatureWrong,
)
from parity_dagster.identifiers import tid_time
from parity_dagster.importing.accounts import Account
from parity_dagster.importing.pair_task import stand_in
from parity_dagster.store.live import Newest
from parity_dagster.threads import DaemonThreads

PAGE_RECORDS = 500
"""Records of an archive that go through the pipeline at once, as one page."""
PAGE_BYTES = 2**19
"""Bytes of values after which such a page is closed."""
PAGE_SECONDS = 0.05
"""Seconds of work after which it is, too: what is odd takes a thousand times as long to read, and holds up others."""
MOST_SECONDS = 600.0
"""Seconds of work that one collection's records may take: five million do not take a quarter of it."""
LONG_BLOCK = 2**14
"""Bytes of a block that may take too long for the event loop."""
SMALL_BYTES = 2**20
"""Bytes of an archive that stays in memory: making and removing a file takes longer than reading most accounts."""
MOST_IDLE = 64
"""Archives kept open although nobody is reading them, for pairs of their accounts that come later."""
IDLE_BYTES = 2**28
"""Bytes that they may have; what is known of them in memory is about a third of it."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ArchivePage:
    """Some records of one collection, in the form of a page of listRecords."""

    rows: list[Record]
    failed: list[FailedEntry]
    body: bytes
    seconds: float
    """Of work."""


@dataclass(slots=True)
class Archive:
    """One account's repository, verified."""

    did: str
    pds: str
    proof: Proof
    asked_at: float
    """Monotonic time of the request: what was known before must be in it."""
    repository: RepositoryArchive
    file: BinaryIO
    """Where it lies; closed already if that is in memory."""
    threads: DaemonThreads | None
    """Who reads it, if that takes too long for the event loop."""
    asked_rev: str
    """What stood in for a revision then."""
    readers: int = 0

    def is_behind(self, newest: Newest) -> bool:
        """Whether more is known of a pair than an archive has to hold that was asked for before."""
        told, known = newest
        return (told is not None and told > self.proof.rev) or (
            known is not None and known > self.proof.rev and known >= self.asked_rev
        )

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.repository.size

    async def pages(self, collection: str) -> AsyncGenerator[ArchivePage]:
        """All records of a collection, least record key first; one page at least, as a list has.

        Raises:
            ArchiveTooBig, ArchiveTruncated: see `read`.
        """
        self.readers += 1
        try:
            pages = self.read(collection)
            while (page := await _in(self.threads, lambda: next(pages, None))) is not None:
                yield page
                await asyncio.sleep(0)  # nobody else gets a turn if neither a thread nor a writer is waited for
        finally:
            self.readers -= 1

    def read(self, collection: str) -> Iterator[ArchivePage]:
        """The same for who has no event loop to hold up.

        Raises:
            ArchiveTooBig: reading them takes too long.
            ArchiveTruncated: the disk does not give them back.
        """
        seconds = 0.0
        pages = read_pages(self.repository, self.did, collection)
        while True:
            try:
                page = next(pages, None)
            except OSError as exc:
                raise ArchiveTruncated(f"the repository of {self.did} cannot be read back: {exc}; see TMPDIR") from exc
            if page is None:
                return
            yield page
            seconds += page.seconds
            if seconds > MOST_SECONDS:
                raise ArchiveTooBig(
                    f"reading {collection} in the repository of {self.did} takes more than {MOST_SECONDS:.0f} s;"
                    " try --source list"
                )


@dataclass(slots=True)
class _Account:
    """What is known of an account's archive on one host."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    archive: Archive | None = None
    failure: ParityError | None = None


class Archives:
    """The archives of one importer, or of who compares with them.

    Args:
        relocate: reads an account's document afresh; None if the account still lives there.
        max_bytes: largest archive that is spooled to disk.
    """

    def __init__(
        self, repo: RepoClient, relocate: Callable[[Account], Awaitable[Account | None]], *, max_bytes: int
    ) -> None:
        self._repo = repo
        self._relocate = relocate
        self._max_bytes = max_bytes
        self._threads = DaemonThreads(2, "parity-archive")
        self._known: dict[tuple[str, str], _Account] = {}

    async def open(self, account: Account, newest: Newest, known_at: float, keep: AsyncExitStack) -> Archive:
        """The account's verified archive, which the pairs of an account share, as they share a failure to get it.

        Args:
            newest: what is known of a pair.
            known_at: monotonic time after that was known; an archive asked for before need not hold it.
            keep: closed when the pair has been read, which makes room for another account's archive if this one was
                fetched for it.

        Raises:
            ArchiveUnavailable: there is none to be had from this host, and the account can be read by pages.
            ParityError: any other reason why it cannot be read.
        """
        known = self._known.setdefault((account.did, account.pds), _Account())
        async with known.lock:
            if known.failure is not None:
                raise known.failure
            archive = known.archive
            if archive is None or (archive.asked_at < known_at and archive.is_behind(newest)):
                self._close_idle()
                try:
                    known.archive = await self._fetch(account, keep)
                except ParityError as exc:
                    known.failure = exc
                    raise
                if archive is not None and not archive.readers:
                    archive.file.close()
                archive = known.archive
            return archive

    def forget(self, did: str) -> None:
        """Close the archives of an account that is done."""
        for key in [key for key in self._known if key[0] == did]:
            archive = self._known.pop(key).archive
            if archive is not None:
                archive.file.close()

    def close(self) -> None:
        """Close all that are left, as when an import is interrupted."""
        for did in {did for did, _ in self._known}:
            self.forget(did)

    def _close_idle(self) -> None:
        idle = [known for known in self._known.values() if known.archive is not None and not known.archive.readers]
        size, count = sum(known.archive.size for known in idle if known.archive), len(idle)
        for known in idle:
            if size <= IDLE_BYTES and count <= MOST_IDLE:
                return
            assert known.archive is not None
            size, count = size - known.archive.size, count - 1
            known.archive.file.close()
            known.archive = None

    async def _fetch(self, account: Account, keep: AsyncExitStack) -> Archive:
        asked_at, asked_rev = time.monotonic(), stand_in()
        file = cast("BinaryIO", tempfile.SpooledTemporaryFile(SMALL_BYTES, prefix="parity-repo-"))  # noqa: SIM115 - closed when its account is done
        try:
            try:
                await self._repo.fetch_archive(account.pds, account.did, file, max_bytes=self._max_bytes, keep=keep)
                size = file.tell()
                threads = self._threads if size > THREADED_BYTES else None
                source: BinaryIO | bytes = file
                if size <= SMALL_BYTES:
                    file.seek(0)
                    source = file.read()
                    file.close()
                repository = await _in(threads, lambda: RepositoryArchive(source, max_bytes=self._max_bytes))
                if repository.longest > LONG_BLOCK:
                    threads = self._threads
                proof = await self._verify(repository, account, threads)
            except ArchiveTooBig as exc:
                raise ArchiveUnavailable(f"{account.pds}: {exc}") from exc
            except OSError as exc:
                raise ArchiveUnavailable(f"the repository of {account.did} cannot be kept: {exc}; see TMPDIR") from exc
            if tid_time(proof.rev) > datetime.now(UTC) + MAX_CLOCK_SKEW:
                raise ArchiveWrong(f"the repository of {account.did} has a revision of the future: {proof.rev}")
        except BaseException:
            file.close()
            raise
        return Archive(account.did, account.pds, proof, asked_at, repository, file, threads, asked_rev)

    async def _verify(self, repository: RepositoryArchive, account: Account, threads: DaemonThreads | None) -> Proof:
        key = signing_key(account.document, account.did)
        try:
            return await _verify_with(repository, account, key, threads)
        except SignatureWrong:
            # The key may have been changed between the look at the document and the commit.
            if await self._relocate(account) is not None:
                raise RepoNotFound(f"{account.did} has left {account.pds} while its repository was read") from None
            changed = signing_key(account.document, account.did)
            if changed == key:
                raise
            return await _verify_with(repository, account, changed, threads)


async def _verify_with(
    repository: RepositoryArchive, account: Account, key: SigningKey, threads: DaemonThreads | None
) -> Proof:
    return await _in(threads, lambda: repository.verify(did=account.did, key=key))


async def _in(threads: DaemonThreads | None, call: Callable[[], Result]) -> Result:
    if threads is None:
        return call()
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def read_pages(repository: RepositoryArchive, did: str, collection: str) -> Iterator[ArchivePage]:
    """Read a collection page by page; each page is made by one thread, whichever it is."""
    rows: list[Record] = []
    failed: list[FailedEntry] = []
    entries: list[bytes] = []
    head = f'{{"uri":"at://{did}/{collection}/'.encode()
    count = size = 0
    begun = time.thread_time()

    def page() -> ArchivePage:
        return ArchivePage(rows, failed, b'{"records":[%b]}' % b",".join(entries), time.thread_time() - begun)

    for record in repository.records(collection):
        if isinstance(record, FailedEntry):
            failed.append(record)
            entry = record.body
        else:
            rows.append(record)
            rkey, cid, value = record
            entry = b'%b%b","cid":"%b","value":%b}' % (head, rkey.encode(), (cid or "").encode(), value)
        entries.append(entry)
        size += len(entry)
        if len(entries) >= PAGE_RECORDS or size >= PAGE_BYTES or time.thread_time() - begun >= PAGE_SECONDS:
            yield page()
            begun = time.thread_time()
            count += 1
            rows, failed, entries, size = [], [], [], 0
    if entries or not count:
        yield page()
