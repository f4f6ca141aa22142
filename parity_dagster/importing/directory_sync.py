"""Identities from the directory's log, so that a million accounts need no look-up each.

The log is read in the order of its operations. A page is stored together with how far it goes, so that whoever is
killed goes on there. Cursors are times, which mirrors share; several operations may have the same one, so each page
begins where the one before ended and repeats its last moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from parity_dagster.atproto.export import MILLISECOND, PAGE, Export, ExportPage
from parity_dagster.errors import MalformedAnswer, TransientError
from parity_dagster.models import DirectorySync
from parity_dagster.store.identities import LoggedIdentity, begin_log, save_log
from parity_dagster.store.sessions import Database

logger = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=1)
"""A call reads again what came so long before it: an operation may be committed after one that is newer."""


class _Reader:
    """Where a reader is, and what it asks for next.

    Args:
        known_to: everything up to this time was read before it began.
    """

    def __init__(self, known_to: datetime | None) -> None:
        self._known_to = known_to
        self.here = known_to - OVERLAP if known_to else None
        self._at_edge = 0
        self._stuck = 0
        self._longest = 0

    @property
    def after(self) -> datetime | None:
        """What to ask for: the last moment once more; if that brings no later one, what comes after it."""
        return None if self.here is None else self.here + (self._stuck - 1) * MILLISECOND

    def shorten(self, page: ExportPage, most: int) -> ExportPage:
        """A page without what comes after so many new operations and their moment."""
        new = [at for at in page.times if self._is_new(at)]
        if len(new) <= most:
            return page
        last = new[most - 1]
        return page._replace(
            operations=[one for one in page.operations if one.at <= last], times=[at for at in page.times if at <= last]
        )

    def go_past(self, page: ExportPage) -> int:
        """Go past a page; how many operations of it were never read before.

        Raises:
            MalformedAnswer: the directory gives what came before, whatever is asked for.
        """
        if not page.times and page.lines >= self._longest > 0:
            raise MalformedAnswer("the directory gives the same operations again and again, whatever is asked for")
        self._longest = max(self._longest, page.lines)
        new = sum(map(self._is_new, page.times))
        repeated = page.times.count(self.here) if self.here else 0
        if self.here and (self._known_to is None or self.here > self._known_to):
            new += max(0, repeated - self._at_edge)
        if page.times and (self.here is None or page.times[-1] > self.here):
            self.here, self._stuck = page.times[-1], 0
            self._at_edge = page.times.count(self.here)
            return new
        if page.is_cut:  # there may be more of this moment, and nothing says when it is over
            raise MalformedAnswer("the directory's log ends in a line that is no operation")
        if self._stuck == 1 and repeated >= PAGE:
            logger.warning("%s or more operations are of %s; some of them may not be read", f"{PAGE:,}", self.here)
        self._at_edge = max(self._at_edge, repeated)
        self._stuck += 1
        return new

    def _is_new(self, at: datetime) -> bool:
        return (self.here is None or at > self.here) and (self._known_to is None or at > self._known_to)


async def sync_directory(
    export: Export,
    database: Database,
    *,
    everything: bool,
    again: bool,
    limit: int | None,
    on_progress: Callable[[int], None],
) -> DirectorySync:
    """Read the directory's log from where it was read to, until there is no more or `limit` operations are read.

    What the directory does wrong is in the result; what was stored before stays.
    """
    began = datetime.now(UTC)
    position = await database.run(partial(begin_log, again=again))
    found = DirectorySync(read_to=position.read_to, is_whole=position.is_whole and everything)
    reader = _Reader(position.read_to)
    asking = asyncio.ensure_future(export.read(reader.after, reader.here))
    try:
        while True:
            page = await asking
            found.requests += 1
            if limit is not None:
                page = reader.shorten(page, limit - found.operations)
            new = reader.go_past(page)
            # Of a log that grows, no more than was there when it began.
            found.is_caught_up = not page.times or (reader.here is not None and reader.here >= began)
            is_done = found.is_caught_up or (limit is not None and found.operations + new >= limit)
            if not is_done:  # the next page comes while this one is stored
                asking = asyncio.ensure_future(export.read(reader.after, reader.here))
            if page.times and reader.here is not None:
                read_to = max(reader.here, found.read_to or reader.here)
                counts = await database.run(
                    partial(
                        save_log,
                        identities=_newest(page),
                        read_from=found.read_to,
                        read_to=read_to,
                        everything=everything,
                    )
                )
                found.read_to = read_to
                found.stored += counts.stored
                found.removed += counts.removed
            found.operations += new
            found.broken += page.broken
            on_progress(new)
            if is_done:
                return found
    except TransientError as exc:
        found.error, found.error_code = str(exc), exc.code
        return found
    finally:
        asking.cancel()


def _newest(page: ExportPage) -> list[LoggedIdentity]:
    """What each account is after a page."""
    newest = {one.did: one for one in page.operations}
    return [LoggedIdentity(one.did, one.at, one.handle, one.pds, one.key) for one in newest.values()]
