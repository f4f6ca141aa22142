"""Every way an import can go wrong, as one tree of exceptions.

    ParityError
    ├── SettingsError                invalid_settings     a PARITY_* variable or an argument is wrong
    ├── InvalidIdentifier            invalid_identifier   not a DID, handle, NSID, rkey or AT-URI
    ├── CollectionNotRegistered      not_registered       the NSID is not among PARITY_COLLECTIONS
    ├── PairBusy                     busy                 another live importer holds this (did, collection)
    ├── ListBusy                     list_busy            another process is reading this list of accounts
    ├── DatabaseError                database             Postgres failed; what was committed stays
    │   ├── DatabaseUnreachable      database_unreachable
    │   ├── MigrationNeeded          migration_needed
    │   └── UnsupportedServer        unsupported_server   too old, or a database whose encoding is not UTF8
    ├── TransientError               (trying again later can help)
    │   ├── HostUnreachable          unreachable          no connection, a cut connection, a timeout
    │   │   └── HostPaused           host_paused          the host failed so often that it is left alone for now
    │   ├── ServerFailure            server_error         5xx
    │   ├── RateLimited              rate_limited         429, for longer than an import waits
    │   ├── MalformedAnswer          malformed_answer     not the JSON that the lexicon promises, or too big
    │   ├── Unconfirmed              unconfirmed          what one mirror of the directory says, and no second one
    │   ├── TransportFailed          transport_failed     a transport of yours raised what httpx's do not
    │   ├── PagesMissing             pages_missing        what a walk has seen is not all known; it begins again
    │   ├── ArchiveTruncated         archive_truncated    a repository's archive ends in the middle
    │   ├── ArchiveIncomplete        archive_incomplete   it lacks blocks: cut, or written while it was sent
    │   ├── ArchiveOutdated          archive_outdated     it is of an older revision than the known one
    │   └── Interrupted              interrupted          the walk made room for others; the cursor is kept
    └── PermanentError               (the answer will be the same until somebody changes something)
        ├── DidNotFound              did_not_found        neither the PLC directory nor the host knows the DID
        ├── HandleNotFound           handle_not_found     no DID behind the handle
        ├── NoPds                    no_pds               the DID document names no PDS
        ├── BlockedEndpoint          blocked_endpoint     the PDS URL is one that must not be contacted
        ├── RequestRefused           request_refused      the PDS refuses the request itself (4xx)
        ├── CursorLoop               cursor_loop          the PDS never comes to an end of its list
        ├── ListUnavailable          list_unavailable     the server keeps no such list of accounts
        ├── TooManyPages             too_many_pages       more pages than PARITY_MAX_PAGES; the cursor is kept
        ├── NoSigningKey             no_signing_key       the DID document names no key to verify an archive with
        ├── ArchiveUnavailable       archive_unavailable  the host gives no archive, or none that could be taken
        ├── ArchiveTooBig            archive_too_big      a repository's archive is beyond what is read
        ├── ArchiveWrong             archive_wrong        it is not what the repository format allows
        │   ├── ArchiveForeign       archive_foreign      it is another account's
        │   └── SignatureWrong       signature_wrong      it is not signed with the account's key
        ├── AccountUnavailable       account_unavailable  the PDS says the account is not active
        │   ├── AccountDeactivated   deactivated
        │   ├── AccountTakenDown     takendown
        │   ├── AccountSuspended     suspended
        │   └── AccountDeleted       deleted
        └── RepoNotFound             repo_not_found       the PDS the DID points to does not have the repo

The split into transient and permanent follows the account status words of the AT Protocol account
specification (deactivated, takendown, suspended, deleted) and the XRPC specification's status codes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why a record could not be stored: the short word in `parity_failed_records.reason`."""

    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    INVALID_CBOR = "invalid_cbor"
    """From an archive: its block is not DAG-CBOR."""
    LONE_SURROGATE = "lone_surrogate"
    """A string holds one half of a surrogate pair."""
    WRONG_SHAPE = "wrong_shape"
    """Not an entry of a list: no `uri`, no `value`."""
    WRONG_AUTHORITY = "wrong_authority"
    """Its `uri` is of another account or collection than was asked for."""
    INVALID_RKEY = "invalid_rkey"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    NUL_CHARACTER = "nul_character"
    """U+0000, which jsonb cannot hold."""
    NUMBER_TOO_LONG = "number_too_long"
    """A few bytes that would be gigabytes when written out."""
    REFUSED_BY_POSTGRES = "refused_by_postgres"
    """Whatever else jsonb does not take; the detail is Postgres' own."""
    MAPPER_REFUSED = "mapper_refused"
    """A mapper raised, or its table does not take the row."""


class ParityError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        code: word written to `parity_import_states.error_code`.
        retryable: whether the retry sensor may try the pair again by itself.
        is_gone: whether it says that the account is gone: deactivated, suspended, taken down, deleted or unknown.
            Such is the network; there is nothing wrong, and nothing that whoever imports could do about it.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    is_gone: ClassVar[bool] = False


class SettingsError(ParityError):
    """A setting or an argument has a value that cannot work; the message names it and the cure."""

    code = "invalid_settings"


class InvalidIdentifier(ParityError, ValueError):
    """A string does not follow the grammar of the identifier it should be."""

    code = "invalid_identifier"


class CollectionNotRegistered(ParityError):
    """The collection is not one of `PARITY_COLLECTIONS`."""

    code = "not_registered"


class PairBusy(ParityError):
    """Another live importer is working on this (did, collection)."""

    code = "busy"


class ListBusy(ParityError):
    """Another process is reading this list of accounts, and goes on with it."""

    code = "list_busy"


