"""Rows in the text format of PostgreSQL's COPY.

Source: PostgreSQL manual, "COPY", section "Text Format".
"""

from __future__ import annotations

from collections.abc import Sequence

Row = tuple[str, str | None, bytes]
"""rkey, cid, and the value's JSON bytes."""

_SPECIAL = ("\\", "\t", "\n", "\r", "\x00")


def encode_rows(did: str, collection: str, rev: str, rows: Sequence[Row]) -> bytes:
    """Records of one pair as lines of (did, collection, rkey, cid, value, rev).

    Args:
        rows: checked record keys, CIDs as they came, and values that hold no line break, tab or NUL (JSON allows none
            in strings, and the page parser has replaced those between tokens).
    """
    if not rows:
        return b""
    rkeys, cids, values = zip(*rows, strict=True)
    if None in cids or not _is_plain("".join(cids)):
        cids = tuple("\\N" if cid is None else _escape(cid) for cid in cids)
    joined = b"\n".join(values)
    if b"\\" in joined:
        values = tuple(joined.replace(b"\\", b"\\\\").split(b"\n"))
    # Whole columns at a time: what separates two fields comes with the text that is split again.
    head, end = f"{did}\t{collection}\t", "\t\n"
    parts = [b"\t" + _escape(rev).encode("utf-8", "replace") + b"\n"] * (4 * len(rows))
    parts[0::4] = (head + (end + head).join(rkeys) + "\t").encode().split(b"\n")
    parts[1::4] = (end.join(cids) + "\t").encode("utf-8", "replace").split(b"\n")
    parts[2::4] = values
    return b"".join(parts)


def encode_array(texts: Sequence[str | None]) -> str:
    """A text array as PostgreSQL reads it, None for NULL; psycopg's own way looks at the texts one by one.

    The texts hold no NUL character. Source: PostgreSQL manual, "Array Input and Output Syntax".
    """
    if not texts:
        return "{}"
    if None not in texts:
        joined = '","'.join(texts)  # type: ignore[arg-type]
        if "\\" not in joined and joined.count('"') == 2 * (len(texts) - 1):
            return '{"' + joined + '"}'
    return "{" + ",".join("NULL" if text is None else _quote(text) for text in texts) + "}"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_plain(text: str) -> bool:
    return text.isascii() and not any(special in text for special in _SPECIAL)


def _escape(text: str) -> str:
    """A stranger's string for COPY; a CID and a revision are plain ASCII, but nobody has to send one."""
    if _is_plain(text):
        return text
    clean = text.replace("\x00", "").replace("\\", "\\\\")
    return clean.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
