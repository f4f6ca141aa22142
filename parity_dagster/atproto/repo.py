"""What an account's PDS is asked about its repository."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import msgspec

from parity_dagster.atproto.bounds import BodyTooLarge, FileFailed, TooSlow
from parity_dagster.atproto.pages import Page, parse_page
from parity_dagster.atproto.xrpc import XrpcClient, XrpcError
from parity_dagster.errors import (
    AccountDeactivated,
    AccountDeleted,
    AccountSuspended,
    AccountTakenDown,
    AccountUnavailable,
    ArchiveUnavailable,
    MalformedAnswer,
    ParityError,
    RepoNotFound,
    ServerFailure,
    TransientError,
)
from parity_dagster.identifiers import is_valid_tid, tid_time
from parity_dagster.text import one_line
from parity_dagster.threads import DaemonThreads

USUAL_BYTES = 2 * 2**20
"""Largest page read without further ado. All requests in flight may be answered so at once; a page of 100 posts has a
twentieth of it."""
THREADED_BYTES = 2**18
"""Size from which a page is parsed on another thread, so that a hostile one does not hold up everybody."""

MAX_CLOCK_SKEW = timedelta(days=1)
"""How far ahead of our clock a host's may be: revisions are times."""

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a stranger's JSON may raise."""

_ACCOUNT_ERRORS: dict[str, type[AccountUnavailable | RepoNotFound]] = {
    "repodeactivated": AccountDeactivated,
    "accountdeactivated": AccountDeactivated,
    "deactivated": AccountDeactivated,
    "repotakendown": AccountTakenDown,
    "accounttakedown": AccountTakenDown,
    "takendown": AccountTakenDown,
    "reposuspended": AccountSuspended,
    "accountsuspended": AccountSuspended,
    "suspended": AccountSuspended,
    "accountdeleted": AccountDeleted,
    "deleted": AccountDeleted,
    "reponotfound": RepoNotFound,
}


class _Commit(msgspec.Struct):
    rev: str
    did: str | None = None  # not in the lexicon; compared where a host gives it


class _Status(msgspec.Struct):
    active: bool
    did: str | None = None
    status: str | None = None


