"""The Merkle search tree: known heights and roots, and nodes that are none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from parity_dagster.atproto.archive.cbor import cid_bytes
from parity_dagster.atproto.archive.mst import MAX_NODE_BYTES, layer_of, walk_tree
from parity_dagster.errors import ArchiveTooBig, ArchiveWrong
from parity_dagster.sample_network import tree as sample_tree
from parity_dagster.sample_network.blocks import block_cid, head, link, spell_cid
from parity_dagster.sample_network.tree import build_tree, write_tree

VALUE = cid_bytes("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454") or b""

# of the repository specification and the interoperability tests of AT Protocol
HEIGHTS = {
    "": 0,
    "asdf": 0,
    "blue": 1,
    "2653ae71": 0,
    "88bfafc7": 2,
    "2a92d355": 4,
    "884976f5": 6,
    "app.bsky.feed.post/454397e440ec": 4,
    "app.bsky.feed.post/9adeb165882c": 8,
}


@pytest.mark.parametrize(("key", "height"), HEIGHTS.items())
def test_known_layers(key, height):
    assert layer_of(key.encode()) == sample_tree.layer_of(key.encode()) == height


def test_layers_by_two_ways_of_counting():
    for number in range(5000):
        key = b"com.example.record/%d" % number
        assert layer_of(key) == sample_tree.layer_of(key)


def _record(*rkeys: str) -> list[str]:
    return [f"com.example.record/{rkey}" for rkey in rkeys]


# roots that implementations agree on, each record being VALUE
ROOTS = [
    ("bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm", []),
    ("bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu", _record("3jqfcqzm3fo2j")),
    ("bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai", _record("3jqfcqzm3fx2j")),
    (
        "bafyreicmahysq4n6wfuxo522m6dpiy7z7qzym3dzs756t5n7nfdgccwq7m",
        _record("3jqfcqzm3fp2j", "3jqfcqzm3fr2j", "3jqfcqzm3fs2j", "3jqfcqzm3ft2j", "3jqfcqzm4fc2j"),
    ),
    (
        "bafyreigfcsro2up7qi7l3rxdpg7n6gjtteotkmgrrqztl5oy2tf4ncl4ji",
        [
            *(f"app.bsky.feed.post/{rkey}" for rkey in ("3lo3kqqljmfe2", "3log4547dm6h2", "3log45inogon2")),
            *(f"app.bsky.feed.post/{rkey}" for rkey in ("3logaodrh74d2", "3logteazog2n2", "3lon5cqsbwrj2")),
            "app.bsky.feed.repost/3l6sjhvqonco2",
        ],
    ),
]


def _blocks(keys: Iterable[str]) -> tuple[bytes, dict[bytes, bytes]]:
    blocks: dict[bytes, bytes] = {}
    root = write_tree(build_tree((key.encode(), VALUE) for key in sorted(keys)), blocks.__setitem__)
    return root, blocks


@pytest.mark.parametrize(("root", "keys"), ROOTS)
def test_known_trees(root, keys):
    found, blocks = _blocks(keys)
    assert spell_cid(found) == root
    leaves = list(walk_tree(found, blocks.__getitem__))
    assert [f"{leaf.collection}/{leaf.rkey}" for leaf in leaves] == sorted(keys)
    assert all(leaf.cid == VALUE for leaf in leaves)


# of the interoperability tests; their keys are no paths of records, so that only the builder is proven by them
BUILT = [
    ("bafyreicraprx2xwnico4tuqir3ozsxpz46qkcpox3obf5bagicqwurghpy", "A0/374913 B1/986427 C0/451630 E0/670489 "
     "F1/085263 G0/765327"),
    ("bafyreihvay6pazw3dfa47u5d2tn3rd6pa57sr37bo5bqyvjuqc73ib65my", "A0/374913 B1/986427 C0/451630 D2/269196 "
     "E0/670489 F1/085263 G0/765327"),
    ("bafyreibxh4iztp5l2yshz3ectg2qjpeyprpw2gogao3pvceowpq3k3thya", "A0/374913 B0/601692 C2/014073 D0/952776 "
     "E0/670489"),
]  # fmt: skip


@pytest.mark.parametrize(("root", "keys"), BUILT)
def test_the_builder_makes_known_trees(root, keys):
    assert spell_cid(_blocks(keys.split())[0]) == root


def test_a_big_tree_with_layers_that_hold_nothing_is_walked():
    keys = sorted(f"com.example.record/{number}" for number in range(3000))
    root, blocks = _blocks(keys)
    assert [f"{leaf.collection}/{leaf.rkey}" for leaf in walk_tree(root, blocks.__getitem__)] == keys


def test_a_lone_key_on_a_high_layer_stands_in_the_root():
    root, blocks = _blocks(["app.bsky.feed.post/9adeb165882c"])
    assert len(blocks) == 1
    assert len(list(walk_tree(root, blocks.__getitem__))) == 1


KEY = b"com.example.record/1"


def _entry(key: bytes = KEY, **changed: bytes) -> bytes:
    fields = {"k": head(2, len(key)) + key, "p": b"\x00", "t": b"\xf6", "v": link(VALUE)} | changed
    return b"\xa4" + b"".join(b"\x61" + name.encode() + value for name, value in fields.items())


def _node(*entries: bytes, left: bytes = b"\xf6") -> bytes:
    return b"\xa2\x61e" + head(4, len(entries)) + b"".join(entries) + b"\x61l" + left


RAW = b"\x01\x55\x12\x20" + bytes(32)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\xf6",
        b"\x80",
        b"\xa0",
        b"\xa1\x61e\x80",
        b"\xa2\x61e\xa0\x61l\xf6",
        b"\xa2\x61e\xf6\x61l\xf6",
        b"\xa2\x61e\x60\x61l\xf6",
        b"\xa2\x61l\xf6\x61e\x80",
        b"\xa3\x61e\x80\x61l\xf6\x61x\xf6",
        b"\xa2\x61e\x81\xf6\x61l\xf6",
        _node(_entry()) + b"\x00",
        _node(_entry(), left=b"\x01"),
        _node(_entry(), left=link(RAW)),
        _node(_entry(), left=b"\x41a"),
        _node(_entry(k=b"\x61a")),
        _node(_entry(p=b"\x18\x00")),
        _node(_entry(p=b"\x20")),
        _node(_entry(p=b"\xf4")),
        _node(_entry(p=b"\xfb" + bytes(8))),
        _node(_entry(v=b"\xf6")),
        _node(_entry(v=link(RAW))),
        _node(_entry(v=head(2, 36) + VALUE)),
        _node(_entry(t=head(2, 36) + VALUE)),
        _node(_entry(), left=head(2, 36) + VALUE),
        _node(_entry(t=b"\x01")),
        _node(_entry(p=b"\x1b" + b"\xff" * 8)),
        _node(_entry(p=b"\x05")),
        _node(_entry(b"")),
        _node(_entry(b"com.example.record")),
        _node(_entry(b"com.example.record/")),
        _node(_entry(b"com/1")),
        _node(_entry(b"com.example.record/..")),
        _node(_entry(b"com.example.record/\xff")),
        _node(_entry(b"com.example.record/" + b"a" * 513)),
        _node(_entry(b"com.example." + b"a" * 400 + b"/1")),
        _node(_entry(b"com.example.record/a\n")),
    ],
)
def test_a_node_that_is_none(block):
    with pytest.raises(ArchiveWrong):
        list(walk_tree(block_cid(block), {block_cid(block): block}.__getitem__))


def test_the_node_that_the_others_were_made_of_is_one():
    block = _node(_entry())
    assert [leaf.rkey for leaf in walk_tree(block_cid(block), {block_cid(block): block}.__getitem__)] == ["1"]


def test_a_node_that_is_too_big_is_not_read():
    block = b"\xa2\x61e\x80\x61l" + b"\xf6" * MAX_NODE_BYTES
    with pytest.raises(ArchiveTooBig):
        list(walk_tree(block_cid(block), {block_cid(block): block}.__getitem__))


def _walk_blocks(*blocks: bytes) -> list[str]:
    """Walk a tree whose root is the last of these nodes."""
    return [leaf.rkey for leaf in walk_tree(block_cid(blocks[-1]), {block_cid(b): b for b in blocks}.__getitem__)]


def _key_on(layer: int, after: bytes = b"") -> bytes:
    keys = (b"com.example.record/%05d" % number for number in range(100_000))
    return next(key for key in keys if key > after and layer_of(key) == layer)


def test_keys_on_a_layer_that_is_not_theirs():
    high = _key_on(1)
    low = _key_on(0, after=high)
    below = _node(_entry(low))
    assert len(_walk_blocks(below, _node(_entry(high, t=link(block_cid(below)))))) == 2
    for one, other in ((high, low), (_key_on(0), high)):  # too high, too low
        shared = sample_tree.shared_prefix(one, other)
        with pytest.raises(ArchiveWrong, match="on the wrong layer"):
            _walk_blocks(_node(_entry(one), _entry(other[shared:], p=head(0, shared))))


def test_a_collection_in_capitals_is_another_one():
    """Otherwise a collection could hold a record key twice."""
    root, blocks = _blocks(["Com.example.record/1", "com.example.record/1", "com.example.reCord/1"])
    found = [(leaf.collection, leaf.rkey) for leaf in walk_tree(root, blocks.__getitem__)]
    assert found == [("Com.example.record", "1"), ("com.example.reCord", "1"), ("com.example.record", "1")]


def test_an_empty_node_below_a_key():
    empty = _node()
    with pytest.raises(ArchiveWrong, match="empty node"):
        _walk_blocks(empty, _node(_entry(_key_on(1), t=link(block_cid(empty)))))
    with pytest.raises(ArchiveWrong, match="empty node"):
        _walk_blocks(empty, _node(_entry(_key_on(1)), left=link(block_cid(empty))))
    assert _walk_blocks(empty) == []


def test_a_node_below_the_lowest_layer():
    high = _key_on(1)
    lowest = _node(_entry(b"com.example.record/0"))
    between = _node(left=link(block_cid(lowest)))
    with pytest.raises(ArchiveWrong, match="below its lowest layer"):
        _walk_blocks(lowest, between, _node(_entry(high), left=link(block_cid(between))))
