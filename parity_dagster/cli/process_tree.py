"""A program with everything it starts, ended as one.

A process group is not enough: Dagster starts some of its processes in sessions of their own, and those of a
killed parent are nobody's children any more. So each process is marked by a variable in its environment,
which every descendant inherits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

import psutil

_MARK = "PARITY_PROCESS_TREE"
# The embedded PostgreSQL is shared with other processes and stops by itself after its last user.
_SHARED = ("postgres",)
_POLL = 0.05
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessTree:
    """One started program and its descendants."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(  # noqa: S603 - the caller's own program, no shell
            command,
            env={**environment, _MARK: self._mark},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

    @property
    def exit_code(self) -> int | None:
        """How the program itself ended; None while it runs."""
        return self._process.poll()

    def stop(self, *, patience: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all of it: the program is asked, then all that is left is asked, then killed.

        Args:
            patience: seconds each of the two gets.
            hurry: asked again and again; true means not to wait any longer.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + patience
            while self._process.poll() is None and time.monotonic() < deadline and not hurry():
                time.sleep(_POLL)
        # Dagster leaves a run that is going on to itself; an importer gives its pairs back on SIGTERM
        self._end(signal.SIGTERM, patience, hurry)
        self.kill()

    def kill(self) -> None:
        """End all of it at once."""
        while self._end(signal.SIGKILL, 5.0, lambda: False):
            time.sleep(_POLL)
        self._process.wait()

    def remaining(self) -> list[psutil.Process]:
        """Which processes of the tree are alive."""
        found = []
        for process in psutil.process_iter(["name", "status"]):
            if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark and process.info["name"] not in _SHARED:
                    found.append(process)
        return found

    def _end(self, signum: int, patience: float, hurry: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + patience
        remaining = self.remaining()
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signum)
        while remaining and time.monotonic() < deadline and not hurry():
            time.sleep(_POLL)
            self._process.poll()  # reaps the program itself
            remaining = [process for process in remaining if process.is_running() and not _is_zombie(process)]
        return bool(remaining)


def _end_with_parent() -> None:
    """In the child: ask the kernel for SIGTERM if this program is killed and cannot stop the tree any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
