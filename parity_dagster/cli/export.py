"""`parity export`: a view's or a collection's rows as files."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.accounts import known_did
from parity_dagster.cli.exits import say_when_stopped
from parity_dagster.cli.files import is_stdout, writing
from parity_dagster.cli.output import is_watched, plural, seconds_text, watching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity_dagster.exporting.exporter import Exported, LineFormat, Wanted
    from parity_dagster.settings import Settings

_MOST_NAMED = 5
"""Accounts without records that are named."""


@click.command(short_help="Write records to files: CSV, JSON lines, Parquet.")
@click.argument("name", metavar="COLLECTION_OR_VIEW")
@click.option("--parquet", metavar="DIR", help="Write Parquet files into a folder that is empty or not there yet.")
@click.option("--csv", metavar="FILE", help="Write CSV; - is standard output.")
@click.option("--jsonl", metavar="FILE", help="Write one JSON object per line; - is standard output.")
@click.option(
    "--did",
    "dids",
    metavar="DID",
    multiple=True,
    help="Only this account; may be given several times. Default: all.",
)
@click.option("--since", metavar="TIME", help="Only records whose createdAt is this time or later, as 2024-07-01.")
@click.option("--columns", metavar="NAMES", multiple=True, help="Only these, in this order, separated by commas.")
@click.option("--spreadsheet", is_flag=True, help="With --csv: safe to open in a spreadsheet, and no longer exact.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@watching
@click.option("--json", "as_json", is_flag=True, help="Print a summary as a JSON object: rows, files, bytes, seconds.")
def export(
    name: str,
    parquet: str | None,
    csv: str | None,
    jsonl: str | None,
    dids: tuple[str, ...],
    since: str | None,
    columns: tuple[str, ...],
    spreadsheet: bool,
    overwrite: bool,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Write imported records to files that other programs read, in bounded memory.

    COLLECTION_OR_VIEW is a typed view (posts) for its columns, or an NSID (app.bsky.feed.post) for the
    records as they are. All rows are of one moment of the database, and come in no order.

    A file or folder appears under its name when it is complete, and not before. A file that exists is
    refused without --overwrite; a pipe, a device and standard output get the rows as they come. Parquet
    needs pyarrow: pip install 'parity_dagster[parquet]'.

    \b
    Examples:
      parity export posts --parquet posts
      parity export posts --csv posts.csv
      parity export posts --csv - --columns did,created_at,text | head
      parity export posts --csv posts.csv --spreadsheet --since 2024-07-01
      parity export app.bsky.feed.like --jsonl likes.jsonl --did alice.bsky.social

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_COLLECTIONS,
      PARITY_TYPED_VIEWS.
    Exit code: 0; 1 if the database cannot be read, or the export not be written
      to its end; 2 if it cannot begin: wrong usage, no such view, a file that
      exists, no such folder.
    """
    say_when_stopped("nothing was written")
    targets = [each for each in (parquet, csv, jsonl) if each is not None]
    if len(targets) != 1:
        raise click.UsageError("Give one of --parquet, --csv and --jsonl.")
    if spreadsheet and csv is None:
        raise click.UsageError("--spreadsheet goes with --csv.")
    if overwrite and parquet is not None:
        raise click.UsageError("--overwrite replaces a file; for --parquet, name a folder that is not there yet.")
    if parquet == "-":
        raise click.UsageError("--parquet writes a folder of files, which standard output cannot take; name one.")
    (path,) = targets
    form: LineFormat = "jsonl" if jsonl is not None else "spreadsheet" if spreadsheet else "csv"

    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.exporting.destinations import NewFolder, find_destination
    from parity_dagster.exporting.exporter import export_lines, export_parquet
    from parity_dagster.settings import load_settings

    began = time.monotonic()
    settings = load_settings()
    destination = (
        NewFolder(path) if parquet is not None else find_destination(path, sys.stdout.buffer, overwrite=overwrite)
    )
    takes_stdout = is_stdout(destination)
    with writing(path, destination):
        wanted = _wanted(name, dids, since, columns, settings)
        with RowsProgress(name) if is_watched(progress, takes_stdout) else nullcontext() as watcher:
            if isinstance(destination, NewFolder):
                exported = export_parquet(wanted, destination, settings, watcher)
            else:
                exported = export_lines(wanted, destination, form, settings, watcher)
    files = [str(Path(path) / part) for part in exported.parts] or [path]
    _tell(name, exported, files, time.monotonic() - began, as_json=as_json, err=takes_stdout)


def _wanted(
    name: str, accounts: Sequence[str], since: str | None, columns: Sequence[str], settings: Settings
) -> Wanted:
    from parity_dagster.exporting.exporter import Wanted
    from parity_dagster.store.database import connect
    from parity_dagster.store.records import Selection, moment

    start = None if since is None else moment(since)
    dids = None
    if accounts:
        with connect(settings) as connection:
            dids = list(dict.fromkeys(known_did(connection, account, settings) for account in accounts))
    names = [part.strip() for given in columns for part in given.split(",")]
    return Wanted(name, Selection(dids, start), [part for part in names if part] if columns else None)


def _tell(name: str, exported: Exported, files: Sequence[str], seconds: float, *, as_json: bool, err: bool) -> None:
    """Sum up on stdout, or on stderr if the rows went to stdout."""
    if exported.absent:
        few = ", ".join(exported.absent[:_MOST_NAMED])
        more = f" and {len(exported.absent) - _MOST_NAMED:,} more" if len(exported.absent) > _MOST_NAMED else ""
        click.echo(f"Nothing of {few}{more} is in it; `parity import-status DID` shows how far an import is.", err=True)
    if as_json:
        summary = {"rows": exported.rows, "files": files, "bytes": exported.size, "seconds": round(seconds, 3)}
        click.echo(json.dumps(summary), err=err)
        return
    click.echo(
        f"Exported {plural(exported.rows, 'row')} of {name}: {plural(len(files), 'file')}, {_size_text(exported.size)},"
        f" {seconds_text(seconds)}",
        err=err,
    )


def _size_text(size: int) -> str:
    return plural(size, "byte") if size < 100_000 else f"{size / 1_000_000:,.1f} MB"
