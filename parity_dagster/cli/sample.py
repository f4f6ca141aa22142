"""`parity sample-network`: the sample network alone, for trying things out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from parity_dagster.sample_network import Running

_SHAPES = ("demo", "wide", "narrow", "whale", "latency", "limited", "crowd")
_MOST_DIDS = 10


@click.command("sample-network", short_help="Serve a sample AT Protocol network on this machine.")
@click.option("--shape", type=click.Choice(_SHAPES), default="demo", show_default=True, help="Which network.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies its size.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of everything that is made up.")
@click.option(
    "--plc-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port of the PLC directory; 0 takes a free one.",
)
@click.option("--pds-port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port of the first PDS.")
@click.option("--latency", type=click.FloatRange(min=0), help="Seconds before each answer.")
@click.option("--rate-limit", type=click.IntRange(min=1), help="Requests per 5 minutes and host.")
@click.option("--config", type=click.Path(dir_okay=False), help="Write run config for `dagster job execute` here.")
@click.option("--dids-file", type=click.Path(dir_okay=False), help="Write all DIDs here, one per line.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of instructions.")
def sample_network(
    shape: str,
    scale: float,
    seed: int,
    plc_port: int,
    pds_port: int,
    latency: float | None,
    rate_limit: int | None,
    config: str | None,
    dids_file: str | None,
    as_json: bool,
) -> None:
    """Serve a sample AT Protocol network on 127.0.0.1 until Ctrl-C or SIGTERM.

    A PLC directory and some PDSes over real HTTP, with made-up posts, likes, reposts, follows and profiles.
    It prints the variables that make parity import from it, the DIDs, and a run config. Nothing is stored;
    the same seed always gives the same network.

    \b
    Examples:
      parity sample-network
      parity sample-network --config import.yaml --dids-file dids.txt
      parity sample-network --shape whale --scale 0.1

    \b
    Exit code: 0 after Ctrl-C or SIGTERM, 1 if a port cannot be used, 2 on wrong
      usage.
    """
    from parity_dagster.sample_network import SHAPES, benchmark_network, serve

    network = benchmark_network(next(known for known in SHAPES if known == shape), scale=scale, seed=seed)
    for name in network.hosts:
        if latency is not None:
            network.behave(host=name, latency=latency)
        if rate_limit is not None:
            network.behave(host=name, rate_limit=rate_limit)
    _write(config, run_config(network.dids))
    _write(dids_file, "".join(f"{did}\n" for did in network.dids))

    def announce(running: Running) -> None:
        if as_json:
            click.echo(json.dumps(description(running)))
        else:
            click.echo(instructions(running, config, dids_file))
        sys.stdout.flush()

    try:
        serve(network, plc_port=plc_port, pds_port=pds_port, on_start=announce)
    except OSError as exc:
        raise click.ClickException(
            f"the sample network cannot listen: {exc.strerror}; choose other ports or leave them at 0"
        ) from None


def run_config(dids: list[str]) -> str:
    """The run config of the job `import_records` as YAML, for `dagster job execute -c`."""
    return "dids:\n" + "".join(f"  - {did}\n" for did in dids)


def description(running: Running) -> dict[str, object]:
    """Where a served network is and who lives there, as `--json` prints it.

    The URLs, the variables to export (`environment`), the number of accounts and the first 1,000 DIDs.
    """
    return {
        "plc_url": running.plc_url,
        "relay_url": running.relay_url,
        "pds_urls": running.pds_urls,
        "control_url": running.control_url,
        "environment": _environment(running),
        "accounts": len(running.network.accounts),
        "dids": running.network.dids[:1000],
    }


def instructions(running: Running, config: str | None, dids_file: str | None) -> str:
    """What a person does with a served network, and with the run config and the DIDs if they were written to files."""
    dids = running.network.dids
    records = sum(running.network.counts().values())
    exports = "\n".join(f"  export {name}={value}" for name, value in _environment(running).items())
    listed = "".join(f"  {did}\n" for did in dids[:_MOST_DIDS])
    more = f"  and {len(dids) - _MOST_DIDS:,} more\n" if len(dids) > _MOST_DIDS else ""
    if config:
        execute = f"  dagster job execute -m parity_dagster.definitions -j import_records -c {shlex.quote(config)}"
    else:
        document = "".join(f"  {line}\n" for line in run_config(dids[:_MOST_DIDS]).splitlines())
        execute = (
            "  # import.yaml, run config for the job import_records\n"
            f"{document}  dagster job execute -m parity_dagster.definitions -j import_records -c import.yaml"
        )
    source = f"--file {shlex.quote(dids_file)}" if dids_file else dids[0]
    return (
        f"Sample network: {len(dids):,} accounts, {records:,} records on {len(running.pds_urls)} servers.\n\n"
        f"In another terminal, so that parity reads from it:\n{exports}\n\n"
        f"Accounts:\n{listed}{more}\n"
        f"Then:\n  parity import {source} --progress\n\n"
        f"Or through Dagster:\n{execute}\n\n"
        "Ctrl-C ends the network."
    )


def _environment(running: Running) -> dict[str, str]:
    return {
        "PARITY_PLC_URL": running.plc_url,
        "PARITY_RELAY_URL": running.relay_url,
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
    }


def _write(path: str | None, text: str) -> None:
    if path is None:
        return
    try:
        Path(path).write_text(text, encoding="ascii")
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be written: {exc.strerror}") from None
