"""Cutting a page out of a collection, in the dialect of the host that is asked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from parity_dagster.sample_network.accounts import make_tid, read_base32
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.generated import Generated
from parity_dagster.sample_network.repo import Collection, Repo

_NEVER_WRITTEN = 1_500_000_000_000_000


class CursorRefused(Exception):
    """The host does not take this cursor."""


class PagePoisoned(Exception):
    """A record in the page cannot be shown (Q13)."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of listRecords.

    Attributes:
        entries: the list's JSON, joined with commas.
        cursor: for the next page, or None.
    """

    entries: bytes
    cursor: str | None


class KeptPages:
    """Pages of generated records and archives that were rendered before.

    What a benchmark asks for again and again costs little.

    Args:
        most: bytes; what comes beyond is rendered each time.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._pages: dict[tuple[object, ...], bytes] = {}

    def get(self, key: tuple[object, ...], render: Callable[[], bytes]) -> bytes:
        """Return what `render` returned for a key when it was first asked for, or returns now."""
        page = self._pages.get(key)
        if page is None:
            page = render()
            if len(page) <= self._left:
                self._left -= len(page)
                self._pages[key] = page
        return page

    def entries(self, held: Generated, start: int, stop: int) -> bytes:
        """Return what `held.entries` does."""
        return self.get((held.did, held.nsid, start, stop), lambda: held.entries(start, stop))


def list_page(
    repo: Repo,
    nsid: str,
    *,
    limit: int,
    cursor: str | None,
    reverse: bool,
    behaviour: Behaviour,
    number: int,
    shown_as: str,
    kept: KeptPages | None = None,
) -> Page:
    """Cut one page.

    Args:
        number: how many pages of the pair the host was asked for, this one included.
        kept: pages that need not be rendered.

    Raises:
        CursorRefused: the cursor has another form than this host's.
        PagePoisoned: one of `behaviour.poison` is in the page.
    """
    limit = min(limit, behaviour.page_cap or limit)
    held = repo.collection(nsid)
    plain = behaviour.order == "desc" and behaviour.cursor == "rkey" and not behaviour.inclusive
    tricky = behaviour.loop or behaviour.empty_every or behaviour.poison or reverse or shown_as != repo.did
    if plain and not tricky and (held is None or isinstance(held, Generated)):
        return _generated_page(held, limit, cursor, behaviour, kept)
    return _Walk(repo.writable(nsid), nsid, behaviour, reverse).page(limit, cursor, number, shown_as)


def _generated_page(
    held: Generated | None, limit: int, cursor: str | None, behaviour: Behaviour, kept: KeptPages | None
) -> Page:
    start = held.after(cursor) if held and cursor else 0
    stop = min(start + limit, held.count) if held else 0
    if held is None or start >= stop:
        return Page(b"", None)
    more = behaviour.last_cursor or stop < held.count
    entries = kept.entries(held, start, stop) if kept else held.entries(start, stop)
    return Page(entries, held.rkey(stop - 1) if more else None)


class _Walk:
    """One host's view of a collection: keys in its order and cursors of its form."""

    def __init__(self, held: Collection, nsid: str, behaviour: Behaviour, reverse: bool) -> None:
        self._held = held
        self._nsid = nsid
        self._behaviour = behaviour
        self._ascending = (behaviour.order == "asc") != reverse
        if behaviour.order == "clock":
            self._marks, self._keys = held.by_clock()
        else:
            self._keys = self._marks = held.keys()

    def page(self, limit: int, cursor: str | None, number: int, shown_as: str) -> Page:
        behaviour = self._behaviour
        mark = self._mark(cursor) if cursor and behaviour.loop not in ("ignore", "advance") else None
        positions = self._positions(mark, limit)
        if behaviour.empty_every and number % behaviour.empty_every == 0 and positions:
            return Page(b"", self._spell(self._before(positions[0])))
        rkeys = [self._keys[position] for position in positions]
        if behaviour.poison and not set(rkeys).isdisjoint(behaviour.poison):
            raise PagePoisoned
        if shown_as == self._held.base.did:
            entries = self._held.entries(rkeys)
        else:
            records = [record for rkey in rkeys if (record := self._held.get(rkey))]
            entries = [record.as_entry(shown_as, self._nsid) for record in records for _ in range(record.copies)]
        return Page(b",".join(entries), self._next(positions, cursor, number))

    def _mark(self, cursor: str) -> str | None:
        form = self._behaviour.cursor
        mark = cursor.removeprefix(self._nsid + "/") if form == "path" else cursor
        known = {
            "rkey": "/" not in cursor,
            "path": cursor.startswith(self._nsid + "/"),
            "clock": len(cursor) == 13 and read_base32(cursor) is not None,
        }[form]
        if known or self._behaviour.bad_cursor == "use":
            return mark
        if self._behaviour.bad_cursor == "refuse":
            raise CursorRefused(cursor)
        return None

    def _positions(self, mark: str | None, limit: int) -> range:
        marks, inclusive = self._marks, self._behaviour.inclusive
        if self._ascending:
            start = 0 if mark is None else bisect_left(marks, mark) if inclusive else bisect_right(marks, mark)
            return range(start, min(start + limit, len(marks)))
        start = len(marks) if mark is None else bisect_right(marks, mark) if inclusive else bisect_left(marks, mark)
        return range(start - 1, max(start - limit, 0) - 1, -1)

    def _next(self, positions: range, cursor: str | None, number: int) -> str | None:
        behaviour = self._behaviour
        if not positions:
            return None
        if behaviour.loop == "advance":
            return self._spell(make_tid(_NEVER_WRITTEN + number))
        if behaviour.loop == "same" and cursor:
            return cursor
        last = positions[-1]
        at_end = last == (len(self._keys) - 1 if self._ascending else 0)
        if at_end and not behaviour.last_cursor and not behaviour.loop:
            return None
        return self._spell(self._marks[last])

    def _before(self, position: int) -> str:
        """Return a mark that lies between a record and the one listed before it, so that nothing is lost."""
        mark = self._marks[position]
        if not self._ascending:
            return mark + "-"
        return self._marks[position - 1] + "-" if position else "-"

    def _spell(self, mark: str) -> str:
        return f"{self._nsid}/{mark}" if self._behaviour.cursor == "path" else mark
