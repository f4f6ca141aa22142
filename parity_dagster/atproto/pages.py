"""Reading one page of `com.atproto.repo.listRecords`: bytes in, storable records and rejects out.

What lives here: the shape of a page, and the rules that decide whether a record can be trusted and stored.
What must not: fetching (see `repo`) and SQL. A record's `value` stays the bytes the server sent; nothing is
parsed into Python objects.

Three parsers, tried in order, each slower and more forgiving: the whole page at once; record by record; and a
splitter that only finds where records begin and end, for pages that no JSON parser takes as a whole (lone
surrogates, nesting deeper than the parser's stack, broken UTF-8). What the last one cannot take apart is a
malformed answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from parity_dagster.atproto.identifiers import is_valid_rkey
from parity_dagster.errors import MalformedAnswer

MAX_DEPTH = 1_000
"""Deepest nesting of a stored value; PostgreSQL's jsonb parser stops a few thousand levels later."""

_OPENERS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CONTROL_TO_SPACE = bytes.maketrans(b"\n\r\t", b"   ")


class Record(NamedTuple):
    """One record as the server shows it; its URI is rebuilt from the request, never taken from the answer."""

    rkey: str
    cid: str | None
    value: bytes
    """The record's JSON object, without newlines between its tokens."""


class RejectedRecord(NamedTuple):
    """A record that cannot be stored, kept byte for byte."""

    rkey: str | None
    reason: str
    """Short code, e.g. `wrong_authority`."""
    detail: str
    body: bytes


@dataclass(slots=True)
class Page:
    """A page: each rkey at most once among `records`."""

    cursor: str | None
    records: list[Record]
    rejected: list[RejectedRecord] = field(default_factory=list)
    size: int = 0
    """Bytes of the body."""


class _Entry(msgspec.Struct):
    uri: str
    value: msgspec.Raw
    cid: str | None = None


class _Page(msgspec.Struct):
    records: list[_Entry]
    cursor: str | None = None


class _RawPage(msgspec.Struct):
    records: list[msgspec.Raw]
    cursor: str | None = None


class _Wrapped(msgspec.Struct):
    uri: str
    value: msgspec.Raw
    cid: str | None = None
    type: msgspec.Raw | None = msgspec.field(default=None, name="$type")


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_raw_page = msgspec.json.Decoder(_RawPage).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode
_decode_string = msgspec.json.Decoder(str | None).decode


def parse_page(body: bytes, did: str, collection: str) -> Page:
    """Take a listRecords body apart.

    Args:
        body: the answer's bytes, decompressed.
        did: the account that was asked for.
        collection: the NSID that was asked for.

    Returns:
        The page; records of another account or collection, and those Postgres cannot hold, are in `rejected`.

    Raises:
        MalformedAnswer: the body is not a listRecords answer at all.

    Source: lexicon com.atproto.repo.listRecords; data-model specification for what a value may be.
    """
    if body.isascii() or _is_utf8(body):
        try:
            parsed = _decode_page(body)
        except (msgspec.MsgspecError, RecursionError):
            return _parse_by_record(body, did, collection)
        return _sift(body, parsed.cursor, parsed.records, did, collection)
    return _parse_by_record(body, did, collection)


def _sift(body: bytes, cursor: str | None, entries: list[_Entry], did: str, collection: str) -> Page:
    """The fast path: every entry has the lexicon's shape."""
    prefix = f"at://{did}/{collection}/"
    start = len(prefix)
    # Page-wide looks that spare the per-record ones: most pages hold neither escapes nor line breaks.
    suspicious = b"\\u0000" in body if b"\\u" in body else False
    pretty = b"\n" in body or b"\t" in body or b"\r" in body
    deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    records: dict[str, Record] = {}
    rejected: list[RejectedRecord] = []
    for entry in entries:
        uri = entry.uri
        value = bytes(entry.value)
        rkey = uri[start:]
        if (
            not uri.startswith(prefix)
            or not is_valid_rkey(rkey)
            or value[0] != 0x7B  # "{"
            or value.startswith(_WRAPPER_STARTS)
            or suspicious
            or deep
        ):
            checked = _check(entry, value, prefix)
            if isinstance(checked, RejectedRecord):
                rejected.append(checked)
                continue
            rkey, _, value = checked
        if pretty:
            value = value.translate(_CONTROL_TO_SPACE)
        if rkey not in records:
            records[rkey] = Record(rkey, entry.cid, value)
    return Page(cursor or None, list(records.values()), rejected, len(body))


_WRAPPER_STARTS = (b'{"uri"', b'{"cid"', b'{"value"')


