"""Odd records: everything that real repositories hold and a careless importer falls over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parity_dagster.sample_network.blocks import make_cid, record_block
from parity_dagster.sample_network.content import POST, encode
from parity_dagster.sample_network.repo import Record

_TIME = "2024-07-01T12:00:00.000Z"


@dataclass(frozen=True, slots=True)
class OddKind:
    """A kind of odd record.

    Attributes:
        name: what it is called.
        storable: True if Postgres' jsonb can hold the value as it is and the record is the account's own;
            False if it cannot be stored; None if both are sensible.
    """

    name: str
    storable: bool | None


Maker = Callable[[str, str, str], Record]
_MAKERS: dict[str, Maker] = {}
ODD_KINDS: dict[str, OddKind] = {}


def make_odd(kind: str, did: str, nsid: str, rkey: str) -> Record:
    """Make an odd record; kinds about record keys extend `rkey`."""
    if kind not in _MAKERS:
        raise ValueError(f"no odd record is called {kind!r}; there are {', '.join(ODD_KINDS)}")
    record = _MAKERS[kind](did, nsid, rkey)
    record.odd = kind
    return record


def _value(nsid: str, /, **fields: Any) -> dict[str, Any]:
    return {"$type": nsid, "text": "odd", "createdAt": _TIME} | fields


def _record(rkey: str, value: bytes) -> Record:
    return Record(rkey, make_cid(record_block(value)), value)


def _kind(name: str, storable: bool | None) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        _MAKERS[name] = maker
        ODD_KINDS[name] = OddKind(name, storable)
        return maker

    return register


def _register_values() -> None:
    """Register the kinds whose oddity lies in the value alone."""

    def simple(name: str, storable: bool | None, make: Callable[[str], bytes]) -> None:
        _kind(name, storable)(lambda did, nsid, rkey: _record(rkey, make(nsid)))

    def without(field: str) -> Callable[[str], bytes]:
        return lambda nsid: encode({key: item for key, item in _value(nsid).items() if key != field})

    def spliced(field: bytes) -> Callable[[str], bytes]:
        return lambda nsid: encode(_value(nsid))[:-1] + b"," + field + b"}"

    simple("missing-text", True, without("text"))
    simple("missing-created-at", True, without("createdAt"))
    simple("missing-type", True, without("$type"))
    simple("wrong-type", True, lambda nsid: encode(_value("com.example.other")))
    simple("malformed-created-at", True, lambda nsid: encode(_value(nsid, createdAt="yesterday, around 25:61")))
    simple("future-created-at", True, lambda nsid: encode(_value(nsid, createdAt="9999-12-31T23:59:59.999Z")))
    simple("ancient-created-at", True, lambda nsid: encode(_value(nsid, createdAt="0000-01-01T00:00:00+99:99")))
    simple("number-created-at", True, lambda nsid: encode(_value(nsid, createdAt=1720000000)))
    simple("text-not-a-string", True, lambda nsid: encode(_value(nsid, text={"a": [1]}, langs="en", subject=7)))
    simple("empty-value", True, lambda nsid: b"{}")
    simple("float", True, spliced(b'"ratio":1.10,"tiny":1e-7'))
    simple("huge-int", True, spliced(b'"n":9007199254740993'))
    simple("giant-int", None, spliced(b'"n":' + b"9" * 5000))
    simple("huge-exponent", None, spliced(b'"n":1e400'))
    simple("exploding-numbers", False, spliced(b'"createdAt":[' + b",".join([b"1e131071"] * 10_000) + b"]"))
    simple("deep", True, spliced(b'"deep":' + b"[" * 200 + b"]" * 200))
    simple("very-deep", None, spliced(b'"deep":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000))
    simple("wide", True, lambda nsid: encode(_value(nsid, many=list(range(50_000)))))
    simple("big", True, lambda nsid: encode(_value(nsid, text="ü" * 2**20)))
    simple("duplicate-fields", None, spliced(b'"text":"second"'))
    simple("escaped", True, spliced(b'"text2":"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\\\\""'))
    simple("nul", False, spliced(b'"name":"a\\u0000b"'))
    simple("nul-field-name", False, spliced(b'"a\\u0000b":1'))
    simple("lone-surrogate", False, spliced(b'"name":"a\\ud800b"'))
    simple("invalid-utf8", False, spliced(b'"name":"a\xff\xc3b"'))
    simple("encoded-surrogate", False, spliced(b'"name":"a\xed\xa0\x80b"'))
    simple("value-string", False, lambda nsid: b'"just text"')
    simple("value-number", False, lambda nsid: b"42")
    simple("value-array", False, lambda nsid: b'[{"$type":"a"}]')
    simple("value-null", False, lambda nsid: b"null")
    simple("links", True, spliced(b'"l":{"$link":"%b"},"b":{"$bytes":"3q2+7w"}' % make_cid(b"x").encode()))
    simple("legacy-blob", True, spliced(b'"image":{"cid":"%b","mimeType":"image/png"}' % make_cid(b"y").encode()))
    simple(
        "pretty",
        True,
        lambda nsid: encode(_value(nsid)).replace(b",", b" ,\r\n\t ").replace(b'":', b'" : ').replace(b"{", b"{\n  "),
    )


_register_values()


def _entry(kind: str, storable: bool | None, template: bytes) -> None:
    """Register a kind whose list entry is written out, with the proper `uri`, `cid` and `value` at hand."""

    def make(did: str, nsid: str, rkey: str) -> Record:
        record = _record(rkey, encode(_value(nsid)))
        proper = {
            b"uri": f"at://{did}/{nsid}/{rkey}".encode(),
            b"stranger": f"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/{nsid}/{rkey}".encode(),
            b"elsewhere": f"at://{did}/{'com.example.other' if nsid == POST else POST}/{rkey}".encode(),
            b"bare": f"at://{did}/{nsid}".encode(),
            b"cid": (record.cid or "").encode(),
            b"value": record.value,
        }
        record.entry = template % proper
        return record

    _kind(kind, storable)(make)


_entry("null-cid", True, b'{"uri":"%(uri)b","cid":null,"value":%(value)b}')
_entry("number-cid", None, b'{"uri":"%(uri)b","cid":17,"value":%(value)b}')
_entry(
    "more-fields",
    True,
    b'{"$type":"x#record","uri":"%(uri)b","seq":1,"cid":"%(cid)b","value":%(value)b,"z":[]}',
)
_entry("fields-reversed", True, b'{"value":%(value)b,"cid":"%(cid)b","uri":"%(uri)b"}')
_entry("wrong-authority", False, b'{"uri":"%(stranger)b","cid":"%(cid)b","value":%(value)b}')
_entry("wrong-collection", False, b'{"uri":"%(elsewhere)b","cid":"%(cid)b","value":%(value)b}')
_entry("uri-without-rkey", False, b'{"uri":"%(bare)b","cid":"%(cid)b","value":%(value)b}')
_entry("uri-with-spaces", False, b'{"uri":"%(uri)b and more","cid":"%(cid)b","value":%(value)b}')
_entry("uri-not-a-string", False, b'{"uri":{"a":1},"cid":"%(cid)b","value":%(value)b}')
_entry("missing-uri", False, b'{"cid":"%(cid)b","value":%(value)b}')
_entry("missing-value", False, b'{"uri":"%(uri)b","cid":"%(cid)b"}')
_entry("entry-string", False, b'"%(uri)b"')
_entry("entry-null", False, b"null")
_entry(
    "double-wrapped",
    None,
    b'{"uri":"%(uri)b","cid":"%(cid)b","value":{"uri":"%(uri)b","cid":"%(cid)b","value":%(value)b}}',
)


@_kind("missing-cid", True)
def _missing_cid(did: str, nsid: str, rkey: str) -> Record:
    return Record(rkey, None, encode(_value(nsid)))


@_kind("duplicate", True)
def _duplicate(did: str, nsid: str, rkey: str) -> Record:
    record = _record(rkey, encode(_value(nsid)))
    record.copies = 2
    return record


@_kind("long-rkey", True)
def _long_rkey(did: str, nsid: str, rkey: str) -> Record:
    return _record((rkey + "x" * 512)[:512], encode(_value(nsid)))


@_kind("odd-rkey", True)
def _odd_rkey(did: str, nsid: str, rkey: str) -> Record:
    return _record(f"{rkey}:a~b._-Z", encode(_value(nsid)))


@_kind("bad-rkey", False)
def _bad_rkey(did: str, nsid: str, rkey: str) -> Record:
    return _record(f"{rkey}%20$!", encode(_value(nsid)))
