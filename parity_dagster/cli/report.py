"""`parity report`: Dagster is told at once of what was imported outside of it."""

from __future__ import annotations

import json
import sys
from contextlib import closing, nullcontext

import click

from parity_dagster.cli.output import plural


@click.command(short_help="Show in Dagster now what was imported outside of it.")
@click.option("--all", "everything", is_flag=True, help="Compare every import with what Dagster remembers of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as a JSON object.")
def report(everything: bool, as_json: bool) -> None:
    """Show in Dagster what was imported outside of its runs: by `parity import`, or from Python.

    A running daemon (`parity dev`) does so by itself within seconds, also for what was imported while it was
    down. This is for those who run none, and want partitions, materializations and observations to be there
    all the same. With --all, whatever Dagster does not know, or has wrong, is told: after its events were
    lost, for one.

    \b
    Examples:
      parity report
      parity report --all

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE, DAGSTER_HOME.
    Exit code: 0, also when there was nothing to tell; 1 if the database or
      Dagster's storage failed; 2 if a setting is wrong.
    """
    from parity_dagster.cli.progress import RowsProgress
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.outbox import count_named_accounts, count_unreported, have_all_reported

    settings = load_settings()
    with closing(connect(settings, autocommit=True)) as conn:
        if everything:
            have_all_reported(conn, settings.state_table)
        expected = count_unreported(conn, settings.state_table)
        is_something = expected or count_named_accounts(conn, settings.state_table)
    written = known = unshown = 0
    if is_something:
        from parity_dagster.dagster_instance.storage import parity_instance
        from parity_dagster.orchestration.report import report_pending

        with (
            parity_instance(settings) as instance,
            RowsProgress("imports", "import") if sys.stderr.isatty() else nullcontext() as progress,
        ):
            if progress is not None:
                progress.expect(expected)
            written, known, unshown, _ = report_pending(
                instance, settings, advance=None if progress is None else progress.advance
            )
    if as_json:
        click.echo(json.dumps({"reported": written, "known": known, "without_partition": unshown}))
    elif written:
        before = f"; {known:,} it knew" if known else ""
        click.echo(f"Dagster was told of {plural(written, 'import')}{before}.")
    elif unshown:
        click.echo("Dagster was told of no import.")
    else:
        click.echo("Dagster knows of every import that has ended.")
    if unshown and not as_json:
        click.echo(
            f"{plural(unshown, 'import')} of accounts without a partition, because PARITY_PARTITION_LIMIT"
            f" ({settings.partition_limit:,}) is reached; `parity import DID` gives one its partition."
        )
