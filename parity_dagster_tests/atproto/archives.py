"""What the tests of archives have in common: a repository, and an archive spooled to a file as a reader has it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from parity_dagster.atproto.archive import Proof, RepositoryArchive, SigningKey, signing_key
from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.sample_network.blocks import to_block
from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster.sample_network.wrong_archives import Repository
from parity_dagster_tests.quick import quick

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
REV = "3lzzzzzzzzz2a"
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
KEY = PrivateKey("tests")


def document(key: PrivateKey, did: str = DID) -> bytes:
    method = {"id": f"{did}#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": key.multibase}
    return encode({"id": did, "verificationMethod": [method]})


def public(key: PrivateKey) -> SigningKey:
    return signing_key(document(key), DID)


def repository(records: dict[str, bytes] | None = None, *, key: PrivateKey = KEY) -> Repository:
    """Make a repository, by default of 60 records in two collections, whose tree has three layers."""
    if records is None:
        records = {}
        for number in range(60):
            nsid = POST if number % 3 else LIKE
            records[f"{nsid}/3kaaaaaaaa{number:03d}"] = to_block({"$type": nsid, "text": f"number {number}"})
    return Repository(DID, REV, {path.encode(): block for path, block in records.items()}, key)


@contextmanager
def spooled(car: bytes, *, max_blocks: int = 1000) -> Iterator[RepositoryArchive]:
    with tempfile.TemporaryFile() as file:
        file.write(car)
        file.flush()
        yield RepositoryArchive(file, max_blocks=max_blocks)


def read(
    car: bytes,
    *,
    did: str = DID,
    key: PrivateKey = KEY,
    collections: Collection[str] = (POST, LIKE),
) -> tuple[Proof, dict[str, tuple[str, bytes]]]:
    """Verify an archive and return what it proves, and collection/rkey → (cid, value) of its records."""
    found: dict[str, tuple[str, bytes]] = {}
    with spooled(car) as archive:
        proof = archive.verify(did=did, key=public(key))
        for collection in collections:
            for record in archive.records(collection):
                assert not isinstance(record, FailedEntry), record
                rkey, cid, value = record
                assert cid is not None
                found[f"{collection}/{rkey}"] = cid, value
    return proof, found


CODES = {
    "bit-flip": "archive_wrong",
    "missing-record": "archive_incomplete",
    "missing-node": "archive_incomplete",
    "missing-commit": "archive_incomplete",
    "other-record": "archive_incomplete",
    "surplus-blocks": None,
    "repeated-blocks": None,
    "unsorted": "archive_wrong",
    "repeated-key": "archive_wrong",
    "wrong-layer": "archive_wrong",
    "skipped-layer": "archive_wrong",
    "long-keys": "archive_wrong",
    "short-keys": "archive_wrong",
    "empty-node": "archive_wrong",
    "high-root": "archive_wrong",
    "bad-path": "archive_wrong",
    "forged": "signature_wrong",
    "high-s": "signature_wrong",
    "old-version": "archive_wrong",
    "foreign": "archive_foreign",
    "outdated": "archive_outdated",
    "truncated": "archive_truncated",
    "cut-between-blocks": "archive_incomplete",
    "huge-block": "archive_truncated",
    "no-root": "archive_wrong",
    "no-car": "malformed_answer",
    "nothing": "archive_truncated",
}
"""Kind of wrong archive → code of its error; None if it is not wrong."""
_ONE_OF_EACH = {code: name for name, code in CODES.items()}.values()
WRONG_CASES = quick(len(_ONE_OF_EACH), dict.fromkeys([*_ONE_OF_EACH, *CODES]))
"""All of them for `parametrize`, of which one with each code is quick."""