class DatabaseError(ParityError):
    """Postgres could not do what was asked; nothing that was committed is lost."""

    code = "database"
    retryable = True


class DatabaseUnreachable(DatabaseError):
    """No connection to Postgres."""

    code = "database_unreachable"


class MigrationNeeded(DatabaseError):
    """The database lacks this version's tables; `parity migrate` makes them."""

    code = "migration_needed"
    retryable = False


class UnsupportedServer(DatabaseError):
    """The PostgreSQL server is too old, the database's encoding is not UTF8, or a pooler gives no sessions."""

    code = "unsupported_server"
    retryable = False


class TransientError(ParityError):
    """Trying again later can help."""

    code = "transient"
    retryable = True


class HostUnreachable(TransientError):
    """No connection, a connection cut in the middle, or no answer in time."""

    code = "unreachable"


class HostPaused(HostUnreachable):
    """The host failed several times in a row and is left alone for a while."""

    code = "host_paused"


class ServerFailure(TransientError):
    """The server answered with a 5xx status, or its answers contradict each other.

    Attributes:
        status: HTTP status of the answer; None if it is not a single answer that fails.
    """

    code = "server_error"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RateLimited(TransientError):
    """The server wants us to stay away for longer than an import waits.

    Attributes:
        retry_after: seconds the server asked for.
    """

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MalformedAnswer(TransientError):
    """The body is not what the lexicon promises: cut, not JSON, wrong shape, or over the size cap."""

    code = "malformed_answer"


class Unconfirmed(TransientError):
    """One mirror of the PLC directory says what would be final, and no second one has said so."""

    code = "unconfirmed"


class TransportFailed(TransientError):
    """The transport that was given to `ImportService` did something that httpx's transports do not do."""

    code = "transport_failed"


class PagesMissing(TransientError):
    """Rows of `parity_walk_pages` are gone, so that nobody knows what the list no longer shows."""

    code = "pages_missing"


class ArchiveTruncated(TransientError):
    """A repository's archive ends in the middle of something."""

    code = "archive_truncated"


class ArchiveIncomplete(TransientError):
    """A repository's archive lacks blocks: it was cut between two, or the account wrote while it was sent."""

    code = "archive_incomplete"


class ArchiveOutdated(TransientError):
    """A repository's archive is of an older revision than the one that is known."""

    code = "archive_outdated"


class Interrupted(TransientError):
    """The walk was told to stop; what is committed stays and the pair can be resumed.

    Attributes:
        has_progress: whether it brought any page; if so, it is no failed try.
    """

    code = "interrupted"

    def __init__(self, message: str, *, has_progress: bool = False) -> None:
        super().__init__(message)
        self.has_progress = has_progress


class PermanentError(ParityError):
    """The same request will get the same answer until somebody changes something."""

    code = "permanent"


class DidNotFound(PermanentError):
    """Nobody publishes a document for this DID."""

    code = "did_not_found"
    is_gone = True


class HandleNotFound(PermanentError):
    """Neither DNS nor the host's well-known file names a DID for this handle."""

    code = "handle_not_found"


class NoPds(PermanentError):
    """The DID document has no usable `#atproto_pds` service."""

    code = "no_pds"


class BlockedEndpoint(PermanentError):
    """A URL or address that an importer of strangers' data must not contact."""

    code = "blocked_endpoint"


class RequestRefused(PermanentError):
    """The server refuses the request itself (a 4xx that is about neither the account nor the cursor)."""

    code = "request_refused"


class CursorLoop(PermanentError):
    """The list never ends: a cursor comes back, or pages bring nothing new."""

    code = "cursor_loop"


class ListUnavailable(PermanentError):
    """The server does not keep this list of accounts: it knows no such method."""

    code = "list_unavailable"


class TooManyPages(PermanentError):
    """The list is longer than `PARITY_MAX_PAGES`; with a greater value the walk goes on where it stopped."""

    code = "too_many_pages"


class NoSigningKey(PermanentError):
    """The DID document has no usable `#atproto` key, so that no archive can be verified."""

    code = "no_signing_key"


class ArchiveUnavailable(PermanentError):
    """There is no archive of the repository to be had: the host lacks the method, or it is too big or too slow."""

    code = "archive_unavailable"


class ArchiveTooBig(PermanentError):
    """A repository's archive, or something in it, is bigger than what is read."""

    code = "archive_too_big"


class ArchiveWrong(PermanentError):
    """A repository's archive is not what the repository format allows; nothing of it is believed."""

    code = "archive_wrong"


class ArchiveForeign(ArchiveWrong):
    """The archive is another account's."""

    code = "archive_foreign"


class SignatureWrong(ArchiveWrong):
    """The commit is not signed with the key that the DID document names."""

    code = "signature_wrong"


class AccountUnavailable(PermanentError):
    """The PDS has the account, but it is not active; its records must not be redistributed."""

    code = "account_unavailable"
    is_gone = True


class AccountDeactivated(AccountUnavailable):
    """The account's owner switched it off."""

    code = "deactivated"


class AccountTakenDown(AccountUnavailable):
    """The host or a moderator took the account down."""

    code = "takendown"


class AccountSuspended(AccountUnavailable):
    """The account is suspended for a time."""

    code = "suspended"


class AccountDeleted(AccountUnavailable):
    """The account is gone."""

    code = "deleted"


class RepoNotFound(PermanentError):
    """The PDS named by the freshly resolved DID document does not have the repository."""

    code = "repo_not_found"
    is_gone = True


def _gone(root: type[ParityError]) -> frozenset[str]:
    return frozenset({root.code} if root.is_gone else ()).union(*map(_gone, root.__subclasses__()))


GONE = _gone(ParityError)
"""Codes of the errors that say that the account is gone."""
