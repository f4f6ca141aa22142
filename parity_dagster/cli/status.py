"""`parity import-status`: how far each import is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from parity_dagster.cli.output import (
    Column,
    local_time,
    plural,
    status_text,
    write_json,
    write_table,
)
from parity_dagster.models import ImportStatus

if TYPE_CHECKING:
    import psycopg

    from parity_dagster.settings import Settings
    from parity_dagster.store.known import MissingCollection

_COLUMNS = (
    Column("did", 32),
    Column("collection", 22),
    Column("status", 11),
    Column("synced", 9, right=True),
    Column("skipped", 7, right=True, spare=2),
    Column("failed", 6, right=True, spare=1),
    Column("updated (UTC)", 19, spare=3),
    Column("error", 5, wraps=True),
)


class Totals:
    """Sums over the rows that went by."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.collections: Counter[str] = Counter()
        self.accounts = 0
        self.records = 0
        self.failed_records = 0
        self._last_did: str | None = None

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass rows on, which are ordered by did, and add them up."""
        for row in rows:
            self.statuses[row["status"]] += 1
            self.collections[row["collection"]] += 1
            self.records += row["records_synced"]
            self.failed_records += row["records_failed"]
            if row["did"] != self._last_did:
                self._last_did = row["did"]
                self.accounts += 1
            yield row

    def line(self) -> str:
        """The summary for people."""
        counts = ", ".join(
            f"{self.statuses[status]:,} {status_text(status)}" for status in ImportStatus if self.statuses[status]
        )
        failed = f", {plural(self.failed_records, 'failed record')}" if self.failed_records else ""
        return (
            f"{plural(self.statuses.total(), 'import')} of {plural(self.accounts, 'account')}: {counts}; "
            f"{plural(self.records, 'record')}{failed}"
        )

    def missing(self, collections: Iterable[str]) -> list[MissingCollection]:
        """Of all rows: how many accounts have none for which of the collections; nothing if all have one for each."""
        from parity_dagster.store.known import MissingCollection

        lacking = ((nsid, self.accounts - self.collections[nsid]) for nsid in collections)
        return [MissingCollection(nsid, count) for nsid, count in lacking if count]


@click.command("import-status", short_help="Show how far each import is.")
@click.argument("did", required=False)
@click.option("--pending", is_flag=True, help="Only imports that wait or run (pending, in_progress).")
@click.option("--failed", is_flag=True, help="Only imports that ended with an error.")
@click.option("--completed", is_flag=True, help="Only complete imports.")
@click.option("--summary", is_flag=True, help="Only sums: by status, error and host, the pace and the time left.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with the state table's columns.")
def import_status(did: str | None, pending: bool, failed: bool, completed: bool, summary: bool, as_json: bool) -> None:
    """Show how far each import is, one row per account and collection.

    DID narrows it to one account; a handle that was imported before will do as well. The flags can be
    combined. In a pipe there is one plain line per row, nothing cut, and the summary comes last.

    --summary prints sums instead, of all imports, and is quick however many there are: how many by status,
    error and host, what was imported within the last minutes, and when the rest will be done at that pace.
    With --json it is one object.

    \b
    Examples:
      parity import-status
      parity import-status did:plc:z72i7hdynmk6r22z27h6tvur
      parity import-status --summary
      parity import-status --failed
      parity import-status --pending --json | jq length

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE.
    Exit code: 0, also when there is nothing to show; 1 if the database cannot
      be read; 2 on wrong usage.
    """
    from parity_dagster.cli.accounts import known_did
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.known import missing_sentence
    from parity_dagster.store.listing import stream_states

    statuses = [
        *([ImportStatus.PENDING, ImportStatus.IN_PROGRESS] if pending else []),
        *([ImportStatus.FAILED] if failed else []),
        *([ImportStatus.COMPLETED] if completed else []),
    ] or None
    settings = load_settings()
    if summary:
        if did is not None or statuses:
            raise click.UsageError(
                "--summary is of all imports; leave out the account, --pending, --failed, --completed."
            )
        from parity_dagster.cli.summary import print_summary

        print_summary(settings, as_json=as_json)
        return
    with connect(settings) as connection:
        account = known_did(connection, did, settings) if did is not None else None
        dids = None if account is None else [account]
        if as_json:
            write_json(stream_states(connection, settings.state_table, dids=dids, statuses=statuses))
            return
        totals = print_states(connection, settings, dids=dids, statuses=statuses)
    if totals.accounts:
        if totals.statuses[ImportStatus.FAILED] and not completed:
            click.echo("`parity import --resume` tries failed and interrupted imports again.")
        # rows that were left out or of one account alone say nothing about what all accounts have
        if dids is None and statuses is None and (missing := totals.missing(settings.collections)):
            click.echo(f"{missing_sentence(missing)}; `parity import --known` imports what is missing.")
    elif statuses:
        click.echo("No import in that state.")
    else:
        click.echo(f"No imports{f' of {account}' if account else ''} yet; `parity import DID` starts one.")


def print_states(
    connection: psycopg.Connection,
    settings: Settings,
    *,
    dids: Collection[str] | None = None,
    statuses: Collection[ImportStatus] | None = None,
) -> Totals:
    """Print all or some rows of the state table, and the summary line; nothing if there is no row."""
    from parity_dagster.store.listing import stream_states

    totals = Totals()
    rows = totals.watch(stream_states(connection, settings.state_table, dids=dids, statuses=statuses))
    write_table(_COLUMNS, (_cells(row) for row in rows))
    if totals.accounts:
        click.echo(totals.line())
    return totals


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["did"],
        row["collection"],
        row["status"],
        f"{row['records_synced']:,}",
        f"{row['records_skipped']:,}",
        f"{row['records_failed']:,}",
        local_time(row["updated_at"]),
        row["error"] or "",
    )
