"""The command `parity`: a command parses, makes one call, prints.

Add here words and tables for people; what a program could want, too, is the service's. Nothing heavy is imported at
the top of these modules: `parity --help` and `parity import-status` are expected to answer at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import click

from parity_dagster.cli.dagster_home import dagster_home
from parity_dagster.cli.demo import demo
from parity_dagster.cli.dev import dev
from parity_dagster.cli.directory import directory
from parity_dagster.cli.discover import discover
from parity_dagster.cli.doctor import doctor
from parity_dagster.cli.exits import ParityGroup, debugging
from parity_dagster.cli.export import export
from parity_dagster.cli.failed_records import failed_records
from parity_dagster.cli.forget import forget
from parity_dagster.cli.import_command import import_
from parity_dagster.cli.maintenance import migrate, prune, rebuild_states, reset
from parity_dagster.cli.metrics import metrics
from parity_dagster.cli.psql import psql
from parity_dagster.cli.report import report
from parity_dagster.cli.sample import sample_network
from parity_dagster.cli.status import import_status
from parity_dagster.cli.verify import verify
from parity_dagster.text import one_line


@click.group(
    cls=ParityGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="parity_dagster", message="parity_dagster %(version)s")
def parity() -> None:
    """Import the history of AT Protocol (Bluesky) accounts into Postgres.

    Every record of an account is read from the account's own server, page by page, and every (account,
    collection) is one partition of the Dagster asset atproto/records. Without any setting, an embedded
    PostgreSQL under .parity/ is used.

    \b
    First steps:
      parity demo                  a sample network, imported and shown
      parity import DID            any real account, or a handle
      parity discover NSID         all accounts that use a collection
      parity import-status         how far each import is
      parity dev                   the Dagster UI on http://127.0.0.1:3000

    \b
    Variables: PARITY_DATABASE_URL (a PostgreSQL server of yours),
      PARITY_HOME (where the embedded one lives), PARITY_COLLECTIONS (what is
      imported); README.md lists every setting. PARITY_DEBUG=1 shows tracebacks.
    Exit codes: 0 succeeded, 1 something failed, 2 wrong usage, 130 Ctrl-C,
      143 SIGTERM, 129 SIGHUP.
    """


for _command in (
    import_,
    discover,
    import_status,
    export,
    reset,
    forget,
    failed_records,
    verify,
    directory,
    doctor,
    demo,
    dev,
    dagster_home,
    sample_network,
    metrics,
    migrate,
    report,
    rebuild_states,
    prune,
    psql,
):
    parity.add_command(_command)


def main() -> None:
    """Run `parity` as a process of its own."""
    _fill_standard_streams()
    parity.signals_afterwards = signal.SIG_IGN
    for stream in (sys.stdout, sys.stderr):
        # a terminal or file that cannot show a character gets its escape, not a crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    _warn_on_stderr()
    parity()


def _fill_standard_streams() -> None:
    """Give a stream that whoever started us closed to nobody, before a socket gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


class _OneLineHandler(logging.Handler):
    """Log records as lines of the form every other message has."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{record.levelname.lower()}: {one_line(record.getMessage())}", err=True)


def _warn_on_stderr() -> None:
    if os.environ.get("PARITY_LOG_FORMAT", "").strip().lower() == "json":
        from parity_dagster.monitoring.logs import configure_logging

        configure_logging("json", level=logging.DEBUG if debugging() else logging.INFO)
        return
    logging.basicConfig(level=logging.DEBUG if debugging() else logging.WARNING, handlers=[_OneLineHandler()])
    if not debugging():
        # it warns when a second Ctrl-C comes while it cancels a query; what ended the command is told anyway
        logging.getLogger("psycopg").setLevel(logging.ERROR)
