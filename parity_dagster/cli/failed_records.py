"""`parity failed-records`: the records that could not be stored."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from parity_dagster.cli.exits import FAILED, SUCCEEDED
from parity_dagster.cli.output import Column, local_time, plural, write_json, write_table

if TYPE_CHECKING:
    from parity_dagster.settings import Settings

_COLUMNS = (
    Column("did", 32),
    Column("collection", 22),
    Column("rkey", 13),
    Column("reason", 16),
    Column("bytes", 9, right=True, spare=2),
    Column("last seen (UTC)", 19, spare=3),
    Column("detail", 6, wraps=True),
)


@click.command("failed-records", short_help="List the records that could not be stored.")
@click.argument("did", required=False)
@click.option("--retry", is_flag=True, help="Try to store them again first, and list what is left.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, the records' bytes included.")
def failed_records(did: str | None, retry: bool, as_json: bool) -> int:
    """List the records that Postgres could not hold or that broke the protocol's rules.

    Each was kept byte for byte with the reason, and cost its import nothing else. With --json, `body` is
    the record as the server sent it; if those bytes are not UTF-8 text, `body` is null and `body_base64`
    has them. --retry reads those bytes with the rules of today, without asking the server.

    \b
    Examples:
      parity failed-records
      parity failed-records did:plc:z72i7hdynmk6r22z27h6tvur
      parity failed-records --retry
      parity failed-records --json | jq -r '.[].reason' | sort | uniq -c

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME.
    Exit code: 0; 1 if the database cannot be read, or if --retry leaves a
      record that could not be stored; 2 on wrong usage.
    """
    from parity_dagster.cli.accounts import known_did
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.listing import stream_failed_records

    settings = load_settings()
    with connect(settings) as connection:
        account = known_did(connection, did, settings) if did is not None else None
        connection.commit()
        if retry:
            _retry(settings, account, err=as_json)
        rows = _Counted(stream_failed_records(connection, did=account))
        if as_json:
            write_json(_object(row) for row in rows)
        else:
            write_table(_COLUMNS, (_cells(row) for row in rows))
    if not as_json:
        of = f" of {account}" if account else ""
        click.echo(
            f"{plural(rows.count, 'failed record')}{of}; --json prints them with their bytes."
            if rows.count
            else f"No failed records{of}."
        )
    return FAILED if retry and rows.count else SUCCEEDED


def _retry(settings: Settings, account: str | None, *, err: bool) -> None:
    from parity_dagster.service import ImportService

    with ImportService(settings) as service:
        result = service.retry_failed_records(account)
    click.echo(f"Tried {plural(result.stored + result.left, 'record')} again: {result.stored:,} stored.", err=err)


class _Counted:
    """Rows that count themselves as they go by."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            self.count += 1
            yield row


def _object(row: dict[str, Any]) -> dict[str, Any]:
    body = bytes(row["body"])
    try:
        text, encoded = body.decode("utf-8"), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(body).decode("ascii")
    return {**row, "body": text, "body_base64": encoded}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["did"],
        row["collection"],
        row["rkey"] or "",
        row["reason"],
        f"{len(row['body']):,}",
        local_time(row["last_seen_at"]),
        row["detail"],
    )
