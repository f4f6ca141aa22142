"""`parity import-status --summary`: sums of all imports, and when they will be done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from parity_dagster.cli.output import Column, plural, status_text, write_table
from parity_dagster.models import ImportStatus

if TYPE_CHECKING:
    from parity_dagster.settings import Settings
    from parity_dagster.store.summary import Summary

_MOST_HOSTS = 20
_COLUMNS = (
    Column("host", 40),
    Column("imports", 9, right=True),
    Column("complete", 9, right=True),
    Column("left", 9, right=True),
    Column("failed", 7, right=True),
    Column("gone", 7, right=True),
    Column("s/page", 6, right=True),
)


def print_summary(settings: Settings, *, as_json: bool) -> None:
    """Print the summary of the state table."""
    from parity_dagster.store.database import connect
    from parity_dagster.store.summary import read_summary

    with connect(settings, autocommit=True) as connection:
        found = read_summary(connection, settings.state_table, settings.collections)
    if as_json:
        click.echo(json.dumps(_object(found), indent=2))
        return
    for line in _lines(found):
        click.echo(line)
    hosts = found.hosts[:_MOST_HOSTS]
    hosts += [host for host in found.slowest_hosts[:_MOST_HOSTS] if host not in hosts]
    write_table(
        _COLUMNS,
        (
            (
                host.host or "(not looked up yet)",
                *(f"{count:,}" for count in host[1:6]),
                "" if host.seconds_per_page is None else f"{host.seconds_per_page:.2f}",
            )
            for host in hosts
        ),
    )
    if len(found.hosts) > len(hosts):
        click.echo(f"and {plural(len(found.hosts) - len(hosts), 'host')} more; --json prints all")


def _object(found: Summary) -> dict[str, Any]:
    return {
        **found._asdict(),
        "at": found.at.isoformat(),
        "last_retry_at": None if found.last_retry_at is None else found.last_retry_at.isoformat(),
        "errors": [error._asdict() for error in found.errors],
        "hosts": [host._asdict() for host in found.hosts],
        "records_per_second": round(found.records_per_second, 3),
        "seconds_left": None if found.seconds_left is None else round(found.seconds_left, 1),
    }


def _lines(found: Summary) -> list[str]:
    from parity_dagster.store.summary import sentences

    counts = ", ".join(
        f"{found.statuses[status]:,} {status_text(status)}" for status in ImportStatus if found.statuses[status]
    )
    lines = [f"As of {found.at:%Y-%m-%d %H:%M:%S} UTC: {plural(found.pairs, 'import')}{': ' if counts else ''}{counts}"]
    for is_gone, title in ((False, "Failed"), (True, "Accounts that are gone")):
        if errors := [error for error in found.errors if error.is_gone is is_gone]:
            named = ", ".join(f"{error.error_code} {error.pairs:,}" for error in errors)
            lines.append(f"{title}: {named}")
    return [*lines, *sentences(found)]
