"""The walk over one (did, collection): page after page until the list says that it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from parity_dagster.atproto.pages import Page
from parity_dagster.atproto.repo import MAX_CLOCK_SKEW, RepoClient, account_error
from parity_dagster.atproto.xrpc import XrpcError
from parity_dagster.errors import (
    AccountUnavailable,
    ArchiveOutdated,
    ArchiveUnavailable,
    ArchiveWrong,
    CursorLoop,
    HostPaused,
    HostUnreachable,
    Interrupted,
    MalformedAnswer,
    ParityError,
    RepoNotFound,
    RequestRefused,
    ServerFailure,
    TooManyPages,
    TransientError,
)
from parity_dagster.importing.accounts import Account, Accounts
from parity_dagster.importing.host_sharing import Enter
from parity_dagster.importing.pair_task import FetchedPage, PairTask, tid_of
from parity_dagster.importing.stragglers import GOES_ON, Stragglers
from parity_dagster.models import Pair
from parity_dagster.settings import Settings
from parity_dagster.store.copy_text import Row
from parity_dagster.store.live import STAND_IN_END, Newest, is_seen_at, newest_rev
from parity_dagster.store.sessions import Database
from parity_dagster.store.walk_pages import Walk, count_keys, find_last_page

if TYPE_CHECKING:
    from parity_dagster.importing.archives import Archive, Archives

logger = logging.getLogger(__name__)

SMALLEST_LIMIT = 2
"""Records asked for when a page fails; 1 would never end on a host whose cursor is inclusive."""
IDLE_PAGES = 50
"""Pages in a row that may bring nothing new, as long as their cursors differ."""
FIRST_LOOP_CHECK = 64
"""Page at which the walk is first searched for records that come again and again; then at every doubling."""
LARGE_PAGES = 2
"""Pages beyond the usual size that may be on their way at once, from the request to the queue of a writer."""
VOUCHED_SECONDS = 60.0
"""How old a host's word on an account may be at the end of a pair's first walk."""
MOVES = 2
"""How often one walk follows an account to another host."""


class _CursorRefused(Exception):
    def __init__(self, refusal: XrpcError) -> None:
        self.refusal = refusal


class Walker:
    """Walks pairs, one call each; holds nothing of a single walk.

    Args:
        put: takes each page; waits while too much is on its way to a commit.
        archives: signed repositories, if they are to be read wherever a host gives them.
    """

    def __init__(
        self,
        repo: RepoClient,
        accounts: Accounts,
        database: Database,
        stragglers: Stragglers,
        settings: Settings,
        put: Callable[[FetchedPage], Awaitable[None]],
        archives: Archives | None = None,
    ) -> None:
        self._repo = repo
        self._accounts = accounts
        self._database = database
        self._stragglers = stragglers
        self._settings = settings
        self._put = put
        self._archives = archives
        self._large_pages = asyncio.Semaphore(LARGE_PAGES)

    async def walk(self, task: PairTask, account: Account, enter: Enter) -> bool:
        """Read a pair to its end.

        Args:
            enter: called with each host that the account turns out to live on.

        Returns:
            False if nothing was read because the repository has not changed since the last complete walk.

        Raises:
            ParityError: why the walk could not be completed; the pages that were handed on stay.
        """
        moves, may_restart, is_read = 0, True, False
        place = task.here
        is_resumed = task.can_continue(account.pds)
        if is_resumed:
            last_keys = await self._last_page(task)
            if last_keys is None:
                is_resumed = False
            else:
                task.last_keys = last_keys
                is_read = task.here.cursor is None  # the last importer was killed between the last page and the end
        # A list goes on where it was interrupted, an archive does not.
        archives = None if self._stragglers.would_interrupt_again(task) else self._archives
        while True:
            try:
                await enter(account.pds)
                if archives is not None:
                    pds = account.pds
                    account = await self._accounts.document(account)
                    await enter(account.pds)
                    is_resumed = is_resumed and account.pds == pds
                    try:
                        return await self._walk_archive(archives, task, account)
                    except ArchiveUnavailable as exc:
                        logger.warning("%s of %s is read by pages: %s", task.collection, task.did, exc)
                    archives = None
                    is_read = is_read and is_resumed
                if not is_resumed:
                    task.forget_blank()
                    rev = await self._accounts.rev(account)
                    if self._is_unchanged(task, account, rev):
                        return False
                    known_rev = (await self._newest_rev(task)).known
                    if known_rev is not None and (rev is None or rev < known_rev) and not account.is_resolved_now:
                        # Live events told of more than this host, which the account may have left within the last day.
                        moved = await self._accounts.relocate(account)
                        if moved is not None:
                            account = moved
                            continue
                    # A walk that brought nothing is as if it never was.
                    if task.here.pages or task.here.walk == place.walk:
                        place = task.here
                    task.begin(account.pds, rev, known_rev)
                if not is_read:
                    await self._read_pages(task)
                if is_resumed and not is_read and await self._is_another_list(task):
                    is_resumed = False
                    continue
                await self._believe_end(task, account, has_begun=not is_resumed)
                if not (task.here.seen or task.claim.is_fresh):
                    task.forget_rev()
                await self._hand_on(task)
                return True
            except _CursorRefused as exc:
                if not may_restart:
                    task.return_to(place)
                    raise RequestRefused(
                        f"{account.pds} refuses to go on: {exc.refusal}; reset the pair and import it again"
                    ) from exc.refusal
                may_restart = False
            except (ArchiveWrong, ArchiveOutdated) as exc:
                # Of a host that the account may have left since the directory's log was read.
                moved = None if account.is_resolved_now else await self._moved(account, exc)
                if moved is None:
                    task.return_to(place)
                    raise
                account, moves = moved, moves + 1
            except (HostUnreachable, RepoNotFound, AccountUnavailable, RequestRefused, ServerFailure) as exc:
                moved = await self._moved(account, exc) if moves < MOVES else None
                if moved is None:
                    task.return_to(place)
                    raise
                account, moves, archives = moved, moves + 1, self._archives
            except Exception:
                task.return_to(place)
                raise
            is_resumed = is_read = False

    # I2, I7
    async def _walk_archive(self, archives: Archives, task: PairTask, account: Account) -> bool:
        """Read a pair from the account's signed repository; nothing of the pair is touched before that is verified.

        Returns:
            False if nothing was read because the repository has not changed since the last complete walk.

        Raises:
            ArchiveUnavailable: there is no archive to be had, and the pair is as it was.
        """
        state = task.claim.state
        if state.completed_at is not None and self._is_unchanged(task, account, await self._accounts.rev(account)):
            return False
        told, known = await self._newest_rev(task)
        known_at = time.monotonic()
        # Also of what is not held any more: an archive from before that would bring it back.
        marks = [mark for mark in (told, state.rev, state.fence_rev) if mark and not mark.endswith(STAND_IN_END)]
        newest = Newest(max(marks, default=None), known)
        async with AsyncExitStack() as keep:
            async with self._stragglers.asking(task):
                archive = await archives.open(account, newest, known_at, keep)
            rev = archive.proof.rev
            if newest.told is not None and newest.told > rev:
                raise ArchiveOutdated(
                    f"the repository that {account.pds} gives is of revision {rev}, and {newest.told} is known of"
                    f" {task.collection}; try again later, or with --source list"
                )
            task.forget_blank()
            task.begin_archive(account.pds, rev, max(rev, newest.known or ""), archive.proof.commit)
            await self._pass_archive(task, archive)
        return True

    async def _pass_archive(self, task: PairTask, archive: Archive) -> None:
        async with aclosing(archive.pages(task.collection)) as pages:
            async for page in pages:
                if task.done.is_set():
                    raise Interrupted("the pair was taken away from this importer")
                task.read += len(page.body)
                task.here = replace(
                    task.here,
                    pages=task.here.pages + 1,
                    seen=task.here.seen + len(page.rows) + len(page.failed),
                )
                await self._put(FetchedPage(task, task.here, page.rows, page.failed, page.body))

    # I10
    def _is_unchanged(self, task: PairTask, account: Account, rev: str | None) -> bool:
        state = task.claim.state
        return (
            not task.claim.reread
            and state.completed_at is not None
            and rev is not None
            and state.rev == rev
            and state.pds == account.pds
            and state.records_failed == 0
        )

    async def _moved(self, account: Account, error: ParityError) -> Account | None:
        if isinstance(error, HostPaused) and account.is_resolved_now:
            return None  # thousands of accounts of one dead host must not each ask the directory again
        if isinstance(error, ServerFailure) and error.status is not None:
            return None  # it only fails; one that contradicts itself may be the host that an account has left
        try:
            return await self._accounts.relocate(account)
        except TransientError:
            if isinstance(error, TransientError):
                return None
            raise  # a permanent answer is believed only after the DID was resolved afresh

    # I11
    async def _believe_end(self, task: PairTask, account: Account, *, has_begun: bool) -> None:
        """Some servers show nothing for an account they do not have, or have no longer: no list, or no next page.

        What such an end would drop or hide is at stake, so the host must have vouched for the account after the page
        that showed nothing. A pair of which nothing is held yet can only be short of what comes after that page, so
        for it an answer of the last minute will do, and is shared by the account's collections.
        """
        if not task.shows_nothing:
            return
        state = task.claim.state
        here = task.here
        if (
            here.seen == 0
            and here.rev
            and ((state.position.seen and here.rev == state.rev) or await self._was_seen_at(task, here.rev))
        ):
            raise ServerFailure(
                f"{account.pds} contradicts itself: {task.did} has the revision of an earlier import and none of the"
                " records that were seen then; they are kept. Try again later"
            )
        grace = VOUCHED_SECONDS if task.claim.is_fresh and has_begun else 0.0
        since = time.monotonic() - grace
        if await self._accounts.confirm_active(account, since, by_rev=here.seen > 0 and grace > 0):
            return
        if here.seen and await self._shows_records(task):
            return
        denial = RepoNotFound(f"{account.pds} shows nothing and cannot say whether it has {account.did}")
        if await self._accounts.relocate(account) is not None:
            raise denial  # makes the walk move
        if here.seen or not task.claim.is_fresh:
            raise ServerFailure(
                f"{denial}; records that were imported before are kept. If they are really gone, `parity reset` the"
                " pair and delete them"
            )

    async def _was_seen_at(self, task: PairTask, rev: str) -> bool:
        """Whether anything of the pair was seen at a revision, by whatever project, before or after a reset."""
        pair = Pair(task.did, task.collection)
        return not task.claim.is_fresh and await self._database.run(lambda conn: is_seen_at(conn, pair, rev))

    # I11
    async def _is_another_list(self, task: PairTask) -> bool:
        """Whether a walk that was resumed only to find its end has lost its list meanwhile: from the start it shows
        nothing either, so that its first pages are evidence of nothing any more."""
        is_mere_end = task.shows_nothing and task.here.seen == task.claim.state.position.seen
        return is_mere_end and not await self._shows_records(task)

    async def _shows_records(self, task: PairTask) -> bool:
        """Whether the host, asked from the start again, shows any record."""
        try:
            page = await self._repo.list_records(
                task.pds, task.did, task.collection, cursor=None, limit=SMALLEST_LIMIT, is_large=False
            )
        except (XrpcError, MalformedAnswer):
            return False
        return bool(page.records or page.failed)

    async def _read_pages(self, task: PairTask) -> None:
        limit = self._settings.page_size
        delay = self._settings.page_delay / 1000
        idle, next_check = 0, FIRST_LOOP_CHECK
        # Brent: compare every cursor with one remembered at the last power of two; any circle is caught.
        landmark, landmark_at = task.here.cursor, 1
        steps = 0
        while True:
            asked = task.here.cursor
            try:
                is_new = await self._pass_page(task, limit)
            except MalformedAnswer as exc:
                if limit > SMALLEST_LIMIT:
                    limit = await self._smaller(task, exc, limit)
                    continue
                async with self._large_pages:
                    is_new = await self._pass_page(task, limit, is_large=True)
            except (XrpcError, ServerFailure) as exc:
                limit = await self._smaller(task, exc, limit)
                continue
            limit = min(self._settings.page_size, limit * 2)
            cursor, pages = task.here.cursor, task.here.pages
            if cursor is None:
                return
            steps += 1
            idle = 0 if is_new else idle + 1
            if cursor in (landmark, asked) or idle > IDLE_PAGES:
                raise CursorLoop(
                    f"{task.pds} goes in circles after page {pages}: "
                    + ("its cursor came back" if idle <= IDLE_PAGES else f"{idle} pages brought nothing new")
                    + "; tell its operator, then `parity import --resume` reads the list from its start"
                )
            if steps == landmark_at:
                landmark, landmark_at = cursor, landmark_at * 2
            if pages >= self._settings.max_pages:
                raise TooManyPages(
                    f"{task.pds} shows more than {self._settings.max_pages:,} pages; if the repository is really that"
                    " large, raise PARITY_MAX_PAGES and resume"
                )
            if self._settings.max_bytes is not None and task.read >= self._settings.max_bytes:
                raise Interrupted(
                    f"{task.pds} has sent {task.read:,} bytes, as many as PARITY_MAX_BYTES lets one run read of a pair;"
                    f" {GOES_ON}",
                    has_progress=task.has_progress,
                )
            if pages >= next_check:
                next_check = pages * 2
                if await self._distinct_share(task) < 0.5:
                    raise CursorLoop(
                        f"{task.pds} shows the same records again and again ({pages} pages so far); tell its"
                        " operator, then `parity import --resume` reads the list from its start"
                    )
            if delay:
                await asyncio.sleep(delay)

    async def _pass_page(self, task: PairTask, limit: int, *, is_large: bool = False) -> bool:
        """Fetch a page and hand it on; whether it brought anything new."""
        async with self._stragglers.asking(task):
            page = await self._repo.list_records(
                task.pds, task.did, task.collection, cursor=task.here.cursor, limit=limit, is_large=is_large
            )
        return await self._send(task, page)

    async def _send(self, task: PairTask, page: Page) -> bool:
        """Hand a page on, without the records that the page before ended with; whether anything was left."""
        if task.done.is_set():
            raise Interrupted("the pair was taken away from this importer")
        keys = frozenset([record[0] for record in page.records])
        rows: list[Row] = page.records
        if not keys.isdisjoint(task.last_keys):
            rows = [record for record in rows if record[0] not in task.last_keys]
        is_new = bool(rows or page.failed)
        task.shows_nothing = not (page.records or page.failed)
        task.read += page.size
        if not task.blank:
            task.before_blank = task.here
        task.here = replace(
            task.here,
            cursor=page.cursor,
            pages=task.here.pages + 1,
            seen=task.here.seen + len(rows) + len(page.failed),
        )
        if keys:
            task.last_keys = keys
        if task.shows_nothing:
            # Once written, they would be all that the row knows: what the walk before showed is needed to believe them.
            task.blank.append(FetchedPage(task, task.here, [], [], b""))
        else:
            await self._hand_on(task)
            await self._put(FetchedPage(task, task.here, rows, page.failed, page.body))
        return is_new

    async def _hand_on(self, task: PairTask) -> None:
        """Hand on the pages that showed nothing and are known by now to be right."""
        for item in task.blank:
            await self._put(item)
        task.blank.clear()

    async def _smaller(self, task: PairTask, error: XrpcError | ServerFailure | MalformedAnswer, limit: int) -> int:
        """What to do about a page that fails: believe it, or ask for fewer records to get around a bad one."""
        smaller = max(SMALLEST_LIMIT, limit // 2)
        can_shrink = smaller < limit
        if isinstance(error, ServerFailure):
            if can_shrink and error.status == 500:
                return smaller
            # Some servers answer 500 for an account they do not have: the status endpoint knows better.
            await self._ask_status(task, error)
            raise error
        if isinstance(error, MalformedAnswer):
            if can_shrink:
                return smaller
            raise error
        denial = account_error(error, task.pds, task.did)
        if denial is not None:
            await self._ask_status(task, denial)
            raise denial
        # The reference PDS says "InvalidRequest" for a repository it does not have, for a cursor it cannot read and
        # for a record it cannot show, each time in other words. Its status endpoint has a name for the first.
        if error.status == 400 and can_shrink:
            with suppress(TransientError):
                await self._ask_status(task, None)
            return smaller
        if task.here.cursor:
            with suppress(TransientError):
                await self._ask_status(task, None)
            raise _CursorRefused(error)
        await self._ask_status(task, None)
        raise RequestRefused(
            f"{task.pds} refuses to list {task.collection} of {task.did}: {error}; ask its operator why"
        ) from error

    async def _ask_status(self, task: PairTask, denial: ParityError | None) -> None:
        """Let getRepoStatus say what a bare "not found" or 500 means; returns if it says that all is well."""
        await self._repo.confirm(task.pds, task.did, "listRecords", denial)

    # What is known of the walk from the pages that are committed.

    async def _distinct_share(self, task: PairTask) -> float:
        """How much of what the walk has brought came only once; 1.0 if all of it."""
        total, distinct = await self._database.run(lambda conn: count_keys(conn, self._rows_of(task)))
        return distinct / total if total else 1.0

    async def _last_page(self, task: PairTask) -> frozenset[str] | None:
        """The rkeys of its last page; None if it cannot go on, because not all of its pages are known."""
        return await self._database.run(lambda conn: find_last_page(conn, self._rows_of(task), task.here.pages))

    def _rows_of(self, task: PairTask) -> Walk:
        return Walk(self._settings.state_table, task.claim.state.id, task.here.walk)

    async def _newest_rev(self, task: PairTask) -> Newest:
        """The greatest revision that anything known of the pair carries by now, if anything is."""
        if task.claim.is_fresh:
            return Newest()  # what live events have brought since the claim is newer than it has to be
        pair = Pair(task.did, task.collection)
        limit = tid_of(datetime.now(UTC) + MAX_CLOCK_SKEW)
        return await self._database.run(lambda conn: newest_rev(conn, pair, limit))
