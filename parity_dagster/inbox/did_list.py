"""Reads a list of accounts: one DID or handle per line, as people and other programs write it.

`parity import --file` and the inbox understand the same files, because both read them here: line by line, from any
position, in the same memory whatever the file holds.

The format: UTF-8, or UTF-16 with a byte order mark; lines end with LF or CRLF; blank lines are ignored, and
so is everything from a `#` that starts a line or follows white space.
"""

from __future__ import annotations

import codecs
import select
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from parity_dagster.errors import InvalidIdentifier
from parity_dagster.identifiers import parse_account

MAX_LINE_BYTES = 8192
"""Longest line that is read, in bytes: room for a DID of 2,048 characters in UTF-16 and a comment."""

_BLOCK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_END = {"utf-8": b"\n", "utf-16-le": b"\n\0", "utf-16-be": b"\0\n"}


class ListPosition(NamedTuple):
    """Where reading goes on; plain values, so that it can be kept as JSON between two visits."""

    offset: int = 0
    """Bytes of the file read so far."""
    line: int = 0
    """Lines read so far."""
    encoding: str = ""
    """The encoding that the start of the file shows: utf-8, utf-16-le or utf-16-be; empty before the start was read."""
    in_long_line: bool = False
    """Whether `offset` lies within a line that is too long and already reported."""


class ListLine(NamedTuple):
    """One line of the list; with neither an account nor a problem, there was nothing on it."""

    number: int
    """Line number, counted from 1."""
    account: str | None
    """A DID, or a handle in lower case."""
    problem: str | None
    """Why the line names no account: one printable line, shortened, without the line number."""
    end: ListPosition
    """Where the next line starts."""


def read_did_list(
    stream: BinaryIO, start: ListPosition | None = None, *, allow_private: bool = False
) -> Iterator[ListLine]:
    """Read accounts from a list, without ever holding more than a block of it.

    Every line is yielded, the empty ones too, so that a caller with a time budget gets a turn often; a line
    that is too long gives further turns with nothing on them while the rest of it is passed over.
    Duplicates are yielded as often as they occur. A byte sequence that is not text costs its own line only.

    Args:
        stream: the bytes; it must stand at `start.offset` already.
        start: the `end` of the last line read before; None from the start of the file.
        allow_private: accept did:web of private hosts too (`PARITY_ALLOW_PRIVATE_HOSTS`).
    """
    position = start or ListPosition()
    read_some: Callable[[int], bytes | None] = getattr(stream, "read1", stream.read)

    def read() -> bytes:
        """What a pipe holds already, not a whole block of what it may hold one day."""
        while (block := read_some(_BLOCK)) is None:  # somebody set it not to block
            select.select([stream], [], [])
        return block

    buffer = b""
    if not position.encoding:
        while len(buffer) < 3 and (block := read()):
            buffer += block
        mark, encoding = next(
            ((mark, encoding) for mark, encoding in _MARKS if buffer.startswith(mark)), (b"", "utf-8")
        )
        buffer = buffer[len(mark) :]
        position = position._replace(encoding=encoding, offset=len(mark))
    at_end = False
    begin = 0
    while True:
        length = _line_length(buffer, begin, position.encoding)
        if length is None and not at_end and len(buffer) - begin <= MAX_LINE_BYTES:
            block = read()
            at_end = not block
            buffer, begin = buffer[begin:] + block, 0
            continue
        if length is None and begin == len(buffer):
            return
        if length is None:  # the last line of a file that does not end with one, or more than is read
            # an even number of bytes, so that UTF-16 stays aligned
            take = len(buffer) - begin if at_end else (len(buffer) - begin) & ~1
            ended = at_end
        else:
            take, ended = length, True
        raw = buffer[begin : begin + take]
        begin += take
        number = position.line + 1
        was_long = position.in_long_line
        position = ListPosition(
            position.offset + take, number if ended else position.line, position.encoding, not ended
        )
        if was_long:
            yield ListLine(number, None, None, position)
        elif not ended or len(raw) > MAX_LINE_BYTES:
            yield ListLine(number, None, f"the line is longer than {MAX_LINE_BYTES:,} bytes", position)
        else:
            account, problem = _read_line(raw, position.encoding, allow_private)
            yield ListLine(number, account, problem, position)


def _line_length(buffer: bytes, begin: int, encoding: str) -> int | None:
    """Bytes of the line at `begin`, its end included; None if the buffer does not hold its end."""
    line_end = _LINE_END[encoding]
    found = buffer.find(line_end, begin)
    # in UTF-16 the two bytes may belong to two neighbours, as in U+0A00 after U+xx00
    while len(line_end) == 2 and found != -1 and (found - begin) % 2:
        found = buffer.find(line_end, found + 1)
    return None if found == -1 else found + len(line_end) - begin


def _read_line(raw: bytes, encoding: str, allow_private: bool) -> tuple[str | None, str | None]:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as exc:
        shown = raw[:40].decode("ascii", "backslashreplace").strip()
        return None, f"{shown!a} is not {encoding.upper()[:6]} text (byte {exc.start + 1})"
    text = text.strip()
    if not text or text.startswith("#"):
        return None, None
    words = text.split(maxsplit=1)
    if len(words) > 1:
        if not words[1].startswith("#"):
            end_mark = "; end lines with LF or CRLF, not CR alone" if "\r" in text else ""
            return None, f"{text[:80]!a} holds more than one word; give one account per line{end_mark}"
        text = words[0]
    try:
        return parse_account(text, allow_private=allow_private), None
    except InvalidIdentifier as exc:
        return None, str(exc)
