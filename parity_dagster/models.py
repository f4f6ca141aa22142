"""The words of an import: which pair, how far it got, how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from parity_dagster.errors import GONE

ALL_COLLECTIONS = "*"
"""Collection of a result that sums up several collections of one account."""


class ImportStatus(StrEnum):
    """The four states of a (did, collection), the same words as the table's CHECK constraint."""

    PENDING = "pending"
    """Known and waiting for an importer."""
    IN_PROGRESS = "in_progress"
    """An importer has claimed it; if that importer is gone, the pair can be resumed."""
    COMPLETED = "completed"
    """The list was read to its end and every record is accounted for."""
    FAILED = "failed"
    """The last walk ended with an error; `error_code` says which."""


class Pair(NamedTuple):
    """One unit of import: an account's DID and a collection's NSID."""

    did: str
    collection: str


@dataclass(frozen=True, slots=True)
class WalkPosition:
    """How far a walk over a pair's list has come: from the row to the walk, with each page to the writer, and back."""

    walk: int = 0
    """How many times the list has been read from its start; 1 for the first import."""
    pds: str | None = None
    """Origin (`https://host`) the walk reads from."""
    rev: str | None = None
    """Repository revision read before the walk began."""
    fence_rev: str | None = None
    """Revision that the walk's records are marked with: `rev`, or a greater one that was known of the pair."""
    cursor: str | None = None
    """Where the next page starts; meaningless to any host but `pds`."""
    pages: int = 0
    """Pages of this walk so far."""
    source: str = "list"
    """What it reads: `list`, page after page, or `repo`, the account's signed repository as a whole."""
    commit: str | None = None
    """CID of the verified commit that vouches for every record; None if the walk reads a list."""
    seen: int = 0
    """Entries on them, whatever became of each; the row holds the parts."""


Source = Literal["list", "repo"]
"""What an import reads."""
POSITION_COLUMNS = {
    field.name: "bigint" if field.type == "int" else "text" for field in fields(WalkPosition) if field.name != "seen"
}
"""Columns of the state table that hold a walk's position, with a type that PostgreSQL takes for each."""


