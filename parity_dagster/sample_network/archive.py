"""Repositories as getRepo sends them: signed commits, trees and records in a CAR file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat

from parity_dagster.sample_network.blocks import block_cid, link, to_block
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.tree import Node, build_tree, write_tree

_PIECE = 2**16


@dataclass(slots=True)
class Archive:
    """Blocks of a repository.

    Attributes:
        root: CID of the commit.
        blocks: CID → block: the commit, nodes from the root down, records in the order of their keys.
    """

    root: bytes
    blocks: dict[bytes, bytes] = field(default_factory=dict)

    def car(self) -> bytes:
        """Return it as a CAR file of version 1 (https://ipld.io/specs/transport/car/carv1/)."""
        return car_header(self.root) + b"".join(car_section(cid, block) for cid, block in self.blocks.items())


def make_archive(did: str, rev: str, records: Mapping[bytes, bytes], key: PrivateKey) -> Archive:
    """Make the archive of a repository.

    Args:
        records: collection/rkey → block.
    """
    paths = sorted(records)
    tree = build_tree((path, block_cid(records[path])) for path in paths)
    return sign_tree(did, rev, tree, (records[path] for path in paths), key)


def sign_tree(did: str, rev: str, tree: Node, records: Iterable[bytes], key: PrivateKey) -> Archive:
    """Make an archive of a tree as it is, be it right or wrong.

    Args:
        records: blocks of the records.
    """
    nodes: dict[bytes, bytes] = {}
    root = write_tree(tree, nodes.__setitem__)
    commit = make_commit(did, rev, root, key)
    archive = Archive(block_cid(commit), {block_cid(commit): commit})
    archive.blocks.update(reversed(nodes.items()))
    archive.blocks.update((block_cid(block), block) for block in records)
    return archive


def stream_archive(
    did: str, rev: str, blocks: Callable[[], Iterable[tuple[bytes, bytes]]], key: PrivateKey
) -> Iterator[bytes]:
    """Make the archive of a repository piece by piece; a million records need a few hundred megabytes for their tree.

    Args:
        blocks: renders (collection/rkey, block) as the paths sort; it is called twice.
    """
    nodes: dict[bytes, bytes] = {}
    root = write_tree(build_tree((path, block_cid(block)) for path, block in blocks()), nodes.__setitem__)
    commit = make_commit(did, rev, root, key)
    yield car_header(block_cid(commit)) + car_section(block_cid(commit), commit)
    pieces: list[bytes] = []
    size = 0
    records = ((block_cid(block), block) for _, block in blocks())
    for cid, block in chain(reversed(nodes.items()), records):
        pieces.append(car_section(cid, block))
        size += len(block)
        if size > _PIECE:
            yield b"".join(pieces)
            pieces.clear()
            size = 0
    if pieces:
        yield b"".join(pieces)


def surplus(size: int) -> Iterator[bytes]:
    """Make blocks that nothing links to, as they may follow in an archive.

    Args:
        size: bytes, rounded to half megabytes; below zero they never end.
    """
    block = to_block({"stray": bytes(2**19)})
    section = car_section(block_cid(block), block)
    return repeat(section) if size < 0 else repeat(section, -(-size // 2**19))


def make_commit(did: str, rev: str, root: bytes, key: PrivateKey, *, high_s: bool = False, version: int = 3) -> bytes:
    """Make and sign a commit (https://atproto.com/specs/repository#commit-objects).

    Args:
        root: CID of the tree's root.
    """
    # fields in their order: by length, then by letter
    fields = [
        (b"\x63did", to_block(did)),
        (b"\x63rev", to_block(rev)),
        (b"\x64data", link(root)),
        (b"\x64prev", to_block(None)),
        (b"\x67version", to_block(version)),
    ]
    unsigned = b"\xa5" + b"".join(name + value for name, value in fields)
    fields.insert(2, (b"\x63sig", to_block(key.sign(unsigned, high_s=high_s))))
    return b"\xa6" + b"".join(name + value for name, value in fields)


def car_header(root: bytes) -> bytes:
    """Return the first bytes of a CAR file."""
    header = b"\xa2\x65roots\x81" + link(root) + b"\x67version\x01"
    return varint(len(header)) + header


def car_section(cid: bytes, block: bytes) -> bytes:
    """Return a block as a CAR file has it."""
    return varint(len(cid) + len(block)) + cid + block


def varint(number: int) -> bytes:
    """Write an unsigned varint."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
