"""Markdown that the Dagster UI shows: tables and links."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from parity_dagster.models import Pair
from parity_dagster.text import one_line

PROFILE_URL = "https://bsky.app/profile/{did}"
EXPLORER_URL = "https://pdsls.dev/at://{path}"

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#|~!&$])")
# Where Dagster's UI (remark-gfm) makes a link by itself, even of what is escaped; an invisible joiner keeps it text.
_AUTOMATIC_LINK = re.compile(r"(?<=://)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_JOINER = "\u2060"


def text(value: object, limit: int = 120) -> str:
    """Anything on one line, in which no character means anything to markdown or HTML, and no address becomes a link.

    Numbers get thousands separators, times are shown in UTC to the second, None is a dash.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    plain = one_line(str(value), limit)
    if " " in plain:  # a sentence, such as an error; an identifier or an address alone can still be copied as it is
        plain = _AUTOMATIC_LINK.sub(_JOINER, plain)
    return _SPECIAL.sub(r"\\\1", plain)


class Markup(str):
    """Text that is markdown already, as `link` makes it."""

    __slots__ = ()


def link(label: object, url: str) -> Markup:
    """A link; the address is made of identifiers that have been checked."""
    return Markup(f"[{text(label)}]({url.replace(' ', '%20').replace(')', '%29')})")


def account_link(did: str) -> Markup:
    """A link to an account on the network."""
    return link(did, PROFILE_URL.format(did=did))


def record_url(did: str, collection: str, rkey: str, template: str = "") -> str:
    """Where a record can be looked at: a page from `template`, with `{did}` and `{rkey}`, else a record explorer."""
    return (template or EXPLORER_URL).format(did=did, rkey=rkey, path=f"{did}/{collection}/{rkey}")


def partition_link(pair: Pair) -> Markup:
    """A link to a pair's partition in the UI."""
    key = f"{pair.collection}|{pair.did}"
    return link(key, f"/assets/atproto/records?view=partitions&partition={key.replace('|', '%7C')}")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], more: int = 0) -> str:
    """A table in markdown; a word if there are no rows.

    Args:
        headings: of the columns; those that begin with `#` are numbers and stand to the right.
        rows: cells; `Markup` stays as it is.
        more: rows that are not shown.
    """
    if not rows:
        return "None."
    lines = [
        "| " + " | ".join(heading.removeprefix("#") for heading in headings) + " |",
        "|" + "|".join(" ---: " if heading.startswith("#") else " --- " for heading in headings) + "|",
    ]
    for row in rows:
        cells = (cell if isinstance(cell, Markup) else text(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    if more > 0:
        lines.append(f"\n… and {more:,} more.")
    return "\n".join(lines)
