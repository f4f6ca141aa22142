"""Partitions of the asset `atproto/records`: one per (did, collection).

Dagster sorts the dimensions of a multi-partitions definition by name, so keys read `collection|did`. Neither
NSIDs nor DIDs can contain a `|` (AT Protocol's NSID and DID grammars), so the key is unambiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg
from sqlalchemy.exc import IntegrityError

from parity_dagster.errors import InvalidIdentifier
from parity_dagster.identifiers import parse_did, parse_nsid
from parity_dagster.models import Pair
from parity_dagster.settings import Settings

RECORDS_KEY = dg.AssetKey(["atproto", "records"])
"""The asset that holds every imported record."""

DIDS = "atproto_dids"
"""Name of the dynamic partitions that list the accounts."""

REGISTER_CHUNK = 1000
"""Keys added in one statement; a single statement with many more stalls the event log."""

_REGISTER_ATTEMPTS = 5

atproto_dids = dg.DynamicPartitionsDefinition(name=DIDS)


def build_partitions(settings: Settings) -> dg.MultiPartitionsDefinition:
    """The matrix of accounts and registered collections.

    Args:
        settings: `collections` are the static dimension.

    Returns:
        A definition whose `did` dimension grows with `register_dids`.
    """
    return dg.MultiPartitionsDefinition(
        {"did": atproto_dids, "collection": dg.StaticPartitionsDefinition(list(settings.collections))}
    )


def to_partition_key(pair: Pair) -> dg.MultiPartitionKey:
    """Spell a pair as a partition key.

    Returns:
        The key `collection|did`, which also knows its dimensions.
    """
    return dg.MultiPartitionKey({"did": pair.did, "collection": pair.collection})


def from_partition_key(key: str) -> Pair:
    """Read a partition key.

    Args:
        key: text `collection|did`, as in the tag `dagster/partition`.

    Raises:
        InvalidIdentifier: the text is not an NSID, a `|` and a DID.
    """
    collection, bar, did = key.partition("|")
    if not bar:
        raise InvalidIdentifier(
            f"{key[:200]!r} is not a partition key; write COLLECTION|DID, "
            "such as app.bsky.feed.post|did:plc:z72i7hdynmk6r22z27h6tvur"
        )
    # a key is only ever run if its DID was registered before, so a loopback did:web needs no second look here
    return Pair(parse_did(did, allow_private=True), parse_nsid(collection))


def register_dids(instance: dg.DagsterInstance, dids: Iterable[str]) -> list[str]:
    """Make the accounts known to Dagster; those already known stay as they are.

    Safe to call from many processes at once: a storage that refuses a key added by somebody else in the same
    moment is asked again.

    Args:
        dids: accounts, in the order in which they should be listed.
    """
    wanted = list(dict.fromkeys(dids))
    added: list[str] = []
    for start in range(0, len(wanted), REGISTER_CHUNK):
        added += _register_chunk(instance, wanted[start : start + REGISTER_CHUNK])
    return added


def _register_chunk(instance: dg.DagsterInstance, chunk: Sequence[str]) -> list[str]:
    for attempt in range(_REGISTER_ATTEMPTS):
        known = instance.get_existing_dynamic_partitions(DIDS, chunk)
        missing = [did for did in chunk if did not in known]
        if not missing:
            return []
        try:
            instance.add_dynamic_partitions(DIDS, missing)
        except IntegrityError:
            # somebody added one of them between our look and our insert
            if attempt == _REGISTER_ATTEMPTS - 1:
                raise
            continue
        return missing
    return []


def unregistered_dids(instance: dg.DagsterInstance, dids: Iterable[str]) -> list[str]:
    """Which of these accounts are no partition yet.

    Returns:
        Those that `register_dids` would add, in order.
    """
    wanted = list(dict.fromkeys(dids))
    known = instance.get_existing_dynamic_partitions(DIDS, wanted)
    return [did for did in wanted if did not in known]
