"""From a handle to a DID, and from a DID to its PDS.

A DID document is a stranger's text: it is capped, its id must be the DID that was asked for, and the endpoint it
names must pass `endpoints.parse_endpoint`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec

from parity_dagster.atproto.ssrf import parse_endpoint
from parity_dagster.atproto.xrpc import XrpcClient, XrpcError
from parity_dagster.errors import (
    AccountDeleted,
    BlockedEndpoint,
    DidNotFound,
    HandleNotFound,
    InvalidIdentifier,
    MalformedAnswer,
    NoPds,
    TransientError,
)
from parity_dagster.identifiers import parse_did, parse_handle
from parity_dagster.text import one_line

MAX_DOCUMENT_BYTES = 64 * 1024
"""A PLC operation is at most 7.5 kB; did:web documents have no bound of their own."""
PLC_RATE = 20.0
"""Lookups per second sent to the PLC directory, which publishes no limit but throttles bulk readers; a directory on
this machine is asked as fast as it answers."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an account lives.

    Attributes:
        did: the account.
        handle: the handle its document claims, not verified; None if it claims none.
        pds: origin of its PDS.
        document: the DID document that says so, as it came; two that differ in nothing else are the same identity.
    """

    did: str
    handle: str | None
    pds: str
    document: bytes = field(default=b"", compare=False, repr=False)


class _Service(msgspec.Struct):
    id: str = ""
    type: msgspec.Raw = msgspec.Raw(b'""')
    serviceEndpoint: msgspec.Raw = msgspec.Raw(b'""')


class _Document(msgspec.Struct):
    id: str
    alsoKnownAs: list[msgspec.Raw] = []
    service: list[msgspec.Raw] = []


class IdentityResolver:
    """Asks the PLC directory, did:web hosts and DNS."""

    def __init__(self, xrpc: XrpcClient, *, plc_url: str, allow_private: bool, plc_rate: float | None = None) -> None:
        self._xrpc = xrpc
        self._plc_url = plc_url.rstrip("/")
        self._allow_private = allow_private
        is_local = "127.0.0.1" in plc_url or "localhost" in plc_url
        self._plc_interval = 1 / plc_rate if plc_rate else 0.0 if is_local else 1 / PLC_RATE
        self._next_plc = 0.0

    async def resolve_did(self, did: str) -> Identity:
        """Find an account's PDS.

        Raises:
            DidNotFound, AccountDeleted, NoPds, BlockedEndpoint: permanent answers.
            TransientError: the directory or host could not be asked.

        Source: DID specification of AT Protocol; did:plc and did:web method specifications.
        """
        did = parse_did(did, allow_private=self._allow_private)
        if did.startswith("did:plc:"):
            origin, path = self._plc_url, f"/{did}"
            await self._plc_turn()
        else:
            host = did.removeprefix("did:web:")
            if self._allow_private:
                host = unquote(host)
            scheme = "http" if self._allow_private and ("localhost" in host or "127.0.0.1" in host) else "https"
            origin, path = f"{scheme}://{host}", "/.well-known/did.json"
        try:
            answer = await self._xrpc.get(origin, path, max_bytes=MAX_DOCUMENT_BYTES)
        except XrpcError as refusal:
            if refusal.status == 410:
                raise AccountDeleted(f"{did} is tombstoned: the account is gone for good") from refusal
            if refusal.status in (400, 404):
                raise DidNotFound(f"{origin} does not know {did}; check the DID for a typing error") from refusal
            raise MalformedAnswer(f"{origin} refuses to tell about {did}: {refusal}") from refusal
        return parse_document(answer.body, did, allow_private=self._allow_private)

    async def _plc_turn(self) -> None:
        if not self._plc_interval:
            return
        now = time.monotonic()
        turn = self._next_plc = max(self._next_plc + self._plc_interval, now)
        await asyncio.sleep(turn - now)

    async def resolve_handle(self, handle: str) -> str:
        """Find the DID behind a handle, and make sure that the DID's document claims the handle back.

        Args:
            handle: a domain name, e.g. `alice.example.com`.

        Raises:
            InvalidIdentifier: not a handle.
            HandleNotFound: no DID, several, or one that does not claim the handle.
            TransientError: nobody could be asked.

        Source: handle specification, "Handle Resolution": DNS TXT `_atproto.` first, then HTTPS well-known.
        """
        handle = parse_handle(handle)
        did = await self._handle_by_dns(handle) or await self._handle_by_https(handle)
        if did is None:
            raise HandleNotFound(f"no DID found for the handle {handle}; check the spelling, or give the account's DID")
        identity = await self.resolve_did(did)
        if identity.handle != handle:
            raise HandleNotFound(
                f"{handle} points to {did}, whose document claims {identity.handle or 'no handle'} instead; "
                "if you trust it, give the DID"
            )
        return did

    async def _handle_by_dns(self, handle: str) -> str | None:
        import dns.asyncresolver  # a DID needs none of it
        import dns.exception

        try:
            answer = await dns.asyncresolver.resolve(f"_atproto.{handle}", "TXT", lifetime=3.0)
        except (dns.exception.DNSException, OSError):
            return None
        dids = set()
        for record in answer:
            text = b"".join(record.strings).decode("ascii", "replace")
            if text.startswith("did="):
                dids.add(text.removeprefix("did="))
        if len(dids) > 1:
            raise HandleNotFound(f"_atproto.{handle} names several DIDs; give the account's DID")
        return self._checked(dids.pop()) if dids else None

    async def _handle_by_https(self, handle: str) -> str | None:
        try:
            answer = await self._xrpc.get(f"https://{handle}", "/.well-known/atproto-did", max_bytes=4096, tries=1)
        except (XrpcError, TransientError, BlockedEndpoint):
            return None
        return self._checked(answer.body.decode("ascii", "replace").strip())

    def _checked(self, text: str) -> str | None:
        try:
            return parse_did(text, allow_private=self._allow_private)
        except InvalidIdentifier:
            return None


def parse_document(body: bytes, did: str, *, allow_private: bool) -> Identity:
    """Read the PDS out of a DID document.

    Raises:
        MalformedAnswer: not a DID document, or somebody else's.
        NoPds: no `#atproto_pds` service, or one without a URL.
        BlockedEndpoint: its URL must not be contacted.

    Source: DID specification of AT Protocol, "DID Documents".
    """
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise MalformedAnswer(f"the document of {did} is not a DID document") from exc
    if document.id != did:
        raise MalformedAnswer(f"asked for the document of {did}, got the one of {one_line(document.id, 80)}")
    endpoint = next(filter(None, (_pds_endpoint(raw, did) for raw in document.service)), None)
    if endpoint is None:
        raise NoPds(f"the document of {did} names no PDS, so there is nothing to import from")
    pds = parse_endpoint(endpoint, allow_private=allow_private)
    return Identity(did, _handle(document.alsoKnownAs), pds, body)


def _pds_endpoint(raw: msgspec.Raw, did: str) -> str | None:
    try:
        service = msgspec.json.decode(raw, type=_Service)
        if service.id not in ("#atproto_pds", f"{did}#atproto_pds"):
            return None
        if msgspec.json.decode(service.type, type=str) != "AtprotoPersonalDataServer":
            return None
        return msgspec.json.decode(service.serviceEndpoint, type=str) or None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _handle(names: list[msgspec.Raw]) -> str | None:
    for raw in names:
        try:
            name = msgspec.json.decode(raw, type=str)
            if name.startswith("at://"):
                return parse_handle(name.removeprefix("at://"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidIdentifier):
            continue
    return None
