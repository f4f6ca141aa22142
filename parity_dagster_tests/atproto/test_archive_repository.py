"""Whole archives: what is right is read back exactly, what is wrong is refused with the right code."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings, strategies as st

from parity_dagster.atproto.archive import RepositoryArchive, cid_of
from parity_dagster.atproto.archive.repository import MAX_COLLECTIONS
from parity_dagster.atproto.pages import MAX_DEPTH, FailedEntry
from parity_dagster.errors import ArchiveTooBig, ParityError
from parity_dagster.sample_network.blocks import block_cid, spell_cid, to_block
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.wrong_archives import WRONG_ARCHIVES, Repository
from parity_dagster_tests.atproto.archives import CODES, DID, KEY, LIKE, POST, REV, public, read, repository, spooled


def test_every_way_to_be_wrong_has_its_code():
    assert CODES.keys() == WRONG_ARCHIVES.keys()


@pytest.mark.parametrize("name", WRONG_ARCHIVES)
@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_a_wrong_archive_is_refused_with_its_code(name, curve):
    key = PrivateKey("wrong", curve)
    made = repository(key=key)
    car, code = WRONG_ARCHIVES[name](made), CODES[name]
    right, records = read(made.archive().car(), key=key)
    if code is None:
        proof, found = read(car, key=key)
        assert found == records
        assert proof.surplus_blocks == (3 if name == "surplus-blocks" else 0)
        assert (proof.commit, proof.counts) == (right.commit, right.counts)
        return
    if code == "archive_outdated":
        assert read(car, key=key)[0].rev < right.rev, "who knows of a newer one refuses it"
        return
    with pytest.raises(ParityError) as caught:
        read(car, key=key)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_an_archive_is_read_back_exactly():
    made = repository()
    proof, found = read(made.archive().car())
    assert found == {
        path.decode(): (spell_cid(block_cid(block)), json.dumps(_value(path), separators=(",", ":")).encode())
        for path, block in made.records.items()
    }
    assert (proof.did, proof.rev, proof.surplus_blocks) == (DID, REV, 0)
    assert proof.counts == {POST: 40, LIKE: 20}
    assert proof.commit == spell_cid(made.archive().root)


def _value(path: bytes) -> dict[str, str]:
    # DAG-CBOR sorts fields by length, so that the text comes before the type
    return {"text": f"number {int(path[-3:])}", "$type": path.partition(b"/")[0].decode()}


def test_a_collection_that_the_repository_does_not_have_is_empty():
    with spooled(repository().archive().car()) as archive:
        archive.verify(did=DID, key=public(KEY))
        assert len(list(archive.records(LIKE))) == 20
        assert list(archive.records("com.example.none")) == []


def test_an_empty_repository_has_one_empty_node():
    proof, found = read(repository({}).archive().car())
    assert (proof.counts, found) == ({}, {})


def test_a_key_that_was_rotated_meanwhile_is_tried_on_the_same_archive():
    new = PrivateKey("rotated", "p256")
    with spooled(repository(key=new).archive().car()) as archive:
        with pytest.raises(ParityError) as caught:
            archive.verify(did=DID, key=public(KEY))
        assert caught.value.code == "signature_wrong"
        archive.verify(did=DID, key=public(new))
        assert len(list(archive.records(POST))) == 40


def test_records_that_share_a_block_are_both_there():
    block = to_block({"text": "twice"})
    _, found = read(repository({f"{POST}/a": block, f"{POST}/b": block}).archive().car())
    assert found.keys() == {f"{POST}/a", f"{POST}/b"}
    assert len(set(found.values())) == 1


def test_more_blocks_than_are_accepted_are_too_many():
    car = repository().archive().car()
    with pytest.raises(ParityError) as caught, spooled(car, max_blocks=20):
        pass
    assert caught.value.code == "archive_too_big"


def test_a_record_that_cannot_be_stored_costs_one_record_and_is_kept():
    records = {
        f"{POST}/good": to_block({"text": "good"}),
        f"{POST}/nul": to_block({"text": "a\x00b"}),
        f"{POST}/list": to_block(["a"]),
        f"{POST}/surrogate": to_block({"text": "a\ud800b"}),
        f"{POST}/not-cbor": b'{"text":"json"}',
        f"{POST}/two": to_block({"text": "a"}) + b"\x00",
        f"{POST}/numbers": to_block({"many": [1e300] * 10_000}),
        f"{POST}/deep": b"\xa1\x61a" + b"\x81" * MAX_DEPTH + b"\x80",
    }
    failed: dict[str, FailedEntry] = {}
    stored = []
    with spooled(repository(records).archive().car()) as archive:
        archive.verify(did=DID, key=public(KEY))
        for found in archive.records(POST):
            if isinstance(found, FailedEntry):
                failed[found.rkey or ""] = found
            else:
                stored.append(found[0])
    assert stored == ["good"]
    assert failed.keys() == {path.partition("/")[2] for path in records} - {"good"}
    for rkey, entry in failed.items():
        cid = spell_cid(block_cid(records[f"{POST}/{rkey}"]))
        assert entry.body.startswith(f'{{"uri":"at://{DID}/{POST}/{rkey}","cid":"{cid}",'.encode())
    for rkey in ("not-cbor", "two"):
        assert failed[rkey].reason == "invalid_cbor"


_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
_NAMES = st.text(st.characters(exclude_characters="\x00$", exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)
RKEYS = st.text(string.ascii_letters + string.digits + "-_.:~", min_size=1, max_size=20).filter(
    lambda rkey: rkey not in (".", "..")
)
NSIDS = st.sampled_from([POST, LIKE, "com.example.a", "com.example.ab", "com.example.a.b"])
REPOSITORIES = st.dictionaries(
    st.tuples(NSIDS, RKEYS).map("/".join), st.dictionaries(_NAMES, JSON, max_size=4), max_size=40
)


@settings(max_examples=30, deadline=None)
@given(REPOSITORIES)
def test_any_repository_is_read_back_exactly(values):
    made = repository({path: to_block(value) for path, value in values.items()})
    nsids = {path.partition("/")[0] for path in values}
    proof, found = read(made.archive().car(), collections=nsids)
    assert {path: json.loads(value) for path, (_, value) in found.items()} == values
    for nsid in nsids:
        mine = [path for path in found if path.startswith(f"{nsid}/")]
        assert mine == sorted(mine)
    assert {path: cid for path, (cid, _) in found.items()} == {
        path.decode(): spell_cid(block_cid(block)) for path, block in made.records.items()
    }
    assert all(cid_of(value) == cid for cid, value in found.values())
    assert sum(proof.counts.values()) == len(values)


@pytest.fixture(scope="module")
def small() -> Repository:
    return repository({f"{POST}/3kaaaaaaaa{number:03d}": to_block({"text": f"{number}"}) for number in range(8)})


def _read_or_refuse(car: bytes) -> tuple[str, object]:
    try:
        return "", read(car)
    except ParityError as exc:
        return exc.code, None


def test_any_byte_that_differs_is_noticed_or_changes_nothing(small):
    car = small.archive().car()
    right = read(car)
    for position in range(len(car)):
        for mask in (1, 0x80):
            mutated = bytearray(car)
            mutated[position] ^= mask
            code, found = _read_or_refuse(bytes(mutated))
            assert found == right or code.startswith(("archive_", "malformed_", "signature_")), position


def test_any_shortened_archive_is_refused(small):
    car = small.archive().car()
    for length in range(len(car)):
        with pytest.raises(ParityError):
            read(car[:length])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_mutation_shows_what_was_not_signed(data):
    made = repository()
    car = made.archive().car()
    right = read(car)
    start = data.draw(st.integers(0, len(car)))
    stop = data.draw(st.integers(start, min(len(car), start + 80)))
    mutated = car[:start] + data.draw(st.binary(max_size=80)) + car[stop:]
    try:
        proof, found = read(mutated)
    except ParityError:
        return
    assert found == right[1]
    assert (proof.commit, proof.rev, proof.counts) == (right[0].commit, right[0].rev, right[0].counts)


def test_one_block_as_many_records_counts_as_often():
    block = to_block({"$type": POST, "text": "x" * 1000})
    records = {f"{POST}/3kaaaaaaaa{number:03d}": block for number in range(100)}
    car = repository(records).archive().car()
    assert len(car) < 20_000
    size = 100 * len(block)
    for max_blocks, max_bytes, is_taken in ((100, size, True), (100, size - 1, False), (99, size, False)):
        archive = RepositoryArchive(car, max_blocks=max_blocks, max_bytes=max_bytes)
        if is_taken:
            assert archive.verify(did=DID, key=public(KEY)).counts == {POST: 100}
            continue
        with pytest.raises(ArchiveTooBig):
            archive.verify(did=DID, key=public(KEY))


def test_more_collections_than_any_repository_has():
    block = to_block({})
    records = {f"com.example.c{number}/self": block for number in range(MAX_COLLECTIONS + 1)}
    car = repository(records).archive().car()
    with pytest.raises(ArchiveTooBig):
        RepositoryArchive(car).verify(did=DID, key=public(KEY))
