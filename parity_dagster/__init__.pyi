"""The public names, each with its home: the only list of them, for type checkers and for `__init__.py` alike."""

from .atproto.transport import (
    GuardedTransport as GuardedTransport,
)
from .errors import (
    AccountDeactivated as AccountDeactivated,
    AccountDeleted as AccountDeleted,
    AccountSuspended as AccountSuspended,
    AccountTakenDown as AccountTakenDown,
    AccountUnavailable as AccountUnavailable,
    ArchiveForeign as ArchiveForeign,
    ArchiveIncomplete as ArchiveIncomplete,
    ArchiveOutdated as ArchiveOutdated,
    ArchiveTooBig as ArchiveTooBig,
    ArchiveTruncated as ArchiveTruncated,
    ArchiveUnavailable as ArchiveUnavailable,
    ArchiveWrong as ArchiveWrong,
    BlockedEndpoint as BlockedEndpoint,
    CollectionNotRegistered as CollectionNotRegistered,
    CursorLoop as CursorLoop,
    DatabaseError as DatabaseError,
    DatabaseUnreachable as DatabaseUnreachable,
    DidNotFound as DidNotFound,
    HandleNotFound as HandleNotFound,
    HostPaused as HostPaused,
    HostUnreachable as HostUnreachable,
    Interrupted as Interrupted,
    InvalidIdentifier as InvalidIdentifier,
    ListBusy as ListBusy,
    ListUnavailable as ListUnavailable,
    MalformedAnswer as MalformedAnswer,
    MigrationNeeded as MigrationNeeded,
    NoPds as NoPds,
    NoSigningKey as NoSigningKey,
    PagesMissing as PagesMissing,
    PairBusy as PairBusy,
    ParityError as ParityError,
    PermanentError as PermanentError,
    RateLimited as RateLimited,
    RepoNotFound as RepoNotFound,
    RequestRefused as RequestRefused,
    ServerFailure as ServerFailure,
    SettingsError as SettingsError,
    SignatureWrong as SignatureWrong,
    TooManyPages as TooManyPages,
    TransientError as TransientError,
    TransportFailed as TransportFailed,
    Unconfirmed as Unconfirmed,
    UnsupportedServer as UnsupportedServer,
)
from .events import (
    ImportCompleted as ImportCompleted,
    ImportEvent as ImportEvent,
    ImportFailed as ImportFailed,
    ImportProgress as ImportProgress,
    ImportStarted as ImportStarted,
    Listener as Listener,
)
from .frames import (
    RecordFrames as RecordFrames,
    read_records as read_records,
)
from .importing.live import (
    LiveRecord as LiveRecord,
)
from .importing.mappers import (
    RecordMapper as RecordMapper,
    SourceRecord as SourceRecord,
)
from .models import (
    DirectorySync as DirectorySync,
    Discovery as Discovery,
    DiscoveryPlan as DiscoveryPlan,
    FailedRecord as FailedRecord,
    ImportEstimate as ImportEstimate,
    ImportResult as ImportResult,
    ImportState as ImportState,
    ImportStatus as ImportStatus,
    Pair as Pair,
    Refreshing as Refreshing,
    RetryResult as RetryResult,
    Verification as Verification,
)
from .queued import (
    ImportUserJob as ImportUserJob,
    QueuedImport as QueuedImport,
)
from .service import (
    ImportService as ImportService,
)
from .settings import (
    Settings as Settings,
    load_settings as load_settings,
)
from .store.typed import (
    Column as Column,
    TypedView as TypedView,
)
