"""`parity discover`: the accounts that write to a collection, found, counted, queued or written to a file."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from parity_dagster.cli.accounts import checked_collections
from parity_dagster.cli.exits import FAILED, SUCCEEDED, say_when_stopped
from parity_dagster.cli.files import is_stdout, writing
from parity_dagster.cli.output import Column, is_watched, plural, queued_sentence, watching, write_json, write_table
from parity_dagster.errors import BlockedEndpoint, CollectionNotRegistered
from parity_dagster.text import one_line

if TYPE_CHECKING:
    from parity_dagster.models import Discovery, DiscoveryPlan
    from parity_dagster.settings import Settings

_ESTIMATE = (
    Column("source", 10),
    Column("requests", 12, right=True),
    Column("hours, at least", 15, right=True),
)
_SOURCES = {"list": "list (page by page)", "repo": "repo (whole, verified)"}


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What the command line asked for, checked."""

    nsids: Sequence[str]
    collections: Sequence[str]
    relay: str | None
    pds: str | None
    limit: int | None

    def lists(self) -> dict[str, Any]:
        """What says which lists are read, and how far."""
        return {"nsids": self.nsids, "relay": self.relay, "pds": self.pds, "limit": self.limit}


@click.command(short_help="Find the accounts of a collection and queue their imports.")
@click.argument("nsids", metavar="[NSID]...", nargs=-1)
@click.option("--relay", metavar="URL", help="Relay or directory of collections to ask. Default: PARITY_RELAY_URL.")
@click.option("--pds", metavar="URL", help="Take all accounts of this server instead.")
@click.option(
    "--collection",
    "collections",
    metavar="NSID",
    multiple=True,
    help="Import only this collection of them; may be given several times. Default: all of PARITY_COLLECTIONS.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many accounts.")
@click.option("--from-start", is_flag=True, help="Read the list from its start, not from where the last call stopped.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are, and what importing the rest would take.")
@click.option("--queue", is_flag=True, help="Queue their imports. This is what happens without --dry-run and --output.")
@click.option("--output", metavar="FILE", help="Write their DIDs to a file, one per line; - is standard output.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@watching
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON.")
def discover(
    nsids: tuple[str, ...],
    relay: str | None,
    pds: str | None,
    collections: tuple[str, ...],
    limit: int | None,
    from_start: bool,
    dry_run: bool,
    queue: bool,
    output: str | None,
    overwrite: bool,
    progress: bool | None,
    as_json: bool,
) -> int:
    """Find the accounts that have written to a collection and queue their imports.

    A relay, or a directory of collections, names them (com.atproto.sync.listReposByCollection); with --pds, a
    server names all of its own (listRepos), and NSID is what is imported of them. A running `parity dev` or
    Dagster daemon imports what is queued; what was asked for before stays as it is.

    How far a list was read is kept in the database, so a call that was stopped or refused is gone on with by
    the next one, and a later call finds the accounts that are new.

    \b
    Examples:
      parity discover com.example.review --dry-run
      parity discover com.example.review
      parity discover com.example.review --limit 1000
      parity discover com.example.review --output dids.txt
      parity discover app.bsky.actor.profile --collection app.bsky.feed.post
      parity discover --pds https://pds.example.com

    \b
    Variables: PARITY_RELAY_URL, PARITY_COLLECTIONS, PARITY_DATABASE_URL,
      PARITY_HOME, PARITY_STATE_TABLE, PARITY_QUEUE.
    Exit code: 0 if every list was read; 1 if a server refused or failed (what
      came until then is queued, or in the file); 2 on wrong usage; 130 after
      Ctrl-C, 143 after SIGTERM.
    """
    if not nsids and pds is None:
        raise click.UsageError("Give an NSID, or --pds.")
    if relay is not None and pds is not None:
        raise click.UsageError("--relay and --pds exclude each other.")
    ways = [name for name, given in (("--dry-run", dry_run), ("--queue", queue), ("--output", output)) if given]
    if len(ways) > 1:
        raise click.UsageError(f"{' and '.join(ways)} exclude each other.")
    if from_start and ways not in ([], ["--queue"]):
        raise click.UsageError(f"{ways[0]} reads the list from its start anyway; --from-start is for --queue.")
    if overwrite and output is None:
        raise click.UsageError("--overwrite goes with --output.")
    if output is not None and collections:
        raise click.UsageError("--collection says what is imported, and --output imports nothing.")

    from parity_dagster.settings import load_settings

    settings = load_settings()
    wanted = _Wanted(
        checked_collections(nsids), checked_collections(collections), _url(relay, settings), _url(pds, settings), limit
    )
    progress = is_watched(progress, output == "-")
    if output is not None:
        return _write(wanted, settings, output, overwrite=overwrite, progress=progress, as_json=as_json)
    if dry_run:
        return _plan(wanted, settings, progress=progress, as_json=as_json)
    return _queue(wanted, settings, from_start=from_start, progress=progress, as_json=as_json)


def _url(given: str | None, settings: Settings) -> str | None:
    """Check a server's URL; a host alone will do."""
    if given is None:
        return None
    from parity_dagster.atproto.ssrf import parse_endpoint

    try:
        return parse_endpoint(
            given if "://" in given else f"https://{given}", allow_private=settings.allow_private_hosts
        )
    except BlockedEndpoint as exc:
        raise click.UsageError(str(exc)) from None


class _Watcher:
    """Shows the accounts of all lists as they come."""

    def __init__(self, advance: Callable[[int], None] | None) -> None:
        self._advance = advance
        self._list: tuple[str, str | None] | None = None
        self._shown = 0

    def __call__(self, found: Discovery) -> None:
        if self._list != (found.server, found.collection):
            self._list, self._shown = (found.server, found.collection), 0
        if self._advance is not None:
            self._advance(found.accounts - self._shown)
        self._shown = found.accounts


def _queue(wanted: _Wanted, settings: Settings, *, from_start: bool, progress: bool, as_json: bool) -> int:
    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.service import ImportService

    say_when_stopped("what was read is queued; the same command goes on behind it")
    with (
        ImportService(settings, report=False) as service,
        RowsProgress("found", "account") if progress else nullcontext() as shown,
    ):
        try:
            lists = service.discover(
                **wanted.lists(),
                collections=wanted.collections or None,
                from_start=from_start,
                on_progress=_Watcher(shown.advance if shown else None),
            )
        except CollectionNotRegistered as exc:
            raise click.UsageError(f"{exc} (--collection)") from None
    if as_json:
        write_json(_object(found) for found in lists)
    else:
        for found in lists:
            click.echo(_sentence(found))
        queued = sum(found.queued for found in lists)
        click.echo(queued_sentence(queued, settings.queue) if queued else "Nothing new to queue.")
    return _end(lists)


def _plan(wanted: _Wanted, settings: Settings, *, progress: bool, as_json: bool) -> int:
    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.service import ImportService

    say_when_stopped("nothing was queued")
    with (
        ImportService(settings, report=False) as service,
        RowsProgress("found", "account") if progress else nullcontext() as shown,
    ):
        plan = service.plan_discovery(
            **wanted.lists(),
            collections=wanted.collections or None,
            on_progress=_Watcher(shown.advance if shown else None),
        )
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(plan), "lists": [_object(found) for found in plan.lists]}))
    else:
        _print_plan(plan, settings)
    return _end(plan.lists)


