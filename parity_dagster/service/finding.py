"""The service finds: the accounts of a collection, and where accounts live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from parity_dagster.models import DirectorySync, Discovery, DiscoveryPlan
from parity_dagster.service.base import ServiceBase


class Finding(ServiceBase):
    """Calls that read lists of accounts and the directory's log."""

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
