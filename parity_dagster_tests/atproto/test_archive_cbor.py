"""DAG-CBOR to JSON and back: known blocks, strictness, and the CIDs of JSON values."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from parity_dagster.atproto.archive import check_cid, cid_of
from parity_dagster.atproto.archive.cbor import NotDagCbor, block_cid, cid_bytes, record_json, to_json
from parity_dagster.sample_network.blocks import head, link, to_block

LINK = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
RAW = "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"

# of the interoperability tests of AT Protocol (data model): the value, its block, its CID
KNOWN = [
    (
        '{"string":"abc","unicode":"a~öñ©⽘☎𓋓😀👨‍👩‍👧‍👧","integer":123,"bool":true,"null":null,"array":["abc","def","ghi"],'
        '"object":{"string":"abc","number":123,"bool":true,"arr":["abc","def","ghi"]}}',
        "p2Rib29s9WRudWxs9mVhcnJheYNjYWJjY2RlZmNnaGlmb2JqZWN0pGNhcnKDY2FiY2NkZWZjZ2hpZGJvb2z1Zm51bWJlchh7ZnN0cmluZ2Nh"
        "YmNmc3RyaW5nY2FiY2dpbnRlZ2VyGHtndW5pY29kZXgvYX7DtsOxwqnivZjimI7wk4uT8J+YgPCfkajigI3wn5Gp4oCN8J+Rp+KAjfCfkac=",
        "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq",
    ),
    (
        f'{{"a":{{"$link":"{LINK}"}},"b":{{"$bytes":"nFERjvLLiw9qm45JrqH9QTzyC2Lu1Xb4ne6+sBrCzI0"}},'
        f'"c":{{"$type":"blob","ref":{{"$link":"{RAW}"}},"mimeType":"image/jpeg","size":10000}}}}',
        "o2Fh2CpYJQABcRIgZQYqWloA/BbXPGlEI3zLwVscSnI0SJM2iR0JF0GiOdBhYlggnFERjvLLiw9qm45JrqH9QTzyC2Lu1Xb4ne6+sBrCzI1h"
        "Y6RjcmVm2CpYJQABVRIgQljP/3j2E2l2l1Y/kmyR5dNXTS6iWuftktbr/COjiJ5kc2l6ZRknEGUkdHlwZWRibG9iaG1pbWVUeXBlamltYWdl"
        "L2pwZWc=",
        "bafyreihldkhcwijkde7gx4rpkkuw7pl6lbyu5gieunyc7ihactn5bkd2nm",
    ),
]


@pytest.mark.parametrize(("text", "block", "cid"), KNOWN)
def test_known_blocks_have_the_known_json_and_cid(text, block, cid):
    decoded = base64.b64decode(block)
    assert block_cid(decoded) == cid
    assert json.loads(record_json(decoded)) == json.loads(to_json(decoded)) == json.loads(text)
    assert cid_of(text.encode()) == cid
    assert check_cid(text.encode(), cid) == "equal"
    assert to_block(json.loads(text)) == decoded


# a map of one field, whose value is the given one
def _field(value: str) -> bytes:
    return b"\xa1\x61a" + bytes.fromhex(value)


@pytest.mark.parametrize(
    ("block", "what"),
    [
        (_field("1801"), "longer than it needs"),
        (_field("190018"), "longer than it needs"),
        (_field("1a0000ffff"), "longer than it needs"),
        (_field("1b00000000ffffffff"), "longer than it needs"),
        (_field("3801"), "longer than it needs"),
        (_field("780161"), "longer than it needs"),
        (_field("590001ff"), "longer than it needs"),
        (_field("980101"), "longer than it needs"),
        (_field("d8186161"), "tag"),
        (_field("d82a4401711220"), "not a CID"),
        (_field("d82a582500" + "01711221" + "00" * 32), "not a CID"),
        (_field("d82a6161"), "not a CID"),
        (_field("da0000002a41"), "longer than it needs"),
        (_field("f7"), "simple value"),
        (_field("e0"), "simple value"),
        (_field("f8ff"), "simple value"),
        (_field("f93c00"), "simple value or float"),
        (_field("fa3f800000"), "simple value or float"),
        (_field("fb7ff0000000000000"), "finite"),
        (_field("fbfff0000000000000"), "finite"),
        (_field("fb7ff8000000000000"), "finite"),
        (_field("7f616161ff"), "indefinite"),
        (_field("9fff"), "indefinite"),
        (_field("bfff"), "indefinite"),
        (_field("1c"), "indefinite or reserved"),
        (_field("61"), "too early"),
        (_field("19ff"), "too early"),
        (_field("9b00000000ffffffff"), "longer than"),
        (_field("9a7fffffff01"), "longer than the block"),
        (_field("ba7fffffff01"), "longer than the block"),
        (_field("01") + b"\x00", "follows"),
        (b"", "too early"),
        (b"\xa2\x61a\x01\x61a\x02", "order, or one occurs twice"),
        (b"\xa2\x61b\x01\x61a\x02", "order"),
        (b"\xa2\x62aa\x01\x61b\x02", "order"),
        (b"\xa1\x01\x01", "key of a map is not text"),
        (b"\xa1\x41a\x01", "key of a map is not text"),
    ],
)
def test_what_is_not_strict_is_refused_whichever_way_it_is_read(block, what):
    for reader in (record_json, to_json):
        with pytest.raises(NotDagCbor, match=what):
            reader(block)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (_field("1bffffffffffffffff"), b'{"a":18446744073709551615}'),
        (_field("3bffffffffffffffff"), b'{"a":-18446744073709551616}'),
        (_field("fb3ff199999999999a"), b'{"a":1.1}'),
        (_field("fb8000000000000000"), b'{"a":-0.0}'),
        (_field("40"), b'{"a":{"$bytes":""}}'),
        (_field("4101"), b'{"a":{"$bytes":"AQ"}}'),
        (_field("6122"), b'{"a":"\\""}'),
        (_field("6101"), b'{"a":"\\u0001"}'),
        # a byte string that looks like a CID is a byte string all the same
        (_field("5824" + "01711220" + "00" * 32), b'{"a":{"$bytes":"AXESIAAA' + b"A" * 40 + b'"}}'),
        (_field("5825" + "0001711220" + "00" * 32), b'{"a":{"$bytes":"AAFxEiAA' + b"A" * 42 + b'"}}'),
    ],
)
def test_values_at_the_edge_are_read_alike_by_both_ways(block, text):
    assert record_json(block) == to_json(block) == text


def test_a_link_beside_a_byte_string_of_the_same_bytes():
    cid = bytes.fromhex("01711220" + "11" * 32)
    block = b"\xa2\x61a" + head(2, 36) + cid + b"\x61b" + link(cid)
    found = json.loads(record_json(block))
    assert found["b"] == {"$link": block_cid_text(cid)}
    assert found["a"] == {"$bytes": base64.b64encode(cid).decode().rstrip("=")}


def block_cid_text(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


def test_text_that_is_not_utf8_becomes_json_that_is_none():
    for reader in (record_json, to_json):
        with pytest.raises(UnicodeDecodeError):
            json.loads(reader(_field("61ff")))


def test_nesting_of_any_depth_is_read():
    block = b"\xa1\x61a" + b"\x81" * 100_000 + b"\x01"
    assert record_json(block) == b'{"a":' + b"[" * 100_000 + b"1" + b"]" * 100_000 + b"}"


def test_a_big_block_is_read_as_a_small_one_is():
    value = {"text": "ü" * 50_000, "list": list(range(3000)), "link": {"$link": LINK}}
    block = to_block(value)
    assert len(block) > 65_536
    assert json.loads(record_json(block)) == value


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=40)
    | st.builds(lambda tail: {"$link": block_cid(tail)}, st.binary(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=5))
@pytest.mark.long
def test_both_ways_of_reading_agree_on_any_value(value):
    block = to_block(value)
    found = msgspec.json.decode(record_json(block))
    assert found == msgspec.json.decode(to_json(block))
    assert to_block(found) == block


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.text("ab$", max_size=3), VALUES, max_size=4), st.data())
@pytest.mark.long
def test_both_ways_of_reading_agree_on_any_bytes(value, data):
    """Whether something is DAG-CBOR at all is one question with one answer."""
    block = bytearray(to_block(value))
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        expected = to_json(bytes(block))
    except NotDagCbor:
        with pytest.raises(NotDagCbor):
            record_json(bytes(block))
        return
    try:
        wanted = msgspec.json.decode(expected)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert msgspec.json.decode(record_json(bytes(block))) == wanted


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=5))
def test_a_value_is_never_said_to_differ_from_its_own_cid(value):
    block = to_block(value)
    text = to_json(block)
    assert check_cid(text, block_cid(block)) in ("equal", "unverifiable")


def test_what_cannot_be_told_apart_is_unverifiable():
    """A byte string that looks like a CID, and a link with a hash of 80 bytes: the library takes one for the other."""
    cid = cid_bytes(LINK) or b""
    long = b"\x01\x71\x12\x50" + bytes(80)
    for block in (b"\xa1\x61a" + head(2, len(cid)) + cid, b"\xa1\x61a" + link(long)):
        assert check_cid(record_json(block), block_cid(block)) == "unverifiable"


@pytest.mark.parametrize("number", [-0.0, 1.5, 1.0, 1e300])
def test_numbers_with_a_fraction_vouch_for_nothing(number):
    assert check_cid(json.dumps({"a": number}).encode(), block_cid(to_block({"a": 2}))) == "unverifiable"


@pytest.mark.parametrize(
    ("shown", "outcome"),
    [
        (b'{"a":1}', "equal"),
        (b' {"a" : 1 } ', "equal"),
        (b'{"a":2}', "different"),
        (b'{"a":"1"}', "different"),
        (b'{"a":1,"b":null}', "different"),
        (b"{}", "different"),
        (b'{"a":1.0}', "unverifiable"),
        (b'{"a":1e0}', "unverifiable"),
        (b'{"a":9007199254740993}', "unverifiable"),
        (b'{"a":{"cid":"x","mimeType":"image/png"}}', "unverifiable"),
        (b'{"a":{"$type":"blob","ref":{"$link":"x"},"mimeType":"image/png","size":-1}}', "unverifiable"),
        (b'{"a":9999999999999999999999}', "unverifiable"),
        (b'{"a":', "unverifiable"),
    ],
)
def test_a_value_is_compared_with_its_cid(shown, outcome):
    assert check_cid(shown, block_cid(to_block({"a": 1}))) == outcome


@pytest.mark.parametrize(
    "text",
    [
        LINK,
        RAW,
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
        "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",  # dag-pb, which is as long as dag-cbor
        "bafyrwigbexamue4ba3hmtai7hwlcmd6ekiqsduyf5avv7oz6ln3radvjde",  # another hash
    ],
)
def test_a_link_of_any_kind_is_read_and_written_the_same(text):
    cid = cid_bytes(text)
    assert cid is not None
    block = b"\xa1\x61a" + link(cid)
    for reader in (record_json, to_json):
        assert json.loads(reader(block))["a"] == {"$link": text}
    assert cid_of(record_json(block)) in (block_cid(block), None)


@pytest.mark.parametrize(
    "text", ["", "b", "z", "bafy", LINK[:-1], LINK + "a", LINK.upper(), LINK[:-1] + "b", "f01711220" + "00" * 32, "ü"]
)
def test_what_is_no_cid_is_none(text):
    assert cid_bytes(text) is None