def _check(entry: _Entry, value: bytes, prefix: str) -> Record | RejectedRecord:
    """All checks on one record, with the reason if it fails."""
    uri = entry.uri
    rkey = uri[len(prefix) :] if uri.startswith(prefix) else None

    def reject(reason: str, detail: str) -> RejectedRecord:
        body = msgspec.json.encode({"uri": entry.uri, "cid": entry.cid, "value": entry.value})
        return RejectedRecord(rkey, reason, detail, body)

    if rkey is None:
        return reject("wrong_authority", f"the record's uri is not under {prefix}: {uri[:200]!r}")
    if not is_valid_rkey(rkey):
        bad_rkey, rkey = rkey, None
        return reject("invalid_rkey", f"not a record key: {bad_rkey[:200]!r}")
    if value.startswith(_WRAPPER_STARTS):
        value = _unwrap(value, uri)
    if value[:1] != b"{":
        return reject("not_an_object", "the record's value is not a JSON object")
    if b"\\u0000" in value and _NUL.search(value):
        return reject("nul_character", "PostgreSQL cannot store the character U+0000 in jsonb")
    if _depth(value) > MAX_DEPTH:
        return reject("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    return Record(rkey, entry.cid, value)


def _unwrap(value: bytes, uri: str) -> bytes:
    """The inner record of a value that repeats the whole entry, as an older PDS sends it; else the value itself."""
    try:
        wrapped = _decode_wrapped(value)
    except msgspec.MsgspecError:
        return value
    return bytes(wrapped.value) if wrapped.uri == uri and wrapped.type is None else value


def _parse_by_record(body: bytes, did: str, collection: str) -> Page:
    """The slow path: some record spoils the page for a strict parser."""
    try:
        if not _is_utf8(body):
            raise msgspec.DecodeError
        raw = _decode_raw_page(body)
        cursor, items = raw.cursor, [bytes(item) for item in raw.records]
    except (msgspec.MsgspecError, RecursionError):
        cursor, items = _split(body)
    entries: list[_Entry] = []
    rejected: list[RejectedRecord] = []
    prefix = f"at://{did}/{collection}/"
    for item in items:
        entry = _parse_entry(item, prefix)
        if isinstance(entry, RejectedRecord):
            rejected.append(entry)
        else:
            entries.append(entry)
    page = _sift(body, cursor, entries, did, collection)
    # The rejects built by _sift re-encode the entry; here the exact bytes are at hand, and they are all kept.
    page.rejected.extend(rejected)
    return page


def _parse_entry(item: bytes, prefix: str) -> _Entry | RejectedRecord:
    try:
        if not _is_utf8(item):
            return RejectedRecord(_rkey_of(item, prefix), "invalid_utf8", "the record is not valid UTF-8", item)
        return _decode_entry(item)
    except RecursionError:
        return RejectedRecord(_rkey_of(item, prefix), "too_deep", f"nested deeper than {MAX_DEPTH} levels", item)
    except msgspec.ValidationError as exc:
        return RejectedRecord(_rkey_of(item, prefix), "wrong_shape", f"not a record entry: {exc}", item)
    except msgspec.DecodeError as exc:
        reason = "lone_surrogate" if re.search(rb"\\u[dD][89a-fA-F]", item) else "invalid_json"
        return RejectedRecord(_rkey_of(item, prefix), reason, f"not storable JSON: {exc}", item)


def _rkey_of(item: bytes, prefix: str) -> str | None:
    """The rkey of an entry that does not parse, if its uri can be made out."""
    match = re.search(rb'"uri"\s*:\s*"' + re.escape(prefix.encode()) + rb'([A-Za-z0-9._:~-]+)"', item)
    return match[1].decode() if match and is_valid_rkey(match[1].decode()) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _depth(value: bytes) -> int:
    depth = deepest = 0
    for match in _OPENERS.finditer(value):
        token = match[0]
        if token in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"}]":
            depth -= 1
    return deepest


def _split(body: bytes) -> tuple[str | None, list[bytes]]:
    """Find the cursor and the extent of each record without understanding the records.

    Raises:
        MalformedAnswer: the outline is not `{"records": [...], "cursor": "..."}`, or it is cut.
    """
    cursor: str | None = None
    items: list[bytes] | None = None
    for key, value in _members(body):
        if key == b'"cursor"':
            try:
                cursor = _decode_string(value)
            except msgspec.MsgspecError as exc:
                raise MalformedAnswer("the answer's cursor is not a string") from exc
        elif key == b'"records"':
            items = list(_elements(value))
    if items is None:
        raise MalformedAnswer("the answer has no list of records")
    return cursor, items


def _members(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for member in _elements(body, b"{", b"}"):
        match = re.match(rb'\s*("(?:[^"\\]|\\.)*")\s*:(.*)', member, re.DOTALL)
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
