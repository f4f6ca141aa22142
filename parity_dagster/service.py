"""The importer's face: plain calls, for scripts, notebooks, web workers, the CLI and Dagster alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from parity_dagster.errors import DatabaseError, ParityError
from parity_dagster.events import (
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    Listener,
)
from parity_dagster.identifiers import parse_account
from parity_dagster.importing.bookkeeping import Bookkeeping
from parity_dagster.importing.listeners import (
    Listeners,
    installed_listeners,
    installed_reporters,
    named_listeners,
)
from parity_dagster.importing.outbox import Delivery, EventQueue, deliver_pending
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import (
    ImportResult,
    ImportState,
    Pair,
)
from parity_dagster.settings import Settings

logger = logging.getLogger(__name__)

Progress = Callable[[ImportProgress], None]


class ImportService(Bookkeeping):
    """Imports accounts' histories into Postgres.

    Thread-safe: any number of threads may call one service, and each (did, collection) is imported by one caller at
    a time, over all processes and machines that share the database. Works inside a running event loop too, which
    it blocks until the call returns.

    Args:
        settings: how to import; read from `PARITY_*` variables if not given.
        listeners: called with every `ImportEvent`, in the thread that called the service; besides them those that
            `PARITY_LISTENERS` and the entry point group `parity_dagster.listeners` name.
        run_id: the Dagster run on whose behalf the service works, noted on the rows.
        report: whether imports are reported to the Dagster instance (by what the entry point group
            `parity_dagster.reporters` names). A Dagster run reports by itself.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        listeners: Sequence[Listener] = (),
        *,
        run_id: str | None = None,
        report: bool = True,
    ) -> None:
        super().__init__(settings)
        self._listeners = tuple(listeners)
        self._run_id = run_id
        self._report = report
        self._beginning = threading.Lock()
        self._has_begun = False

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
        self._deliver_pending(listeners)
        everybody = Listeners((*((on_event,) if on_event else ()), *listeners))
        delivery = Delivery(self._loop, everybody, self._run_id)

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
            lambda engine: engine.run(
                valid(), events.put, run_id=self._run_id, refresh=refresh, reread=reread, patience=patience
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
        pairs = self._call(lambda engine: engine.find_resumable())
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
            return self._call(lambda engine: engine.resolve_handle(name))
        except ParityError:
            raise
        except Exception as exc:
            logger.exception("looking up %s failed unexpectedly", name)
            raise unexpected(exc) from exc

    def _find_listeners(self) -> tuple[Listener, ...]:
        reporters = installed_reporters(self.settings) if self._report else ()
        return (*self._listeners, *named_listeners(self.settings.listeners), *installed_listeners(), *reporters)

    def _deliver_pending(self, listeners: tuple[Listener, ...]) -> None:
        """What a killed process did not get to deliver comes once, before anything new."""
        with self._beginning:
            if listeners and not self._has_begun:
                self._has_begun = True
                deliver_pending(self._loop, Listeners(listeners))

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
