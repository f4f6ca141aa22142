"""Reading one page of `com.atproto.repo.listRecords`: bytes in, storable records and failed entries out.

 A record's `value` stays the bytes the server sent; nothing is
parsed into Python objects.

Two ways, the second slower and more forgiving: the whole page at once; or entry by entry (`outline`), which also
keeps the exact bytes of what fails.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from parity_dagster.atproto.split_page import STRING, find_outline, is_utf8
from parity_dagster.errors import MalformedAnswer, Reason
from parity_dagster.identifiers import are_valid_rkeys, is_valid_rkey

MAX_DEPTH = 1_000
"""Deepest nesting of a stored value; PostgreSQL's jsonb parser stops a few thousand levels later."""
MAX_ENTRIES = 10_000
"""Records accepted in one page; 100 are asked for at most, and a body of tiny ones would fill the memory."""
MAX_CURSOR = 8_192
"""Characters of a cursor; it has to fit into a URL."""

MAX_DIGITS = 1_000
"""Digits of the longest number; `1e131071` are eight bytes that the database, its dumps and its readers write out."""
MAX_DIGITS_TOGETHER = 1_000_000
"""Digits that the numbers of one record with an exponent may have, written out."""

# What a page without long numbers almost never holds, an `e` of a CID included; one byte first, which is looked for at
# the speed of the memory.
_LONG_EXPONENTS = (re.compile(rb"e[0-9+-][0-9][0-9]+[\]},\s]"), re.compile(rb"E[0-9+-][0-9][0-9]+[\]},\s]"))
_NUMBERS = re.compile(STRING + rb"|-?([0-9]+)(?:\.([0-9]+))?[eE]([+-]?)0*([0-9]*)", re.DOTALL)
_OPENERS = re.compile(STRING + rb"|[\[\]{}]", re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONTROL_TO_SPACE = bytes.maketrans(b"\n\r\t", b"   ")


# A plain tuple: made and freed by the hundred thousand, and let go by the garbage collector at its first look.
Record = tuple[str, str | None, bytes]
"""One record as the server shows it: rkey, cid and value. Its URI is rebuilt from the request, never taken from the
answer; the value is the record's JSON object, without newlines between its tokens."""


class FailedEntry(NamedTuple):
    """A record that cannot be stored, kept byte for byte."""

    rkey: str | None
    reason: Reason
    detail: str
    body: bytes


@dataclass(slots=True)
class Page:
    """A page: each rkey at most once among `records`."""

    cursor: str | None
    records: list[Record]
    failed: list[FailedEntry] = field(default_factory=list)
    body: bytes = b""
    """What the server sent."""

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body)


# gc=False: these hold no cycles, and following thousands of them costs more than making them
class _Entry(msgspec.Struct, gc=False):
    uri: str
    value: msgspec.Raw
    cid: str | None = None


class _Page(msgspec.Struct, gc=False):
    records: list[_Entry]
    cursor: str | None = None


class _Wrapped(msgspec.Struct):
    uri: str
    value: msgspec.Raw
    cid: str | None = None
    type: msgspec.Raw | None = msgspec.field(default=None, name="$type")


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


# I4, I5
def parse_page(body: bytes, did: str, collection: str) -> Page:
    """Take a listRecords body apart.

    Args:
        body: the answer's bytes, decompressed.

    Returns:
        The page; records of another account or collection, and those Postgres cannot hold, are in `failed`.

    Raises:
        MalformedAnswer: the body is not a listRecords answer at all.

    Source: lexicon com.atproto.repo.listRecords; data-model specification for what a value may be.
    """
    if body.isascii() or is_utf8(body):
        try:
            parsed = _decode_page(body)
        except (msgspec.MsgspecError, RecursionError):
            pass
        else:
            records = _sift(body, parsed.records, f"at://{did}/{collection}/")
            if records is not None:
                return Page(_checked_cursor(parsed.cursor), records, [], body)
    return _parse_by_record(body, f"at://{did}/{collection}/")


def parse_entry(item: bytes, did: str, collection: str) -> Record | FailedEntry:
    """Read one entry of a page's list.

    Returns:
        The record, or why it is not stored; `item` is kept as it is then.
    """
    return _read_entry(item, f"at://{did}/{collection}/")


