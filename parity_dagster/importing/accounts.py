"""What an importer knows about an account: its PDS, its revision, whether it is active."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from parity_dagster.atproto.identity import Identity, IdentityResolver, key_document
from parity_dagster.atproto.repo import RepoClient
from parity_dagster.errors import AccountUnavailable, RepoNotFound, Unconfirmed
from parity_dagster.store.identities import CachedIdentity, find_identities, save_identities
from parity_dagster.store.sessions import Database


@dataclass(slots=True)
class Account:
    """An account on one host; a move makes a new one."""

    did: str
    pds: str
    rev: str | None = None
    is_rev_known: bool = False
    denial: AccountUnavailable | RepoNotFound | None = None
    """Why there is no revision: the host says so, to each question that it was asked."""
    rev_answered_at: float = -inf
    """Monotonic time at which the host was asked for the revision and answered: it knew the account then."""
    active_at: float = -inf
    """The same for "it is active"."""
    has_no_status: bool = False
    """The host knows no method for the status."""
    is_resolved_now: bool = False
    """Its document was read in this run, not taken from the cache."""
    document: bytes = b""
    """That document, if it is wanted: it names the key that the account signs with. Or one that names nothing else, if
    the key is known from the directory's log."""
    key: str | None = None
    """That key, as a Multikey."""
    left: frozenset[str] = frozenset()
    """Hosts that this run has left because they denied the account, or failed."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Accounts:
    """The accounts of one importer."""

    def __init__(
        self, resolver: IdentityResolver, repo: RepoClient, database: Database, *, keep_documents: bool = False
    ) -> None:
        self._resolver = resolver
        self._repo = repo
        self._database = database
        self._keep_documents = keep_documents
        self._accounts: dict[str, Account] = {}
        self._users: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unsaved: dict[str, CachedIdentity] = {}
        self._saving = asyncio.Lock()

    async def prefetch(self, dids: Iterable[str]) -> None:
        """Read the cache for several accounts at once, and note that one more pair of each is being worked on."""
        dids = list(dids)
        for did in dids:
            self._users[did] = self._users.get(did, 0) + 1
        unknown = [did for did in dict.fromkeys(dids) if did not in self._accounts]
        if not unknown:
            return
        found = await self._database.run(lambda conn: find_identities(conn, unknown))
        for identity in found.values():
            account = Account(identity.did, identity.pds)
            if self._keep_documents and identity.key is not None:
                account.document, account.key = key_document(identity.did, identity.key), identity.key
            self._accounts.setdefault(identity.did, account)

    def release(self, did: str) -> bool:
        """Forget an account when its last pair is done, and say whether it was."""
        self._users[did] -= 1
        if not self._users[did]:
            del self._users[did]
            self._accounts.pop(did, None)
            self._locks.pop(did, None)
        return did not in self._users

    async def locate(self, did: str) -> Account:
        """The account's present host; raises what `IdentityResolver.resolve_did` does."""
        async with self._locks.setdefault(did, asyncio.Lock()):
            account = self._accounts.get(did)
            if account is None:
                account = await self._resolve(did)
            return account

    async def document(self, account: Account) -> Account:
        """The account with a document that names its key: read in this run, unless the directory's log has it."""
        async with self._locks.setdefault(account.did, asyncio.Lock()):
            current = self._accounts.get(account.did)
            if current is None or not current.document:
                current = await self._resolve(account.did)
            return current

    async def relocate(self, account: Account) -> Account | None:
        """Ask again where an account lives, after its host failed or denied it; None if it still lives there."""
        async with self._locks.setdefault(account.did, asyncio.Lock()):
            current = self._accounts.get(account.did)
            if current is None or current.pds == account.pds:
                current = await self._resolve(account.did, doubted=account)
            if current.pds == account.pds:
                return None
            if current.pds in account.left and self._resolver.has_mirrors:
                # To go round in circles until the one that is behind has the last word would believe it.
                raise Unconfirmed(
                    f"mirrors of the PLC directory disagree on whether {account.did} lives at {current.pds} or at"
                    f" {account.pds}; try again later, or take the one that is behind out of PARITY_PLC_URL"
                )
            return current

    async def rev(self, account: Account) -> str | None:
        """The repository's revision, asked for once per account and importer, before its first page is read.

        None if the host cannot say; raises if it says that the account is not active, or not there.
        """
        async with account.lock:
            if account.denial is not None:
                raise account.denial
            if not account.is_rev_known:
                try:
                    await self._ask_rev(account)
                except (AccountUnavailable, RepoNotFound) as exc:
                    account.denial = exc
                    raise
            return account.rev

    # I11
    async def confirm_active(self, account: Account, since: float, *, by_rev: bool) -> bool:
        """Have the host vouch for the account at or after a moment; the pairs of an account share an answer.

        Raises if the account is not active, not there, or the host does not answer.

        Args:
            since: monotonic time; an answer to an older question says nothing.

        Returns:
            True if it does; False if it has no means to.
        """
        async with account.lock:
            if max(account.active_at, account.rev_answered_at if by_rev else -inf) >= since:
                return True
            if not account.has_no_status:
                asked_at = time.monotonic()
                if await self._repo.check_status(account.pds, account.did):
                    account.active_at = asked_at
                    return True
                account.has_no_status = True
            if account.rev_answered_at < since:
                await self._ask_rev(account)
            return account.rev_answered_at >= since

    async def _ask_rev(self, account: Account) -> None:
        asked_at = time.monotonic()
        rev = await self._repo.latest_rev(account.pds, account.did)
        if rev is not None:
            account.rev_answered_at = asked_at
        if not account.is_rev_known:  # the first answer is the one from before any page
            account.rev, account.is_rev_known = rev, True

    async def _resolve(self, did: str, *, doubted: Account | None = None) -> Account:
        identity = await resolve_again(self._resolver, doubted) if doubted else await self._resolver.resolve_did(did)
        self._unsaved[did] = remembered(identity)
        await self._save_identities()
        old = self._accounts.get(did)
        account = old
        if account is None or account.pds != identity.pds:
            left = doubted.left | {doubted.pds} if doubted else frozenset()
            account = Account(did, identity.pds, left=left)
        account.is_resolved_now = True
        if self._keep_documents:
            account.document, account.key = identity.document, identity.key
        if did in self._users:
            self._accounts[did] = account
        return account

    async def _save_identities(self) -> None:
        """One commit for all that were resolved while the commit before was under way."""
        async with self._saving:
            if self._unsaved:
                identities, self._unsaved = list(self._unsaved.values()), {}
                await self._database.run(lambda conn: save_identities(conn, identities))


