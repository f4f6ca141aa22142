"""`parity dev`: the Dagster UI and daemon, and the end of all of it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.exits import FAILED, SUCCEEDED

if TYPE_CHECKING:
    from parity_dagster.settings import Settings

HOST = "127.0.0.1"
"""The UI has no login, so nobody but this machine may reach it."""

_PATIENCE = 10.0
"""Seconds that Dagster gets to stop by itself; then what is left is ended."""


@click.command(short_help="Run the Dagster UI and daemon until Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Port of the UI on 127.0.0.1.",
)
def dev(port: int) -> int:
    """Run the Dagster UI and the daemon, which imports what is queued or dropped into the inbox.

    In a folder with a workspace.yaml, that project is served; anywhere else the installed package is. One
    Ctrl-C or SIGTERM ends everything that was started, running imports included; those go on with the next
    start. A second Ctrl-C does not wait.

    \b
    Examples:
      parity dev
      parity dev --port 3001

    \b
    Variables: DAGSTER_HOME (default: the project's dagster.yaml, or a folder
      under PARITY_HOME), PARITY_INBOX (watched for *.txt lists of accounts),
      PARITY_DATABASE_URL, PARITY_HOME.
    Exit code: 0 after Ctrl-C or SIGTERM, 1 if Dagster ended by itself, 2 on
      wrong usage.
    """
    from parity_dagster.cli.process_tree import ProcessTree
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect

    settings = load_settings()
    _refuse_used_port(port)
    # starts the embedded server in this process, so that it outlives everything that uses it
    connect(settings).close()
    environment, target = _project(settings)
    click.echo("Starting the Dagster UI and daemon…")
    with _stop_requests() as requests:
        tree = ProcessTree(
            [sys.executable, "-m", "dagster", "dev", "--host", HOST, "--port", str(port), *target],
            environment,
        )
        try:
            is_announced = False
            while not requests and tree.exit_code is None:
                if not is_announced and _answers(port):
                    is_announced = True
                    _announce(port, settings)
                time.sleep(0.2)
            was_asked = bool(requests)
            if was_asked:
                click.echo("Stopping…")
                tree.stop(patience=_PATIENCE, hurry=lambda: len(requests) > 1)
        finally:
            tree.kill()
    if not was_asked:
        click.echo("error: Dagster ended by itself; its last lines above say why", err=True)
        return FAILED
    click.echo("Stopped.")
    return SUCCEEDED


def _project(settings: Settings) -> tuple[dict[str, str], list[str]]:
    """Environment and target arguments of `dagster dev` for the current folder."""
    environment = dict(os.environ)
    # `dagster dev` recommends another command at each start; this one is the project's
    quiet = "ignore:Function `dev_command` is superseded"
    environment["PYTHONWARNINGS"] = ",".join(filter(None, [environment.get("PYTHONWARNINGS"), quiet]))
    if Path("workspace.yaml").is_file():
        target: list[str] = []
        has_configuration = Path("dagster.yaml").is_file()
    else:
        target = ["-m", "parity_dagster.definitions"]
        has_configuration = False
    if not environment.get("DAGSTER_HOME") and not has_configuration:
        environment["DAGSTER_HOME"] = str(dev_home(settings))
    return environment, target


def dev_home(settings: Settings) -> Path:
    """The folder under PARITY_HOME that serves as DAGSTER_HOME outside of a project; it holds this version's files,
    unless a person has changed them."""
    from parity_dagster.dagster_instance.home import Launcher, Outcome, write_home

    home = settings.home.expanduser().resolve() / "dagster"
    # earlier versions did not say that a file there was theirs
    for file in write_home(home, Launcher.LOCAL, keep_unstamped=False):
        if file.outcome is Outcome.CHANGED_BY_HAND:
            click.echo(f"{file.path} was changed by hand; it is used as it is.")
    return home


def _refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise click.UsageError(
                f"Port {port} of {HOST} cannot be used ({exc.strerror}); try `parity dev --port {port % 65535 + 1}`."
            ) from None


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _announce(port: int, settings: Settings) -> None:
    click.echo(
        f"\nDagster UI: http://{HOST}:{port}\n"
        f"Lists of accounts (*.txt) dropped into {settings.inbox.resolve()} are imported."
        " Ctrl-C ends everything.\n"
    )
    sys.stdout.flush()


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect the signals that ask for the end, instead of being interrupted anywhere."""
    requests: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        requests.append(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(signum, note) for signum in signals]
    try:
        yield requests
    finally:
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)