def find_entries(body: bytes, did: str, collection: str, rkeys: Collection[str]) -> dict[str, bytes]:
    """Find the exact bytes of some records of a page that was parsed before.

    Returns:
        The first entry of each rkey.
    """
    found: dict[str, bytes] = {}
    prefix = f"at://{did}/{collection}/"
    for item in find_outline(body)[1]:
        entry = _read_entry(item, prefix)
        if not isinstance(entry, FailedEntry) and entry[0] in rkeys:
            found.setdefault(entry[0], item)
    return found


def _sift(body: bytes, entries: list[_Entry], prefix: str) -> list[Record] | None:
    """The fast path: every entry has the lexicon's shape; None if some record is not sound after all.

    The checks of `_check`, each made on all records at once: one by one they would take longer than the parsing.
    """
    if len(entries) > MAX_ENTRIES:
        raise MalformedAnswer(f"{len(entries)} records in one page")
    start = len(prefix)
    uris = [entry.uri for entry in entries]
    rkeys = [uri[start:] for uri in uris]
    values = [bytes(entry.value) for entry in entries]
    if b"\n" in body or b"\t" in body or b"\r" in body:
        values = [value.translate(_CONTROL_TO_SPACE) for value in values]
    if (
        not (b"\\" in body and b"\\u0000" in body)
        and not _may_hold_long_numbers(body)
        and "\n".join(uris) == prefix + f"\n{prefix}".join(rkeys)
        and are_valid_rkeys(rkeys)
        and len(set(rkeys)) == len(rkeys)
        # few different ones, as most records of a collection begin alike
        and all(head[:1] == b"{" and not head.startswith(_WRAPPER_STARTS) for head in {value[:8] for value in values})
        # each level takes two bytes
        and not [
            value
            for value in values
            if len(value) > 2 * MAX_DEPTH and value.count(b"[") + value.count(b"{") > MAX_DEPTH
        ]
    ):
        return list(zip(rkeys, [entry.cid for entry in entries], values, strict=True))
    return _sift_singly(body, entries, prefix)


def _sift_singly(body: bytes, entries: list[_Entry], prefix: str) -> list[Record] | None:
    """The same, record by record: something on the page needs a closer look."""
    start = len(prefix)
    # Page-wide looks that spare the per-record ones: most pages hold neither escapes nor line breaks.
    suspicious = b"\\u0000" in body or _may_hold_long_numbers(body)
    pretty = b"\n" in body or b"\t" in body or b"\r" in body
    deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    records: dict[str, Record] = {}
    for entry in entries:
        uri, cid = entry.uri, entry.cid
        value = bytes(entry.value)
        if pretty:
            value = value.translate(_CONTROL_TO_SPACE)
        rkey = uri[start:]
        if (
            suspicious
            or not uri.startswith(prefix)
            or not is_valid_rkey(rkey)
            or value[0] != 0x7B  # "{"
            or value.startswith(_WRAPPER_STARTS)
            or (deep and value.count(b"[") + value.count(b"{") > MAX_DEPTH)
        ):
            checked = _check(entry, b"", prefix)
            if isinstance(checked, FailedEntry):
                return None
            _, cid, value = checked
        if rkey not in records:
            records[rkey] = rkey, cid, value
    return list(records.values())


_WRAPPER_STARTS = (b'{"uri"', b'{"cid"', b'{"value"', b"{ ")


