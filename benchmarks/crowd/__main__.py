"""`python -m benchmarks.crowd`: measure, print, and with `--write` update `docs/performance.md`."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.crowd.measurements import PROJECT, measure
from benchmarks.crowd.report import BEGIN, END, lines
from benchmarks.environment import machine
from benchmarks.report import replace_part


@click.command()
@click.option("--scale", default=1.0, show_default=True, help="Size of the crowd; 1.0 is 10,000 accounts.")
@click.option("--peer", default=20, show_default=True, help="Pairs that stock Dagster imports; 0 for none.")
@click.option("--write", is_flag=True, help="Write the figures to docs/.")
def main(scale: float, peer: int, write: bool) -> None:
    """Measure many small accounts through the inbox, the queue and the runs; some ten minutes."""
    with tempfile.TemporaryDirectory(prefix="parity-crowd-") as temporary:
        found = measure(Path(temporary), scale, peer, lambda line: click.echo(line, err=True))
    text = list(lines(found))
    click.echo("\n".join(text))
    if write:
        scaled = "" if scale == 1 else f" --scale {scale:g}"
        head = f"Measured {datetime.now(UTC):%Y-%m-%d} with `python -m benchmarks.crowd{scaled}` on {machine()}."
        page = PROJECT / "docs" / "performance.md"
        replace_part(page, BEGIN, END, ["", head, "", *text, ""])
        click.echo(f"written: {page}")


if __name__ == "__main__":
    main()
