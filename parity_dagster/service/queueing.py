"""The service arranges: what Dagster imports later, what is read again, what is forgotten."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import timedelta
from functools import partial

from parity_dagster.errors import SettingsError
from parity_dagster.identifiers import parse_did
from parity_dagster.models import Pair, Refreshing
from parity_dagster.service.base import ServiceBase
from parity_dagster.store.freshness import age_of_stalest
from parity_dagster.store.known import enqueue_known, pairs_after
from parity_dagster.store.outbox import name_accounts
from parity_dagster.store.queue import enqueue
from parity_dagster.store.restore import reset_states


class Queueing(ServiceBase):
    """Calls that leave work for later, or make it needed again."""

    def reset(self, did: str, collection: str) -> int:
        """Forget how far one pair got, so that the next import reads it from the start; records stay.

        Args:
            did: the account.
            collection: the NSID.

        Returns:
            1 if there was something to forget, else 0.
        """
        return self._ask(lambda conn: reset_states(conn, self._table, did, collection))

    def reset_user(self, did: str) -> int:
        """Forget how far all of an account's pairs got; records stay.

        Args:
            did: the account.

        Returns:
            Number of pairs forgotten.
        """
        return self._ask(lambda conn: reset_states(conn, self._table, did, None))

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
        return self._ask(lambda conn: enqueue(conn, self._table, checked, refresh=refresh, reread=reread))

    def known_pairs(self, collections: Iterable[str] | None = None, *, only_missing: bool = True) -> Generator[Pair]:
        """Pairs of the accounts that are known: those that have any row in the state table.

        `import_pairs(service.known_pairs())` imports what a collection that was registered later still lacks.

        Args:
            collections: registered NSIDs; all if not given.
            only_missing: only the pairs that were never asked for.

        Returns:
            An iterator over the pairs in the order of the accounts, read as they are needed.

        Raises:
            CollectionNotRegistered: one of `collections` is not.
        """
        nsids = self._registered(collections)

        def read() -> Generator[Pair]:
            last = ""
            ask = partial(pairs_after, table=self._table, collections=nsids, only_missing=only_missing)
            while pairs := self._ask(partial(ask, after=last)):
                yield from pairs
                last = pairs[-1].did

        return read()

    def enqueue_known(
        self, collections: Iterable[str] | None = None, *, refresh: bool = False, reread: bool = False
    ) -> int:
        """Leave for Dagster's queue what known accounts have no row for, in one transaction however many there are.

        Args:
            collections: registered NSIDs; all if not given.
            refresh: and what they have complete, read again.
            reread: the same, even if the accounts have not changed; see `import_pairs`.

        Returns:
            How many pairs are newly pending.

        Raises:
            CollectionNotRegistered: one of `collections` is not; nothing is queued then.
        """
        nsids = self._registered(collections)
        return self._ask(lambda conn: enqueue_known(conn, self._table, nsids, refresh=refresh, reread=reread))

    def refresh_stale(self, every: timedelta | None = None, *, seconds: float = 15.0) -> Refreshing:
        """Confirm or queue the stalest copies, as the sensor `refresh_sensor` does at each look.

        Hosts of which we hold many accounts are asked for the list of all of theirs, and what it shows to be unchanged
        is confirmed; all else is queued to be read again, and a pair whose account has not changed costs its run one
        question. A list is gone on with by the next call.

        Args:
            every: age at which a copy is due; `PARITY_REFRESH_EVERY` if not given.
            seconds: after which nothing new is begun.

        Returns:
            What was done.

        Raises:
            SettingsError: neither says how old a copy may be.
            DatabaseError: there is no database to work with; what was committed stays.
        """
        age = every or self.settings.refresh_every
        if age is None:
            raise SettingsError("say how old a copy may become: set PARITY_REFRESH_EVERY, e.g. to 7d")
        done = self._loop.call(lambda opened: opened.refresh_stale(age, seconds))
        stalest = self._ask(lambda conn: age_of_stalest(conn, self._table, self.settings.collections))
        return done._replace(stalest_seconds=stalest)

    def show_in_dagster(self, dids: Iterable[str]) -> None:
        """Have accounts shown in Dagster even if `PARITY_PARTITION_LIMIT` accounts are shown already.

        They become partitions, with an event for each pair that has ended, at the next look of a daemon's sensor or by
        `parity report`. `parity import DID` does this for the accounts that it is given one by one.

        Args:
            dids: the accounts.

        Raises:
            InvalidIdentifier: one of them is no DID; none is noted then.
            DatabaseError: there is no database to note them in.
        """
        wanted = [parse_did(did, allow_private=self.settings.allow_private_hosts) for did in dids]
        if wanted and self._report:
            self._ask(lambda conn: name_accounts(conn, self._table, wanted))
