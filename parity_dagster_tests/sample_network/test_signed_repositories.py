"""The sample network's repositories are real ones: true CIDs, canonical trees, commits that are signed."""

from __future__ import annotations

import json

import pytest

from parity_dagster.atproto.archive import check_cid
from parity_dagster.sample_network import FOLLOW, LIKE, ODD_KINDS, POST, PROFILE, REPOST, SampleNetwork
from parity_dagster.sample_network.accounts import make_did
from parity_dagster.sample_network.blocks import make_cid, to_block
from parity_dagster.sample_network.generated import Generated


@pytest.mark.parametrize("nsid", [POST, LIKE, REPOST, FOLLOW, PROFILE, "com.example.review"])
def test_generated_records_have_the_cids_of_their_blocks(nsid: str) -> None:
    generated = Generated(make_did(1, 4), nsid, 905)
    records, blocks = generated.records(), dict(generated.blocks())
    assert list(records) == list(blocks)
    for rkey, (cid, value) in records.items():
        assert blocks[rkey] == to_block(json.loads(value))
        assert make_cid(blocks[rkey]) == cid
        assert check_cid(value, cid) == "equal"


# what DAG-CBOR cannot hold, and text that is none
_WITHOUT_A_BLOCK = {
    *("giant-int", "huge-exponent", "exploding-numbers", "very-deep"),
    *("invalid-utf8", "encoded-surrogate", "lone-surrogate"),
}


@pytest.mark.parametrize("kind", sorted(set(ODD_KINDS) - {"missing-cid"}))
def test_odd_records_have_the_cids_of_their_blocks_where_they_have_any(kind: str) -> None:
    network = SampleNetwork()
    did = network.add_account()
    (rkey,) = network.add_odd(did, POST, [kind])
    cid, value = network.records(did, POST)[rkey]
    assert cid is not None
    assert check_cid(value, cid) == ("unverifiable" if kind in _WITHOUT_A_BLOCK else "equal")