def _print_plan(plan: DiscoveryPlan, settings: Settings) -> None:
    for found in plan.lists:
        click.echo(_sentence(found))
    collections = ", ".join(plan.collections)
    click.echo(
        f"{plural(plan.accounts, 'account')}, {plan.known:,} of them known. To import:"
        f" {plural(plan.missing_pairs, 'pair')} of {plural(plan.missing_accounts, 'account')} ({collections})."
    )
    if plan.missing_pairs:
        write_table(
            _ESTIMATE,
            ((_SOURCES[one.source], f"{one.requests:,}", f"{one.hours:,.1f}") for one in plan.estimates),
        )
        click.echo(
            f"Reckoned with {plan.pages_per_pair:,.1f} pages per pair, ten requests a second from each of"
            f" {plural(plan.servers, 'server')}, and {plan.lookup_rate:g} look-ups a second in the PLC directory."
        )
    if unregistered := [nsid for nsid in plan.collections if nsid not in settings.collections]:
        click.echo(f"Not registered yet: {', '.join(unregistered)}; add it to PARITY_COLLECTIONS before importing.")


def _write(wanted: _Wanted, settings: Settings, path: str, *, overwrite: bool, progress: bool, as_json: bool) -> int:
    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.exporting.destinations import find_destination
    from parity_dagster.service import ImportService

    destination = find_destination(path, sys.stdout.buffer, overwrite=overwrite)
    takes_stdout = is_stdout(destination)
    lists: list[Discovery] = []
    written = 0
    with (
        writing(path, destination),
        ImportService(settings, report=False) as service,
        RowsProgress("found", "account") if progress else nullcontext() as shown,
        destination.open() as stream,
    ):
        watch = _Watcher(shown.advance if shown else None)
        for did in service.list_accounts(**wanted.lists(), on_progress=watch, on_list=lists.append):
            stream.write(f"{did}\n".encode())
            written += 1
    if as_json:
        text = json.dumps({"accounts": written, "file": path, "lists": [_object(found) for found in lists]})
        click.echo(text, err=takes_stdout)
    else:
        for found in lists:
            click.echo(_sentence(found), err=takes_stdout)
        click.echo(f"Wrote {plural(written, 'account')} to {path}.", err=takes_stdout)
    return _end(lists)


def _sentence(found: Discovery) -> str:
    """What was read of a list, as `com.example.review of https://…: 12 accounts, 3 of them known; 1 invalid entry.`."""
    parts = [f"{plural(found.accounts, 'account')}, {found.known:,} of them known"]
    if found.inactive:
        parts.append(f"{found.inactive:,} more not active")
    if found.repeated:
        parts.append(plural(found.repeated, "repeated entry", "repeated entries"))
    if found.invalid:
        parts.append(plural(found.invalid, "invalid entry", "invalid entries"))
    which = found.collection or "All accounts"
    end = "" if found.is_complete or not found.is_success else " The list goes on."
    since = " since the last time" if found.is_resumed else ""
    return f"{which} of {found.server}{since}: {'; '.join(parts)}.{end}"


def _object(found: Discovery) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "is_success": found.is_success}


def _end(lists: Sequence[Discovery]) -> int:
    """Say what went wrong; the exit code."""
    failed = [found for found in lists if not found.is_success]
    for found in failed:
        click.echo(f"error: {one_line(found.error or '')}", err=True)
    return FAILED if failed else SUCCEEDED
