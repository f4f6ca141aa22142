"""`parity doctor`: complete imports that may be wrong all the same, and what makes them good."""

from __future__ import annotations

from contextlib import closing

import click

from parity_dagster.cli.exits import FAILED, GOES_ON, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import Column, plural, write_json, write_table

_COLUMNS = (
    Column("did", 32),
    Column("collection", 22),
    Column("problem", 8),
    Column("records", 9, right=True),
    Column("detail", 6, wraps=True),
)


@click.command(short_help="Find complete imports that may be wrong, and read them again.")
@click.argument("did", required=False)
@click.option("--mend", is_flag=True, help="Read what is found again, now, as `parity import --reread` does.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), help="Stop looking after so long. Default: look at everything."
)
@click.option("--json", "as_json", is_flag=True, help="Print what is found as a JSON list.")
def doctor(did: str | None, mend: bool, seconds: float | None, as_json: bool) -> int:
    """Find complete imports whose copy may be wrong, by the traces that faults of earlier versions left.

    \b
    rows      the table holds more or fewer rows than the import counted
    few       many pages were read, but few records are known, or none
    encoding  texts are UTF-8 that was stored as Latin-1
    numbers   numbers of a few bytes that are thousands of digits to whoever
              reads them

    Nothing is asked of any server unless --mend is given. A copy may be wrong without a trace: `parity
    verify` compares it with what the account has signed, `parity import ACCOUNT --reread` corrects it.

    \b
    Examples:
      parity doctor
      parity doctor --mend
      parity doctor did:plc:z72i7hdynmk6r22z27h6tvur --json

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE,
      PARITY_PAGE_SIZE.
    Exit code: 0 if nothing is suspicious, or all of it was read again; 1 if
      something is, or could not be read; 2 on wrong usage.
    """
    from parity_dagster.cli.accounts import known_did
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.suspects import find_suspects

    settings = load_settings()
    with closing(connect(settings, autocommit=True)) as conn:
        account = known_did(conn, did, settings) if did is not None else None
        report = find_suspects(conn, settings.state_table, page_size=settings.page_size, seconds=seconds, did=account)
    pairs = list(dict.fromkeys(suspect.pair for suspect in report.suspects))
    if as_json:
        write_json(
            {**suspect._asdict(), "mend": _command(suspect.did, suspect.collection)} for suspect in report.suspects
        )
    else:
        write_table(_COLUMNS, ((s.did, s.collection, s.problem, f"{s.records:,}", s.detail) for s in report.suspects))
    looked = f"{plural(report.records, 'record')} of {plural(report.pairs, 'complete import')}"
    rest = "" if report.is_whole else "; there was no time for the others"
    if not pairs:
        click.echo(f"Nothing suspicious in {looked}{rest}.", err=as_json)
        return SUCCEEDED
    click.echo(f"{plural(len(pairs), 'suspicious import')}; looked at {looked}{rest}.", err=as_json)
    if not mend:
        click.echo(
            f"`{_command(*pairs[0])}` reads one again and corrects it; `parity doctor --mend` does so with all.",
            err=as_json,
        )
        return FAILED
    from parity_dagster.service import ImportService

    with ImportService(settings) as service:
        say_when_stopped(GOES_ON)
        results = service.import_pairs(pairs, reread=True)
    failed = [result for result in results if not result.is_success]
    for result in failed:
        click.echo(f"error: {result.did} {result.collection}: {result.error}", err=True)
    click.echo(f"{plural(len(results) - len(failed), 'import')} read again and corrected.", err=as_json)
    return FAILED if failed else SUCCEEDED


def _command(did: str, collection: str) -> str:
    return f"parity import {did} --collection {collection} --reread"
