"""The command line of the sample network, shared by `python -m` and `parity sample-network`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from parity_dagster.sample_network.control import describe
from parity_dagster.sample_network.paging import KeptPages
from parity_dagster.sample_network.server import Running, serve
from parity_dagster.sample_network.shapes import SHAPES, Shape, benchmark_network


@click.command(name="sample-network")
@click.option("--shape", type=click.Choice(SHAPES), default="demo", show_default=True, help="Which network.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Multiplies its size.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of everything that is made up.")
@click.option("--plc-port", type=click.IntRange(0, 65535), default=0, help="Port of the PLC directory; 0: any.")
@click.option("--pds-port", type=click.IntRange(0, 65535), default=0, help="Port of the first PDS; 0: any.")
@click.option("--control-port", type=click.IntRange(0, 65535), default=0, help="Port of the control endpoint.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Where hosts listen; elsewhere in namespaces.",
)
@click.option("--dids-file", type=click.Path(dir_okay=False, path_type=Path), help="Write all DIDs here.")
@click.option("--latency", type=click.FloatRange(min=0), help="Seconds before each answer.")
@click.option("--rate-limit", type=click.IntRange(min=1), help="Requests per 5 minutes and host.")
@click.option("--keep-pages", type=click.IntRange(min=0), default=0, help="MB of pages not rendered anew each time.")
def main(
    shape: Shape,
    scale: float,
    seed: int,
    plc_port: int,
    pds_port: int,
    control_port: int,
    address: str,
    dids_file: Path | None,
    latency: float | None,
    rate_limit: int | None,
    keep_pages: int,
) -> None:
    """Serve a sample AT Protocol network, on loopback unless --address says more, until interrupted.

    The first line of output is JSON: plc_url (for PARITY_PLC_URL), pds_urls, control_url, accounts, dids
    (the first 1,000).
    """
    network = benchmark_network(shape, scale=scale, seed=seed)
    if keep_pages:
        network.kept_pages = KeptPages(keep_pages * 10**6)
    for host in (network.relay, *network.mirrors.values(), *network.hosts.values()):
        host.address = address
    changes = {"latency": latency, "rate_limit": rate_limit}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    for name in network.hosts if given else ():
        network.behave(host=name, **given)

    def announce(running: Running) -> None:
        if dids_file is not None:
            dids_file.write_text("\n".join(network.dids) + "\n", encoding="ascii")
        line = {**describe(network, dids=1000), "control_url": running.control_url}
        click.echo(json.dumps(line))

    try:
        serve(network, plc_port=plc_port, pds_port=pds_port, control_port=control_port, on_start=announce)
    except OSError as exc:
        raise click.ClickException(f"cannot listen: {exc}. Choose other ports or leave them at 0.") from exc
