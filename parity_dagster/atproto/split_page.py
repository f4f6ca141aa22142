"""Finding where the records of a page begin and end."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import msgspec

from parity_dagster.errors import MalformedAnswer

MAX_SPLIT = 8 * 2**20
"""Largest body that the splitter takes, in bytes; it is slow, and a smaller page can be asked for."""

# Possessive, and content with a string that never ends: a hostile body must not make the search start over and over.
STRING = rb'"(?:[^"\\]++|\\.?)*+"?'
"""Pattern of a JSON string, its end being optional at the end of the text."""
_TOKENS = re.compile(STRING + rb'|[\[\]{},:]|[^\s"\[\]{},:]++', re.DOTALL)
_MEMBER = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:(.*)', re.DOTALL)


class _RawPage(msgspec.Struct):
    records: list[msgspec.Raw]
    cursor: str | None = None


_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
_PIECE = 8_192

_decode_raw_page = msgspec.json.Decoder(_RawPage).decode
_decode_string = msgspec.json.Decoder(str | None).decode


def find_outline(body: bytes) -> tuple[str | None, list[bytes]]:
    """Take a page apart without understanding its entries.

    Args:
        body: the answer's bytes, decompressed.

    Returns:
        The cursor, and each entry's exact bytes.

    Raises:
        MalformedAnswer: the outline is not `{"records": [...], "cursor": "..."}`, or it is cut.
    """
    if is_utf8(body):
        try:
            raw = _decode_raw_page(body)
        except (msgspec.MsgspecError, RecursionError):
            pass
        else:
            return raw.cursor, [bytes(item) for item in raw.records]
    if len(body) > MAX_SPLIT:
        raise MalformedAnswer(f"the answer is not plain JSON, and its {len(body):,} bytes are too many to repair")
    return split_list(body, b"records")


def is_utf8(data: bytes) -> bool:
    """Tell whether bytes are valid UTF-8."""
    decode = _Utf8Decoder().decode
    view = memoryview(data)
    try:
        for start in range(0, len(data), _PIECE):  # one string of a whole page would be four times its size
            decode(view[start : start + _PIECE])
        decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def split_list(body: bytes, name: bytes) -> tuple[str | None, list[bytes]]:
    """Find the cursor and the extent of each entry without understanding the entries.

    Args:
        name: what the list is called, e.g. `records`.

    Raises:
        MalformedAnswer: the outline is not `{"records": [...], "cursor": "..."}`, or it is cut.
    """
    cursor: str | None = None
    items: list[bytes] | None = None
    for key, value in _members(body):
        if key == b'"cursor"':
            try:
                cursor = _decode_string(value)
            except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                raise MalformedAnswer("the answer's cursor is not a string") from exc
        elif key == b'"%b"' % name:
            items = list(_elements(value))
    if items is None:
        raise MalformedAnswer(f"the answer has no list of {name.decode()}")
    return cursor, items


def _members(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for member in _elements(body, b"{", b"}"):
        match = _MEMBER.match(member)
        if not match:
            raise MalformedAnswer("the answer is not a JSON object")
        yield match[1], match[2].strip()


def _elements(data: bytes, opener: bytes = b"[", closer: bytes = b"]") -> Iterator[bytes]:
    """The comma-separated parts of a JSON array or object, as they stand."""
    tokens = _TOKENS.finditer(data)
    first = next(tokens, None)
    if first is None or first[0] != opener:
        raise MalformedAnswer("the answer is not JSON of the promised shape")
    depth, begin = 0, first.end()
    for match in tokens:
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            if depth == 0:
                if token != closer or data[match.end() :].strip():
                    raise MalformedAnswer("the answer's brackets do not match")
                if part := data[begin : match.start()].strip():
                    yield part
                return
            depth -= 1
        elif token == b"," and depth == 0:
            yield data[begin : match.start()].strip()
            begin = match.end()
    raise MalformedAnswer("the answer is cut off")
