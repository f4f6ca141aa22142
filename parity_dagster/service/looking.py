"""The service looks: how far imports are, whether the table is what was signed, what could not be stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from operator import attrgetter

from parity_dagster.identifiers import parse_nsid
from parity_dagster.models import FailedRecord, ImportState, ImportStatus, RetryResult, Verification
from parity_dagster.service.base import ServiceBase
from parity_dagster.store.listing import find_states, stream_failed_records
from parity_dagster.store.verification import completed_accounts


class Looking(ServiceBase):
    """Calls that ask, and change nothing but what had failed."""

    def get_status(self, did: str, collection: str) -> ImportState | None:
        """The state of one pair.

        Args:
            did: the account.
            collection: the NSID.

        Returns:
            Its row; None if it was never asked for.
        """
        states = self._ask(lambda conn: find_states(conn, self._table, dids=[did], collection=collection))
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
        dids = None if did is None else [did]
        return self._ask(lambda conn: find_states(conn, self._table, dids=dids, statuses=statuses))

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

    def verify(
        self,
        dids: Iterable[str] | None = None,
        collections: Iterable[str] | None = None,
        *,
        offline: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[Verification]:
        """Compare complete pairs with their accounts' signed repositories, record by record; nothing is written.

        Each repository is read from the account's host and verified with the key that the account's DID document names
        now. What cannot be read is a result with an error, and never taken for equal.

        Args:
            dids: the accounts, taken as they are needed; all that have complete pairs if not given.
            collections: NSIDs; all that were imported if not given.
            offline: ask no server. Each row's CID is recomputed from its value instead, which shows rows that were
                changed, but none that are missing.
            on_progress: called now and then with the number of records that were compared since.

        Yields:
            One result per pair, in the order of the accounts, each as soon as it is there.

        Raises:
            InvalidIdentifier: one of `dids` or `collections` is malformed.
            DatabaseError: there is no database to work with.
        """
        from parity_dagster.importing.verify import verify_offline, verify_signed

        nsids = None if collections is None else [parse_nsid(nsid) for nsid in collections]
        wanted = self._completed_accounts(nsids) if dids is None else self._dids(dids)
        advance = on_progress or (lambda count: None)
        if offline:
            return verify_offline(self.settings, wanted, nsids, advance)
        return verify_signed(self.settings, self._loop, wanted, nsids, advance)

    def _completed_accounts(self, collections: Collection[str] | None) -> Iterator[str]:
        last = ""
        while dids := self._ask(partial(completed_accounts, table=self._table, after=last, collections=collections)):
            yield from dids
            last = dids[-1]

    def find_failed_records(self, did: str | None = None) -> list[FailedRecord]:
        """Records that could not be stored, byte for byte and with the reason.

        Args:
            did: only this account's.

        Returns:
            Rows in the order they were met.
        """
        rows = self._ask(lambda conn: list(stream_failed_records(conn, did=did)))
        return sorted((FailedRecord(**row) for row in rows), key=attrgetter("id"))

    def retry_failed_records(self, did: str | None = None) -> RetryResult:
        """Try to store failed records again, from the bytes that were kept.

        Those of pairs that only other projects of this database import are left to them, and to their mappers.

        Args:
            did: only this account's.

        Returns:
            How many were stored, and how many are left.
        """
        return self._loop.call(lambda opened: opened.retry_failed_records(did))
