"""The process that runs are forked from: it has loaded Dagster, so that a run starts in a fraction of a second.

It reads one line of JSON per run from its standard input and answers each with the run's process id. When the
input ends, because the daemon did, it ends too; runs that are under way go on to their end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

WORKER_TAG = ".dagster/parity_worker"
"""Tag of a run that names its process. The prefix hides it in the UI."""

PRELOADED = (
    "dagster._cli.api",
    "dagster._core.execution.plan.execute_plan",
    "dagster._core.executor.in_process",
    "dagster_postgres",
    "psycopg2",
    "psycopg",
    "pydantic_settings",
    "aiohttp",
    "httpx",
    "msgspec",
    "dns.asyncresolver",
)
"""What takes long to load and never changes while the server runs. None of it starts a thread when loaded."""

CAN_FORK = sys.platform == "linux"
"""Elsewhere system libraries do not survive a fork, and a run is a new interpreter."""


def serve() -> None:
    """Start a process for each line of the input until it ends."""
    # the answers have a channel of their own; whatever a run prints goes to the daemon's log
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        # runs end by themselves, and nobody asks how
        signal.signal(signal.SIGCHLD, _reap)
        # Ctrl-C reaches the runs, too; this process ends with its input, after them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in PRELOADED if CAN_FORK else ():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for line in sys.stdin:
            answers.write(f"{_start(json.loads(line))}\n")
            answers.flush()


def _reap(signum: int, frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _start(request: dict[str, Any]) -> int:
    if not CAN_FORK:
        command = [sys.executable, "-m", __spec__.name, json.dumps(request)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL).pid  # noqa: S603 - our own program, no shell
    pid = os.fork()
    if pid == 0:
        _become_run(request)
    return pid


def _become_run(request: dict[str, Any]) -> NoReturn:
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        # else the daemon would not see that the server is gone as long as this run goes on
        os.closerange(3, 1024)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run(request)
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into the server, whatever happened
        traceback.print_exc()
    finally:
        # nothing of the server may be cleaned up by its child
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(request: dict[str, Any]) -> None:
    """Execute a run in this process; the request holds `run_id`, and `instance_ref` as Dagster serializes it."""
    import dagster as dg

    from parity_dagster.dagster_instance.private import (
        InstanceRef,
        capture_interrupts,
        execute_run,
        serializable_error_info_from_exc_info,
    )

    run_id = request["run_id"]
    with (
        capture_interrupts(),
        dg.DagsterInstance.from_ref(dg.deserialize_value(request["instance_ref"], InstanceRef)) as instance,
        _beginning(run_id) as begun,
    ):
        record = instance.get_run_by_id(run_id)
        if begun is None:
            # as when two daemons have launched it; the process that executes it stays the one that is looked after
            instance.report_engine_event("Another process executes this run; this one leaves it alone.", record)
            return
        if record is not None and record.status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING):
            # before anything else, so that a run that has started can always be looked after
            instance.add_run_tags(run_id, {WORKER_TAG: worker_name(os.getpid())})
        try:
            execute_run()(run_id, instance, lambda event: begun(), set_exit_code_on_failure=False)
        except Exception:
            # the run's code could not be loaded
            error = serializable_error_info_from_exc_info(sys.exc_info())
            record = instance.get_run_by_id(run_id)
            if record is not None and not record.is_finished:
                instance.report_run_failed(record, f"The run could not be started: {error.message}")
            raise


@contextlib.contextmanager
def _beginning(run_id: str) -> Iterator[Callable[[], None] | None]:
    """Be the only process that begins a run, until it calls what it is given; None if another one is beginning it.

    Dagster looks at the run's status, in which two processes may find at the same moment that it has not begun.
    """
    from parity_dagster.errors import ParityError
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect
    from parity_dagster.store.outbox import take_alone

    with contextlib.ExitStack() as stack:
        is_first = True
        with contextlib.suppress(ParityError):  # the run itself says what is wrong with the database
            connection = stack.enter_context(contextlib.closing(connect(load_settings(), autocommit=True)))
            is_first = take_alone(connection, run_id)
        yield stack.close if is_first else None


def worker_name(pid: int) -> str:
    """Say which process it is, on which machine, so that no later process can be taken for it."""
    import psutil

    return f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time():.2f}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(json.loads(sys.argv[1]))
    else:
        serve()
