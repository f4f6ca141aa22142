"""The grammar of AT Protocol identifiers: DID, handle, NSID, record key, AT-URI, TID.

Rules: atproto.com/specs/{did,handle,nsid,record-key,at-uri-scheme,tid}.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from parity_dagster.errors import InvalidIdentifier

# Top-level names that no public service can have: the handle spec's list plus `test`, which it allows for
# development only (RFC 6761, RFC 7686, RFC 8375, RFC 9476).
RESERVED_TLDS = frozenset({"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"})

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_TLD = r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOSTNAME = re.compile(rf"(?:{_LABEL}\.)+{_TLD}")
_PRIVATE_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}(?:%3A[1-9][0-9]{{0,4}})?")
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_DID_PLC = re.compile(r"did:plc:[a-z2-7]{24}")
_NSID = re.compile(rf"{_TLD}(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}")
_RKEY = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._:~-]{1,512}")
_RKEY_LINE = r"(?!\.\.?(?:\n|\Z))[A-Za-z0-9._:~-]{1,512}"
_RKEYS = re.compile(rf"{_RKEY_LINE}(?:\n{_RKEY_LINE})*")
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")
_TID_DIGITS = str.maketrans("234567abcdefghijklmnopqrstuvwxyz", "0123456789abcdefghijklmnopqrstuv")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AtUri(NamedTuple):
    """The parts of `at://authority/collection/rkey`.

    Attributes:
        authority: DID or handle.
        collection: NSID, or None when the URI names a whole repository.
        rkey: record key, or None when the URI names a repository or a collection.
    """

    authority: str
    collection: str | None
    rkey: str | None


def _invalid(text: str, problem: str) -> InvalidIdentifier:
    # ascii() keeps the message on one line whatever a server or a file put into the string
    shown = ascii(text[:80])[:120] + "…" * (len(text) > 80)
    return InvalidIdentifier(f"{shown} {problem}")


def is_valid_did(text: str) -> bool:
    """Tell whether `text` is a DID of any method (at most 2,048 characters; the did spec's grammar)."""
    return len(text) <= 2048 and _DID.fullmatch(text) is not None


def parse_did(text: str, *, allow_private: bool = False) -> str:
    """Check a DID whose repository can be imported: did:plc, or did:web of a plain public hostname.

    Args:
        text: the DID; DIDs are case-sensitive and returned as they are.
        allow_private: also accept did:web of any host with an optional port (`did:web:localhost%3A2583`),
            the form the did spec allows for development only.

    Returns:
        The DID.

    Raises:
        InvalidIdentifier: not a DID, or one of a method or form that AT Protocol does not use.
    """
    if _DID_PLC.fullmatch(text):
        return text
    if not is_valid_did(text):
        raise _invalid(text, "is not a DID; a DID looks like did:plc:z72i7hdynmk6r22z27h6tvur")
    method, identifier = text.split(":", 2)[1:]
    if method == "plc":
        raise _invalid(text, "is not a did:plc; one has exactly 24 characters out of a-z and 2-7 after did:plc:")
    if method != "web":
        raise _invalid(text, f"is a did:{method[:20]}; AT Protocol accounts are did:plc or did:web")
    if allow_private and _PRIVATE_HOST.fullmatch(identifier) and len(identifier) <= 253:
        return text
    if not _HOSTNAME.fullmatch(identifier) or len(identifier) > 253:
        raise _invalid(
            text,
            "is not a did:web of a plain hostname (no port, no path, no %) as in did:web:example.com",
        )
    if identifier.rpartition(".")[2].lower() in RESERVED_TLDS:
        raise _invalid(text, "is under a top-level name that no public server has; use a public hostname")
    return text


def parse_handle(text: str) -> str:
    """Check a handle's syntax and lower-case it.

    Args:
        text: the handle, without "@". Reserved top-level names are valid syntax; `endpoints` refuses them.

    Raises:
        InvalidIdentifier: not a hostname of two or more labels (handle spec).
    """
    if len(text) > 253 or not _HOSTNAME.fullmatch(text):
        raise _invalid(text, "is not a handle; a handle is a hostname like alice.bsky.social")
    return text.lower()


def parse_account(text: str, *, allow_private: bool = False) -> str:
    """Check what a person types to name an account: a DID or a handle, with or without a leading "@".

    Args:
        text: DID or handle; surrounding white space is dropped.
        allow_private: passed on to `parse_did`.

    Raises:
        InvalidIdentifier: neither a DID nor a handle.
    """
    name = text.strip().removeprefix("@")
    if name.startswith("did:"):
        return parse_did(name, allow_private=allow_private)
    try:
        return parse_handle(name)
    except InvalidIdentifier:
        raise _invalid(
            text, "is neither a DID nor a handle; give did:plc:z72i7hdynmk6r22z27h6tvur or alice.bsky.social"
        ) from None


def parse_nsid(text: str) -> str:
    """Check a collection name (NSID) and lower-case its domain part, as the nsid spec normalises it.

    Args:
        text: the NSID, at most 317 characters; the last segment is case-sensitive.

    Raises:
        InvalidIdentifier: not an NSID.
    """
    authority, _, name = text.rpartition(".")
    if len(text) > 317 or len(authority) > 253 or not _NSID.fullmatch(text):
        raise _invalid(text, "is not a collection name (NSID); one looks like app.bsky.feed.post")
    return f"{authority.lower()}.{name}"


def is_valid_rkey(text: str) -> bool:
    """Tell whether `text` is a record key: 1 to 512 of `A-Za-z0-9._:~-`, and not "." or ".."."""
    return _RKEY.fullmatch(text) is not None


def are_valid_rkeys(texts: list[str]) -> bool:
    """Tell whether all of `texts` are record keys, in one look at all of them.

    Args:
        texts: the keys of a page.
    """
    joined = "\n".join(texts)
    return not texts or (joined.count("\n") == len(texts) - 1 and _RKEYS.fullmatch(joined) is not None)


def parse_rkey(text: str) -> str:
    """Return a record key (case-sensitive) as it is, or raise `InvalidIdentifier` (record-key spec)."""
    if not is_valid_rkey(text):
        raise _invalid(text, "is not a record key; one has 1 to 512 of A-Z a-z 0-9 . _ : ~ - as in 3jzfcijpj2z2a")
    return text


def parse_at_uri(text: str) -> AtUri:
    """Split an AT-URI (the restricted form of the at-uri spec: no query, no fragment, no trailing slash).

    Args:
        text: the URI, at most 8 KiB. Its DID may be of any method, because a URI inside a record names
            accounts that nobody is about to import.

    Raises:
        InvalidIdentifier: not an AT-URI, or one of its parts is wrong.
    """
    parts = text[5:].split("/") if text.startswith("at://") and len(text) <= 8192 else []
    if not 1 <= len(parts) <= 3:
        raise _invalid(text, "is not an AT-URI; one looks like at://did:plc:…/app.bsky.feed.post/3jzfcijpj2z2a")
    authority = parts[0] if is_valid_did(parts[0]) else parse_handle(parts[0])
    collection = parse_nsid(parts[1]) if len(parts) > 1 else None
    return AtUri(authority, collection, parse_rkey(parts[2]) if len(parts) > 2 else None)


def is_valid_tid(text: str) -> bool:
    """Tell whether `text` is a TID: 13 characters of sortable base32 with the top bit clear (tid spec)."""
    return _TID.fullmatch(text) is not None


def tid_time(tid: str) -> datetime:
    """Read the moment a TID was made from its upper 53 bits.

    Returns:
        The time in UTC, to the microsecond.

    Raises:
        InvalidIdentifier: not a TID.
    """
    if not is_valid_tid(tid):
        raise _invalid(tid, "is not a TID; one has 13 characters as in 3jzfcijpj2z2a")
    return _EPOCH + timedelta(microseconds=int(tid.translate(_TID_DIGITS), 32) >> 10)
