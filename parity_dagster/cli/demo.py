"""`parity demo`: everything once, on this machine alone."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.exits import FAILED, SUCCEEDED, say_when_stopped
from parity_dagster.cli.output import Column, console, plural, seconds_text, write_table

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from parity_dagster.sample_network import Running
    from parity_dagster.settings import Settings

_PLC_PORT, _PDS_PORT = 25_825, 25_826
"""Where the network is served if nobody is there already: a second demo then finds its accounts on the same
hosts, and an interrupted import goes on with its cursor."""

_COUNTS = (Column("collection", 24), Column("records", 9, right=True), Column("accounts", 8, right=True))
_NEXT_STEPS = """
What next:
  parity dev                      the Dagster UI with these partitions and their metadata
  parity import did:plc:z72i7hdynmk6r22z27h6tvur --progress
                                  a real account, from its own server
  parity import-status            the table above, at any time
  parity --help                   everything else"""


@click.command(short_help="Import a sample network and show what came of it.")
def demo() -> int:
    """Import a few made-up accounts from a sample network, through a real Dagster run.

    Needs no internet and no configuration. The network is served on this machine for as long as the demo takes;
    records, partitions and the run stay in the database (the embedded one, unless PARITY_DATABASE_URL names
    another). Running it again finds everything imported.

    \b
    Examples:
      parity demo
      PARITY_HOME=/tmp/parity-demo parity demo

    \b
    Variables: PARITY_HOME, PARITY_DATABASE_URL, PARITY_COLLECTIONS.
    Exit code: 0 if everything was imported, 1 if something failed, 2 if a setting
      is wrong.
    """
    say_when_stopped("start it again to go on")
    with ExitStack() as stack:
        began = time.monotonic()
        running = stack.enter_context(_network())
        stack.enter_context(_environment(running))

        from parity_dagster.settings import load_settings

        settings = load_settings()
        with _step(f"Database: {_database_name(settings)}"):
            _open_database(settings)
        with _step("Loading Dagster"):
            from parity_dagster.dagster_instance.storage import parity_instance

            instance = stack.enter_context(parity_instance())
        dids = running.network.dids
        pairs = len(dids) * len(settings.collections)
        with _step(
            f"Importing {plural(len(dids), 'account')} × {plural(len(settings.collections), 'collection')}"
            f" = {plural(pairs, 'partition')} in one Dagster run"
        ):
            run_ids, is_success = _materialize(instance, settings, dids)
        complete = _report(settings, dids)
        click.echo(
            f"{complete:,} of {plural(pairs, 'partition')} complete in {seconds_text(time.monotonic() - began)},"
            f" Dagster run {', '.join(run_ids)}"
        )
    if not is_success or complete < pairs:
        click.echo("error: the run failed; `parity import-status --failed` says why", err=True)
        return FAILED
    click.echo(_NEXT_STEPS)
    return SUCCEEDED


@contextmanager
def _network() -> Iterator[Running]:
    from parity_dagster.sample_network import demo_network, run_in_thread

    with ExitStack() as stack:
        network = demo_network()
        with _step(
            f"Sample network: {plural(len(network.dids), 'account')},"
            f" {plural(sum(network.counts().values()), 'record')} on {plural(len(network.hosts), 'server')}"
        ):
            try:
                served = run_in_thread(network, plc_port=_PLC_PORT, pds_port=_PDS_PORT)
                running = stack.enter_context(served)
            except OSError:  # another demo, or somebody else, is there
                running = stack.enter_context(run_in_thread(demo_network()))
        yield running


@contextmanager
def _environment(running: Running) -> Iterator[None]:
    """Let this process, and nothing else, read from the sample network."""
    changes = {
        "PARITY_PLC_URL": running.plc_url,
        "PARITY_RELAY_URL": running.relay_url,
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    # the warning is for those who set the variable; here nobody did
    client = logging.getLogger("parity_dagster.atproto.network")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what is going on, and how long it took."""
    began = time.monotonic()
    out = console()
    if out.is_terminal:
        with out.status(f"{what}…"):
            yield
    else:
        click.echo(f"{what}…")
        yield
    if out.is_terminal:
        click.echo(f"{what} ({seconds_text(time.monotonic() - began)})")


def _database_name(settings: Settings) -> str:
    if settings.database_url is not None:
        return "the one that PARITY_DATABASE_URL names"
    return f"embedded PostgreSQL under {settings.home.expanduser().resolve()}"


def _open_database(settings: Settings) -> None:
    from parity_dagster.store.database import connect

    connect(settings).close()


def _materialize(instance: DagsterInstance, settings: Settings, dids: Sequence[str]) -> tuple[list[str], bool]:
    """Run the asset's job over all partitions of the accounts."""
    from parity_dagster.dagster_instance.keys import to_partition_key
    from parity_dagster.definitions import build_defs
    from parity_dagster.models import Pair
    from parity_dagster.orchestration.jobs import IMPORT_PARTITIONS
    from parity_dagster.orchestration.partitions import DIDS, RANGE_TAGS, register_dids

    register_dids(instance, dids)
    job = build_defs(settings).resolve_job_def(IMPORT_PARTITIONS)
    results = []
    for first, last in _stretches(instance.get_dynamic_partitions(DIDS), dids):
        start, end = Pair(first, settings.collections[0]), Pair(last, settings.collections[-1])
        results.append(
            job.execute_in_process(
                instance=instance,
                run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
                tags=dict(zip(RANGE_TAGS, (to_partition_key(start), to_partition_key(end)), strict=True)),
                raise_on_error=False,
            )
        )
    return [result.run_id for result in results], all(result.success for result in results)


def _stretches(known: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Cover accounts with ranges, each first to last as Dagster lists them; one, unless some were there before."""
    ranges: list[tuple[str, str]] = []
    was_wanted = False
    for did in known:
        if did in wanted:
            ranges.append((ranges.pop()[0] if was_wanted else did, did))
        was_wanted = did in wanted
    return ranges


def _report(settings: Settings, dids: Sequence[str]) -> int:
    """Print the status table and the records per collection; say how many imports are complete."""
    from parity_dagster.cli.status import print_states
    from parity_dagster.store.database import connect
    from parity_dagster.store.listing import count_records

    click.echo()
    with connect(settings) as connection:
        totals = print_states(connection, settings, dids=dids)
        click.echo()
        counts = count_records(connection, dids)
    write_table(_COUNTS, ((nsid, f"{records:,}", f"{accounts:,}") for nsid, records, accounts in counts))
    click.echo()
    return totals.statuses["completed"]
