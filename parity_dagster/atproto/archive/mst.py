"""The Merkle search tree: from its root to every record's path and CID, in order, believing nothing.

A repository of given records has exactly one tree. A tree that departs from it anywhere is refused, because two readers
could see different records in it, or miss some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from libipld import decode_dag_cbor, encode_dag_cbor

from parity_dagster.atproto.archive.cbor import CID_LENGTH, CID_PREFIX
from parity_dagster.errors import ArchiveTooBig, ArchiveWrong, InvalidIdentifier
from parity_dagster.identifiers import is_valid_rkey, parse_nsid

MAX_NODE_BYTES = 2**19
"""Bytes of a node. One in four records ends a node, so that of a million records none has more than a hundred; a node
becomes Python objects, of which it may need seventy times as many bytes."""

_FIELDS = {"e", "l"}
_ENTRY_FIELDS = {"k", "p", "t", "v"}


class Leaf(NamedTuple):
    """A record in the tree: where it is in the repository, and its block's CID."""

    collection: str
    rkey: str
    cid: bytes


class _Node:
    """A node on the way from the root to where the walk is."""

    __slots__ = ("entries", "key", "layer", "next")

    def __init__(self, entries: list[dict[str, Any]], layer: int) -> None:
        self.entries = entries
        self.layer = layer
        self.next = 0
        self.key = b""  # the one before, which entries are written relative to


def layer_of(key: bytes) -> int:
    """Return the layer of a key: half the zero bits that its SHA-256 begins with."""
    digest = sha256(key).digest()
    first = digest[0]
    if first >= 64:
        return 0
    if first:
        return 1 if first >= 16 else 2 if first >= 4 else 3
    return (256 - int.from_bytes(digest).bit_length()) // 2


def walk_tree(root: bytes, read: Callable[[bytes], bytes]) -> Iterator[Leaf]:
    """Walk a tree from its least key to its greatest.

    Each layer is a step down, and a node that is met twice would bring its keys again: the walk is as long as the
    archive at most, whatever the blocks say.

    Args:
        root: CID of the root.
        read: gives the block of a CID.

    Raises:
        ArchiveWrong: it is not the tree of any repository.
        ArchiveTooBig: a node has more than `MAX_NODE_BYTES`.

    Source: repository specification, "Merkle Search Tree (MST)".
    """
    path: list[_Node] = []
    last_key = b""
    collection, collection_key = "", b""

    def go_down(cid: bytes, layer: int) -> None:
        while True:
            if layer < 0:
                raise ArchiveWrong("the tree has a node below its lowest layer")
            left, entries = _read_node(read(cid))
            if not entries and left is None:
                raise ArchiveWrong("the tree has an empty node")
            path.append(_Node(entries, layer))
            if left is None:
                return
            cid, layer = left, layer - 1

    left, entries = _read_node(read(root))
    if entries:
        top = _Node(entries, layer_of(entries[0]["k"]))
        path.append(top)
        if left is not None:
            go_down(left, top.layer - 1)
    elif left is not None:
        raise ArchiveWrong("the tree's root holds no key")

    while path:
        node = path[-1]
        if node.next == len(node.entries):
            path.pop()
            continue
        entry = node.entries[node.next]
        node.next += 1
        shared, rest, before = entry["p"], entry["k"], node.key
        key = before[:shared] + rest
        if shared > len(before) or (shared < len(before) and rest[:1] == before[shared : shared + 1]):
            raise ArchiveWrong(f"the tree is not in its shortest form at {_shown(key)}")
        if key <= last_key:
            raise ArchiveWrong(f"the tree is not in order at {_shown(key)}")
        if layer_of(key) != node.layer:
            raise ArchiveWrong(f"the tree has {_shown(key)} on the wrong layer")
        node.key = last_key = key
        if not (collection_key and key.startswith(collection_key)):
            collection = _collection(key)
            collection_key = collection.encode() + b"/"
        rkey = key[len(collection_key) :].decode("latin-1")
        if not is_valid_rkey(rkey):
            raise ArchiveWrong(f"the tree has {_shown(key)}, which is no path of a record")
        yield Leaf(collection, rkey, entry["v"])
        if entry["t"] is not None:
            go_down(entry["t"], node.layer - 1)


def _collection(key: bytes) -> str:
    collection = key.partition(b"/")[0].decode("latin-1")
    try:
        parse_nsid(collection)
    except InvalidIdentifier:
        raise ArchiveWrong(f"the tree has {_shown(key)}, which is no path of a record") from None
    return collection  # as it stands there: one in capitals is another collection than the one that it should be


def _shown(key: bytes) -> str:
    return ascii(key[:200].decode("latin-1"))


def _read_node(block: bytes) -> tuple[bytes | None, list[dict[str, Any]]]:
    """Read a node: what is left of its first entry, and its entries."""
    if len(block) > MAX_NODE_BYTES:
        raise ArchiveTooBig(f"the tree has a node of {len(block):,} bytes; {MAX_NODE_BYTES:,} are read at most")
    try:
        node = decode_dag_cbor(block)
        # libipld reads more than strict DAG-CBOR, and links as bytes; what it would not write again is not a node
        if encode_dag_cbor(node) == block and node.keys() == _FIELDS and _is_link(node["l"]):
            entries: list[dict[str, Any]] = node["e"]
            for entry in entries:
                if not (
                    entry.keys() == _ENTRY_FIELDS
                    and type(entry["k"]) is bytes
                    and type(entry["p"]) is int
                    and entry["p"] >= 0
                    and entry["v"] is not None
                    and _is_link(entry["v"])
                    and _is_link(entry["t"])
                ):
                    break
            else:
                if type(entries) is list:
                    return node["l"], entries
    except (ValueError, RecursionError, AttributeError, TypeError):
        pass
    raise ArchiveWrong("the tree has a node that is none")


def _is_link(value: Any) -> bool:
    return value is None or (type(value) is bytes and len(value) == CID_LENGTH and value.startswith(CID_PREFIX))
