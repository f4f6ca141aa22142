"""`python -m benchmarks`: run the workloads, print the table, and with `--write` update `docs/performance.md`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from benchmarks.checking import cost_of_checks
from benchmarks.environment import database, machine
from benchmarks.report import summary, write_report
from benchmarks.rounds import Results, run_workload
from benchmarks.start import Start, time_commands
from benchmarks.workloads import WORKLOADS


@click.command()
@click.option("--quick", is_flag=True, help="Small scales, one round: under two minutes.")
@click.option(
    "--workload", "names", multiple=True, type=click.Choice([one.name for one in WORKLOADS]), help="Only these."
)
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of every workload, instead of its own number.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), help="Scale of every workload's network.")
@click.option("--minutes", default=7.0, show_default=True, help="After this time, no further rounds are begun.")
@click.option("--write", is_flag=True, help="Write the results and the chart to docs/.")
def main(
    quick: bool, names: tuple[str, ...], rounds: int | None, scale: float | None, minutes: float, write: bool
) -> None:
    """Measure the importer beside the floor and beside what else one could use, all on loopback."""
    began = time.monotonic()
    results: list[Results] = []
    start: Start | None = None
    with database() as db:
        if not names:
            start = time_commands(db, rounds=1 if quick else rounds or 5, say=_say)
        for workload in WORKLOADS:
            if names and workload.name not in names:
                continue
            size = scale or (workload.quick_scale if quick else 1.0)
            times = rounds or (1 if quick else workload.rounds)
            until = began + 60 * minutes
            results.append(run_workload(workload, db, rounds=times, scale=size, say=_say, until=until))
    checks = cost_of_checks()
    click.echo(summary(results, machine()))
    if start is not None:
        click.echo("\n" + "\n".join(start.lines()))
    click.echo(f"\n{checks}")
    if write:
        command = "python -m benchmarks" + (" --quick" if quick else "") + "".join(f" --workload {n}" for n in names)
        docs, said = Path(__file__).parent.parent / "docs", "" if names else checks
        for path in write_report(results, machine(), command, said, docs, start):
            click.echo(f"written: {path}")
    click.echo(f"took {time.monotonic() - began:.0f} s")


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
