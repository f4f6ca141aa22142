"""Page bodies that nobody would think of: no crash, no lost record.

Bodies are built from records of which each is known to be sound or not, then glued together, spaced, cut and bent.
`pytest -m long` tries 200,000 of them; the suite some hundred.
"""

from __future__ import annotations

import json
import random
import string

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings as profile, strategies as st

from parity_dagster.atproto.pages import parse_entry, parse_page
from parity_dagster.errors import MalformedAnswer
from parity_dagster.sample_network import ODD_KINDS, POST, Record, SampleNetwork
from parity_dagster.sample_network.odd import make_odd
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import importing, loads, stored

DID = "did:plc:ewvi7nxzyoun6zhxrhs64aaa"
PREFIX = f"at://{DID}/{POST}/"
Drawn = tuple[bytes, str | None, dict[str, object], list[bytes]]
"""A body, its cursor, the values by rkey that must be stored, and the entries that must be kept."""
HEAVY = {"very-deep", "wide", "big"}

# Any text that JSON can carry, lone surrogates and NUL apart; ensure_ascii draws both spellings.
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=12)
numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=5)
rkeys = st.text(string.ascii_letters + string.digits + "._:~-", min_size=1, max_size=30).filter(
    lambda rkey: rkey not in (".", "..")
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])


@st.composite
def sound_entries(draw: st.DrawFn) -> tuple[str, bytes, object]:
    """rkey, the entry's bytes, and the value it must be stored as."""
    rkey, value = draw(rkeys), draw(objects)
    entry = {"uri": PREFIX + rkey, "value": value} | draw(
        st.fixed_dictionaries({}, optional={"cid": texts, "seq": numbers, "$type": texts})
    )
    entry = dict(draw(st.permutations(list(entry.items()))))
    text = json.dumps(entry, ensure_ascii=draw(st.booleans()), separators=draw(separators))
    return rkey, text.encode(), loads(json.dumps(value))


@st.composite
def bad_entries(draw: st.DrawFn) -> bytes:
    """An entry that cannot be stored, but whose end can be found."""
    kinds = [name for name, kind in ODD_KINDS.items() if kind.storable is False and name not in HEAVY]
    return make_odd(draw(st.sampled_from(kinds)), DID, POST, draw(rkeys)).as_entry(DID, POST)


@st.composite
def pages(draw: st.DrawFn) -> Drawn:
    """A page of drawn entries."""
    good = draw(st.lists(sound_entries(), max_size=6, unique_by=lambda entry: entry[0]))
    bad = draw(st.lists(bad_entries(), max_size=3))
    space = draw(st.sampled_from([b"", b" ", b"\r\n\t"]))
    entries = draw(st.permutations([entry for _, entry, _ in good] + bad))
    cursor = draw(st.one_of(st.none(), texts.filter(bool)))
    records = b'"records"' + space + b":" + space + b"[" + (space + b"," + space).join(entries) + b"]"
    members = [records] + ([b'"cursor":' + json.dumps(cursor).encode()] if cursor is not None else [])
    body = b"{" + (space + b",").join(draw(st.permutations(members))) + space + b"}" + space
    return body, cursor, {rkey: value for rkey, _, value in good}, bad


