"""Commits: the small signed block that vouches for a whole repository."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec
from libipld import decode_dag_cbor, encode_dag_cbor

from parity_dagster.atproto.archive.cbor import CID_LENGTH, CID_PREFIX, NotDagCbor, cid_bytes, to_json
from parity_dagster.atproto.archive.keys import SigningKey
from parity_dagster.errors import ArchiveForeign, ArchiveWrong, SignatureWrong
from parity_dagster.identifiers import is_valid_tid

VERSION = 3
MAX_COMMIT_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit says.

    Attributes:
        did: the account.
        rev: the revision of its repository.
        data: CID of the tree's root, as bytes.
        signature: of `unsigned`.
        unsigned: the block without its signature.
    """

    did: str
    rev: str
    data: bytes
    signature: bytes
    unsigned: bytes


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    link: str = msgspec.field(name="$link")


class _Bytes(msgspec.Struct, forbid_unknown_fields=True):
    bytes: str = msgspec.field(name="$bytes")


class _Commit(msgspec.Struct):
    did: str
    version: int
    data: _Link
    rev: str
    sig: _Bytes
    prev: _Link | None = None


_decode = msgspec.json.Decoder(_Commit).decode


def parse_commit(block: bytes) -> Commit:
    """Read a commit.

    Raises:
        ArchiveWrong: it is none, or one of another version.

    Source: repository specification, "Commit Objects".
    """
    try:
        if len(block) > MAX_COMMIT_BYTES:
            raise NotDagCbor(f"{len(block):,} bytes are too many")
        said = _decode(to_json(block))
    except (NotDagCbor, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ArchiveWrong(f"the archive's root is not a commit: {exc}") from exc
    if said.version != VERSION:
        raise ArchiveWrong(f"the commit is of version {said.version}; only {VERSION} is known")
    if not is_valid_tid(said.rev):
        raise ArchiveWrong(f"the commit's rev is not a TID: {said.rev[:40]!a}")
    data = cid_bytes(said.data.link)
    if data is None or len(data) != CID_LENGTH or not data.startswith(CID_PREFIX):
        raise ArchiveWrong("the commit's tree has a CID that no block of a repository has")
    fields = decode_dag_cbor(block)
    del fields["sig"]
    signature = base64.b64decode(said.sig.bytes + "=" * (-len(said.sig.bytes) % 4))
    return Commit(said.did, said.rev, data, signature, encode_dag_cbor(fields))


def check_commit(commit: Commit, *, did: str, key: SigningKey) -> None:
    """Make sure that a commit is the account's and signed by it; how old it may be is for who knows more.

    Raises:
        ArchiveForeign: it is another account's.
        SignatureWrong: it is not signed with this key.
    """
    if commit.did != did:
        raise ArchiveForeign(f"asked for the repository of {did}, got the one of {commit.did[:80]!a}")
    if not key.is_signature(commit.signature, commit.unsigned):
        raise SignatureWrong(f"the commit of {did} is not signed with the key that its DID document names")
