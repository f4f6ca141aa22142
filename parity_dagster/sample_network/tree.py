"""The Merkle search tree of a repository, built from the lowest layer up.

A repository of given records has exactly one tree. Nodes are objects until they are written, so that a wrong tree can
be made of a right one and be hashed and signed like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from parity_dagster.sample_network.blocks import NULL, block_cid, head, link


@dataclass(slots=True)
class Entry:
    """A record in a node.

    Attributes:
        key: collection/rkey.
        value: CID of the record.
        right: the node of the keys between this one and the next.
        shared: how many bytes of the key before are not written again; None for as many as there are.
    """

    key: bytes
    value: bytes
    right: Node | None = None
    shared: int | None = None


@dataclass(slots=True)
class Node:
    """A node of the tree.

    Attributes:
        entries: its records.
        left: the node of the keys before the first one.
    """

    entries: list[Entry] = field(default_factory=list)
    left: Node | None = None


def layer_of(key: bytes) -> int:
    """Return the layer of a key: the zero bits that its SHA-256 begins with, counted in pairs."""
    return (256 - int.from_bytes(sha256(key).digest()).bit_length()) // 2


def build_tree(records: Iterable[tuple[bytes, bytes]]) -> Node:
    """Build the tree of a repository.

    Args:
        records: (collection/rkey, CID) in the keys' order.

    Source: repository specification of AT Protocol, "Merkle Search Tree (MST)".
    """
    # keys that are on this layer or above, and what lies before each of them and after the last
    keys = [(layer_of(key), key, cid) for key, cid in records]
    below: list[Node | None] = [None] * (len(keys) + 1)
    layer = 0
    while True:
        higher: list[tuple[int, bytes, bytes]] = []
        nodes: list[Node | None] = []
        node = Node(left=below[0])
        for found, under in zip(keys, below[1:], strict=True):
            if found[0] == layer:
                node.entries.append(Entry(found[1], found[2], under))
            else:
                nodes.append(node if node.entries or node.left else None)
                node = Node(left=under)
                higher.append(found)
        if not higher:
            return node
        nodes.append(node if node.entries or node.left else None)
        keys, below = higher, nodes
        layer += 1


def write_tree(node: Node, put: Callable[[bytes, bytes], None]) -> bytes:
    """Write a tree's blocks and return the CID of its root.

    Args:
        put: takes the CID and the block of each node, those below before those above.
    """
    parts = [b"\xa2\x61e", head(4, len(node.entries))]
    before = b""
    left = b"".join((b"\x61l", _link(node.left, put)))
    for entry in node.entries:
        shared = shared_prefix(before, entry.key) if entry.shared is None else entry.shared
        rest = entry.key[shared:]
        parts += (
            b"\xa4\x61k",
            head(2, len(rest)),
            rest,
            b"\x61p",
            head(0, shared),
            b"\x61t",
            _link(entry.right, put),
            b"\x61v",
            link(entry.value),
        )
        before = entry.key
    block = b"".join((*parts, left))
    cid = block_cid(block)
    put(cid, block)
    return cid


def _link(node: Node | None, put: Callable[[bytes, bytes], None]) -> bytes:
    return NULL if node is None else link(write_tree(node, put))


def shared_prefix(before: bytes, key: bytes) -> int:
    """Return how many bytes a key has in common with the one before."""
    length = 0
    for one, other in zip(before, key, strict=False):
        if one != other:
            break
        length += 1
    return length
