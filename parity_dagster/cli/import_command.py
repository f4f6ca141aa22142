"""`parity import`: what to import, and how it went."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.accounts import (
    AccountFile,
    ResolvedAccounts,
    account_file,
    checked_accounts,
    checked_collections,
)
from parity_dagster.cli.exits import FAILED, GOES_ON, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import plural, queued_sentence, write_json
from parity_dagster.cli.results import print_results, result_object, summary
from parity_dagster.cli.selection import Chosen, selecting
from parity_dagster.errors import PairBusy
from parity_dagster.events import ImportCompleted, ImportEvent, Listener
from parity_dagster.models import ImportStatus, Pair, Source
from parity_dagster.text import one_line

if TYPE_CHECKING:
    from parity_dagster.models import ImportResult
    from parity_dagster.service import ImportService
    from parity_dagster.settings import Settings

_PAIRS_PER_BATCH = 20_000
_SECONDS_PER_BATCH = 0.5
"""What is typed into an open pipe is in the queue after so long."""


@dataclasses.dataclass
class Request:
    """What the command line asked for, checked."""

    accounts: Sequence[str]
    """DIDs and handles."""
    collections: Sequence[str]
    file: AccountFile | None
    resume: bool
    refresh: bool
    reread: bool
    source: Source | None
    chosen: Chosen
    known: bool = False
    named: set[str] = dataclasses.field(default_factory=set)
    """DIDs of the accounts named one by one, as far as they were looked up: not those of the file."""

    def dids(self, service: ImportService) -> ResolvedAccounts:
        """The accounts, as they come and handles are looked up."""
        one_by_one = frozenset(self.accounts)
        self.named.update(account for account in one_by_one if account.startswith("did:"))

        def resolve(handle: str) -> str:
            did = service.resolve(handle)
            if handle in one_by_one:
                self.named.add(did)
            return did

        accounts = self.accounts if self.file is None else chain(self.accounts, self.file.accounts())
        return ResolvedAccounts(accounts, resolve)

    def pairs(self, dids: Iterable[str], service: ImportService) -> Iterator[Pair]:
        """The pairs of accounts."""
        collections = self.collections or service.settings.collections
        return (Pair(did, nsid) for did in dids for nsid in collections)

    def resumable(self, service: ImportService) -> list[Pair]:
        """The pairs that are not complete."""
        dids = {service.resolve(account) for account in self.accounts}
        self.named |= dids
        incomplete = [status for status in ImportStatus if status is not ImportStatus.COMPLETED]
        return [
            state.pair
            for state in service.find_states(statuses=incomplete)
            if (not dids or state.did in dids) and (not self.collections or state.collection in self.collections)
        ]

    def chosen_pairs(self, service: ImportService, dids: Iterable[str]) -> list[Pair]:
        """The pairs that are known and that the options choose, of these accounts if any were named."""
        from parity_dagster.store.database import connect
        from parity_dagster.store.selection import find_pairs

        among = list(dids)
        collections = self.collections or service.settings.collections
        with connect(service.settings) as connection:
            return find_pairs(
                connection,
                service.settings.state_table,
                self.chosen.selection(among if self.accounts or self.file else None, collections),
            )

    def known_pairs(self, service: ImportService) -> Iterator[Pair]:
        """What known accounts have no row for; all of their pairs if they are to be read again."""
        return service.known_pairs(self.collections or None, only_missing=not (self.refresh or self.reread))

    def expected(self, pairs: Iterable[Pair], settings: Settings) -> int | None:
        """How many pairs come; None if that is not known beforehand."""
        if isinstance(pairs, list):
            return len(pairs)
        return None if self.file or self.known else len(self.accounts) * len(self.collections or settings.collections)


class Tally:
    """Listener that counts what results do not say."""

    def __init__(self, display: Listener | None) -> None:
        self.unread = self.verified = 0
        self._display = display

    def __call__(self, event: ImportEvent) -> None:
        """Take one event."""
        if self._display is not None:
            self._display(event)
        if isinstance(event, ImportCompleted):
            self.unread += not event.fetched
            self.verified += event.state.is_verified


@click.command("import", short_help="Import the records of accounts.")
@click.argument("accounts", metavar="[ACCOUNT]...", nargs=-1)
@click.option(
    "--collection",
    "collections",
    metavar="NSID",
    multiple=True,
    help="Only this collection; may be given several times. Default: all of PARITY_COLLECTIONS.",
)
@account_file
@selecting
@click.option("--progress", is_flag=True, help="Show bars and records/s while it runs, on stderr.")
@click.option(
    "--known",
    is_flag=True,
    help="Of every account that is known, import the registered collections that it has no row for.",
)
@click.option("--resume", is_flag=True, help="Go on with every import that is not complete, now.")
@click.option("--refresh", is_flag=True, help="Read complete imports again from their start.")
@click.option(
    "--reread",
    is_flag=True,
    help="Read them even if the account has not changed, and correct every row that differs.",
)
@click.option(
    "--source",
    type=click.Choice(["list", "repo"]),
    help="What to read: list, page by page, or repo, the signed repository in one request, verified. Default:"
    " PARITY_SOURCE.",
)
@click.option("--queue", is_flag=True, help="Only queue it; `parity dev` or a Dagster daemon imports it.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as a JSON list.")
def import_(
    accounts: tuple[str, ...],
    collections: tuple[str, ...],
    path: str | None,
    failed: bool,
    errors: tuple[str, ...],
    hosts: tuple[str, ...],
    progress: bool,
    known: bool,
    resume: bool,
    refresh: bool,
    reread: bool,
    source: Source | None,
    queue: bool,
    as_json: bool,
) -> int:
    """Import the records of accounts into Postgres, from each account's own server.

    ACCOUNT is a DID (did:plc:…, did:web:…) or a handle (alice.bsky.social). What is complete already is not
    read again unless --refresh is given; what was interrupted goes on from its last committed page. With
    --resume, ACCOUNT and --collection narrow down what is resumed; without them it is everything.

    --known is for collections that were registered later: it imports what the accounts of the state table have
    no row for. With --refresh or --reread it is every collection of every such account.

    --failed, --error and --pds choose among the imports that are known already, all together or those of the
    accounts given; what is complete among them is read again only with --refresh or --reread.

    A file holds one DID or handle per line; blank lines, # comments, duplicates, CRLF and a byte order mark
    do no harm. An invalid line is reported as PATH:LINE on stderr and skipped.

    \b
    Examples:
      parity import did:plc:z72i7hdynmk6r22z27h6tvur
      parity import alice.bsky.social --collection app.bsky.feed.post --progress
      parity import --file dids.txt --progress
      parity import --file dids.txt --queue
      parity import --resume
      parity import --error server_error --error unreachable --queue
      parity import --pds pds.example.com --refresh
      parity import --known --queue
      parity import --known --refresh
      parity import did:plc:z72i7hdynmk6r22z27h6tvur --reread
      parity import --file dids.txt --source repo

    \b
    Variables: PARITY_COLLECTIONS, PARITY_SOURCE, PARITY_PAGE_SIZE,
      PARITY_PAGE_DELAY, PARITY_DATABASE_URL, PARITY_HOME, PARITY_QUEUE,
      PARITY_PLC_URL and more;
      README.md lists every setting.
    Exit code: 0 if everything was imported, 1 if something failed, 2 on wrong
      usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    say_when_stopped(GOES_ON)
    chosen = Chosen(failed, errors, hosts)
    if not (accounts or path or resume or known or chosen):
        raise click.UsageError("Give an account, --file, --failed, --error, --pds, --known or --resume.")
    if chosen and (known or resume):
        raise click.UsageError(f"--failed, --error, --pds and {'--known' if known else '--resume'} exclude each other.")
    if known and (accounts or path):
        other = "--file" if path else "an account"
        raise click.UsageError(
            f"--known and {other} exclude each other: it is for all accounts that are known, and what single ones lack"
            " is imported without it."
        )
    if known and resume:
        raise click.UsageError(
            "--known and --resume exclude each other: one begins what has no row yet, the other goes on with what has;"
            " run one after the other."
        )
    if resume and (refresh or reread or path):
        other = "--refresh" if refresh else "--reread" if reread else "--file"
        raise click.UsageError(f"--resume and {other} exclude each other.")
    if queue and source:
        raise click.UsageError("--source is for what is imported now; queued imports read what PARITY_SOURCE says.")

    from parity_dagster.settings import load_settings

    settings = load_settings()
    request = Request(
        accounts=checked_accounts(accounts, settings),
        collections=checked_collections(collections),
        file=AccountFile(path, settings) if path else None,
        resume=resume,
        refresh=refresh,
        reread=reread,
        source=source,
        known=known,
        chosen=chosen,
    )
    return _queue(request, settings, as_json) if queue else _import(request, settings, progress, as_json)