@dataclass(frozen=True, slots=True)
class ImportState:
    """One row of the state table; the fields are its columns.

    Times are aware UTC datetimes. Counts are records of the current walk: each record counts once,
    however often the server showed it.
    """

    id: int
    did: str
    collection: str
    status: ImportStatus
    cursor: str | None
    """Where the next page starts; meaningless to any host but `pds`."""
    records_synced: int
    records_skipped: int
    records_failed: int
    started_at: datetime | None
    completed_at: datetime | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    pds: str | None
    """Origin (`https://host`) the walk reads from."""
    rev: str | None
    """Repository revision read before the walk began: a firehose consumer may start there."""
    walk: int
    """How many times the list has been read from its start; 1 for the first import."""
    pages: int
    """Pages committed in this walk."""
    attempts: int
    """Failed tries since the last success, of those that count."""
    next_attempt_at: datetime | None
    """When the retry sensor may try again; None means never by itself."""
    error_code: str | None
    """Which error of `parity_dagster.errors` ended the last walk."""
    run_id: str | None
    """Dagster run that worked on the pair last; None outside Dagster."""
    importer_id: int | None
    """Claim: the importer that holds the pair."""
    fence_rev: str | None = None
    """Revision that this walk's records are marked with: `rev`, or a greater one that was known of the pair."""
    source: str = "list"
    """What the walk reads: `list`, page after page, or `repo`, the account's signed repository as a whole."""
    commit: str | None = None
    """CID of the verified commit that vouches for every record; None if the walk reads a list."""

    @property
    def pair(self) -> Pair:
        """The (did, collection) this row is about."""
        return Pair(self.did, self.collection)

    @property
    def is_verified(self) -> bool:
        """Whether it is complete, and everything of it was signed by the account and verified."""
        return self.status is ImportStatus.COMPLETED and self.commit is not None

    @property
    def is_gone(self) -> bool:
        """Whether it failed because the account is deactivated, suspended, taken down, deleted or unknown."""
        return self.status is ImportStatus.FAILED and self.error_code in GONE

    @property
    def position(self) -> WalkPosition:
        """How far the walk has come that was committed last."""
        seen = self.records_synced + self.records_skipped + self.records_failed
        return WalkPosition(**{name: getattr(self, name) for name in POSITION_COLUMNS}, seen=seen)

    @property
    def can_resume(self) -> bool:
        """Whether an import of this pair was begun or asked for and has not completed."""
        return self.status is not ImportStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What one import call did; `collection` is `*` for a sum over several collections."""

    did: str
    collection: str
    records_synced: int = 0
    records_skipped: int = 0
    records_failed: int = 0
    completed: bool = False
    cursor: str | None = None
    error: str | None = None
    error_code: str | None = None

    @property
    def is_success(self) -> bool:
        """Completed without an error."""
        return self.completed and self.error is None

    @property
    def is_partial(self) -> bool:
        """Not completed, but some records are in the table."""
        return not self.completed and self.records_synced > 0

    @property
    def is_failed(self) -> bool:
        """An error ended the import."""
        return self.error is not None

    @property
    def is_gone(self) -> bool:
        """An error ended the import that is none to mend: the account is deactivated, deleted or the like."""
        return self.is_failed and self.error_code in GONE

    @property
    def total_processed(self) -> int:
        """Records seen: synced, skipped and failed."""
        return self.records_synced + self.records_skipped + self.records_failed

    @classmethod
    def from_state(cls, state: ImportState) -> ImportResult:
        """The result that a state row stands for.

        Args:
            state: the row after its last commit.

        Returns:
            A result with the row's counts, cursor and error.
        """
        completed = state.status is ImportStatus.COMPLETED
        return cls(
            did=state.did,
            collection=state.collection,
            records_synced=state.records_synced,
            records_skipped=state.records_skipped,
            records_failed=state.records_failed,
            completed=completed,
            cursor=None if completed else state.cursor,
            error=state.error,
            error_code=state.error_code,
        )

    @classmethod
    def aggregate(cls, did: str, results: Iterable[ImportResult]) -> ImportResult:
        """Sum of several results.

        Args:
            did: the account, or `*` when the results are of several.
            results: one per (did, collection).

        Returns:
            A result whose collection is `*`: completed if all are, with every error in one text.
        """
        results = list(results)
        errors = [
            f"{result.collection if did == result.did else f'{result.did} {result.collection}'}: {result.error}"
            for result in results
            if result.error is not None
        ]
        return cls(
            did=did,
            collection=ALL_COLLECTIONS,
            records_synced=sum(result.records_synced for result in results),
            records_skipped=sum(result.records_skipped for result in results),
            records_failed=sum(result.records_failed for result in results),
            completed=bool(results) and all(result.completed for result in results),
            error="; ".join(errors) or None,
            error_code=next((result.error_code for result in results if result.error_code), None),
        )

    def with_error(self, error: str, code: str) -> ImportResult:
        """This result with an error.

        Args:
            error: sentence for people.
            code: word of `parity_dagster.errors`.

        Returns:
            A copy that is failed.
        """
        return replace(self, completed=False, error=error, error_code=code)


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record that could not be stored: a row of `parity_failed_records`; the fields are its columns."""

    id: int
    did: str
    collection: str
    rkey: str | None
    """Record key, if one could be read."""
    fingerprint: str
    """SHA-256 of `body`, in hexadecimal."""
    reason: str
    """Short code, e.g. `nul_character`."""
    detail: str
    """The reason for people."""
    body: bytes
    """The entry of the page, byte for byte."""
    pds: str | None
    walk: int
    """The walk that met it last; 0 if that was before the pair was reset."""
    first_seen_at: datetime
    last_seen_at: datetime
    retries: int
    """How often storing it was tried again."""


class RetryResult(NamedTuple):
    """What came of trying to store failed records again."""

    stored: int
    """Records that are in the table now, and failed no more."""
    left: int
    """Records that still cannot be stored."""


class Refreshing(NamedTuple):
    """What one look at stale copies did."""

    confirmed: int = 0
    """Pairs that the lists of their hosts show to be as they were imported."""
    queued: int = 0
    """Pairs that are newly pending, to be read again where their accounts have changed."""
    pages: int = 0
    """Pages of lists that were read for it."""
    stalest_seconds: float | None = None
    """Since the stalest complete copy was read or confirmed; None if there is none."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one call has read of a list of accounts."""

    server: str
    """Origin of the relay, directory of collections or PDS that keeps the list."""
    collection: str | None
    """NSID that the accounts have written to; None for all accounts of the server."""
    accounts: int = 0
    """Accounts that the call has met, each once."""
    known: int = 0
    """Of them, those of which something was imported or queued before."""
    queued: int = 0
    """Pairs that are newly pending."""
    inactive: int = 0
    """Accounts that the list itself calls deactivated, taken down or the like; they are left out."""
    repeated: int = 0
    """Entries that name an account once more."""
    invalid: int = 0
    """Entries that name no account whose repository could be imported."""
    pages: int = 0
    is_resumed: bool = False
    """Whether it went on where an earlier call had stopped, or found the end."""
    is_complete: bool = False
    """Whether the end of the list was reached."""
    error: str | None = None
    """Why it ended early; what was read until then is queued, and the next call goes on there."""
    error_code: str | None = None
    """A code of `parity_dagster.errors`."""

    @property
    def is_success(self) -> bool:
        """Whether nothing went wrong."""
        return self.error_code is None


