"""The service takes what a consumer of live events brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from parity_dagster.service.base import ServiceBase

if TYPE_CHECKING:
    from parity_dagster.importing.live import LiveRecord


class Live(ServiceBase):
    """Calls beside a consumer of live events."""

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
        return self._loop.call(lambda opened: opened.live.upsert(wanted))

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
        return self._loop.call(lambda opened: opened.live.delete(uri, rev))
