"""The importer's face: plain calls, for scripts, notebooks, web workers, the CLI and Dagster alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from parity_dagster.errors import CollectionNotRegistered, DatabaseError, ParityError, SettingsError
from parity_dagster.events import (
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    Listener,
)
from parity_dagster.identifiers import parse_account, parse_did, parse_nsid
from parity_dagster.importing.listeners import (
    Listeners,
    RunListener,
    installed_listeners,
    named_listeners,
)
from parity_dagster.importing.loop import BackgroundLoop, Connections
from parity_dagster.importing.outbox import Delivery, EventQueue, deliver_pending
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import (
    DirectorySync,
    Discovery,
    DiscoveryPlan,
    FailedRecord,
    ImportResult,
    ImportState,
    ImportStatus,
    Pair,
    Refreshing,
    RetryResult,
    Source,
    Verification,
)
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.freshness import age_of_stalest
from parity_dagster.store.known import enqueue_known, pairs_after
from parity_dagster.store.listing import find_states, stream_failed_records
from parity_dagster.store.outbox import Recipients, hold_run, name_accounts
from parity_dagster.store.queue import enqueue, find_resumable
from parity_dagster.store.restore import reset_states
from parity_dagster.store.sessions import SyncSession
from parity_dagster.store.verification import completed_accounts

if TYPE_CHECKING:
    from psycopg import Connection

    from parity_dagster.atproto.network import Transport
    from parity_dagster.importing.live import LiveRecord

logger = logging.getLogger(__name__)

Progress = Callable[[ImportProgress], None]
Result = TypeVar("Result")


class ImportService:
    """Imports accounts' histories into Postgres.

    Thread-safe: any number of threads may call one service, and each (did, collection) is imported by one caller at
    a time, over all processes and machines that share the database. Works inside a running event loop too, which
    it blocks until the call returns.

    Args:
        settings: how to import; read from `PARITY_*` variables if not given.
        listeners: called with every `ImportEvent`, in the thread that called the service; besides them those that
            `PARITY_LISTENERS` and the entry point group `parity_dagster.listeners` name.
        run_id: the Dagster run on whose behalf the service works, noted on the rows. While it is at work, nobody else
            reports to Dagster what it imports.
        report: whether Dagster is to be told of what is imported: by the run itself, else by a sensor of the daemon
            (within seconds), or by `parity report`. Nothing of Dagster is loaded here.
        transport: what requests go through: an `httpx.AsyncBaseTransport` in the place of `GuardedTransport`, which
            then has to refuse private addresses itself, or a function or class that is called with ours and returns
            what wraps it; what `PARITY_TRANSPORT` names if not given. See docs/transport.md.
        source: what imports read: `list`, page after page, or `repo`, each account's signed repository in one request,
            verified; what `PARITY_SOURCE` says if not given. See docs/repositories.md.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        listeners: Sequence[Listener] = (),
        *,
        run_id: str | None = None,
        report: bool = True,
        transport: Transport | None = None,
        source: Source | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self._source = source or self.settings.source
        self._table = self.settings.state_table
        self._run_id = run_id
        self._session = self._new_session()
        self._loop = BackgroundLoop(partial(Connections.open, self.settings, transport), Connections.aclose)
        self._listeners = tuple(listeners)
        self._report = report
        self._beginning = threading.Lock()
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the service's connections and its thread; it may be used again, which opens them anew."""
        session, self._session = self._session, self._new_session()
        session.end()
        self._loop.close()

    # Importing.

    def import_user(
        self,
        did: str,
        collections: Iterable[str] | None = None,
        on_progress: Progress | None = None,
        *,
        refresh: bool = False,
        reread: bool = False,
    ) -> ImportResult:
        """Import an account's collections.

        Args:
            did: a DID or a handle.
            collections: NSIDs; all registered ones if not given.
            on_progress: called after each committed page.
            refresh: read complete collections again, too.
            reread: read them even if the account has not changed; see `import_pairs`.

        Returns:
            The sum over the collections; its `collection` is `*`.
        """
        wanted = list(dict.fromkeys(self.settings.collections if collections is None else collections))
        account = self._resolve(did)
        if isinstance(account, ImportResult):
            return account
        results = self.import_pairs(
            [Pair(account, nsid) for nsid in wanted],
            refresh=refresh,
            reread=reread,
            on_event=_only_progress(on_progress),
        )
        return ImportResult.aggregate(account, results)

    def import_user_collection(
        self,
        did: str,
        collection: str,
        on_progress: Progress | None = None,
        *,
        refresh: bool = False,
        reread: bool = False,
    ) -> ImportResult:
        """Import one collection of an account.

        Args:
            did: a DID or a handle.
            collection: a registered NSID.
            on_progress: called after each committed page.
            refresh: read it again if it is complete.
            reread: read it even if the account has not changed; see `import_pairs`.

        Returns:
            What was done; an error is in the result, not raised.
        """
        account = self._resolve(did)
        if isinstance(account, ImportResult):
            return account
        (result,) = self.import_pairs(
            [Pair(account, collection)], refresh=refresh, reread=reread, on_event=_only_progress(on_progress)
        )
        return result

    def import_pairs(
        self,
        pairs: Iterable[Pair],
        *,
        refresh: bool = False,
        reread: bool = False,
        patience: float | None = None,
        source: Source | None = None,
        on_event: Listener | None = None,
    ) -> list[ImportResult]:
        """Import any number of pairs, many at a time.

        Args:
            pairs: what to import; a pair that comes twice is imported once.
            refresh: read complete pairs again, too.
            reread: read all of them from their start, even if their accounts have not changed, and rewrite every row
                whose value differs from what is read although its cid is the same. For a copy that is suspected to be
                wrong. What is interrupted goes on in this way, whoever resumes it.
            patience: seconds after which walks are interrupted, cursor kept, once only such long ones are left; None
                lets them take as long as they take.
            source: for this call, in the place of the service's own.
            on_event: called in this thread with every event, before the listeners.

        Returns:
            One result per distinct pair, in the order given.

        Raises:
            DatabaseError: there is no database to work with.
            SettingsError: a listener named in the settings cannot be loaded.
        """
        results: dict[Pair, ImportResult | None] = {}
        events = EventQueue()
        listeners = self._find_listeners()
        if self._run_id is not None:
            self._session.run(lambda conn: None)  # before anything ends: it shows that the run is at work
        self._deliver_pending(listeners)
        recipients = Recipients(listeners=bool(listeners), dagster=self._report)
        everybody = Listeners((*((on_event,) if on_event else ()), *listeners))
        delivery = Delivery(
            self._session,
            self._table,
            everybody,
            recipients._replace(dagster=isinstance(on_event, RunListener)),
            self._run_id,
        )

        def valid() -> Iterator[Pair]:
            try:
                for given in pairs:
                    error: ParityError | None = None
                    try:
                        pair = self._checked(given)
                    except ParityError as exc:
                        pair, error = Pair(*given), exc
                    if pair in results:
                        continue
                    results[pair] = None
                    if error is None:
                        yield pair
                    else:
                        events.put(_refused(pair, error))
            finally:
                if isinstance(pairs, Generator):
                    pairs.close()

        running = self._loop.start(
            lambda opened: opened.import_pairs(
                valid(),
                events.put,
                recipients,
                run_id=self._run_id,
                refresh=refresh,
                reread=reread,
                patience=patience,
                source=source or self._source,
            ),
            events.close,
        )
        must_clear = True
        try:
            while (event := events.get()) is not None:
                if isinstance(event, ImportCompleted | ImportFailed):
                    results[Pair(event.did, event.collection)] = event.result
                delivery.deliver(event)
            running.result()
        except DatabaseError as exc:
            for pair, result in list(results.items()):  # the iterable may still be read
                if result is None:
                    delivery.deliver(_refused(pair, exc))
            raise
        except BaseException as exc:
            # Ctrl-C or a caller's exception: stop cleanly, so that the pairs can be resumed at once.
            running.stop()
            # Whoever wants the process to end does not wait for listeners: what they do not know yet stays noted.
            must_clear = isinstance(exc, Exception)
            raise
        finally:
            if must_clear:
                delivery.clear_outbox()
        return [result for result in results.values() if result is not None]

    def resume(self, state: ImportState) -> ImportResult:
        """Go on with an interrupted or failed import.

        Args:
            state: what `get_status` returned.

        Returns:
            The result.
        """
        return self.import_user_collection(state.did, state.collection)

    def resume_all(self, on_progress: Progress | None = None) -> list[ImportResult]:
        """Go on with every import that is not complete and that nobody works on, permanent failures included.

        Args:
            on_progress: called after each committed page.

        Returns:
            One result per pair.
        """
        pairs = self._ask(lambda conn: find_resumable(conn, self._table))
        return self.import_pairs(pairs, on_event=_only_progress(on_progress))

    def resolve(self, account: str) -> str:
        """The DID behind what a person calls an account.

        Args:
            account: a DID or a handle.

        Returns:
            The DID.

        Raises:
            InvalidIdentifier: neither a DID nor a handle.
            HandleNotFound: no DID behind the handle.
            TransientError: nobody could be asked.
            ParityError: something else went wrong with this account; no other exception comes from what servers say.
        """
        name = parse_account(account, allow_private=self.settings.allow_private_hosts)
        if name.startswith("did:"):
            return name
        try:
            return self._loop.call(lambda opened: opened.resolve_handle(name))
        except ParityError:
            raise
        except Exception as exc:
            logger.exception("looking up %s failed unexpectedly", name)
            raise unexpected(exc) from exc

    def sync_directory(
        self,
        *,
        everything: bool = False,
        again: bool = False,
        limit: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> DirectorySync:
        """Read the PLC directory's log, so that accounts need no look-up each; goes on where the last call ended.

        Args:
            everything: store all accounts, not only those that are known or wanted.
            again: read the log from its start.
            limit: operations to read, at most those of the last one's millisecond more.
            on_progress: called after each page with the number of operations that no call has read before.

        Returns:
            What came of it; an error is in the result, not raised.

        Raises:
            DatabaseError: there is no database to work with.
        """
        advance = on_progress or (lambda count: None)
        running = self._loop.start(
            lambda opened: opened.sync_directory(everything=everything, again=again, limit=limit, on_progress=advance)
        )
        try:
            return running.result()
        except BaseException:
            running.stop()
            raise

    # Looking.

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

    # Verifying.

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

    # Arranging.

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

    # Discovering.

    def discover(
        self,
        nsids: Iterable[str] = (),
        *,
        relay: str | None = None,
        pds: str | None = None,
        collections: Iterable[str] | None = None,
        limit: int | None = None,
        from_start: bool = False,
        on_progress: Callable[[Discovery], None] | None = None,
    ) -> list[Discovery]:
        """Queue the accounts that have written to some collections, as a relay names them, or all of one server.

        How far each list was read is kept with what it brought, so that a call which was interrupted or refused is
        gone on with by the next one, and a later one finds what is new. Pairs that were asked for before stay as they
        are.

        Args:
            nsids: collections whose accounts are looked for, registered or not. With `pds`, whose list knows no
                collections: what is imported of each account.
            relay: relay or directory of collections; `PARITY_RELAY_URL` if not given.
            pds: a server, all accounts of which are meant instead.
            collections: what is imported of each account; all registered ones if not given.
            limit: accounts after which it stops. A server that gives more at once than it is asked for makes it more.
            from_start: read the lists from their start, wherever the last call stopped.
            on_progress: called in this thread after each page that was saved.

        Returns:
            One result per list; what went wrong with it is in it, not raised.

        Raises:
            ParityError: `nsids`, `relay` or `pds` is malformed, or a collection not registered; nothing is queued then.
            DatabaseError: there is no database to work with; what was queued stays.
        """
        from parity_dagster.importing.discovery import choose_lists, queue_lists

        lists, wanted = choose_lists(self.settings, nsids, relay, pds, collections, must_be_registered=True)
        return queue_lists(
            self.settings, self._loop, lists, wanted, most=limit, from_start=from_start, tell=on_progress
        )

    def plan_discovery(
        self,
        nsids: Iterable[str] = (),
        *,
        relay: str | None = None,
        pds: str | None = None,
        collections: Iterable[str] | None = None,
        limit: int | None = None,
        on_progress: Callable[[Discovery], None] | None = None,
    ) -> DiscoveryPlan:
        """Read lists of accounts from their start and say what importing the accounts would take; nothing is queued.

        Args:
            nsids: as in `discover`.
            relay: as in `discover`.
            pds: as in `discover`.
            collections: what would be imported, registered or not; if not given, the registered ones and `nsids`.
            limit: accounts after which it stops.
            on_progress: called in this thread after each page.

        Returns:
            How many accounts there are, how many are known, and the requests and hours that the rest takes.

        Raises:
            ParityError: `nsids`, `relay` or `pds` is malformed.
            DatabaseError: there is no database to work with.
        """
        from parity_dagster.importing.discovery import Survey, choose_lists

        lists, wanted = choose_lists(self.settings, nsids, relay, pds, collections, must_be_registered=False)
        return Survey(self.settings, self._loop, lists, most=limit, tell=on_progress).plan(wanted)

    def list_accounts(
        self,
        nsids: Iterable[str] = (),
        *,
        relay: str | None = None,
        pds: str | None = None,
        limit: int | None = None,
        on_progress: Callable[[Discovery], None] | None = None,
        on_list: Callable[[Discovery], None] | None = None,
    ) -> Iterator[str]:
        """The accounts that lists name, from the start of each; nothing is queued, and no place is kept.

        Args:
            nsids: as in `discover`.
            relay: as in `discover`.
            pds: as in `discover`.
            limit: accounts after which it stops.
            on_progress: called after each page.
            on_list: called after each list; an error of its server is in what it is given, not raised.

        Yields:
            DIDs, each once, as they come.

        Raises:
            ParityError: `nsids`, `relay` or `pds` is malformed.
            DatabaseError: there is no database, which has to remember who was named.
        """
        from parity_dagster.importing.discovery import Survey, choose_lists

        lists, _ = choose_lists(self.settings, nsids, relay, pds, None, must_be_registered=False)
        return Survey(self.settings, self._loop, lists, most=limit, tell=on_progress).accounts(on_list)

    # Failed records.

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

    # Inside.

    def _ask(self, question: Callable[[Connection], Result]) -> Result:
        # It might wait for a row that the import locks, whose thread this is.
        self._loop.must_not_be_inside()
        return self._session.run(question)

    def _checked(self, pair: Pair) -> Pair:
        did, collection = pair  # plain tuples will do
        did = parse_did(did, allow_private=self.settings.allow_private_hosts)
        return Pair(did, self._checked_collection(collection))

    def _checked_collection(self, collection: str) -> str:
        nsid = parse_nsid(collection)
        if nsid not in self.settings.collections:
            raise CollectionNotRegistered(
                f"{collection} is not a registered collection; add it to PARITY_COLLECTIONS"
                f" (now {', '.join(self.settings.collections)})"
            )
        return nsid

    def _registered(self, collections: Iterable[str] | None) -> list[str]:
        wanted = self.settings.collections if collections is None else collections
        return list(dict.fromkeys(self._checked_collection(nsid) for nsid in wanted))

    def _dids(self, given: Iterable[str]) -> Iterator[str]:
        seen: set[str] = set()
        for name in given:
            did = parse_did(name, allow_private=self.settings.allow_private_hosts)
            if did not in seen:
                seen.add(did)
                yield did

    def _completed_accounts(self, collections: Collection[str] | None) -> Iterator[str]:
        last = ""
        while dids := self._ask(partial(completed_accounts, table=self._table, after=last, collections=collections)):
            yield from dids
            last = dids[-1]

    def _find_listeners(self) -> tuple[Listener, ...]:
        return (*self._listeners, *named_listeners(self.settings.listeners), *installed_listeners())

    def _new_session(self) -> SyncSession:
        run_id = self._run_id
        return SyncSession(self.settings, None if run_id is None else lambda conn: hold_run(conn, run_id))

    def _deliver_pending(self, listeners: tuple[Listener, ...]) -> None:
        """What a killed process did not get to deliver comes once, before anything new."""
        with self._beginning:
            if listeners and not self._has_begun:
                self._has_begun = True
                deliver_pending(self._session, self._table, Listeners(listeners))

    def _resolve(self, account: str) -> str | ImportResult:
        try:
            return self.resolve(account)
        except ParityError as exc:
            return ImportResult(account, "*", error=str(exc), error_code=exc.code)


def _only_progress(on_progress: Progress | None) -> Listener | None:
    if on_progress is None:
        return None

    def listener(event: ImportEvent) -> None:
        if isinstance(event, ImportProgress):
            on_progress(event)

    return listener


def _refused(pair: Pair, error: ParityError) -> ImportFailed:
    result = ImportResult(pair.did, pair.collection, error=str(error), error_code=error.code)
    return ImportFailed(pair.did, pair.collection, str(error), error.code, result, None)
