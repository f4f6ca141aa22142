"""What `--progress` shows while an import or an export runs: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from parity_dagster.cli.exits import let_go_of_output
from parity_dagster.cli.output import console, plural, seconds_text
from parity_dagster.events import (
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    ImportStarted,
)
from parity_dagster.models import Pair

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.progress import Progress, TaskID
    from rich.table import Table

_LINE_EVERY = 5.0
"""Seconds between two lines where nothing can be redrawn."""
_MOST_PAIRS_SHOWN = 12
"""More (did, collection) bars than this do not help anybody; then there is one per collection."""
_ACTIVE_SHOWN = 6
_RATE_WINDOW = 8.0


class Rate:
    """Records per second over the last seconds."""

    def __init__(self) -> None:
        self.total = 0
        self._began: float | None = None
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, records: int, now: float) -> None:
        """Count records that were committed at `now`, a `time.monotonic()` value."""
        if self._began is None:
            self._began = now
        self.total += records
        if self._marks and now - self._marks[-1][0] < 0.1:
            self._marks[-1] = (self._marks[-1][0], self._marks[-1][1] + records)
        else:
            self._marks.append((now, records))

    def per_second(self, now: float) -> float:
        """Records per second over the last seconds, or since the first record if that is less."""
        if self._began is None:
            return 0.0
        while self._marks and now - self._marks[0][0] > _RATE_WINDOW:
            self._marks.popleft()
        span = min(_RATE_WINDOW, now - self._began)
        return sum(records for _, records in self._marks) / max(span, 0.5)


class Walk:
    """One (did, collection) as far as its events go."""

    def __init__(self) -> None:
        self.records = 0
        self.pages = 0
        self.state = "waiting"
        self.rate = Rate()


class ProgressDisplay:
    """Listener that shows how far an import is; a context manager around it.

    Args:
        pairs: how many (did, collection) pairs are known to be coming; None if they are still being read.
    """

    def __init__(self, pairs: int | None = None) -> None:
        self._expected = pairs
        self._walks: dict[Pair, Walk] = {}
        self._seen = 0
        self._resumed: set[Pair] = set()
        self._collections: dict[str, list[int]] = {}
        self._rate = Rate()
        self._pages = 0
        self._done = 0
        self._failed = 0
        self._began = time.monotonic()
        self._next_line = self._began + _LINE_EVERY
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(
                self, console=console(err=True), refresh_per_second=5, redirect_stdout=False, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._seen:
            click.echo(self._line(), err=True)

    def __call__(self, event: ImportEvent) -> None:
        """Take one event; called in one thread, after the commit that made it true."""
        now = time.monotonic()
        pair = Pair(event.did, event.collection)
        walk = self._walks.get(pair)
        if walk is None:
            walk = self._walks[pair] = Walk()
            self._seen += 1
            self._collections.setdefault(pair.collection, [0, 0, 0])[0] += 1
        match event:
            case ImportStarted():
                walk.state = "reading"
                if event.cursor is not None:
                    self._resumed.add(pair)
            case ImportProgress():
                self._page(event, pair, walk, now)
            case ImportCompleted():
                walk.state = "done" if event.fetched else "up to date"
                walk.records = event.result.total_processed
                self._ended(pair)
            case ImportFailed():
                walk.state = "failed"
                self._failed += 1
                self._ended(pair)
        if self._live is None and now >= self._next_line:
            self._next_line = now + _LINE_EVERY
            click.echo(self._line(), err=True)

    def _page(self, event: ImportProgress, pair: Pair, walk: Walk, now: float) -> None:
        records = event.records_synced + event.records_skipped + event.records_failed
        # what an earlier process read is no part of this one's speed
        news = 0 if pair in self._resumed else max(0, records - walk.records)
        self._resumed.discard(pair)
        walk.state, walk.records = "reading", records
        self._pages += max(1, event.pages - walk.pages) if walk.pages else 1
        walk.pages = event.pages
        walk.rate.add(news, now)
        self._rate.add(news, now)
        self._collections[pair.collection][2] += news

    def _ended(self, pair: Pair) -> None:
        self._done += 1
        self._collections[pair.collection][1] += 1
        if self._many():
            # its numbers are in the sums, and a million of them must not stay in memory
            del self._walks[pair]

    def _many(self) -> bool:
        return max(self._seen, self._expected or 0) > _MOST_PAIRS_SHOWN

    def _line(self) -> str:
        now = time.monotonic()
        of = f" of {self._expected:,}" if self._expected is not None else ""
        failed = f", {self._failed:,} failed" if self._failed else ""
        return (
            f"{seconds_text(now - self._began)}: {self._done:,}{of} done{failed}; "
            f"{plural(self._rate.total, 'record')} in {plural(self._pages, 'page')}, "
            f"{self._rate.per_second(now):,.0f} records/s"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the bars: of each pair, or of each collection with the pairs that are being read."""
        from rich.table import Table

        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=None)
        table.add_column(width=16)
        for _ in range(4):
            table.add_column(justify="right", no_wrap=True)
        if not self._many():
            for pair, walk in list(self._walks.items()):
                self._pair_row(table, pair, walk, now)
        else:
            self._collection_rows(table)
            reading = [item for item in list(self._walks.items()) if item[1].state == "reading"]
            for pair, walk in sorted(reading, key=lambda item: -item[1].records)[:_ACTIVE_SHOWN]:
                self._pair_row(table, pair, walk, now)
        yield table
        yield self._line()

    def _pair_row(self, table: Table, pair: Pair, walk: Walk, now: float) -> None:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        reading = walk.state in ("reading", "waiting")
        # listRecords does not say how many records there are, so a bar can only pulse until the end
        bar = ProgressBar(
            total=None if reading else 1,
            completed=1,
            width=16,
            pulse=reading,
            finished_style="red" if walk.state == "failed" else "green",
        )
        style = {"failed": "red", "done": "green", "up to date": "green"}.get(walk.state, "cyan")
        table.add_row(
            Text(f"{_short(pair.did)} {pair.collection}"),
            bar,
            Text(plural(walk.records, "record")),
            Text(plural(walk.pages, "page") if walk.pages else ""),
            Text(f"{walk.rate.per_second(now):,.0f}/s" if reading and walk.pages else ""),
            Text(walk.state, style=style),
        )

    def _collection_rows(self, table: Table) -> None:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        for collection, (seen, ended, records) in sorted(self._collections.copy().items()):
            table.add_row(
                Text(collection, style="bold"),
                ProgressBar(total=max(seen, 1), completed=ended, width=16),
                Text(plural(records, "record")),
                Text(f"{ended:,}/{seen:,}"),
                Text(""),
                Text("accounts"),
            )


