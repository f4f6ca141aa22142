"""The service imports: accounts, pairs, and what was left."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from parity_dagster.errors import DatabaseError, ParityError
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed, ImportProgress, Listener
from parity_dagster.importing.listeners import Listeners, RunListener
from parity_dagster.importing.outbox import Delivery, EventQueue, deliver_pending
from parity_dagster.models import ImportResult, ImportState, Pair, Source
from parity_dagster.service.base import ServiceBase
from parity_dagster.store.outbox import Recipients
from parity_dagster.store.queue import find_resumable

Progress = Callable[[ImportProgress], None]


class Imports(ServiceBase):
    """Calls that import, and return when it is done."""

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
            while True:
                if not events.wait(delivery.patience):
                    # what has ended shows although the one pair that is left is slow
                    delivery.clear_outbox()
                    continue
                if (event := events.get()) is None:
                    break
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
