"""Simulate, print the tables, and with `--write` update docs/operations.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.environment import machine
from benchmarks.report import replace_part
from benchmarks.sizing.accounts import Kinds, Numbers, make_kinds, one_large_host, whole_network
from benchmarks.sizing.measured import measure
from benchmarks.sizing.pace import WINDOW, LimitingHost, measure_pace
from benchmarks.sizing.report import BEGIN, END, Sized, lines
from benchmarks.sizing.simulation import PAGES, PLACES, REPOSITORIES, Outcome, Way, simulate
from parity_dagster.atproto.directory import PLC_RATE

RUNS = (1, 2, 4, 8, 16)
"""Runs at a time that are tried."""
_NEARLY = 1.1
_ENOUGH = 1_000_000
"""Accounts that tell which number of runs is enough; what comes after them goes on as they do."""
_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@click.command()
@click.option("--large-hosts", default=80, show_default=True, help="Hosts of the company that has nearly everybody.")
@click.option("--latency", default=0.1, show_default=True, help="Seconds of an answer.")
@click.option("--accounts", default=40_000_000, show_default=True, help="Of the largest import.")
@click.option("--write", is_flag=True, help="Write the tables to docs/.")
def main(large_hosts: int, latency: float, accounts: int, write: bool) -> None:
    """What imports of 10,000, 1,000,000 and 40,000,000 accounts take, simulated in a minute."""
    click.echo("a small import is measured", err=True)
    measured, kinds = measure(), make_kinds()
    paces = {way.name: _paces(way, latency) for way in (PAGES, REPOSITORIES)}
    network = whole_network(large_hosts)
    cases: Sequence[tuple[int, str, Numbers, float | None]] = (
        (10_000, ", 60 % on one host", one_large_host(), PLC_RATE),
        (1_000_000, f" of {large_hosts} large hosts", network, None),
        (accounts, "", network, None),
    )
    rows = []
    for count, where, shares, look_ups in cases:
        for way in (PAGES, REPOSITORIES):
            click.echo(f"{count:,} accounts by {way.name} are simulated", err=True)
            outcome = fewest_runs(count, shares, kinds, way, paces[way.name], latency, look_ups)
            rows.append(Sized(count, where, way, outcome))
    text = list(lines(rows, paces, kinds, measured))
    click.echo("\n".join(text))
    if write:
        head = f"By `python -m benchmarks.sizing`, {datetime.now(UTC):%Y-%m-%d}; measured on {machine()}."
        replace_part(_PAGE, BEGIN, END, ["", head, "", *text, ""])
        click.echo(f"written: {_PAGE}")


def _paces(way: Way, latency: float) -> dict[int, float]:
    return {count: measure_pace(LimitingHost(way.limit, WINDOW, latency), count, places=PLACES) for count in RUNS}


def fewest_runs(
    accounts: int,
    shares: Numbers,
    kinds: Kinds,
    way: Way,
    paces: dict[int, float],
    latency: float,
    look_ups: float | None = None,
) -> Outcome:
    """The import with the fewest runs at a time that takes hardly longer than with any number of them."""
    tried = simulate(min(accounts, _ENOUGH), shares, kinds, way, paces, latency=latency, look_ups=look_ups)
    best = min(one.seconds for one in tried)
    chosen = next(one for one in tried if one.seconds <= _NEARLY * best)
    if accounts <= _ENOUGH:
        return chosen
    (found,) = simulate(accounts, shares, kinds, way, {chosen.runs: chosen.pace}, latency=latency, look_ups=look_ups)
    return found


if __name__ == "__main__":
    main()