def _import(request: Request, settings: Settings, progress: bool, as_json: bool) -> int:
    from parity_dagster.cli.progress import ProgressDisplay
    from parity_dagster.service import ImportService

    began = time.monotonic()
    with ImportService(settings, source=request.source) as service:
        dids: ResolvedAccounts | None = None
        pairs: Iterable[Pair]
        if request.resume:
            pairs = request.resumable(service)
        elif request.known:
            pairs = request.known_pairs(service)
        else:
            dids = request.dids(service)
            pairs = request.chosen_pairs(service, dids) if request.chosen else request.pairs(dids, service)
        with ProgressDisplay(request.expected(pairs, settings)) if progress else nullcontext() as display:
            tally = Tally(display)
            named = set(request.named)  # whatever interrupts the import; handles are looked up in its course
            service.show_in_dagster(named)
            results = service.import_pairs(pairs, refresh=request.refresh, reread=request.reread, on_event=tally)
        service.show_in_dagster(request.named - named)
        results += dids.lost if dids else ()
    elsewhere = 0
    if request.resume:
        # what somebody works on is being resumed already
        resumed = [result for result in results if result.error_code != PairBusy.code]
        elsewhere, results = len(results) - len(resumed), resumed
    if as_json:
        write_json(result_object(result) for result in results)
    elif results:
        print_results(results)
        click.echo(summary(results, time.monotonic() - began, tally.unread, tally.verified, refreshed=request.refresh))
    elif request.known:
        click.echo("Nothing is missing: every known account has a row for each collection.")
    elif request.chosen:
        click.echo("No import is known that these options choose.")
    elif not elsewhere:
        click.echo("Nothing to resume: every import is complete.")
    if elsewhere:
        click.echo(f"{plural(elsewhere, 'import')} left to another importer at work.", err=as_json)
    if request.file is not None and request.file.invalid:
        click.echo(f"{plural(request.file.invalid, 'invalid line')} of {request.file.path} skipped.", err=True)
    return SUCCEEDED if all(result.is_success for result in results) else FAILED


