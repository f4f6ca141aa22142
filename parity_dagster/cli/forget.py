"""`parity forget`: remove accounts altogether."""

from __future__ import annotations

import sys

import click

from parity_dagster.cli.accounts import known_did
from parity_dagster.cli.exits import FAILED, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import plural, write_json
from parity_dagster.errors import PairBusy


@click.command(short_help="Remove accounts altogether.")
@click.argument("accounts", metavar="DID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as a JSON list.")
def forget(accounts: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Remove accounts altogether: records, failed records, imports, and what Dagster shows of them.

    DID is a DID, or the handle of an account that was imported before. Removed are the rows of every project
    of the database, the account's partition and the events of its pairs; rows of a mapper's table go with their
    records if its foreign key says ON DELETE CASCADE. What the logs of Dagster's runs say in words stays.
    Whoever asks for the account again, with a list, a discovery or a command, imports it again.

    On a terminal it asks first; elsewhere it needs --yes.

    \b
    Examples:
      parity forget did:plc:z72i7hdynmk6r22z27h6tvur
      parity forget did:plc:z72i7hdynmk6r22z27h6tvur --yes --json

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_COLLECTIONS,
      DAGSTER_HOME.
    Exit code: 0, also when nothing was held; 1 if an account is being imported
      at this moment, the answer was no, or the database failed; 2 on wrong usage.
    """
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.forget import count_account, forget_account, writable_tables

    settings = load_settings()
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if not yes and not is_terminal:
        raise click.UsageError("This removes records for good and cannot ask here; say --yes.")
    with connect(settings, autocommit=True) as connection:
        writable_tables(connection)  # whoever may not write them may not make Dagster's tables either
        dids = list(dict.fromkeys(known_did(connection, name, settings) for name in accounts))
        if not yes:
            for did in dids:
                click.echo(_held(*count_account(connection, did)[:4]), err=True)
            say_when_stopped("nothing was removed")
            if not click.confirm(f"Remove {plural(len(dids), 'account')} for good?", err=True):
                click.echo("Nothing was removed.", err=True)
                return FAILED

        say_when_stopped("what was not said to be forgotten may be left; say it again to go on")
        from parity_dagster.dagster_instance.storage import parity_instance
        from parity_dagster.orchestration.forget import forget_in_dagster

        removed: list[dict[str, object]] = []
        is_busy = False
        try:
            with parity_instance() as instance:
                for did in dids:
                    try:
                        found = forget_account(connection, did)
                    except PairBusy as exc:
                        is_busy = True
                        click.echo(f"error: {exc}", err=True)
                        continue
                    # after the rows: what is in no outbox any more is not shown again
                    events = forget_in_dagster(instance, did, {*found.collections, *settings.collections})
                    removed.append({**found._asdict(), "events": events})
                    if not as_json:
                        click.echo(f"Forgotten: {_held(*found[:4])}, {plural(events, 'event')} of Dagster.")
        finally:
            # whatever ends it, these are gone
            if as_json:
                write_json(removed)
    return FAILED if is_busy else SUCCEEDED


def _held(did: str, imports: int, records: int, failed_records: int) -> str:
    return f"{did}, {plural(imports, 'import')}, {plural(records, 'record')}, {plural(failed_records, 'failed record')}"