class RowsProgress:
    """How many rows are done, and of how many if that is known; a context manager around what does them.

    Args:
        name: what they are rows of.
        noun: what one is called.
    """

    def __init__(self, name: str, noun: str = "row") -> None:
        self._name = name
        self._noun = noun
        self._expected: int | None = None
        self._rate = Rate()
        self._began = time.monotonic()
        self._next_line = self._began + _LINE_EVERY
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}", markup=False),
                TimeRemainingColumn(),
                console=console(err=True),
                refresh_per_second=5,
                redirect_stdout=False,
                redirect_stderr=False,
                transient=True,
            )
            self._task = self._bar.add_task(self._name, total=None, speed="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print_line(time.monotonic())

    def expect(self, rows: int) -> None:
        """Take how many rows there are."""
        self._expected = rows
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=rows)

    def advance(self, rows: int) -> None:
        """Count rows that are done."""
        now = time.monotonic()
        self._rate.add(rows, now)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=rows, speed=self._speed(now))
        elif now >= self._next_line:
            self._next_line = now + _LINE_EVERY
            self._print_line(now)

    def _speed(self, now: float) -> str:
        return f"{self._rate.per_second(now):,.0f} {self._noun}s/s"

    def _print_line(self, now: float) -> None:
        done = plural(self._rate.total, self._noun)
        if self._expected is not None:
            done = f"{self._rate.total:,} of {plural(self._expected, self._noun)}"
        try:
            click.echo(f"{seconds_text(now - self._began)}: {done}, {self._speed(now)}", err=True)
        except OSError:  # who watched has left
            let_go_of_output(sys.stderr)


def _short(did: str) -> str:
    return did if len(did) <= 20 else f"{did[:14]}…{did[-4:]}"