def _queue(request: Request, settings: Settings, as_json: bool) -> int:
    from parity_dagster.service import ImportService

    queued = _Queued(settings, as_json)
    lost: list[ImportResult] = []
    how = {"refresh": request.refresh, "reread": request.reread}
    try:
        with ImportService(settings) as service:
            if request.resume:
                queued.add(service.enqueue(request.resumable(service)))
                service.show_in_dagster(request.named)
            elif request.chosen:
                dids = request.dids(service)
                lost = dids.lost
                queued.add(service.enqueue(request.chosen_pairs(service, dids), **how))
                service.show_in_dagster(request.named)
            elif request.known and not as_json:
                queued.count = service.enqueue_known(request.collections or None, **how)
            elif request.known:
                missing = request.known_pairs(service)
                while batch := list(islice(missing, _PAIRS_PER_BATCH)):
                    queued.add(service.enqueue(batch, **how))
            else:
                dids = request.dids(service)
                lost = dids.lost
                width = len(request.collections or settings.collections)
                while accounts := dids.take(max(1, _PAIRS_PER_BATCH // width), _SECONDS_PER_BATCH):
                    queued.add(service.enqueue(request.pairs(accounts, service), **how))
                service.show_in_dagster(request.named)
    except BaseException:
        # a signal while a pipe is waited for, or the database: what is queued stays so
        if queued.count:
            queued.tell()
        raise
    for result in lost:
        click.echo(f"error: {one_line(result.error or '')}", err=True)
    if queued.count or as_json or not lost:
        queued.tell()
    return FAILED if lost else SUCCEEDED


class _Queued:
    """What a call has queued: as many as there are, each of them only if it is asked for."""

    def __init__(self, settings: Settings, as_json: bool) -> None:
        self.count = 0
        self._queue = settings.queue
        self._pairs: list[Pair] | None = [] if as_json else None

    def add(self, pairs: Sequence[Pair]) -> None:
        self.count += len(pairs)
        if self._pairs is not None:
            self._pairs += pairs

    def tell(self) -> None:
        if self._pairs is not None:
            write_json({"did": pair.did, "collection": pair.collection} for pair in self._pairs)
        elif self.count:
            click.echo(queued_sentence(self.count, self._queue))
        else:
            click.echo("Nothing new to queue: all of it is queued, running or complete (--refresh reads again).")
