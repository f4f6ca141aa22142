"""Lists of accounts: those that have written to a collection, as a relay knows them, or all of one server.

What a list says is a hint: accounts that are gone are named, some twice, new ones perhaps late. An import finds out
what is true of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from parity_dagster.atproto.bounds import BodyTooLarge
from parity_dagster.atproto.repo import MAX_CLOCK_SKEW, UNDECODABLE, USUAL_BYTES
from parity_dagster.atproto.split_page import split_list
from parity_dagster.atproto.xrpc import XrpcClient, XrpcError
from parity_dagster.errors import InvalidIdentifier, ListUnavailable, MalformedAnswer, RequestRefused, ServerFailure
from parity_dagster.identifiers import is_valid_tid, parse_did, tid_time
from parity_dagster.text import one_line

MAX_ENTRIES = 10_000
"""Entries accepted in one page, whatever was asked for; the reference directory of collections gives as many."""
MAX_CURSOR = 8_192
"""Characters of a cursor; it has to fit into a URL."""
SMALLER = (1000, 500, 100, 50)
"""Page sizes that are tried where a server refuses more; 1,000 was the most in an earlier lexicon."""
_NO_METHOD = frozenset({"methodnotimplemented", "xrpcnotsupported", "unsupportedmethod"})


class AccountList(NamedTuple):
    """A list of accounts that a server keeps."""

    server: str
    """Its origin, `https://host`."""
    collection: str | None = None
    """NSID that the accounts have written to, or None for all accounts of the server."""

    @property
    def method(self) -> str:
        """The XRPC method that gives it."""
        return f"com.atproto.sync.{'listRepos' if self.collection is None else 'listReposByCollection'}"

    @property
    def largest_page(self) -> int:
        """The most accounts that may be asked for at once. Source: the lexicons of both methods."""
        return 1000 if self.collection is None else 2000

    def __str__(self) -> str:
        return f"{self.collection or 'all accounts'} of {self.server}"


class ListedAccount(NamedTuple):
    """An account as a list shows it."""

    did: str
    rev: str | None = None
    """Revision of its repository, if the list says one that can be: `listRepos` of most servers does."""
    status: str = "active"
    """`active`, or why it is not, in the server's word: `deactivated`, `takendown`…, `inactive` if it gives none."""


@dataclass(slots=True)
class AccountPage:
    """A page of a list: each account at most once."""

    accounts: list[ListedAccount] = field(default_factory=list)
    repeated: int = 0
    """Entries that name an account which the page has named before."""
    invalid: int = 0
    """Entries that name no account whose repository could be imported."""
    cursor: str | None = None
    """Where the next page starts; None at the end."""


class _Entry(msgspec.Struct, gc=False):
    did: str
    rev: str | None = None
    active: bool | None = None
    status: str | None = None


class _Page(msgspec.Struct, gc=False):
    repos: list[_Entry]
    cursor: str | None = None


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


class AccountLists:
    """Reads lists of accounts, in pages as large as each server gives them."""

    def __init__(self, xrpc: XrpcClient, *, allow_private: bool) -> None:
        self._xrpc = xrpc
        self._allow_private = allow_private
        self._sizes: dict[tuple[str, str], int] = {}

    async def page(self, listed: AccountList, cursor: str | None, *, most: int | None = None) -> AccountPage:
        """Fetch one page.

        Args:
            listed: which list.
            cursor: where to go on, exactly as the same server gave it; None from the start.
            most: accounts asked for, if that is less than what the server gives; it may give fewer, or more.

        Raises:
            ListUnavailable: the server does not keep this list.
            RequestRefused: any other 4xx, as of a cursor that it does not take any more.
            TransientError: no answer, 5xx, a 429 that lasts, or a body that is no page.
            BlockedEndpoint: the server must not be contacted.

        Source: lexicons com.atproto.sync.listReposByCollection and com.atproto.sync.listRepos.
        """
        key = listed.server, listed.method
        limit = min(self._sizes.get(key, listed.largest_page), most or listed.largest_page)
        while True:
            try:
                page = await self._ask(listed, cursor, limit)
            except (XrpcError, ServerFailure, BodyTooLarge) as exc:
                # A limit that is too large is refused in as many ways as there are servers.
                smaller = next((size for size in SMALLER if size < limit), None)
                if smaller is None or not _may_be_the_limit(exc):
                    raise _refusal(exc, listed) from exc
                limit = smaller
            else:
                if most is None or limit < most:
                    self._sizes[key] = limit
                return page

    async def _ask(self, listed: AccountList, cursor: str | None, limit: int) -> AccountPage:
        params = {"limit": str(limit)}
        if listed.collection is not None:
            params["collection"] = listed.collection
        if cursor is not None:
            params["cursor"] = cursor
        answer = await self._xrpc.get(listed.server, f"/xrpc/{listed.method}", params, max_bytes=USUAL_BYTES)
        try:
            return parse_page(answer.body, allow_private=self._allow_private)
        except MalformedAnswer as exc:
            raise MalformedAnswer(f"{listed.server}: {exc}") from exc


