"""Identity over HTTP: the PLC directory, did:web documents and handles' well-known files."""

from __future__ import annotations

from typing import Any

from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.hosts import Account, Host
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.wire import Answer, Request

_CONTEXT = (
    "https://www.w3.org/ns/did/v1",
    "https://w3id.org/security/multikey/v1",
    "https://w3id.org/security/suites/secp256k1-2019/v1",
)


def did_document(account: Account) -> dict[str, Any]:
    """Return the DID document of an account (https://atproto.com/specs/did#did-documents)."""
    return {
        "@context": list(_CONTEXT),
        "id": account.did,
        "alsoKnownAs": [f"at://{account.shown_handle}"],
        "verificationMethod": [
            {
                "id": f"{account.did}#atproto",
                "type": "Multikey",
                "controller": account.did,
                "publicKeyMultibase": account.key.multibase,
            }
        ],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": account.host.url}],
    }


def plc_answer(network: SampleNetwork, mirror: Host, did: str) -> Answer:
    """Answer `GET /{did}` as plc.directory does."""
    fixed = mirror.documents.get(did) or network.documents.get(did)
    if fixed is not None:
        return Answer(fixed.status, fixed.body, "application/did+ld+json")
    account = network.accounts.get(did)
    if account is None or not did.startswith("did:plc:"):
        return Answer(404, encode({"message": f"DID not registered: {did}"}))
    return Answer(200, encode(did_document(account)), "application/did+ld+json")


def web_answer(network: SampleNetwork, request: Request) -> Answer:
    """Answer `/.well-known/did.json` and `/.well-known/atproto-did`, which depend on the Host header."""
    name = request.header("host").lower()
    if request.path.endswith("/did.json"):
        for did in ("did:web:" + name.replace(":", "%3A"), "did:web:" + name.partition(":")[0]):
            fixed, account = network.documents.get(did), network.accounts.get(did)
            if fixed is not None:
                return Answer(fixed.status, fixed.body)
            if account is not None:
                return Answer(200, encode(did_document(account)))
        return Answer(404, b"Not Found", "text/plain")
    found = network.did_of(name) or network.did_of(name.partition(":")[0])
    if found is None:
        return Answer(404, b"User not found", "text/plain")
    return Answer(200, found.encode(), "text/plain")
