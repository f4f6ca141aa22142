"""What PostgreSQL's errors mean: which of them pass by themselves, which are about a value, what a person can do."""

from __future__ import annotations

import random
import time

import psycopg
from psycopg import errors

from parity_dagster.errors import DatabaseError, DatabaseUnreachable

PASSING = (
    psycopg.OperationalError,  # connection lost, server shut down or starting, disk full, out of memory
    psycopg.InterfaceError,  # the connection object is closed already
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.QueryCanceled,  # by an administrator
    errors.LockNotAvailable,
    errors.ReadOnlySqlTransaction,  # a failover to a standby that is about to be promoted
    errors.IdleInTransactionSessionTimeout,
)
"""Errors after which the same transaction, on a fresh session if need be, may well succeed."""

REFUSED_DATA = (
    psycopg.DataError,
    errors.StatementTooComplex,  # jsonb nested deeper than the server's stack
    errors.ProgramLimitExceeded,
    errors.UntranslatableCharacter,
)
"""Errors that are about a value in the batch; the other values are fine. (Subclasses of OperationalError come
first in a handler, because Postgres files some of these there.)"""


class Patience:
    """How long, and how often, something is tried again while PostgreSQL restarts, is full, or refuses."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._delay = 0.05

    def pause(self, exc: DatabaseUnreachable | psycopg.Error) -> float:
        """Seconds to wait before the next try after an error.

        Raises:
            DatabaseError: it did not pass in time, or never will; the text says what to do.
            psycopg.DataError and the like: a value was refused, which is for the caller to sort out.
        """
        is_over = time.monotonic() > self._deadline
        if isinstance(exc, DatabaseUnreachable):
            if is_over:
                raise exc
        elif isinstance(exc, (*REFUSED_DATA, psycopg.IntegrityError)):
            raise exc
        elif is_over or not isinstance(exc, PASSING):
            raise failed(exc) from exc
        delay, self._delay = self._delay, min(self._delay * 2, 2.0)
        return delay * random.uniform(0.5, 1)  # noqa: S311 - not for secrets


def failed(exc: BaseException) -> DatabaseError:
    """A driver's error in our words: the text names the cure, and no value of any record."""
    cure = cure_for(
        exc, grants="grant the role SELECT, INSERT, UPDATE, DELETE on parity's tables and TEMPORARY on the database"
    )
    return DatabaseError(
        f"PostgreSQL failed: {first_line(exc)}; {cure}, then `parity import --resume` (what was committed stays)"
    )


def cure_for(exc: BaseException, *, grants: str) -> str:
    """What a person can do about a driver's error; `grants` is what to do if the role lacks a privilege."""
    if isinstance(exc, errors.DiskFull):
        return "free some disk space on the database server"
    if isinstance(exc, errors.InsufficientPrivilege):
        return grants
    if isinstance(exc, errors.UndefinedTable | errors.UndefinedColumn):
        return "run `parity migrate`"
    if isinstance(exc, errors.InvalidSchemaName):
        return "make the schema that search_path names (CREATE SCHEMA …)"
    if isinstance(exc, errors.QueryCanceled):
        return "look into the server's log for who cancels it"
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return (
            "name the primary server in PARITY_DATABASE_URL, or switch default_transaction_read_only off for this role"
        )
    return "check that the server is up"


def first_line(exc: BaseException) -> str:
    """The gist of a driver's message: its first line, without the DETAIL that could quote a record."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:300]