@dataclass(frozen=True, slots=True)
class ImportEstimate:
    """What an import would take, at least."""

    source: Source
    """What would be read: `list`, page after page, or `repo`, each account's signed repository as a whole."""
    requests: int
    """Requests to servers and to the PLC directory together."""
    hours: float
    """How long it takes where every server answers as often as it allows; see `DiscoveryPlan`."""


@dataclass(frozen=True, slots=True)
class DiscoveryPlan:
    """What lists of accounts name, and what importing the rest would take; nothing was queued."""

    lists: tuple[Discovery, ...]
    """What was read, list by list."""
    collections: tuple[str, ...]
    """What would be imported of each account."""
    accounts: int
    """Accounts that the lists name, each once."""
    known: int
    """Of them, those of which something was imported or queued before."""
    missing_accounts: int
    """Accounts of which at least one collection was never asked for."""
    missing_pairs: int
    """Those collections, over all accounts."""
    pages_per_pair: float
    """Requests that a list is taken to need: as many as those that were imported before did, or one."""
    servers: int
    """Servers that the accounts are taken to live on: as many as are known, at least one. Each is taken to answer ten
    requests a second, as the reference implementation does."""
    lookup_rate: float
    """Look-ups a second that the PLC directory is taken to answer: what is set, or the usual pace."""
    estimates: tuple[ImportEstimate, ...]
    """By pages, and by repositories."""


Outcome = Literal["equal", "unverifiable", "outdated", "different", "incomplete", "unread"]
"""What a verification says of a pair."""


@dataclass(slots=True)
class Verification:
    """One pair, compared with what its author has signed, record by record."""

    did: str
    collection: str
    """`*` if nothing of the account was imported."""
    equal: int = 0
    """Records that are in the table exactly as they were signed."""
    missing: int = 0
    """Records that the table should hold and does not."""
    different: int = 0
    """Rows with another cid or another value."""
    surplus: int = 0
    """Rows that the repository does not hold."""
    newer: int = 0
    """Differences that live events have made since the repository's revision."""
    changed: int = 0
    """Differences that the account has made since the import, as far as can be told."""
    failed: int = 0
    """Records that could not be stored and are kept as failed records."""
    unverifiable: int = 0
    """Rows whose value can be compared with nothing: those that hold floats, for one, if no repository is read."""
    examples: list[str] = field(default_factory=list)
    """`missing RKEY` and the like, some of them."""
    pds: str | None = None
    """Host that gave the repository; None if none was read."""
    rev: str | None = None
    """Revision of the repository."""
    commit: str | None = None
    """CID of the commit that vouches for the repository."""
    error: str | None = None
    """Why it was not compared, or not to its end."""
    error_code: str | None = None
    """`incomplete` for a pair that is not imported to its end, `not_imported`, or a code of `parity_dagster.errors`."""

    @property
    def compared(self) -> int:
        """Records and rows that were looked at and should be equal."""
        return self.equal + self.missing + self.different + self.surplus + self.unverifiable

    @property
    def outcome(self) -> Outcome:
        """One word for all of it, the worst that is true."""
        if self.error_code is not None:
            return "incomplete" if self.error_code == "incomplete" else "unread"
        if self.missing or self.different or self.surplus:
            return "different"
        return "outdated" if self.changed else "unverifiable" if self.unverifiable else "equal"

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong, or could not be found out."""
        return self.outcome in ("different", "unread")


@dataclass(slots=True)
class DirectorySync:
    """How far a call has read the directory's log, and what came of it."""

    operations: int = 0
    """Operations read that no call has read before."""
    stored: int = 0
    """Identities stored or brought up to date."""
    removed: int = 0
    """Identities taken out because only the account's document can say what is the matter: tombstones, no PDS."""
    broken: int = 0
    """Lines that are no operation."""
    requests: int = 0
    """Pages asked for."""
    read_to: datetime | None = None
    """Time of the newest operation read by this call or one before."""
    is_caught_up: bool = False
    """Whether everything was read that was there when the call began."""
    is_whole: bool = False
    """Whether all accounts that the log names were stored, by this call and those before, not only known ones."""
    error: str | None = None
    """Why it ended early; what was read before is stored."""
    error_code: str | None = None
