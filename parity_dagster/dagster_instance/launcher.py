"""How runs get a process, and how it is noticed that one is gone.

Dagster's own launcher starts a new interpreter for each run, which takes seconds to load Dagster, and does not
notice when a run's process is killed together with the server that started it: such a run would count as running
for ever and keep its place in the queue. This one forks our runs from a process that has Dagster loaded (`run_server`),
and run monitoring asks it whether a run's process is alive. What the fork saves is in docs/performance.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import dagster as dg
import psutil

from parity_dagster.dagster_instance.private import (
    GRPC_INFO_TAG,
    CheckRunHealthResult,
    LaunchRunContext,
    WorkerStatus,
)
from parity_dagster.dagster_instance.run_server import WORKER_TAG, worker_name

OUR_LOCATION = "parity_dagster.definitions"
"""The module of the code location whose runs are forked."""


class _RunServer:
    """The process that runs are forked from. Dagster may make several launchers in a process, one per thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, str]) -> int:
        """Have a run's process forked; returns its number."""
        with self._lock:
            try:
                return self._ask(request)
            except (OSError, ValueError):
                # the server was killed; a new one is as good
                self._stop()
                return self._ask(request)

    def _ask(self, request: dict[str, str]) -> int:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parity_dagster.dagster_instance.run_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return int(stdout.readline())

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.kill()
        process.wait()

    def end(self) -> None:
        """Let it end as soon as nobody asks any more."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None and process.stdin is not None and process.stdout is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
                process.stdout.close()
                process.wait()


_SERVER = _RunServer()


class ForkingRunLauncher(dg.DefaultRunLauncher):
    """Gives each of our runs a process of its own, forked from a server that the daemon starts when it needs it first.

    Runs of other code locations, which may need another interpreter or machine, are started as Dagster starts them.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process."""
        if not is_ours(context.dagster_run):
            super().launch_run(context)
            return
        request = {
            "run_id": context.dagster_run.run_id,
            "instance_ref": dg.serialize_value(self._instance.get_ref()),
        }
        _SERVER.ask(request)

    def dispose(self) -> None:
        """Let the server end; runs that are under way go on, and the next launch starts another."""
        _SERVER.end()

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run; it gives back its pairs and ends as canceled."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        pid = _living_process(run)
        if pid is None:
            where = run.tags.get(WORKER_TAG, "unknown").partition(" ")[0]
            self._instance.report_engine_event(
                f"The run's process is not on this machine ({socket.gethostname()}) or gone; it was on: {where}.", run
            )
            return False
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            return False
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a run that has started is alive.

        Returns:
            `FAILED` if it is a process of this machine and gone. What happens to runs elsewhere, and to those that no
            launcher started (`dagster job execute`), `run_health_sensor` knows.
        """
        current = self._instance.get_run_by_id(run.run_id) or run
        worker = current.tags.get(WORKER_TAG)
        is_here = worker is not None and worker.partition(" ")[0] == socket.gethostname()
        if is_here and _living_process(current) is None:
            return CheckRunHealthResult(WorkerStatus.FAILED, "its process was killed", run_worker_id=worker)
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def is_ours(run: dg.DagsterRun) -> bool:
    """Whether a fork of our process would execute the same code as a process of the run's own location."""
    if run.job_code_origin is None:
        return False
    place = run.job_code_origin.repository_origin
    is_here = place.executable_path == sys.executable and place.container_image is None
    return is_here and getattr(place.code_pointer, "module", None) == OUR_LOCATION


def _living_process(run: dg.DagsterRun) -> int | None:
    worker = run.tags.get(WORKER_TAG, "")
    host, _, rest = worker.partition(" ")
    if host != socket.gethostname():
        return None
    pid = int(rest.partition(" ")[0])
    try:
        is_same = worker_name(pid) == worker and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return pid if is_same else None