class RepoClient:
    """Reads repositories."""

    def __init__(self, xrpc: XrpcClient, *, max_page_bytes: int) -> None:
        self.xrpc = xrpc
        self._max_page_bytes = max_page_bytes
        self._threads = DaemonThreads(4, "parity-parse")

    async def list_records(
        self, origin: str, did: str, collection: str, *, cursor: str | None, limit: int, is_large: bool = False
    ) -> Page:
        """Fetch one page.

        Args:
            origin: the PDS, `https://host`.
            cursor: where to go on, exactly as the same host gave it; None from the start.
            limit: records asked for, 1 to 100; the host may give fewer or more.
            is_large: accept a page of up to `PARITY_MAX_PAGE_BYTES` instead of `USUAL_BYTES`.

        Raises:
            XrpcError: 4xx.
            TransientError: no answer, 5xx, or a body that is not a page.

        Source: lexicon com.atproto.repo.listRecords.
        """
        params = {"repo": did, "collection": collection, "limit": str(limit)}
        if cursor:
            params["cursor"] = cursor
        answer = await self.xrpc.get(
            origin,
            "/xrpc/com.atproto.repo.listRecords",
            params,
            max_bytes=self._max_page_bytes if is_large else min(USUAL_BYTES, self._max_page_bytes),
        )
        try:
            if len(answer.body) > THREADED_BYTES:
                parsing = asyncio.get_running_loop().run_in_executor
                return await parsing(self._threads, parse_page, answer.body, did, collection)
            return parse_page(answer.body, did, collection)
        except MalformedAnswer as exc:
            raise MalformedAnswer(f"{origin}: {exc}") from exc

    async def fetch_archive(
        self, origin: str, did: str, file: BinaryIO, *, max_bytes: int, keep: AsyncExitStack | None = None
    ) -> None:
        """Write the archive of a whole repository to a file; whether what came is one is not looked into.

        Args:
            origin: the PDS, `https://host`.
            file: written from its start; what it holds after a failure is of no use.
            max_bytes: largest archive accepted.
            keep: as in `XrpcClient.get`.

        Raises:
            AccountUnavailable, RepoNotFound: the host says so in the lexicon's words, and `confirm` lets it pass.
            ArchiveUnavailable: the host gives no archives, or none of this account that could be taken: it is too big,
                comes too slowly, or the file does not take it.
            TransientError: no answer, a cut one, 5xx, or a 429 that lasts longer than an import waits.

        Source: lexicon com.atproto.sync.getRepo.
        """
        try:
            await self.xrpc.get(
                origin,
                "/xrpc/com.atproto.sync.getRepo",
                {"did": did},
                max_bytes=max_bytes,
                file=file,
                keep=keep,
                bucket="getRepo",
            )
        except XrpcError as refusal:
            if error := account_error(refusal, origin, did):
                await self.confirm(origin, did, "getRepo", error)
                raise error from refusal
            raise ArchiveUnavailable(f"{origin} gives no archive of {did}: {refusal}") from refusal
        except BodyTooLarge as exc:
            raise ArchiveUnavailable(f"the archive of {did} at {origin} is larger than {max_bytes:,} bytes") from exc
        except TooSlow as exc:
            raise ArchiveUnavailable(f"the archive of {did} comes too slowly: {exc}") from exc
        except FileFailed as exc:
            raise ArchiveUnavailable(f"the archive of {did} cannot be kept on this machine: {exc}") from exc
        except ServerFailure as exc:
            if exc.status == 501:
                raise ArchiveUnavailable(f"{origin} gives no archives: {exc}") from exc
            await self.confirm(origin, did, "getRepo", exc)
            raise

    async def latest_rev(self, origin: str, did: str) -> str | None:
        """The repository's current revision.

        Returns:
            A TID that grows with every commit; None if the host cannot say.

        Raises:
            AccountUnavailable, RepoNotFound: the host says so in the lexicon's words, and `confirm` lets it pass.
            HostUnreachable, RateLimited: it says nothing, and would not list the records either.
            ServerFailure: it says so, and getRepoStatus says something else.

        Source: lexicon com.atproto.sync.getLatestCommit.
        """
        try:
            answer = await self.xrpc.get(
                origin, "/xrpc/com.atproto.sync.getLatestCommit", {"did": did}, max_bytes=2**16
            )
            commit = msgspec.json.decode(answer.body, type=_Commit)
            _check_did(commit.did, did, origin)
            rev = commit.rev
            # One far in the future would make every later live event of the account look old.
            is_plausible = is_valid_tid(rev) and tid_time(rev) < datetime.now(UTC) + MAX_CLOCK_SKEW
            return rev if is_plausible else None
        except XrpcError as refusal:
            if error := account_error(refusal, origin, did):
                await self.confirm(origin, did, "getLatestCommit", error)
                raise error from refusal
            return None
        except (ServerFailure, MalformedAnswer, *UNDECODABLE):
            # A revision is a help, not a need: without it nothing is skipped and everything is read.
            return None

    async def check_status(self, origin: str, did: str) -> bool:
        """Ask whether the account is really there and active.

        Returns:
            True if the host vouches for the account; False if it does not know the method.

        Raises:
            AccountUnavailable, RepoNotFound: what the host says.
            TransientError: no clear answer.

        Source: lexicon com.atproto.sync.getRepoStatus; account specification for the status words.
        """
        try:
            answer = await self.xrpc.get(origin, "/xrpc/com.atproto.sync.getRepoStatus", {"did": did}, max_bytes=2**16)
            status = msgspec.json.decode(answer.body, type=_Status)
            _check_did(status.did, did, origin)
        except XrpcError as refusal:
            if error := account_error(refusal, origin, did):
                raise error from refusal
            return False
        except UNDECODABLE as exc:
            raise MalformedAnswer(f"{origin}: getRepoStatus did not answer with a status") from exc
        except ServerFailure as exc:
            if exc.status == 501:
                return False
            raise
        if not status.active:
            word = (status.status or "").lower()
            kind = _ACCOUNT_ERRORS.get(word, AccountUnavailable)
            shown = one_line(word, 40) or "inactive"
            raise kind(f"{origin} says that {did} is {shown}; it is not imported while that lasts")
        return True

    # I11
    async def confirm(self, origin: str, did: str, method: str, error: ParityError | None) -> None:
        """Ask for the status before it is believed what another answer says of an account, or a bare failure may mean.

        Args:
            method: what was asked.
            error: what that answer is about to be taken for.

        Raises:
            AccountUnavailable, RepoNotFound: what the status says.
            ServerFailure: it contradicts an `error` that says that the account is not there, or not active.
            TransientError: no clear answer; unless `error` is transient as well.
        """
        try:
            is_vouched = await self.check_status(origin, did)
        except TransientError:
            if isinstance(error, TransientError):
                return
            raise
        if is_vouched and isinstance(error, AccountUnavailable | RepoNotFound):
            raise ServerFailure(
                f"{origin} contradicts itself: getRepoStatus says that {did} is active, {method} says {error.code};"
                " try again later"
            )


def _check_did(answered: str | None, asked: str, origin: str) -> None:
    """An answer about somebody else, as of a host that mixes its answers up, says nothing about this account."""
    if answered is not None and answered != asked:
        raise MalformedAnswer(f"{origin} was asked about {asked} and answered about {one_line(answered, 80)}")


def account_error(refusal: XrpcError, origin: str, did: str) -> AccountUnavailable | RepoNotFound | None:
    """What a refusal says about the account, if it says anything.

    Returns:
        An error in our words, or None if the refusal is about something else.
    """
    kind = _ACCOUNT_ERRORS.get(refusal.name.lower())
    if kind is None:
        return None
    if kind is RepoNotFound:
        return RepoNotFound(
            f"{origin} has no repository of {did}; if the account moved, `parity import --resume` follows it"
        )
    return kind(f"{origin} refuses {did}: {refusal.name}; it is not imported while that lasts")
