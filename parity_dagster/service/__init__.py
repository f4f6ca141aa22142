"""The importer's face: plain calls, for scripts, notebooks, web workers, the CLI and Dagster alike.

One class, in parts by what is asked of it; its parts know the base, and not each other.
"""

from __future__ import annotations

from parity_dagster.service.finding import Finding
from parity_dagster.service.imports import Imports
from parity_dagster.service.live import Live
from parity_dagster.service.looking import Looking
from parity_dagster.service.queueing import Queueing

__all__ = ["ImportService"]


class ImportService(Imports, Looking, Queueing, Finding, Live):
    """Imports accounts' histories into Postgres.

    Thread-safe: any number of threads may call one service, and each (did, collection) is imported by one caller at
    a time, over all processes and machines that share the database. Works inside a running event loop too, which
    it blocks until the call returns.

    Args:
        settings: how to import; read from `PARITY_*` variables if not given.
        listeners: called with every `ImportEvent`, in the thread that called the service; besides them those that
            `PARITY_LISTENERS` and the entry point group `parity_dagster.listeners` name.
        run_id: the Dagster run on whose behalf the service works, noted on the rows. While it is at work, nobody else
            reports to Dagster what it imports.
        report: whether Dagster is to be told of what is imported: by the run itself, else by a sensor of the daemon
            (within seconds), or by `parity report`. Nothing of Dagster is loaded here.
        transport: what requests go through: an `httpx.AsyncBaseTransport` in the place of `GuardedTransport`, which
            then has to refuse private addresses itself, or a function or class that is called with ours and returns
            what wraps it; what `PARITY_TRANSPORT` names if not given. See docs/transport.md.
        source: what imports read: `list`, page after page, or `repo`, each account's signed repository in one request,
            verified; what `PARITY_SOURCE` says if not given. See docs/repositories.md.
    """