def _may_be_the_limit(exc: Exception) -> bool:
    if isinstance(exc, XrpcError):
        return exc.status == 400 and exc.name.lower() not in _NO_METHOD
    return isinstance(exc, BodyTooLarge) or (isinstance(exc, ServerFailure) and exc.status == 500)


def _refusal(exc: Exception, listed: AccountList) -> Exception:
    if isinstance(exc, XrpcError):
        is_missing = exc.status in (404, 405) or exc.name.lower() in _NO_METHOD
    else:
        is_missing = isinstance(exc, ServerFailure) and exc.status == 501
    if is_missing:
        cure = (
            "name a relay or a directory of collections that does"
            if listed.collection is not None
            else "name the server of some accounts"
        )
        return ListUnavailable(f"{listed.server} does not know {listed.method}; {cure}")
    if isinstance(exc, XrpcError):
        return RequestRefused(f"{listed.server} refuses to list {listed.collection or 'its accounts'}: {exc}")
    return exc


def parse_page(body: bytes, *, allow_private: bool) -> AccountPage:
    """Take a page of a list apart.

    Args:
        body: the answer's bytes, decompressed.
        allow_private: as in `identifiers.parse_did`.

    Returns:
        The page; entries that name no account, or one twice, are counted.

    Raises:
        MalformedAnswer: the body is no page of a list at all.
    """
    entries: list[_Entry | None]
    try:
        strict = _decode_page(body)
        entries, cursor = [*strict.repos], strict.cursor
    except UNDECODABLE:
        cursor, pieces = split_list(body, b"repos")
        if len(pieces) > MAX_ENTRIES:
            raise _too_long(len(pieces)) from None
        entries = [_entry(piece) for piece in pieces]
    if len(entries) > MAX_ENTRIES:
        raise _too_long(len(entries))
    if cursor is not None and (len(cursor) > MAX_CURSOR or "\0" in cursor):
        raise MalformedAnswer(f"a page of a list of accounts has the cursor {one_line(cursor, 40)}…")
    page = AccountPage(cursor=cursor or None)
    seen: dict[str, int] = {}
    latest = datetime.now(UTC) + MAX_CLOCK_SKEW
    for entry in entries:
        try:
            if entry is None:
                raise InvalidIdentifier
            did = parse_did(entry.did, allow_private=allow_private)
        except InvalidIdentifier:
            page.invalid += 1
            continue
        # as with `latest_rev`, one far in the future is none
        rev = entry.rev if entry.rev and is_valid_tid(entry.rev) and tid_time(entry.rev) < latest else None
        account = ListedAccount(did, rev, _status(entry))
        if did in seen:
            page.repeated += 1
            before = page.accounts[seen[did]]
            if account != before:  # a list that says two things has said neither
                page.accounts[seen[did]] = before._replace(rev=None)
            continue
        seen[did] = len(page.accounts)
        page.accounts.append(account)
    return page


def _too_long(entries: int) -> MalformedAnswer:
    return MalformedAnswer(f"a page of a list of accounts has {entries:,} entries")


def _entry(raw: bytes) -> _Entry | None:
    """An entry by itself; what is wrong with anything but its DID does not matter."""
    try:
        return _decode_entry(raw)
    except UNDECODABLE:
        pass
    try:
        return _Entry(msgspec.json.decode(raw, type=_Named).did)
    except UNDECODABLE:
        return None


class _Named(msgspec.Struct, gc=False):
    did: str


def _status(entry: _Entry) -> str:
    if entry.active or (entry.active is None and not entry.status):
        return "active"
    return one_line((entry.status or "").lower(), 40) or "inactive"
