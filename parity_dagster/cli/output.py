"""Text for people: on a terminal with colour, in a pipe one plain line per row."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from parity_dagster.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATUS_STYLES = {
    "completed": "green",
    "in_progress": "cyan",
    "pending": "yellow",
    "failed": "red",
}
"""Colour of each status word, by names that click and rich share."""

_LARGEST_DRAWN_TABLE = 500
_NARROWEST_PROSE = 30


class Column(NamedTuple):
    """One column of a table."""

    title: str
    width: int = 1
    """Characters a plain row reserves; a longer value is never cut, it moves the rest of its row."""
    right: bool = False
    """Numbers stand at the right."""
    wraps: bool = False
    """Prose, which may take several lines on a terminal, or a place below the table."""
    spare: int = 0
    """A terminal too narrow for all goes without the columns of the highest number first; 0 always stays."""


def console(*, err: bool = False) -> Console:
    """Open a rich console over the standard stream of this moment."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PlainConsole(stderr=err, highlight=False, soft_wrap=False)


def plural(count: int, noun: str, several: str | None = None) -> str:
    """A count with its noun: `1 record`, `1,234 records`; `several` is for nouns that do not just get an s."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def queued_sentence(count: int, queue: str) -> str:
    """What was queued, and who imports it."""
    return (
        f"Queued {plural(count, 'import')} under {queue}; a running `parity dev` or Dagster daemon imports them,"
        " `parity import-status --pending` shows them."
    )


watching = click.option(
    "--progress/--no-progress", default=None, help="Show how far it is, on stderr. Default: on a terminal."
)
"""The option of commands that read for long."""


def is_watched(progress: bool | None, takes_stdout: bool = False) -> bool:
    """Whether to show how far it is, which must not come between the rows of a command that writes them to stdout."""
    if progress is None:
        return sys.stderr.isatty() and not (takes_stdout and sys.stdout.isatty())
    return progress


def local_time(moment: datetime | None) -> str:
    """A time for people, in UTC to the second: `2026-08-20 13:05:59`; empty for None."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def seconds_text(seconds: float) -> str:
    """A duration for people: `0.8 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def write_json(rows: Iterable[dict[str, Any]]) -> None:
    """Print a JSON list of objects, one object per line, without holding them all.

    Datetimes become ISO 8601 in UTC, enumerations their value.
    """
    out = sys.stdout
    separator = "["
    for row in rows:
        out.write(f"{separator}\n  {json.dumps(row, default=_json_value)}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows as they come: drawn on a terminal, plain in a pipe or when there are many.

    A plain table has one row per line, nothing cut, under a line of titles; no rows print nothing. Nothing has to be
    escaped before: cells are printed with `one_line` applied.
    """
    rows = iter(rows)
    if sys.stdout.isatty():
        head = [row for row, _ in zip(rows, range(_LARGEST_DRAWN_TABLE), strict=False)]
        if len(head) < _LARGEST_DRAWN_TABLE:
            if head:
                _draw_table(columns, head)
            return
        _write_plain(columns, head, titles=True)
        _write_plain(columns, rows, titles=False)
    else:
        _write_plain(columns, rows, titles=True)


def status_text(status: str) -> str:
    """A status word, coloured on a terminal."""
    return click.style(status, fg=STATUS_STYLES.get(status))


def _write_plain(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, titles: bool) -> None:
    out = sys.stdout
    for row in rows:
        if titles:
            out.write(_plain_row(columns, [column.title for column in columns]))
            titles = False
        out.write(_plain_row(columns, [one_line(cell) for cell in row]))


def _plain_row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(column.width) if column.right else cell.ljust(column.width)
        for column, cell in zip(columns, cells, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"


def _draw_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    rows = [[one_line(cell) for cell in row] for row in rows]
    shown, below, is_narrow = _fitting(columns, rows, out.width)
    if is_narrow:
        # what rows have in common gets a line of its own, and the terminal's whole width
        for title, group in groupby(rows, key=lambda row: row[0]):
            out.print(Text(title), soft_wrap=True)
            table = _table(columns, list(group), shown[1:], has_titles=False)
            out.print(Padding(table, (0, 0, 0, 2)))
    else:
        out.print(_table(columns, rows, shown, has_titles=True))
    for row in rows:
        for index in below:
            if row[index]:
                out.print(Text(f"{row[0]} {row[1]}: {row[index]}"), soft_wrap=True)


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int], *, has_titles: bool
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=has_titles)
    for index in shown:
        # folding keeps every character, so that what does not fit can still be copied
        justify: Literal["left", "right"] = "right" if columns[index].right else "left"
        table.add_column(columns[index].title, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[index], style=STATUS_STYLES.get(row[index], "")) for index in shown))
    return table


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int], bool]:
    """Choose the columns a terminal has room for, those whose text goes below, and whether it is too little."""
    widths = [max(len(column.title), *(len(row[index]) for row in rows)) for index, column in enumerate(columns)]
    shown = [index for index, column in enumerate(columns) if not column.wraps]
    prose = [index for index, column in enumerate(columns) if column.wraps and any(row[index] for row in rows)]

    def room() -> int:
        return width - sum(widths[index] + 2 for index in shown)

    if room() >= _NARROWEST_PROSE * len(prose):
        return sorted([*shown, *prose]), [], False
    for index in sorted(shown, key=lambda index: columns[index].spare, reverse=True):
        if room() < -2 and columns[index].spare:
            shown.remove(index)
    return shown, prose, room() < -2


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")
