"""From a handle to a DID, and from a DID to its PDS.

A DID document is a stranger's text: it is capped, its id must be the DID that was asked for, and the endpoint it
names must pass `endpoints.parse_endpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from parity_dagster.atproto.directory import PlcDirectory
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
    PermanentError,
    TransientError,
    Unconfirmed,
)
from parity_dagster.identifiers import parse_did, parse_handle
from parity_dagster.text import one_line

if TYPE_CHECKING:
    from parity_dagster.atproto.http import HttpResponse

MAX_DOCUMENT_BYTES = 64 * 1024
"""A PLC operation is at most 7.5 kB; did:web documents have no bound of their own."""
CONFIRMATIONS = 2
"""Mirrors of the directory that have to say what would be final."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an account lives.

    Attributes:
        did: the account.
        handle: the handle its document claims, not verified; None if it claims none.
        pds: origin of its PDS.
        key: what it signs its commits with, as a Multikey; None if that cannot be told at a glance.
        document: the DID document that says so, as it came; two that differ in nothing else are the same identity.
    """

    did: str
    handle: str | None
    pds: str
    key: str | None = field(default=None, compare=False)
    document: bytes = field(default=b"", compare=False, repr=False)


class _Service(msgspec.Struct):
    id: str = ""
    type: msgspec.Raw = msgspec.Raw(b'""')
    serviceEndpoint: msgspec.Raw = msgspec.Raw(b'""')


class _Method(msgspec.Struct):
    id: str = ""
    type: str = ""
    publicKeyMultibase: str = ""


class _Document(msgspec.Struct):
    id: str
    alsoKnownAs: list[msgspec.Raw] = []
    verificationMethod: msgspec.Raw = msgspec.Raw(b"[]")
    service: list[msgspec.Raw] = []


class IdentityResolver:
    """Asks the PLC directory, did:web hosts and DNS."""

    def __init__(self, xrpc: XrpcClient, directory: PlcDirectory, *, allow_private: bool) -> None:
        self._xrpc = xrpc
        self._directory = directory
        self._allow_private = allow_private

    @property
    def has_mirrors(self) -> bool:
        """Whether the directory is more than one server, which may contradict each other."""
        return len(self._directory) > 1

    async def resolve_did(
        self, did: str, *, doubts: Callable[[Identity], bool] = lambda identity: False, known_key: str | None = None
    ) -> Identity:
        """Find an account's PDS.

        If the directory has several mirrors, no single one is believed that there is no account, no PDS or one that
        must not be contacted: a second one has to say so, too, and if it has a document, that counts.

        Args:
            doubts: of what a document says that needs a second mirror, too, as when the host that it names denies the
                account: the first one may be behind.
            known_key: the key of the document that led there; of two that are doubted, one with another key counts.

        Raises:
            DidNotFound, AccountDeleted, NoPds, BlockedEndpoint: permanent answers.
            TransientError: the directory or host could not be asked, or not a second mirror.

        Source: DID specification of AT Protocol; did:plc and did:web method specifications.
        """
        did = parse_did(did, allow_private=self._allow_private)
        if did.startswith("did:plc:"):
            return await self._ask_directory(did, doubts, known_key)
        host = did.removeprefix("did:web:")
        if self._allow_private:
            host = unquote(host)
        scheme = "http" if self._allow_private and ("localhost" in host or "127.0.0.1" in host) else "https"
        origin = f"{scheme}://{host}"
        try:
            answer: HttpResponse | XrpcError = await self._xrpc.get(
                origin, "/.well-known/did.json", max_bytes=MAX_DOCUMENT_BYTES
            )
        except XrpcError as refusal:
            answer = refusal
        return self._read(origin, did, answer)

    def _read(self, origin: str, did: str, answer: HttpResponse | XrpcError) -> Identity:
        if isinstance(answer, XrpcError):
            if answer.status == 410:
                raise AccountDeleted(f"{did} is tombstoned: the account is gone for good") from answer
            if answer.status in (400, 404):
                raise DidNotFound(f"{origin} does not know {did}; check the DID for a typing error") from answer
            raise MalformedAnswer(f"{origin} refuses to tell about {did}: {answer}") from answer
        return parse_document(answer.body, did, allow_private=self._allow_private)

    async def _ask_directory(self, did: str, doubts: Callable[[Identity], bool], known_key: str | None) -> Identity:
        def read(origin: str, answer: HttpResponse | XrpcError) -> Identity | PermanentError:
            try:
                return self._read(origin, did, answer)
            except PermanentError as exc:
                return exc

        def is_believed(said: Identity | PermanentError) -> bool:
            return isinstance(said, Identity) and not doubts(said)

        said = await self._directory.ask(
            f"/{did}",
            read,
            max_bytes=MAX_DOCUMENT_BYTES,
            is_enough=lambda said: is_believed(said[-1]) or len(said) == CONFIRMATIONS,
        )
        if is_believed(said[-1]):
            said = said[-1:]
        elif len(said) < min(CONFIRMATIONS, len(self._directory)):
            only = said[0] if isinstance(said[0], PermanentError) else f"{did} lives at {said[0].pds}, which denies it"
            raise Unconfirmed(
                f"one mirror of the PLC directory says: {only}. No second one could be asked; try again later, or take"
                " those that fail out of PARITY_PLC_URL"
            )
        documents = [one for one in said if isinstance(one, Identity)]
        if documents:
            return next((one for one in documents if one.key != known_key), documents[0])
        # A tombstone if all say so; else the one that denies least.
        raise min((one for one in said if isinstance(one, PermanentError)), key=_denial)

    async def resolve_handle(self, handle: str) -> Identity:
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
        identity = await self.resolve_did(did, doubts=lambda identity: identity.handle != handle)
        if identity.handle != handle:
            raise HandleNotFound(
                f"{handle} points to {did}, whose document claims {identity.handle or 'no handle'} instead; "
                "if you trust it, give the DID"
            )
        return identity

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


def _denial(error: PermanentError) -> int:
    return 2 if isinstance(error, AccountDeleted) else 1 if isinstance(error, DidNotFound) else 0


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
    key = _find_key(document.verificationMethod, did)
    return Identity(did, find_handle(document.alsoKnownAs), pds, key, body)


def key_document(did: str, key: str) -> bytes:
    """A document that names an account's key and nothing else."""
    method = {"id": f"{did}#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": key}
    return msgspec.json.encode({"id": did, "verificationMethod": [method]})


def _find_key(methods: msgspec.Raw, did: str) -> str | None:
    """The key of the first method named #atproto if it is of the usual form; every other needs the whole document."""
    try:
        for method in msgspec.json.decode(methods, type=list[_Method]):
            if method.id in ("#atproto", f"{did}#atproto"):
                return method.publicKeyMultibase if method.type == "Multikey" else None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    return None


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


def find_handle(names: Sequence[bytes]) -> str | None:
    """The first handle among the names that a document gives its account, each of them JSON."""
    for raw in names:
        try:
            name = msgspec.json.decode(raw, type=str)
            if name.startswith("at://"):
                return parse_handle(name.removeprefix("at://"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidIdentifier):
            continue
    return None
