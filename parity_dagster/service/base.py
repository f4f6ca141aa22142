"""What every part of a service uses: its settings, its session with PostgreSQL and its loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from parity_dagster.errors import CollectionNotRegistered, ParityError
from parity_dagster.events import Listener
from parity_dagster.identifiers import parse_account, parse_did, parse_nsid
from parity_dagster.importing.listeners import installed_listeners, named_listeners
from parity_dagster.importing.loop import BackgroundLoop, Connections
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import Pair, Source
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.outbox import hold_run
from parity_dagster.store.sessions import SyncSession

if TYPE_CHECKING:
    from psycopg import Connection

    from parity_dagster.atproto.network import Transport

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class ServiceBase:
    """The connections of a service, and how what callers give is checked."""

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

    def _find_listeners(self) -> tuple[Listener, ...]:
        return (*self._listeners, *named_listeners(self.settings.listeners), *installed_listeners())

    def _new_session(self) -> SyncSession:
        run_id = self._run_id
        return SyncSession(self.settings, None if run_id is None else lambda conn: hold_run(conn, run_id))
