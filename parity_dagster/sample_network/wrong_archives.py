"""Archives that are not what they should be, each wrong in one way and otherwise as good as a right one.

Trees that are wrong are signed with the right key: only whoever looks at the tree finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from parity_dagster.sample_network.accounts import make_did
from parity_dagster.sample_network.archive import (
    Archive,
    car_header,
    car_section,
    make_archive,
    make_commit,
    sign_tree,
    varint,
)
from parity_dagster.sample_network.blocks import block_cid, to_block
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.tree import Entry, Node, build_tree, layer_of, write_tree


@dataclass(frozen=True, slots=True)
class Repository:
    """What an archive is made of.

    Attributes:
        did: the account.
        rev: its revision.
        records: collection/rkey → block; ten or more of them are enough for each way to be wrong.
        key: what it is signed with.
    """

    did: str
    rev: str
    records: Mapping[bytes, bytes]
    key: PrivateKey

    def archive(self) -> Archive:
        """Return the right archive."""
        return make_archive(self.did, self.rev, self.records, self.key)

    def tree(self) -> Node:
        """Return the right tree."""
        return build_tree((path, block_cid(self.records[path])) for path in sorted(self.records))

    def signed(self, tree: Node) -> bytes:
        """Return the archive of another tree, with all records."""
        return sign_tree(self.did, self.rev, tree, self.records.values(), self.key).car()

    def committed(self, commit: bytes) -> bytes:
        """Return the archive with another commit."""
        archive = self.archive()
        blocks = {block_cid(commit): commit} | {cid: archive.blocks[cid] for cid in list(archive.blocks)[1:]}
        return Archive(block_cid(commit), blocks).car()

    def root(self) -> bytes:
        """Return the CID of the right tree."""
        return write_tree(self.tree(), lambda cid, block: None)


Maker = Callable[[Repository], bytes]
WRONG_ARCHIVES: dict[str, Maker] = {}
"""What is wrong → what makes such an archive."""


def _wrong(name: str) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        WRONG_ARCHIVES[name] = maker
        return maker

    return register


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for below in (node.left, *(entry.right for entry in node.entries)):
        if below is not None:
            yield from _nodes(below)


def _without(archive: Archive, cid: bytes) -> bytes:
    del archive.blocks[cid]
    return archive.car()


def _last_record(repository: Repository) -> bytes:
    return block_cid(repository.records[max(repository.records)])


@_wrong("bit-flip")
def _bit_flip(repository: Repository) -> bytes:
    """The last byte of the last record has a bit flipped."""
    car = bytearray(repository.archive().car())
    car[-1] ^= 1
    return bytes(car)


@_wrong("missing-record")
def _missing_record(repository: Repository) -> bytes:
    return _without(repository.archive(), _last_record(repository))


@_wrong("missing-node")
def _missing_node(repository: Repository) -> bytes:
    """A node is missing, with all that is below it."""
    nodes: list[bytes] = []
    write_tree(repository.tree(), lambda cid, block: nodes.append(cid))
    return _without(repository.archive(), nodes[0])


@_wrong("missing-commit")
def _missing_commit(repository: Repository) -> bytes:
    archive = repository.archive()
    return _without(archive, archive.root)


@_wrong("other-record")
def _other_record(repository: Repository) -> bytes:
    """Instead of a record there is another one, whose CID is its own."""
    archive = repository.archive()
    del archive.blocks[_last_record(repository)]
    other = to_block({"$type": "app.bsky.feed.post", "text": "I never said this"})
    archive.blocks[block_cid(other)] = other
    return archive.car()


@_wrong("surplus-blocks")
def _surplus_blocks(repository: Repository) -> bytes:
    """There are blocks that nothing links to; the format allows it."""
    archive = repository.archive()
    for number in range(3):
        block = to_block({"stray": number})
        archive.blocks[block_cid(block)] = block
    return archive.car()


@_wrong("repeated-blocks")
def _repeated_blocks(repository: Repository) -> bytes:
    """Each block is there twice; the format allows it."""
    archive = repository.archive()
    return archive.car() + b"".join(car_section(cid, block) for cid, block in archive.blocks.items())


@_wrong("unsorted")
def _unsorted(repository: Repository) -> bytes:
    """Two neighbours of a node have changed places."""
    tree = repository.tree()
    for node in _nodes(tree):
        for one, other in zip(node.entries, node.entries[1:], strict=False):
            one.key, other.key, one.value, other.value = other.key, one.key, other.value, one.value
            return repository.signed(tree)
    raise ValueError("too few records for a node of two")


@_wrong("repeated-key")
def _repeated_key(repository: Repository) -> bytes:
    """A record is in its node twice."""
    tree = repository.tree()
    last = tree.entries[-1]
    tree.entries.insert(-1, Entry(last.key, last.value))
    return repository.signed(tree)


@_wrong("wrong-layer")
def _wrong_layer(repository: Repository) -> bytes:
    """All records are in one node, in order."""
    keys = sorted(repository.records)
    return repository.signed(Node([Entry(key, block_cid(repository.records[key])) for key in keys]))


@_wrong("skipped-layer")
def _skipped_layer(repository: Repository) -> bytes:
    """A layer that holds no key of its own is left out, or one stands where there is no need."""
    tree = repository.tree()
    for node in _nodes(tree):
        for entry in node.entries:
            if entry.right is not None:
                entry.right = Node(left=entry.right)
                return repository.signed(tree)
    raise ValueError("too few records for a node below another")


@_wrong("long-keys")
def _long_keys(repository: Repository) -> bytes:
    """A key is written in full although it shares bytes with the one before."""
    tree = repository.tree()
    for node in _nodes(tree):
        if len(node.entries) > 1:
            node.entries[1].shared = 0
            return repository.signed(tree)
    raise ValueError("too few records for a node of two")


@_wrong("short-keys")
def _short_keys(repository: Repository) -> bytes:
    """A key shares more bytes with the one before than that one has."""
    tree = repository.tree()
    tree.entries[0].shared = 5
    return repository.signed(tree)


@_wrong("empty-node")
def _empty_node(repository: Repository) -> bytes:
    """Where there is nothing below a key, there is a node that holds nothing."""
    tree = repository.tree()
    for node in _nodes(tree):
        for entry in node.entries:
            if entry.right is None and layer_of(entry.key) > 0:  # below layer 0 there must be nothing anyhow
                entry.right = Node()
                return repository.signed(tree)
    raise ValueError("too few records for a key with nothing below it")


@_wrong("high-root")
def _high_root(repository: Repository) -> bytes:
    """The root holds no key, only the tree."""
    return repository.signed(Node(left=repository.tree()))


@_wrong("bad-path")
def _bad_path(repository: Repository) -> bytes:
    """A key is no path of a record."""
    records = dict(repository.records) | {b"app.bsky.feed.post/a/b": next(iter(repository.records.values()))}
    return make_archive(repository.did, repository.rev, records, repository.key).car()


@_wrong("forged")
def _forged(repository: Repository) -> bytes:
    """The commit is signed with somebody else's key."""
    return repository.committed(
        make_commit(repository.did, repository.rev, repository.root(), PrivateKey("somebody else"))
    )