class FreshAccounts:
    """Accounts as their documents say now, for who compares: nothing is taken from the table, nor written to it."""

    def __init__(self, resolver: IdentityResolver) -> None:
        self._resolver = resolver

    async def locate(self, did: str) -> Account:
        """The account's present host; raises what `IdentityResolver.resolve_did` does."""
        identity = await self._resolver.resolve_did(did)
        return _fresh(identity)

    async def relocate(self, account: Account) -> Account | None:
        """Read an account's document once more; None if it still lives there."""
        identity = await resolve_again(self._resolver, account)
        if identity.pds != account.pds:
            return _fresh(identity)
        account.document, account.key = identity.document, identity.key
        return None


def _fresh(identity: Identity) -> Account:
    return Account(identity.did, identity.pds, is_resolved_now=True, document=identity.document, key=identity.key)


def remembered(identity: Identity) -> CachedIdentity:
    """What is kept of a document."""
    return CachedIdentity(identity.did, identity.handle, identity.pds, identity.key)


async def resolve_again(resolver: IdentityResolver, account: Account) -> Identity:
    """Read the document afresh, after its host failed or denied the account, or its key did not fit: of several mirrors
    one may be behind, so that no single one is believed that nothing has changed."""
    return await resolver.resolve_did(
        account.did, doubts=lambda identity: identity.pds == account.pds, known_key=account.key
    )
