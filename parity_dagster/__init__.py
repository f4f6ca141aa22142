"""Imports the history of AT Protocol accounts into Postgres through Dagster.

Everything an application needs is here; what is not in `__all__` may change with any version. Names are loaded when
they are first used, so that `import parity_dagster` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity_dagster.errors import (
        AccountDeactivated,
        AccountDeleted,
        AccountSuspended,
        AccountTakenDown,
        AccountUnavailable,
        BlockedEndpoint,
        CollectionNotRegistered,
        CursorLoop,
        DatabaseError,
        DatabaseUnreachable,
        DidNotFound,
        HandleNotFound,
        HostPaused,
        HostUnreachable,
        Interrupted,
        InvalidIdentifier,
        MalformedAnswer,
        MigrationNeeded,
        NoPds,
        PagesMissing,
        PairBusy,
        ParityError,
        PermanentError,
        RateLimited,
        RepoNotFound,
        RequestRefused,
        ServerFailure,
        SettingsError,
        TooManyPages,
        TransientError,
        UnsupportedServer,
    )
    from parity_dagster.events import (
        ImportCompleted,
        ImportEvent,
        ImportFailed,
        ImportProgress,
        ImportStarted,
        Listener,
    )
    from parity_dagster.frames import RecordFrames, read_records
    from parity_dagster.importing.live import LiveRecord
    from parity_dagster.importing.mappers import RecordMapper, SourceRecord
    from parity_dagster.models import (
        FailedRecord,
        ImportResult,
        ImportState,
        ImportStatus,
        Pair,
        RetryResult,
    )
    from parity_dagster.queued import ImportUserJob, QueuedImport
    from parity_dagster.service import ImportService
    from parity_dagster.settings import Settings, load_settings
    from parity_dagster.store.typed import Column, TypedView

_HOMES = {
    "parity_dagster.errors": (
        "AccountDeactivated",
        "AccountDeleted",
        "AccountSuspended",
        "AccountTakenDown",
        "AccountUnavailable",
        "BlockedEndpoint",
        "CollectionNotRegistered",
        "CursorLoop",
        "DatabaseError",
        "DatabaseUnreachable",
        "DidNotFound",
        "HandleNotFound",
        "HostPaused",
        "HostUnreachable",
        "Interrupted",
        "InvalidIdentifier",
        "MalformedAnswer",
        "MigrationNeeded",
        "NoPds",
        "PagesMissing",
        "PairBusy",
        "ParityError",
        "PermanentError",
        "RateLimited",
        "RepoNotFound",
        "RequestRefused",
        "ServerFailure",
        "SettingsError",
        "TooManyPages",
        "TransientError",
        "UnsupportedServer",
    ),
    "parity_dagster.events": (
        "ImportCompleted",
        "ImportEvent",
        "ImportFailed",
        "ImportProgress",
        "ImportStarted",
        "Listener",
    ),
    "parity_dagster.frames": ("RecordFrames", "read_records"),
    "parity_dagster.importing.live": ("LiveRecord",),
    "parity_dagster.importing.mappers": ("RecordMapper", "SourceRecord"),
    "parity_dagster.models": (
        "FailedRecord",
        "ImportResult",
        "ImportState",
        "ImportStatus",
        "Pair",
        "RetryResult",
    ),
    "parity_dagster.queued": ("ImportUserJob", "QueuedImport"),
    "parity_dagster.service": ("ImportService",),
    "parity_dagster.settings": ("Settings", "load_settings"),
    "parity_dagster.store.typed": ("Column", "TypedView"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccountDeactivated",
    "AccountDeleted",
    "AccountSuspended",
    "AccountTakenDown",
    "AccountUnavailable",
    "BlockedEndpoint",
    "CollectionNotRegistered",
    "Column",
    "CursorLoop",
    "DatabaseError",
    "DatabaseUnreachable",
    "DidNotFound",
    "FailedRecord",
    "HandleNotFound",
    "HostPaused",
    "HostUnreachable",
    "ImportCompleted",
    "ImportEvent",
    "ImportFailed",
    "ImportProgress",
    "ImportResult",
    "ImportService",
    "ImportStarted",
    "ImportState",
    "ImportStatus",
    "ImportUserJob",
    "Interrupted",
    "InvalidIdentifier",
    "Listener",
    "LiveRecord",
    "MalformedAnswer",
    "MigrationNeeded",
    "NoPds",
    "PagesMissing",
    "Pair",
    "PairBusy",
    "ParityError",
    "PermanentError",
    "QueuedImport",
    "RateLimited",
    "RecordFrames",
    "RecordMapper",
    "RepoNotFound",
    "RequestRefused",
    "RetryResult",
    "ServerFailure",
    "Settings",
    "SettingsError",
    "SourceRecord",
    "TooManyPages",
    "TransientError",
    "TypedView",
    "UnsupportedServer",
    "load_settings",
    "read_records",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