@_wrong("high-s")
def _high_s(repository: Repository) -> bytes:
    """The signature is the one of two that AT Protocol does not allow."""
    return repository.committed(
        make_commit(repository.did, repository.rev, repository.root(), repository.key, high_s=True)
    )


@_wrong("old-version")
def _old_version(repository: Repository) -> bytes:
    """The commit is of version 2."""
    return repository.committed(
        make_commit(repository.did, repository.rev, repository.root(), repository.key, version=2)
    )


@_wrong("foreign")
def _foreign(repository: Repository) -> bytes:
    """It is another account's, signed with the key of the one that was asked for."""
    other = Repository(make_did(0, 0), repository.rev, repository.records, repository.key)
    return other.archive().car()


@_wrong("outdated")
def _outdated(repository: Repository) -> bytes:
    """It is of a revision of long ago, without the last record."""
    records = {path: block for path, block in repository.records.items() if path != max(repository.records)}
    return Repository(repository.did, "3jqfcqzm3fo2j", records, repository.key).archive().car()


@_wrong("truncated")
def _truncated(repository: Repository) -> bytes:
    """It ends within the last block, although the transfer was whole."""
    return repository.archive().car()[:-10]


@_wrong("cut-between-blocks")
def _cut_between_blocks(repository: Repository) -> bytes:
    """It ends after half of the blocks, although the transfer was whole."""
    archive = repository.archive()
    kept = list(archive.blocks.items())[: len(archive.blocks) // 2]
    return Archive(archive.root, dict(kept)).car()


@_wrong("huge-block")
def _huge_block(repository: Repository) -> bytes:
    """A block claims to have 2⁶² bytes."""
    return repository.archive().car() + varint(2**62)


@_wrong("no-root")
def _no_root(repository: Repository) -> bytes:
    """The header names no commit."""
    header = to_block({"roots": [], "version": 1})
    sections = repository.archive().car()[len(car_header(repository.archive().root)) :]
    return varint(len(header)) + header + sections


@_wrong("no-car")
def _no_car(repository: Repository) -> bytes:
    """It is something else altogether."""
    return b'{"error":"InternalServerError"}'


@_wrong("nothing")
def _nothing(repository: Repository) -> bytes:
    return b""
