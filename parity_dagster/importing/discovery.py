"""From lists of accounts to the queue: which accounts there are, page by page, with the place kept in the database.

A page's accounts and the place behind them are saved together, so whoever is killed, or refused, goes on there. The
next page is asked for while one is being saved, and memory holds two of them whatever the length of the list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from parity_dagster.atproto.account_lists import AccountList, AccountPage
from parity_dagster.atproto.directory import PLC_RATE
from parity_dagster.atproto.ssrf import parse_endpoint
from parity_dagster.errors import (
    CollectionNotRegistered,
    CursorLoop,
    DatabaseError,
    ParityError,
    RequestRefused,
    ServerFailure,
    SettingsError,
)
from parity_dagster.identifiers import parse_nsid
from parity_dagster.models import Discovery, DiscoveryPlan, ImportEstimate, Source
from parity_dagster.settings import Settings
from parity_dagster.store.discoveries import (
    ListPosition,
    Missing,
    Taken,
    begin,
    count_hosts,
    count_known,
    count_missing,
    has_moved_on,
    hold_list,
    listed_before,
    name_accounts,
    note_error,
    prepare_session,
    take_page,
    typical_pages,
)
from parity_dagster.store.sessions import SyncSession

if TYPE_CHECKING:
    from parity_dagster.importing.loop import BackgroundLoop, Connections, Running

logger = logging.getLogger(__name__)

BARREN_PAGES = 100
"""Pages in a row that name nobody new, after which a list counts as endless."""
HOST_RATE = 10.0
"""Requests a second that the reference PDS answers: 3,000 in five minutes."""

Tell = Callable[[Discovery], None]


def choose_lists(
    settings: Settings,
    nsids: Iterable[str],
    relay: str | None,
    pds: str | None,
    collections: Iterable[str] | None,
    *,
    must_be_registered: bool,
) -> tuple[list[AccountList], list[str]]:
    """The lists of accounts that are meant, and what is imported of each account; `ImportService.discover` says how."""
    named = list(dict.fromkeys(parse_nsid(nsid) for nsid in nsids))
    given = list(dict.fromkeys(parse_nsid(nsid) for nsid in collections or ()))
    registered = settings.collections
    if relay is not None and pds is not None:
        raise SettingsError("a relay and a PDS exclude each other: name one of them")
    if not named and pds is None:
        raise SettingsError("name a collection whose accounts are to be found, or a server (pds)")
    origin = parse_endpoint(pds or relay or settings.relay_url, allow_private=settings.allow_private_hosts)
    if pds is not None:
        lists, wanted = [AccountList(origin)], given or named or list(registered)
    else:
        lists = [AccountList(origin, nsid) for nsid in named]
        wanted = given or list(dict.fromkeys((*registered, *named)))
    for nsid in wanted if must_be_registered else ():
        if nsid not in registered:
            raise CollectionNotRegistered(
                f"{nsid} is not a registered collection; add it to PARITY_COLLECTIONS (now {', '.join(registered)}), or"
                " say which of these to import of its accounts"
            )
    return lists, wanted


class _Page(NamedTuple):
    dids: list[str]
    """Accounts that are active as far as the list knows, each once."""
    following: str | None
    """Cursor of the next page."""
    is_end: bool


class _Reader:
    """Reads one list of accounts; `count` has to be told what each page brought before the next one is taken.

    Args:
        most: new accounts after which it stops; None for none.
        tell: called after each page.
    """

    def __init__(self, loop: BackgroundLoop[Connections], listed: AccountList, most: int | None, tell: Tell) -> None:
        self.found = Discovery(listed.server, listed.collection)
        self._loop = loop
        self._listed = listed
        self._left = most
        self._tell = tell
        self._barren = 0

    def pages(self, cursor: str | None = None, restart: Callable[[], None] = lambda: None) -> Iterator[_Page]:
        """Read from a cursor on.

        Args:
            cursor: where to begin; a server that does not know it any more is asked from the start.
            restart: called before that.

        Raises:
            CursorLoop: the list does not end.
            ParityError: the server does not go on.
        """
        is_old, is_again = cursor is not None, False
        running: Running[AccountPage] | None = self._ask(cursor)
        try:
            while running is not None:
                try:
                    page, running = running.result(), None
                except (RequestRefused, ServerFailure) as exc:
                    # 500 is what the reference directory answers to a cursor that it cannot read
                    if not is_old or (isinstance(exc, ServerFailure) and exc.status != 500):
                        raise
                    logger.warning("%s is asked for from its start: %s", self._listed, exc)
                    is_old, is_again, cursor, running = False, True, None, self._ask(None)
                    continue
                if is_again:  # who refuses everything has not said that the cursor is old
                    restart()
                is_old = is_again = False
                is_loop = page.cursor is not None and page.cursor == cursor
                cursor = page.cursor
                is_last = cursor is None or is_loop
                if not is_last and self._left is None:
                    running = self._ask(cursor)
                yield self._active(page)
                if is_loop:
                    raise CursorLoop(f"{self._listed} never ends: a page leads to itself")
                if self._barren >= BARREN_PAGES:
                    raise CursorLoop(f"{self._listed} never ends: {self._barren:,} pages in a row name nobody new")
                if not is_last and self._left is not None and self._left > 0:
                    running = self._ask(cursor)
        finally:
            if running is not None:
                running.stop()

    def _ask(self, cursor: str | None) -> Running[AccountPage]:
        most = self._left
        return self._loop.start(lambda opened: opened.network.lists.page(self._listed, cursor, most=most))

    def _active(self, page: AccountPage) -> _Page:
        dids = [account.did for account in page.accounts if account.status == "active"]
        found = self.found
        self.found = replace(
            found,
            inactive=found.inactive + len(page.accounts) - len(dids),
            repeated=found.repeated + page.repeated + len(dids),  # less those that turn out to be new
            invalid=found.invalid + page.invalid,
            pages=found.pages + 1,
            is_complete=page.cursor is None,
        )
        return _Page(dids, page.cursor, page.cursor is None)

    def count(self, taken: Taken, spent: int) -> None:
        """Take what the last page has brought, and how much of what is wanted that is."""
        found, fresh = self.found, len(taken.fresh)
        self.found = replace(
            found,
            accounts=found.accounts + fresh,
            repeated=found.repeated - fresh,
            known=found.known + taken.known,
            queued=found.queued + taken.queued,
        )
        self._barren = 0 if fresh else self._barren + 1
        if self._left is not None:
            self._left -= spent
        self._tell(self.found)

    def failed(self, error: ParityError) -> None:
        """Note why it ended early."""
        self.found = replace(self.found, is_complete=False, error=str(error), error_code=error.code)


def queue_lists(
    settings: Settings,
    loop: BackgroundLoop[Connections],
    lists: Sequence[AccountList],
    wanted: Sequence[str],
    *,
    most: int | None,
    from_start: bool,
    tell: Tell | None,
) -> list[Discovery]:
    """Queue the accounts of lists one after the other, until there are enough; see `Queueing`."""
    found: list[Discovery] = []
    for listed in lists:
        queueing = Queueing(settings, loop, listed, wanted, most=most, tell=tell or _silent)
        found.append(queueing.run(from_start=from_start))
        if most is not None:
            most -= found[-1].accounts
            if most <= 0:
                break
    return found


def _silent(_: Discovery) -> None:
    pass


class Queueing:
    """Queues the accounts of a list, from where the last call that did so stopped.

    Args:
        loop: where pages are fetched.
        wanted: registered collections, of which each account is queued.
        most: accounts after which it stops; a server that gives more than it is asked for makes it a page more.
        tell: called after each page that was saved.
    """

    def __init__(
        self,
        settings: Settings,
        loop: BackgroundLoop[Connections],
        listed: AccountList,
        wanted: Sequence[str],
        *,
        most: int | None,
        tell: Tell,
    ) -> None:
        self._table = settings.state_table
        self._key = listed.server, listed.collection or ""
        self._wanted = wanted
        self._session = SyncSession(settings, self._prepare)
        self._reader = _Reader(loop, listed, most, tell)
        self._position: ListPosition | None = None

    def _prepare(self, conn: psycopg.Connection) -> None:
        hold_list(conn, self._table, *self._key)
        prepare_session(conn)

    def run(self, *, from_start: bool) -> Discovery:
        """Read on.

        Args:
            from_start: begin at the start of the list.

        Returns:
            What was read; an error of the list's server is in it, not raised.

        Raises:
            DatabaseError: what was saved stays.
        """
        reader = self._reader
        try:
            position = self._begin(from_start)
            reader.found = replace(reader.found, is_resumed=position.cursor is not None)
            for page in reader.pages(position.cursor, self._restart):
                taken = self._take(page)
                reader.count(taken, len(taken.fresh))
        except DatabaseError:
            raise
        except ParityError as exc:
            reader.failed(exc)
            if self._position is not None:
                self._session.run(partial(note_error, position=self._position, error=str(exc)))
        finally:
            self._session.end()
        return reader.found

    def _begin(self, from_start: bool) -> ListPosition:
        self._position = self._session.run(
            lambda conn: begin(conn, self._table, *self._key, self._wanted, from_start=from_start)
        )
        return self._position

    def _restart(self) -> None:
        self._begin(True)
        self._reader.found = replace(self._reader.found, is_resumed=False)

    # I18
    def _take(self, page: _Page) -> Taken:
        position = self._position
        assert position is not None
        tried: list[tuple[ListPosition, Taken]] = []

        def work(conn: psycopg.Connection) -> tuple[ListPosition, Taken]:
            # a session that was lost while it committed leaves open whether it did
            if not (tried and has_moved_on(conn, position)):
                tried.append(
                    take_page(
                        conn,
                        self._table,
                        position,
                        page.dids,
                        self._wanted,
                        following=page.following,
                        is_end=page.is_end,
                    )
                )
            return tried[-1]

        self._position, taken = self._session.run(work)
        return taken


class Survey:
    """Looks through lists of accounts; nothing is queued, and no place is kept.

    Args:
        loop: where pages are fetched.
        lists: read one after the other, each from its start.
        most: accounts after which it stops.
        tell: called after each page.
    """

    def __init__(
        self,
        settings: Settings,
        loop: BackgroundLoop[Connections],
        lists: Sequence[AccountList],
        *,
        most: int | None,
        tell: Tell | None,
    ) -> None:
        self.found: list[Discovery] = []
        """What was read so far, list by list."""
        self._table = settings.state_table
        self._session = SyncSession(settings, self._prepare)
        self._loop = loop
        self._lists = lists
        self._most = most
        self._tell_list: Tell = _silent
        self._tell = tell or _silent
        self._has_begun = False
        self._plc_rate = settings.plc_rate or PLC_RATE
        self._typical_pages: float | None = None
        self._servers = 0

    def _prepare(self, conn: psycopg.Connection) -> None:
        if self._has_begun:
            raise DatabaseError("the session was lost, and with it which accounts were named already; begin again")
        prepare_session(conn)
        self._has_begun = True

    def accounts(self, tell_list: Tell | None) -> Iterator[str]:
        """Each account once, as it is named; what was read of a list is told at its end."""
        self._tell_list = tell_list or _silent
        for named, _ in self._batches(()):
            yield from named

    def plan(self, wanted: Sequence[str]) -> DiscoveryPlan:
        """Read the lists, and say what importing these collections of their accounts would take."""
        accounts, missing = 0, Missing(0, 0, 0, 0)
        for named, more in self._batches(wanted):
            accounts += len(named)
            missing = Missing(*(a + b for a, b in zip(missing, more, strict=True)))
        pages = self._typical_pages or 1.0
        is_one_server = len(self._lists) == 1 and self._lists[0].collection is None
        servers = 1 if is_one_server else max(1, self._servers)
        by_pages = missing.accounts + ceil(missing.pairs * pages)  # the revision is asked for once
        return DiscoveryPlan(
            tuple(self.found),
            tuple(wanted),
            accounts,
            missing.known,
            missing.accounts,
            missing.pairs,
            pages,
            servers,
            self._plc_rate,
            (
                self._estimate("list", missing.lookups, by_pages, servers),
                # the key that an account signs with is looked up afresh
                self._estimate("repo", missing.accounts, missing.accounts, servers),
            ),
        )

    def _batches(self, wanted: Sequence[str]) -> Iterator[tuple[list[str], Missing]]:
        """The accounts of each page that no page has named before, and what is missing of them."""
        left = self._most
        try:
            if wanted:
                self._session.run(lambda conn: self._look_around(conn, wanted))
            for number, listed in enumerate(self._lists):
                reader = _Reader(self._loop, listed, left, self._tell)
                try:
                    for page in reader.pages():
                        look = partial(self._look, dids=page.dids, number=number, most=left, wanted=wanted)
                        taken, named, missing = self._session.run(look)
                        reader.count(taken, len(named))
                        if left is not None:
                            left -= len(named)
                        yield named, missing
                except DatabaseError:
                    raise
                except ParityError as exc:
                    reader.failed(exc)
                finally:
                    self.found.append(reader.found)
                self._tell_list(reader.found)
                if left is not None and left <= 0:
                    break
        finally:
            self._session.end()

    def _look_around(self, conn: psycopg.Connection, wanted: Sequence[str]) -> None:
        self._typical_pages = typical_pages(conn, self._table, wanted)
        self._servers = count_hosts(conn)

    def _look(
        self, conn: psycopg.Connection, *, dids: Sequence[str], number: int, most: int | None, wanted: Sequence[str]
    ) -> tuple[Taken, list[str], Missing]:
        fresh = name_accounts(conn, dids, number)
        before = listed_before(conn, fresh, number) if number else set()
        named = [did for did in fresh if did not in before][:most]
        missing = count_missing(conn, self._table, named, wanted) if wanted else Missing(0, 0, 0, 0)
        return Taken(fresh, count_known(conn, self._table, fresh), 0), named, missing

    def _estimate(self, source: Source, lookups: int, requests: int, servers: int) -> ImportEstimate:
        seconds = max(lookups / self._plc_rate, requests / (HOST_RATE * servers))
        return ImportEstimate(source, lookups + requests, seconds / 3600)
