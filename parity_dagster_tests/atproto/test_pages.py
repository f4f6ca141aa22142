"""The page parser: what is stored, what fails and why, and what is no page at all."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from parity_dagster.atproto.pages import MAX_CURSOR, MAX_DEPTH, MAX_ENTRIES, find_entries, parse_entry, parse_page
from parity_dagster.errors import MalformedAnswer
from parity_dagster.sample_network import ODD_KINDS, POST
from parity_dagster.sample_network.odd import make_odd

DID = "did:plc:ewvi7nxzyoun6zhxrhs64aaa"
PREFIX = f"at://{DID}/{POST}/".encode()
GOOD = b'{"uri":"%bgood","cid":"bafygood","value":{"text":"fine"}}' % PREFIX


def page_of(*entries: bytes, cursor: bytes = b'"next"') -> bytes:
    return b'{"records":[' + b",".join(entries) + b'],"cursor":' + cursor + b"}"


def entry(rkey: bytes = b"one", value: bytes = b'{"a":1}', cid: bytes = b'"bafy"') -> bytes:
    return b'{"uri":"%b%b","cid":%b,"value":%b}' % (PREFIX, rkey, cid, value)


# I4
def test_a_plain_page_gives_every_record_with_the_servers_own_bytes() -> None:
    value = b'{"text":"\\u00e9 \xc3\xa9","n":9007199254740993,"f":1.10}'
    page = parse_page(page_of(entry(value=value), GOOD), DID, POST)
    assert page.cursor == "next"
    assert [record[:2] for record in page.records] == [("one", "bafy"), ("good", "bafygood")]
    assert page.records[0][2] == value
    assert page.failed == []


@pytest.mark.parametrize("cursor", [b"null", b'""'])
def test_a_null_or_empty_cursor_is_the_end(cursor: bytes) -> None:
    assert parse_page(page_of(GOOD, cursor=cursor), DID, POST).cursor is None
    assert parse_page(b'{"records":[]}', DID, POST).cursor is None


# I5
@pytest.mark.parametrize("kind", ODD_KINDS)
def test_each_odd_record_costs_no_other_record_and_is_kept_byte_for_byte(kind: str) -> None:
    odd = make_odd(kind, DID, POST, "3kaaaaaaaaaaa")
    exact = odd.as_entry(DID, POST)
    page = parse_page(page_of(GOOD, *[exact] * odd.copies), DID, POST)
    assert page.records[0][0] == "good"
    stored = [record for record in page.records if record[0] != "good"]
    assert len(stored) + len(page.failed) == 1
    if ODD_KINDS[kind].storable:
        assert stored
        assert stored[0][0] == odd.rkey
    elif ODD_KINDS[kind].storable is False:
        assert page.failed
    for entry in page.failed:
        assert entry.body == exact
        assert entry.reason
        assert entry.detail.isprintable()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(value=b'{"a":"x\\u0000"}'), "nul_character"),
        (entry(value=b'{"a":"\\ud83d"}'), "lone_surrogate"),
        (entry(value=b'{"a":"\xff"}'), "invalid_utf8"),
        (entry(value=b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}"), "too_deep"),
        (entry(value=b'{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}"), "too_deep"),
        (entry(value=b"[]"), "not_an_object"),
        (entry(rkey=b"a/b"), "invalid_rkey"),
        (entry(rkey=b"x" * 513), "invalid_rkey"),
        (entry(cid=b"7"), "wrong_shape"),
        (b'{"uri":"at://did:plc:other/%b/one","value":{}}' % POST.encode(), "wrong_authority"),
        (b'{"uri":"at://%b/app.other.thing/one","value":{}}' % DID.encode(), "wrong_authority"),
        (entry(value=b'{"a":tru}'), "invalid_json"),
        (b"null", "wrong_shape"),
    ],
)
def test_the_reason_names_what_is_wrong(bad: bytes, reason: str) -> None:
    page = parse_page(page_of(bad, GOOD), DID, POST)
    assert [rkey for rkey, _, _ in page.records] == ["good"]
    assert [(entry.reason, entry.body) for entry in page.failed] == [(reason, bad)]


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    page = parse_page(page_of(entry(value=b'{"a":"\\\\u0000"}')), DID, POST)
    assert [value for _, _, value in page.records] == [b'{"a":"\\\\u0000"}']


def test_a_nul_in_a_cid_costs_the_cid_and_not_the_record() -> None:
    (record,) = parse_page(page_of(entry(cid=b'"ba\\u0000fy"')), DID, POST).records
    assert record[:2] == ("one", None)


def test_depth_is_allowed_up_to_the_limit_and_only_nesting_counts() -> None:
    deepest = MAX_DEPTH - 200  # the parser's own stack ends a little earlier than ours
    deep = entry(value=b'{"a":' + b"[" * deepest + b"]" * deepest + b"}")
    wide = entry(rkey=b"wide", value=b'{"a":[' + b",".join([b"[]"] * 5_000) + b"]}")
    brackets = entry(rkey=b"text", value=b'{"a":"' + b"[" * 5_000 + b'"}')
    page = parse_page(page_of(deep, wide, brackets), DID, POST)
    assert [rkey for rkey, _, _ in page.records] == ["one", "wide", "text"]


def test_the_double_wrapped_form_is_unwrapped_but_a_record_that_resembles_it_is_not() -> None:
    inner = b'{"$type":"x","text":"t"}'
    wrapped = entry(value=b'{"uri":"%bone","cid":"bafy","value":%b}' % (PREFIX, inner))
    pretty = entry(rkey=b"two", value=b'{ "uri" : "%btwo",\n "cid":"bafy","value":%b}' % (PREFIX, inner))
    typed = entry(rkey=b"own", value=b'{"uri":"%bown","value":{},"$type":"com.example.bookmark"}' % PREFIX)
    other = entry(rkey=b"other", value=b'{"uri":"at://somebody/else","cid":"c","value":{}}')
    page = parse_page(page_of(wrapped, pretty, typed, other), DID, POST)
    records = {rkey: value for rkey, _, value in page.records}
    assert records["one"] == records["two"] == inner
    assert b"bookmark" in records["own"]
    assert b"somebody" in records["other"]


def test_a_record_that_stands_twice_in_a_page_counts_once() -> None:
    page = parse_page(page_of(GOOD, GOOD, entry()), DID, POST)
    assert [rkey for rkey, _, _ in page.records] == ["good", "one"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"records"',
        b"<html></html>",
        b'{"records":{"a":1},"cursor":7}',
        b'{"records":null}',
        b'{"cursor":"x"}',
        page_of(GOOD, cursor=b"7"),
        page_of(GOOD)[:-5],
        page_of(GOOD, entry())[:-60],
        page_of(GOOD) + b"trailing",
        b"\xff\xfe" + page_of(GOOD),
        page_of(GOOD).replace(b":", b";", 3),
        page_of(GOOD).replace(b"],", b"] "),
        page_of(GOOD, cursor=b'"' + b"x" * (MAX_CURSOR + 1) + b'"'),
        page_of(GOOD, cursor=b'"a\\u0000b"'),
        page_of(GOOD, cursor=b'"a\\ud800b"'),
        page_of(GOOD, cursor=b'"\\ud800\\udc00\x80"'),
        page_of(*[b"null"] * (MAX_ENTRIES + 1)),
        page_of(*[entry(rkey=b"%d" % n) for n in range(MAX_ENTRIES + 1)]),
    ],
)
def test_what_is_no_page_is_a_malformed_answer(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        parse_page(body, DID, POST)


@pytest.mark.parametrize(
    "body",
    [
        page_of(entry(value=b'{"a":"' + b'\\"' * 1_500_000)),
        page_of(entry(value=b'{"a":"\\ud800' + b'\\"' * 1_500_000)),
        page_of(entry(value=b'{"\\ud800":' + b"[" * 1_500_000)),
        page_of(entry(value=b'{"a":"\\ud800","b":"' + b"\\" * 2_000_001)),
        page_of(entry(value=b'{"a":"' + b"\\\\" * 1_000_000 + b'u0000"}')),
        b'{"records":[' + b"[" * 2_000_000,
        b'"' * 2_000_001,
        b'{"uri"' * 400_000,
    ],
)
def test_a_body_made_to_be_slow_to_read_is_not(body: bytes) -> None:
    began = time.process_time()
    with suppress(MalformedAnswer):
        parse_page(body, DID, POST)
    assert time.process_time() - began < 4, "of the processor's time"


def test_an_entry_alone_is_read_by_the_same_rules() -> None:
    assert parse_entry(GOOD, DID, POST) == ("good", "bafygood", b'{"text":"fine"}')
    assert parse_entry(b"null", DID, POST)[1] == "wrong_shape"


def test_the_exact_bytes_of_a_record_are_found_again() -> None:
    spaced = b'{ "uri" : "%bsp",\r\n "value" : { } }' % PREFIX
    body = page_of(GOOD, spaced, entry())
    assert find_entries(body, DID, POST, {"sp", "one"}) == {"sp": spaced, "one": entry()}
