"""Commits: what they say is read strictly, and only the account's own, signed and no older than known, is believed."""

from __future__ import annotations

from typing import Any

import pytest

from parity_dagster.atproto.archive.commit import MAX_COMMIT_BYTES, check_commit, parse_commit
from parity_dagster.errors import ArchiveForeign, ArchiveWrong, SignatureWrong
from parity_dagster.sample_network.archive import make_commit
from parity_dagster.sample_network.blocks import block_cid, spell_cid, to_block
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster_tests.atproto.archives import DID, KEY, REV, public

ROOT = block_cid(b"root")
OTHER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def _commit(key: PrivateKey = KEY, without: str = "", **changes: Any) -> bytes:
    """Sign a commit some of whose fields are changed; `sig` itself is one."""
    fields = {"did": DID, "version": 3, "data": {"$link": spell_cid(ROOT)}, "rev": REV, "prev": None} | changes
    fields.pop(without, None)
    signed = {name: value for name, value in fields.items() if name != "sig"}
    return to_block({"sig": key.sign(to_block(signed))} | fields)


def _check(block: bytes) -> None:
    check_commit(parse_commit(block), did=DID, key=public(KEY))


def test_a_commit_says_what_it_says():
    commit = parse_commit(_commit())
    assert (commit.did, commit.rev, commit.data) == (DID, REV, ROOT)
    assert _commit() == make_commit(DID, REV, ROOT, KEY)
    _check(_commit())


@pytest.mark.parametrize(
    "fields",
    [
        {"prev": {"$link": spell_cid(ROOT)}},  # of a repository that was made before `prev` was given up
        {"without": "prev"},
        {"since": "3kzzzzzzzzz2a"},  # a field that is not known yet is signed like the others
        {"ops": [{"a": bytes(300)}]},
    ],
)
def test_a_commit_with_other_fields_is_one(fields):
    _check(_commit(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        *({"without": name} for name in ("did", "version", "data", "rev")),
        *({name: None} for name in ("did", "version", "data", "rev", "sig")),
        {"version": 2},
        {"version": "3"},
        {"version": 3.0},
        {"did": 5},
        {"rev": "not-a-tid"},
        {"rev": "zzzzzzzzzzzzz"},
        {"rev": REV.upper()},
        {"rev": REV + "a"},
        {"data": spell_cid(ROOT)},
        {"data": ROOT},
        {"data": {"$link": "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"}},  # raw
        {"data": {"$link": "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}},  # dag-pb
        {"prev": "a"},
        {"sig": "a"},
        {"sig": {"$link": spell_cid(ROOT)}},
        {"more": bytes(MAX_COMMIT_BYTES)},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_what_is_no_commit(fields):
    with pytest.raises(ArchiveWrong):
        parse_commit(_commit(**fields))


@pytest.mark.parametrize("block", [b"", b"\x00", b"\x80", b"\xa0", b"\xf6", b"{}", _commit() + b"\x00", _commit()[:-1]])
def test_a_block_that_is_no_commit(block):
    with pytest.raises(ArchiveWrong):
        parse_commit(block)


@pytest.mark.parametrize("sig", [b"", bytes(64), KEY.sign(b"another message"), KEY.sign(b"")[:63]])
def test_a_signature_of_something_else(sig):
    with pytest.raises(SignatureWrong):
        _check(_commit(sig=sig))
    with pytest.raises(SignatureWrong):
        _check(_commit(PrivateKey("somebody else")))


def test_the_commit_of_another_account():
    with pytest.raises(ArchiveForeign):
        _check(_commit(did=OTHER))
