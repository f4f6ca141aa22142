"""`parity migrate`, `rebuild-states`, `prune` and `reset`: looking after the tables."""

from __future__ import annotations

from contextlib import closing

import click

from parity_dagster.cli.accounts import AccountFile, account_file, checked_collections, known_did
from parity_dagster.cli.output import plural
from parity_dagster.cli.selection import Chosen, selecting


@click.command(short_help="Make or update the tables.")
@click.option("--sql", "only_print", is_flag=True, help="Only print what would be executed, as one transaction.")
@click.option("--dagster", is_flag=True, help="Make Dagster's tables and the typed views, too, for roles that may not.")
def migrate(only_print: bool, dagster: bool) -> None:
    """Make the tables, or bring them to this version; harmless to repeat.

    The embedded database is migrated by itself; a server of yours (PARITY_DATABASE_URL) needs this once, and
    again after an upgrade. It happens in one transaction. docs/postgresql.md has the grants for a role that
    migrates, one that imports and one that reads.

    \b
    Examples:
      parity migrate
      PARITY_DATABASE_URL=postgresql://user:password@host/database parity migrate
      parity migrate --sql > migration.sql
      parity migrate --dagster

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE,
      PARITY_TYPED_VIEWS.
    Exit code: 0; 1 if the database cannot be reached or refuses; 2 if a setting
      is wrong.
    """
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import migrate as migrate_database, plan_migration

    if only_print and dagster:
        raise click.UsageError("--sql and --dagster exclude each other: Dagster's tables are made by Dagster.")
    settings = load_settings()
    if only_print:
        statements = plan_migration(settings)
        if not statements:
            click.echo("-- Nothing to do: the tables are at this version's revision.")
            return
        click.echo("BEGIN;\n" + "".join(f"{statement.strip()};\n" for statement in statements) + "COMMIT;")
        return
    revision = migrate_database(settings)
    click.echo(f"The tables are at revision {revision}.")
    if dagster:
        from parity_dagster.dagster_instance.storage import make_tables, storage_url
        from parity_dagster.store.database import connect
        from parity_dagster.store.typed import BLUESKY_VIEWS, make_view, registered_views

        make_tables(storage_url(settings))
        with closing(connect(settings, autocommit=True)) as conn:
            made = sum(make_view(conn, view) for view in (*BLUESKY_VIEWS, *registered_views(settings)))
        click.echo(f"Dagster's tables are there; {plural(made, 'typed view')} made.")


@click.command("rebuild-states", short_help="Rebuild the state table from Dagster's metadata.")
def rebuild_states() -> None:
    """Write the state table anew from the metadata that Dagster keeps of each import.

    For a table that was lost or damaged. Rows that are newer than what Dagster knows, or that an importer is
    working on, stay as they are.

    \b
    Examples:
      parity rebuild-states

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE, DAGSTER_HOME.
    Exit code: 0; 1 if the database failed; 2 if a setting is wrong.
    """
    from parity_dagster.dagster_instance.storage import parity_instance
    from parity_dagster.orchestration.rebuild import rebuild_states as rebuild
    from parity_dagster.settings import load_settings

    settings = load_settings()
    with parity_instance() as instance:
        count = rebuild(instance, settings)
    click.echo(f"{plural(count, 'row')} added or changed from Dagster's metadata.")


@click.command(short_help="Drop the detailed logs of old Dagster runs.")
@click.option(
    "--keep-days",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Leave alone runs that ended within so many days.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped.")
def prune(keep_days: int, dry_run: bool) -> None:
    """Drop the detailed logs of old successful Dagster runs.

    Runs, what they materialized and observed, and check results stay, so the UI and `parity rebuild-states`
    know every import as before. Failed runs keep their logs. Safe while imports run.

    \b
    Examples:
      parity prune
      parity prune --keep-days 7
      parity prune --dry-run

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, DAGSTER_HOME.
    Exit code: 0; 1 if the database failed; 2 on wrong usage.
    """
    from parity_dagster.dagster_instance.prune import prune_runs
    from parity_dagster.dagster_instance.storage import parity_instance

    with parity_instance() as instance:
        pruned = prune_runs(instance, keep_days, dry_run=dry_run)
    click.echo(
        f"{'Would drop' if dry_run else 'Dropped'} {plural(pruned.events, 'log entry', 'log entries')}"
        f" of {plural(pruned.runs, 'successful run')} that ended over {plural(keep_days, 'day')} ago."
    )


@click.command(short_help="Forget how far imports are.")
@click.argument("accounts", metavar="[DID]...", nargs=-1)
@click.option(
    "--collection",
    "collections",
    metavar="NSID",
    multiple=True,
    help="Only this collection; may be given several times. Default: all.",
)
@account_file
@selecting
def reset(
    accounts: tuple[str, ...],
    collections: tuple[str, ...],
    path: str | None,
    failed: bool,
    errors: tuple[str, ...],
    hosts: tuple[str, ...],
) -> None:
    """Forget how far the imports of accounts are, so that the next one starts over.

    The imported records stay; the next import brings them up to date. DID is a DID, or the handle of an
    account that was imported before. --failed, --error and --pds choose among the imports of the accounts
    given, or of all if none is. What is forgotten is not imported by itself: `parity import` asks for it
    again.

    \b
    Examples:
      parity reset did:plc:z72i7hdynmk6r22z27h6tvur
      parity reset alice.bsky.social --collection app.bsky.feed.post
      parity reset --file dids.txt
      parity reset --error cursor_loop --pds pds.example.com

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE.
    Exit code: 0, also when there was nothing to forget; 1 if the database
      failed; 2 on wrong usage.
    """
    chosen = Chosen(failed, errors, hosts)
    if not (accounts or path or chosen):
        raise click.UsageError("Give a DID, --file, --failed, --error or --pds.")

    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.restore import reset_selected

    settings = load_settings()
    wanted = checked_collections(collections)
    names = [*accounts, *(AccountFile(path, settings).accounts() if path else ())]
    with connect(settings) as connection:
        dids = [known_did(connection, name, settings) for name in names]
        count = reset_selected(connection, settings.state_table, chosen.selection(dids if names else None, wanted))
        connection.commit()
    (account,) = dids if len(dids) == 1 else ("",)
    if not count:
        click.echo(f"There is no import{f' of {account}' if account else ''} to forget.")
    elif account:
        click.echo(f"{plural(count, 'import')} of {account} forgotten; `parity import {account}` starts over.")
    else:
        click.echo(f"{plural(count, 'import')} forgotten; `parity import` with the accounts starts over.")
