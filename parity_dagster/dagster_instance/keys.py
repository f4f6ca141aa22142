"""What is ours by Dagster's names: the asset of the records, and a pair's partition of it.

Dagster sorts the dimensions of a multi-partitions definition by name, so keys read `collection|did`. Neither
NSIDs nor DIDs can contain a `|` (AT Protocol's NSID and DID grammars), so the key is unambiguous.
"""

from __future__ import annotations

import dagster as dg

from parity_dagster.errors import InvalidIdentifier
from parity_dagster.identifiers import parse_did, parse_nsid
from parity_dagster.models import Pair

RECORDS_KEY = dg.AssetKey(["atproto", "records"])
"""The asset that holds every imported record."""


def to_partition_key(pair: Pair) -> dg.MultiPartitionKey:
    """Spell a pair as a partition key, `collection|did`, which also knows its dimensions."""
    return dg.MultiPartitionKey({"did": pair.did, "collection": pair.collection})


def from_partition_key(key: str) -> Pair:
    """Read a partition key, `NSID|DID` as in the tag `dagster/partition`; raises `InvalidIdentifier` if it is none."""
    collection, bar, did = key.partition("|")
    if not bar:
        raise InvalidIdentifier(
            f"{key[:200]!r} is not a partition key; write COLLECTION|DID, "
            "such as app.bsky.feed.post|did:plc:z72i7hdynmk6r22z27h6tvur"
        )
    # a key is only ever run if its DID was registered before, so a loopback did:web needs no second look here
    return Pair(parse_did(did, allow_private=True), parse_nsid(collection))
