"""`parity dagster-home`: the folder that Dagster's processes share, for the engine that executes runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

import click

from parity_dagster.cli.exits import FAILED, SUCCEEDED
from parity_dagster.dagster_instance.home import WORKSPACE_YAML, Launcher, Outcome, is_refused, write_home


class _Process(NamedTuple):
    """What has to run, and how many of it."""

    how_many: str
    command: str


class _Engine(NamedTuple):
    """What an engine needs besides."""

    what: str
    variables: dict[str, str]
    worker: _Process | None = None


_DATABASE = {"PARITY_DATABASE_URL": "a PostgreSQL that every machine reaches"}
_IMAGE = {"PARITY_IMAGE": "the image of the runs, with this package in it"}
_ENGINES = {
    Launcher.LOCAL: _Engine("runs are processes of the daemon's machine", {}),
    Launcher.CELERY: _Engine(
        "workers on any number of machines execute runs",
        {**_DATABASE, "PARITY_CELERY_BROKER": "as in redis://:password@host:6379/0"},
        _Process(
            "workers, on any machine", "celery -A parity_dagster.dagster_instance.celery_app worker --concurrency 2"
        ),
    ),
    Launcher.DOCKER: _Engine(
        "each run is a container",
        {**_DATABASE, **_IMAGE, "PARITY_DOCKER_NETWORK": "the network in which runs find PostgreSQL"},
    ),
    Launcher.K8S: _Engine(
        "each run is a job of Kubernetes",
        {
            **_DATABASE,
            **_IMAGE,
            "PARITY_K8S_NAMESPACE": "of the runs",
            "PARITY_K8S_SERVICE_ACCOUNT": "may create and look at jobs and pods",
        },
    ),
}


@click.command("dagster-home", short_help="Write a folder for DAGSTER_HOME, for runs here or elsewhere.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--launcher",
    type=click.Choice([launcher.value for launcher in Launcher]),
    default=Launcher.LOCAL.value,
    show_default=True,
    help="What executes runs: this machine, Celery's workers, containers, or Kubernetes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print files, commands and variables as a JSON object.")
def dagster_home(folder: Path, launcher: str, as_json: bool) -> int:
    """Write dagster.yaml and workspace.yaml into DIR, and say what to start where.

    For a server, or several; `parity dev` needs none of it. The files have a comment for each setting, and no
    secret: passwords come from the environment of the processes. Repeat the command after an upgrade, or with
    another launcher: what an earlier call wrote is replaced. A file that was changed by hand is named, and
    nothing is written. docs/deploy.md has the rest: containers, units of systemd, sizes, backups.

    \b
    Examples:
      parity dagster-home /srv/parity
      parity dagster-home /srv/parity --launcher celery
      parity dagster-home new --launcher k8s --json

    \b
    Variables: none is read; which ones the processes need is printed.
    Exit code: 0; 1 if a file was changed by hand; 2 if DIR cannot be written.
    """
    kind = Launcher(launcher)
    files = write_home(folder, kind)
    home = folder.resolve()
    engine = _ENGINES[kind]
    workspace = f"-w {shlex.quote(str(home / WORKSPACE_YAML))}"
    processes = [
        _Process("once, and after an upgrade", "parity migrate --dagster"),
        _Process("one", f"dagster-daemon run {workspace}"),
        _Process("any number", f"dagster-webserver {workspace} -h 127.0.0.1 -p 3000"),
        *([engine.worker] if engine.worker else []),
    ]
    variables = {"DAGSTER_HOME": str(home), **engine.variables}
    if as_json:
        found = {
            "dagster_home": str(home),
            "launcher": launcher,
            "files": {file.path.name: file.outcome.value for file in files},
            "start": [process._asdict() for process in processes],
            "variables": variables,
        }
        click.echo(json.dumps(found, indent=2))
    if is_refused(files):
        for file in files:
            if file.outcome is Outcome.CHANGED_BY_HAND:
                click.echo(
                    f"error: {file.path} was changed by hand, or is not of this command, so nothing was written; move"
                    f" it away, repeat the command, and take over what you need from yours",
                    err=True,
                )
        return FAILED
    if not as_json:
        _explain(home, engine, kind, [(file.path.name, file.outcome.value) for file in files], processes, variables)
    return SUCCEEDED


def _explain(
    home: Path,
    engine: _Engine,
    kind: Launcher,
    files: list[tuple[str, str]],
    processes: list[_Process],
    variables: dict[str, str],
) -> None:
    click.echo(f"{home}: {engine.what}.")
    for name, outcome in files:
        click.echo(f"  {name:<15} {outcome}")
    if kind is not Launcher.LOCAL:
        click.echo(f"\nInstall:\n  pip install 'parity_dagster[{kind}]'")
    click.echo("\nStart:")
    for process in processes:
        click.echo(f"  {process.how_many + ':':<27} {process.command}")
    click.echo("\nEach with the same PARITY_* variables, and with")
    for name, meaning in variables.items():
        click.echo(f"  {name:<27} {meaning}")
    click.echo("\nThe UI has no login: keep it on 127.0.0.1, or behind a proxy that asks for one (docs/deploy.md).")
