"""`parity directory`: identities from the PLC directory's log."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.exits import FAILED, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import is_watched, plural, seconds_text, watching

if TYPE_CHECKING:
    from parity_dagster.models import DirectorySync


@click.group(short_help="Learn where accounts live from the PLC directory's log.")
def directory() -> None:
    """Learn where accounts live, without a look-up for each.

    \b
    Examples:
      parity directory sync
      parity directory sync --help

    Exit code: that of the command.
    """


@directory.command(short_help="Read the directory's log from where it was read to.")
@click.option("--all", "everything", is_flag=True, help="Store every account of the log, not only known ones.")
@click.option("--again", is_flag=True, help="Read the log from its start.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after about so many operations.")
@watching
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
def sync(everything: bool, again: bool, limit: int | None, progress: bool | None, as_json: bool) -> int:
    """Read the log of the PLC directory, 1,000 operations a request, and note where known accounts live, what
    they are called and which key they sign with.

    An account is known if it is imported, or queued, or was met before: queue a list first, then read the
    log, then import it. What is known so is as good as a look-up for 24 hours after the log was last read
    to its end, so read it daily; hosts that deny an account are looked up afresh in any case.

    How far it was read is kept, with each page: whatever ends the command, the next call goes on there. An
    account that became known later has no row before its next operation; it is looked up, or --again
    reads the whole log once more. --all stores everybody, some 40 million rows.

    \b
    Examples:
      parity directory sync --progress
      parity import --file dids.txt --queue && parity directory sync
      parity directory sync --limit 1000000 --json

    \b
    Variables: PARITY_PLC_URL (several mirrors, comma-separated),
      PARITY_PLC_RATE (requests per second to each), PARITY_DATABASE_URL,
      PARITY_HOME.
    Exit code: 0 if the log was read to its end or as far as --limit says; 1 if
      the directory could not be read further; 2 on wrong usage.
    """
    say_when_stopped("what was read is stored; start it again to go on")

    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.service import ImportService
    from parity_dagster.settings import load_settings

    began = time.monotonic()
    with (
        ImportService(load_settings(), report=False) as service,
        RowsProgress("read", "operation") if is_watched(progress) else nullcontext() as watcher,
    ):
        found = service.sync_directory(
            everything=everything, again=again, limit=limit, on_progress=watcher.advance if watcher else None
        )
    seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps(_object(found, seconds)))
    click.echo(_line(found, seconds), err=as_json)
    if everything and not found.is_whole:
        click.echo("Some of the log was read for known accounts only; --again --all reads it for everybody.", err=True)
    if found.error is not None:
        click.echo(f"error: {found.error}", err=True)
        return FAILED
    return SUCCEEDED


def _object(found: DirectorySync, seconds: float) -> dict[str, object]:
    read_to = found.read_to.isoformat() if found.read_to else None
    return {**dataclasses.asdict(found), "read_to": read_to, "seconds": round(seconds, 3)}


def _line(found: DirectorySync, seconds: float) -> str:
    parts = [
        f"{plural(found.operations, 'operation')} in {seconds_text(seconds)}",
        f"{found.stored:,} identities stored",
        *([f"{found.removed:,} taken out"] if found.removed else []),
        *([f"{plural(found.broken, 'line')} could not be read"] if found.broken else []),
    ]
    if found.read_to is None:
        where = "the log is empty"
    else:
        where = f"read to {found.read_to:%Y-%m-%d %H:%M:%S}, {'the end' if found.is_caught_up else 'not yet the end'}"
    return f"{', '.join(parts)}; {where}."