def _check(entry: _Entry, item: bytes, prefix: str) -> Record | FailedEntry:
    """All checks on one record, with the reason if it fails; `item` is the entry byte for byte."""
    uri, cid = entry.uri, entry.cid
    value = bytes(entry.value).translate(_CONTROL_TO_SPACE)
    rkey = uri[len(prefix) :] if uri.startswith(prefix) else None
    if rkey is None:
        return FailedEntry(None, Reason.WRONG_AUTHORITY, f"the record's uri is not under {prefix}: {uri[:200]!a}", item)
    if not is_valid_rkey(rkey):
        return FailedEntry(None, Reason.INVALID_RKEY, f"not a record key: {rkey[:200]!a}", item)
    if value.startswith(_WRAPPER_STARTS):
        value = _unwrap(value, uri)
    if value[:1] != b"{":
        return FailedEntry(rkey, Reason.NOT_AN_OBJECT, "the record's value is not a JSON object", item)
    if b"\\u0000" in value and _NUL.search(value):
        return FailedEntry(rkey, Reason.NUL_CHARACTER, "PostgreSQL cannot store the character U+0000 in jsonb", item)
    if value.count(b"[") + value.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return FailedEntry(rkey, Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels", item)
    if _may_hold_long_numbers(value) and (problem := _find_long_number(value)):
        return FailedEntry(rkey, Reason.NUMBER_TOO_LONG, problem, item)
    # A CID never holds a NUL, which PostgreSQL cannot store either; without it the value itself is compared.
    return rkey, None if cid is not None and "\x00" in cid else cid, value


def _unwrap(value: bytes, uri: str) -> bytes:
    """The inner record of a value that repeats the whole entry, as an older PDS sends it; else the value itself."""
    try:
        wrapped = _decode_wrapped(value)
    except (msgspec.MsgspecError, RecursionError):
        return value
    return bytes(wrapped.value) if wrapped.uri == uri and wrapped.type is None else value


def _parse_by_record(body: bytes, prefix: str) -> Page:
    """The slow path: some record spoils the page for a strict parser, or must be kept byte for byte."""
    cursor, items = find_outline(body)
    if len(items) > MAX_ENTRIES:
        raise MalformedAnswer(f"{len(items)} records in one page")
    records: dict[str, Record] = {}
    failed: list[FailedEntry] = []
    for item in items:
        entry = _read_entry(item, prefix)
        if isinstance(entry, FailedEntry):
            failed.append(entry)
        else:
            records.setdefault(entry[0], entry)
    return Page(_checked_cursor(cursor), list(records.values()), failed, body)


def _checked_cursor(cursor: str | None) -> str | None:
    if cursor and (len(cursor) > MAX_CURSOR or "\x00" in cursor):
        raise MalformedAnswer(f"the answer's cursor of {len(cursor)} characters cannot be sent back")
    return cursor or None


def _read_entry(item: bytes, prefix: str) -> Record | FailedEntry:
    try:
        if not is_utf8(item):
            return FailedEntry(_rkey_of(item, prefix), Reason.INVALID_UTF8, "the record is not valid UTF-8", item)
        return _check(_decode_entry(item), item, prefix)
    except RecursionError:
        return FailedEntry(_rkey_of(item, prefix), Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels", item)
    except msgspec.ValidationError as exc:
        return FailedEntry(_rkey_of(item, prefix), Reason.WRONG_SHAPE, f"not a record entry: {exc}", item)
    except msgspec.DecodeError as exc:
        if _SURROGATE.search(item):
            detail = "a string holds one half of a surrogate pair, which is no character"
            return FailedEntry(_rkey_of(item, prefix), Reason.LONE_SURROGATE, detail, item)
        return FailedEntry(_rkey_of(item, prefix), Reason.INVALID_JSON, f"not JSON: {exc}", item)


def _rkey_of(item: bytes, prefix: str) -> str | None:
    """The rkey of an entry that does not parse, if its uri can be made out."""
    match = re.search(rb'"uri"\s*:\s*"' + re.escape(prefix.encode()) + rb'([A-Za-z0-9._:~-]+)"', item)
    return match[1].decode() if match and is_valid_rkey(match[1].decode()) else None


def _may_hold_long_numbers(json: bytes) -> bool:
    return any(pattern.search(json) for pattern in _LONG_EXPONENTS)


def _find_long_number(value: bytes) -> str | None:
    """What is wrong with a record's numbers, if anything.

    A number without an exponent is as long as it was sent, so only the others can grow.
    """
    together = 0
    for match in _NUMBERS.finditer(value):
        whole, fraction, sign, exponent = match.groups(default=b"")
        if not whole:
            continue  # a string
        shift = int(exponent or b"0") if len(exponent) <= 6 else 10**6
        if sign == b"-":
            shift = -shift
        digits = max(1, len(whole) + shift) + max(0, len(fraction) - shift)
        if digits > MAX_DIGITS:
            shown = match[0][:40].decode("ascii")
            return f"{shown} has more than {MAX_DIGITS:,} digits when it is written out"
        together += digits
    if together > MAX_DIGITS_TOGETHER:
        return f"its numbers have more than {MAX_DIGITS_TOGETHER:,} digits together when they are written out"
    return None


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
