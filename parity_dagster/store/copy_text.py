"""Rows in the text format of PostgreSQL's COPY.

What lives here: encoding, many rows at a time, because one by one it costs more than reading the page did. What must
not: statements.

Source: PostgreSQL manual, "COPY", section "Text Format".
"""

from __future__ import annotations

from collections.abc import Sequence

Row = tuple[str, str | None, bytes]
"""rkey, cid, and the value's JSON bytes."""


def encode_rows(did: str, collection: str, rev: str, rows: Sequence[Row]) -> bytes:
    """Records of one pair as lines of (did, collection, rkey, cid, value, rev).

    Args:
        did: the account.
        collection: the NSID.
        rev: revision that the rows are marked with.
        rows: checked record keys, CIDs as they came, and values that hold no line break, tab or NUL (JSON allows none
            in strings, and the page parser has replaced those between tokens).

    Returns:
        One line per row.
    """
    if not rows:
        return b""
    cids: list[str | None] | list[str] = [row[1] for row in rows]
    if None in cids or not _is_plain("".join(cids)):  # type: ignore[arg-type]
        cids = ["\\N" if cid is None else _escape(cid) for cid in cids]
    head = f"{did}\t{collection}\t"
    lines = [f"{head}{row[0]}\t{cid}\t" for row, cid in zip(rows, cids, strict=True)]
    values = [row[2] for row in rows]
    joined = b"\n".join(values)
    if b"\\" in joined:
        values = joined.replace(b"\\", b"\\\\").split(b"\n")
    parts = [b""] * (3 * len(rows))
    parts[0::3] = "\n".join(lines).encode("utf-8", "replace").split(b"\n")
    parts[1::3] = values
    parts[2::3] = [b"\t" + _escape(rev).encode("utf-8", "replace") + b"\n"] * len(rows)
    return b"".join(parts)


def encode_array(texts: Sequence[str | None]) -> str:
    """A text array as PostgreSQL reads it; psycopg's own way looks at the texts one by one.

    Args:
        texts: its elements, None for NULL; without NUL characters.

    Returns:
        The literal.

    Source: PostgreSQL manual, "Array Input and Output Syntax".
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
    return text.isascii() and (not text or text.isalnum())


def _escape(text: str) -> str:
    """A stranger's string for COPY; a CID and a revision are plain ASCII, but nobody has to send one."""
    if _is_plain(text):
        return text
    clean = text.replace("\x00", "").replace("\\", "\\\\")
    return clean.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