def check(page: Drawn) -> None:
    body, cursor, good, bad = page
    parsed = parse_page(body, DID, POST)
    assert parsed.cursor == cursor
    taken = {rkey: loads(value) for rkey, _, value in parsed.records}
    assert taken == good, "every sound record is stored, as it was sent"
    assert len(parsed.records) == len(taken)
    assert sorted(entry.body for entry in parsed.failed) == sorted(bad), "every other one is kept, byte for byte"
    for _, _, value in parsed.records:
        assert not set(value) & set(b"\n\r\t")


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A body that was damaged on its way."""
    body = bytearray(draw(pages())[0])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        match draw(st.sampled_from(["cut", "insert", "replace", "drop", "double"])):
            case "cut":
                del body[at:]
            case "insert":
                body[at:at] = draw(
                    st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b"\\", b"{", b"]", b"\\u0000", b"\\ud800"]))
                )
            case "replace":
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "drop":
                del body[at : at + draw(st.integers(1, 20))]
            case "double":
                body += body[at : at + 200]
    return bytes(body)


def survive(body: bytes) -> None:
    try:
        page = parse_page(body, DID, POST)
    except MalformedAnswer:
        return
    assert len({record[0] for record in page.records}) == len(page.records)
    for _, cid, value in page.records:
        json.loads(value.decode())
        assert "\x00" not in (cid or "")
    for entry in page.failed:
        assert entry.reason
        entry.detail.encode()
        again = parse_entry(entry.body, DID, POST)
        assert again[1] == entry.reason, "a retry finds the same reason"


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@profile(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(pages())
@pytest.mark.long
def test_of_any_page_every_sound_record_is_taken_and_every_other_kept(
    page: Drawn,
) -> None:
    check(page)


@profile(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(st.one_of(bent(), st.binary(max_size=300)))
@pytest.mark.long
def test_damaged_bodies_crash_nothing(body: bytes) -> None:
    survive(body)


def draw_entries(count: int) -> list[tuple[str, bytes, object]]:
    """So many drawn entries, each with a record key of its own."""
    drawn: dict[str, tuple[str, bytes, object]] = {}

    @profile(max_examples=count, deadline=None, suppress_health_check=SLOW, database=None, derandomize=True)
    @given(sound_entries())
    def draw(entry: tuple[str, bytes, object]) -> None:
        drawn[entry[0]] = entry

    draw()
    return list(drawn.values())


def glue(rng: random.Random, good: list[tuple[str, bytes, object]], bad: list[bytes]) -> Drawn:
    """A page of some of these entries, spelled at random."""
    chosen = rng.sample(good, rng.randint(0, 8))
    spoiled = [rng.choice(bad) for _ in range(rng.choice([0, 0, 1, 2]))]
    entries = [entry for _, entry, _ in chosen] + spoiled
    rng.shuffle(entries)
    space = rng.choice([b"", b"", b" ", b"\r\n\t"])
    cursor = rng.choice([None, "3kaaaaaaaaaaa", "app.bsky.feed.post/x", '"\\ü', "\ud83d\ude00"])
    members = [b'"records"' + space + b":" + space + b"[" + (space + b"," + space).join(entries) + space + b"]"]
    if cursor is not None:
        members.insert(
            rng.randint(0, 1),
            b'"cursor":' + json.dumps(cursor.encode("utf-16", "surrogatepass").decode("utf-16")).encode(),
        )
    body = b"{" + (space + b",").join(members) + space + b"}" + space
    joined = None if cursor is None else cursor.encode("utf-16", "surrogatepass").decode("utf-16")
    return body, joined, {rkey: value for rkey, _, value in chosen}, spoiled


def bend(rng: random.Random, body: bytes) -> bytes:
    """A body with some damage."""
    spoiled = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(spoiled) + 1)
        match rng.randrange(5):
            case 0:
                del spoiled[at:]
            case 1:
                spoiled[at:at] = rng.choice(
                    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"\\u0000", b"\\ud800", rng.randbytes(3)]
                )
            case 2:
                spoiled[at : at + 1] = rng.randbytes(1)
            case 3:
                del spoiled[at : at + rng.randint(1, 40)]
            case 4:
                spoiled += spoiled[at : at + 300]
    return bytes(spoiled)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_of_a_hundred_thousand_pages_no_record_is_lost_and_as_many_damaged_ones_crash_nothing() -> None:
    rng = random.Random(20)
    good = draw_entries(1500)
    kinds = [name for name, kind in ODD_KINDS.items() if kind.storable is False]
    bad = [make_odd(kind, DID, POST, f"3k{number}").as_entry(DID, POST) for kind in kinds for number in range(20)]
    for _ in range(100_000):
        page = glue(rng, good, bad)
        check(page)
        survive(bend(rng, page[0]))


@pytest.mark.long
def test_what_the_parser_takes_postgres_holds_or_hands_back(settings: Settings) -> None:
    """Drawn values through the whole importer: stored as sent, or among the failed records; never lost."""
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    drawn: list[dict[str, object]] = []

    @profile(max_examples=80, deadline=None, suppress_health_check=SLOW, database=None, derandomize=True)
    @given(objects)
    def draw(value: dict[str, object]) -> None:
        drawn.append(value)

    draw()
    odd_numbers = [
        b'{"n":1e131071}',
        b'{"n":1e131072}',
        b'{"n":-1e-16383}',
        b'{"n":1e-99999}',
        b'{"n":' + b"9" * 140_000 + b"}",
    ]
    expected = {}
    for value in drawn:
        encoded = json.dumps(value).encode()
        expected[network.put_record(did, POST, encoded)] = encoded
    for encoded in odd_numbers:
        expected[network.put_record(did, POST, encoded)] = encoded
    with importing(settings, network) as (service, _):
        result = service.import_user_collection(did, POST)
        rows = stored(settings, did, POST)
        failed = {record.rkey: record for record in service.find_failed_records()}
    assert result.is_success
    assert result.records_synced + result.records_failed == len(expected) + 3
    assert rows.keys() | failed.keys() == network.records(did, POST).keys()
    for rkey, encoded in expected.items():
        if rkey in failed:
            cid = network.records(did, POST)[rkey][0]
            assert failed[rkey].body == Record(rkey, cid, encoded).as_entry(did, POST)
        else:
            assert rows[rkey][1] == loads(encoded)
    assert not failed.keys() - {rkey for rkey, encoded in expected.items() if encoded in odd_numbers}
    assert psycopg.__version__
