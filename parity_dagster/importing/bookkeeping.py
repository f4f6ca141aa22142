"""What a service can say and arrange without reading a page: states, resets, the queue, failed and live records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from parity_dagster.errors import CollectionNotRegistered
from parity_dagster.identifiers import parse_did, parse_nsid
from parity_dagster.importing.engine import Engine
from parity_dagster.importing.loop import LoopThread
from parity_dagster.models import FailedRecord, ImportState, ImportStatus, Pair, RetryResult
from parity_dagster.settings import Settings, load_settings

if TYPE_CHECKING:
    from parity_dagster.importing.live import LiveRecord

Result = TypeVar("Result")


class Bookkeeping:
    """The tables' side of `ImportService`, and the loop that both sides run on.

    Args:
        settings: which database; read from `PARITY_*` variables if not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self._loop = LoopThread(partial(Engine.open, self.settings), Engine.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the service's connections and its thread; it may be used again, which opens them anew."""
        self._loop.close()

    # Looking.

    def get_status(self, did: str, collection: str) -> ImportState | None:
        """The state of one pair.

        Args:
            did: the account.
            collection: the NSID.

        Returns:
            Its row; None if it was never asked for.
        """
        states = self._call(lambda engine: engine.find_states(did=did, collection=collection))
        return states[0] if states else None

    def get_status_for_user(self, did: str) -> list[ImportState]:
        """The states of all of an account's pairs.

        Args:
            did: the account.

        Returns:
            Rows by collection.
        """
        return self.find_states(did=did)

    def find_states(
        self, *, did: str | None = None, statuses: Collection[ImportStatus] | None = None
    ) -> list[ImportState]:
        """States, of one account or all, of some statuses or any.

        Args:
            did: only this account's.
            statuses: only these.

        Returns:
            Rows by account and collection.
        """
        return self._call(lambda engine: engine.find_states(did=did, statuses=statuses))

    def is_imported(self, did: str, collection: str) -> bool:
        """Whether a pair is complete.

        Args:
            did: the account.
            collection: the NSID.

        Returns:
            True if its status is `completed`.
        """
        state = self.get_status(did, collection)
        return state is not None and state.status is ImportStatus.COMPLETED

    # Arranging.

    def reset(self, did: str, collection: str) -> int:
        """Forget how far one pair got, so that the next import reads it from the start; records stay.

        Args:
            did: the account.
            collection: the NSID.

        Returns:
            1 if there was something to forget, else 0.
        """
        return self._call(lambda engine: engine.reset(did, collection))

    def reset_user(self, did: str) -> int:
        """Forget how far all of an account's pairs got; records stay.

        Args:
            did: the account.

        Returns:
            Number of pairs forgotten.
        """
        return self._call(lambda engine: engine.reset(did, None))

    def enqueue(self, pairs: Iterable[Pair], *, refresh: bool = False, reread: bool = False) -> list[Pair]:
        """Leave pairs for Dagster's queue: rows become pending, and the retry sensor launches them.

        Args:
            pairs: what to import.
            refresh: whether complete pairs are wanted again.
            reread: read all of them from their start, even if their accounts have not changed; see `import_pairs`.

        Returns:
            Those that are newly pending.

        Raises:
            ParityError: a pair is malformed or its collection not registered; nothing is queued then.
        """
        checked = [self._checked(pair) for pair in pairs]
        return self._call(lambda engine: engine.enqueue(checked, refresh=refresh, reread=reread))

    # Failed records.

    def find_failed_records(self, did: str | None = None) -> list[FailedRecord]:
        """Records that could not be stored, byte for byte and with the reason.

        Args:
            did: only this account's.

        Returns:
            Rows in the order they were met.
        """
        return self._call(lambda engine: engine.find_failed_records(did))

    def retry_failed_records(self, did: str | None = None) -> RetryResult:
        """Try to store failed records again, from the bytes that were kept.

        Those of pairs that only other projects of this database import are left to them, and to their mappers.

        Args:
            did: only this account's.

        Returns:
            How many were stored, and how many are left.
        """
        return self._call(lambda engine: engine.retry_failed_records(did))

    # Beside a consumer of live events.

    def upsert_records(self, records: Iterable[LiveRecord]) -> int:
        """Store records that live events created or updated; may race with an import of the same account.

        Whatever the order of arrival, the newer version stays: an event is ignored if something newer is known of its
        record, and a page leaves alone what an event wrote after the page's walk began. A record that cannot be stored
        is kept as a failed record, as one of a page is.

        Args:
            records: in the order of the events; written in one transaction.

        Returns:
            Number of records that were not older than what was known.

        Raises:
            InvalidIdentifier: a URI or revision is malformed; nothing was written.
            CollectionNotRegistered: a collection is not one of `PARITY_COLLECTIONS`; nothing was written.
            TypeError: a value is not JSON; nothing was written.
            DatabaseError: there is no database to work with; nothing was written.
        """
        wanted = list(records)
        return self._call(lambda engine: engine.live.upsert(wanted))

    def delete_record(self, uri: str, rev: str) -> bool:
        """Delete a record that a live event deleted, and keep older pages from bringing it back.

        Args:
            uri: `at://did/collection/rkey`.
            rev: revision (TID) of the commit that deleted it.

        Returns:
            False if something newer is known, and nothing was done.

        Raises:
            InvalidIdentifier: the URI or revision is malformed.
            CollectionNotRegistered: the collection is not one of `PARITY_COLLECTIONS`.
            DatabaseError: there is no database to work with.
        """
        return self._call(lambda engine: engine.live.delete(uri, rev))

    def _checked(self, pair: Pair) -> Pair:
        did, collection = pair  # plain tuples will do
        did = parse_did(did, allow_private=self.settings.allow_private_hosts)
        collection = parse_nsid(collection)
        if collection not in self.settings.collections:
            raise CollectionNotRegistered(
                f"{pair.collection} is not a registered collection; add it to PARITY_COLLECTIONS"
                f" (now {', '.join(self.settings.collections)})"
            )
        return Pair(did, collection)

    def _call(self, work: Callable[[Engine], Awaitable[Result]]) -> Result:
        return self._loop.call(work)
