"""What a DID document makes of an account."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from parity_dagster.atproto.identity import Identity, parse_document

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
PDS = "https://pds.example.com"


def test_the_document_is_kept_as_it_came_and_makes_no_other_identity() -> None:
    document = {
        "id": DID,
        "alsoKnownAs": ["at://alice.example.com"],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": PDS}],
    }
    compact, pretty = (json.dumps(document, indent=indent).encode() for indent in (None, 2))
    identity = parse_document(compact, DID, allow_private=False)
    assert identity == parse_document(pretty, DID, allow_private=False) == Identity(DID, "alice.example.com", PDS)
    assert identity.document == compact
    assert len({identity, Identity(DID, "alice.example.com", PDS)}) == 1
    assert identity != replace(identity, pds="https://other.example.com")
    assert "service" not in repr(identity)
    with pytest.raises(FrozenInstanceError):
        identity.document = b""  # type: ignore[misc]
