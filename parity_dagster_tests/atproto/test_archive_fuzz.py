"""Mutated archives: no crash, no hang, and nothing is read that the commit does not prove.

Half of them are mutated in their bytes. In the other half the tree is changed and signed again with the right key, as
an account could do that is up to something: what is accepted then must be the one tree of the records that were read.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from parity_dagster.atproto.archive import RepositoryArchive
from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.errors import ParityError
from parity_dagster.sample_network.blocks import spell_cid, to_block
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.tree import Entry, Node, build_tree, shared_prefix, write_tree
from parity_dagster.sample_network.wrong_archives import Repository
from parity_dagster_tests.atproto.archives import DID, LIKE, POST, public, repository

NSIDS = (POST, LIKE, "com.example.a", "com.example.ab")
KEY = PrivateKey("fuzz", "p256")
PUBLIC = public(KEY)

Found = list[tuple[str, str]]


def _read(file: BinaryIO, car: bytes) -> tuple[Found, int]:
    """Read an archive: (path, CID) of what is in the wanted collections, and the number of records in all."""
    file.seek(0)
    file.truncate()
    file.write(car)
    file.flush()
    archive = RepositoryArchive(file)
    proof = archive.verify(did=DID, key=PUBLIC)
    found: Found = []
    for nsid in NSIDS:
        for record in archive.records(nsid):
            cid = record.body.split(b'"')[7].decode() if isinstance(record, FailedEntry) else record[1]
            found.append((f"{nsid}/{record[0]}", cid or ""))
    return sorted(found), sum(proof.counts.values())


def _read_or_refuse(file: BinaryIO, car: bytes) -> tuple[Found, int] | str:
    try:
        return _read(file, car)
    except ParityError as exc:
        return exc.code


def _some_repository(rng: random.Random) -> Repository:
    records = {}
    for _ in range(rng.choice((0, 1, 2, 5, 12, 30, 80))):
        value = rng.choice([{"text": "a" * rng.randrange(40)}, {"n": rng.randrange(9)}, ["no record"], {"t": "\x00"}])
        records[f"{rng.choice(NSIDS)}/{rng.randrange(10**6)}"] = to_block(value)
    return repository(records, key=KEY)


def _mutate_bytes(car: bytes, rng: random.Random) -> bytes:
    data = bytearray(car)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randrange(60)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(60))
            case 3:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randrange(200)]
            case 4:
                del data[at:]
            case 5 if at < len(data):
                data[at] = rng.choice((0, 1, 0x18, 0x5F, 0x7F, 0x9F, 0xBF, 0xD8, 0xF6, 0xFB, 0xFF))
    return bytes(data)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for below in (node.left, *(entry.right for entry in node.entries)):
        if below is not None:
            yield from _nodes(below)


def _mutate_tree(tree: Node, rng: random.Random) -> Node:
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = list(_nodes(tree))
        node, other = rng.choice(nodes), rng.choice(nodes)
        entry = rng.choice(node.entries) if node.entries else None
        match rng.randrange(11):
            case 0 if entry:
                node.entries.remove(entry)
            case 1 if entry:
                node.entries.insert(rng.randrange(len(node.entries) + 1), Entry(entry.key, entry.value))
            case 2:
                rng.shuffle(node.entries)
            case 3 if entry:
                entry.shared = rng.randrange(len(entry.key) + 2)
            case 4 if entry:
                key = bytearray(entry.key)
                key[rng.randrange(len(key))] = rng.choice(b"aZ09/.-~_ \n\xff")
                entry.key = bytes(key)
            case 5 if entry:
                entry.right = None
            case 6:
                node.left = None
            case 7 if entry and entry.right is None:
                entry.right = Node()
            case 8 if node.left is None:
                node.left = Node()
            case 9 if entry and other.entries:
                other.entries.append(Entry(entry.key, entry.value))
                other.entries.sort(key=lambda one: one.key)
            case 10:
                tree = Node(left=tree) if rng.random() < 0.5 else node
    return tree


def _fuzz(rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    accepted = refused = 0
    with tempfile.TemporaryFile() as file:
        for number in range(rounds):
            made = _some_repository(rng)
            if number % 2:
                wanted = _read(file, made.archive().car())
                car = _mutate_bytes(made.archive().car(), rng)
            else:
                tree = _mutate_tree(made.tree(), rng)
                car = made.signed(tree)
            found = _read_or_refuse(file, car)
            if isinstance(found, str):
                assert found.startswith(("archive_", "malformed_", "signature_")), (seed, number)
                refused += 1
                continue
            accepted += 1
            if not number % 2:
                leaves = sorted(_leaves(tree))
                assert _root(build_tree(leaves)) == _root(tree), (seed, number)
                paths = [(key.decode(), spell_cid(cid)) for key, cid in leaves]
                wanted = [pair for pair in paths if pair[0].partition("/")[0] in NSIDS], len(leaves)
            assert found == wanted, (seed, number)
    assert accepted > rounds // 100
    assert refused > rounds // 2


def _leaves(tree: Node) -> Iterator[tuple[bytes, bytes]]:
    for node in _nodes(tree):
        before = key = b""
        for entry in node.entries:
            # what is not written again may be more than the keys have in common: then it is another key
            shared = shared_prefix(before, entry.key) if entry.shared is None else entry.shared
            before, key = entry.key, key[:shared] + entry.key[shared:]
            yield key, entry.value


def _root(tree: Node) -> bytes:
    return write_tree(tree, lambda cid, block: None)


def test_mutated_archives_show_nothing_that_is_not_proven():
    _fuzz(300, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_mutated_archives(seed):
    _fuzz(10_000, seed=1000 + seed)
