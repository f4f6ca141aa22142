"""Blocking calls beside an event loop, on threads that nobody waits for.

The threads of a `ThreadPoolExecutor` are waited for when the process ends, however long a name server takes, and no new
call is let in from the moment a script's last line was run, although threads of the script may go on importing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def beside_the_loop(
    call: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Do something that blocks, and is seldom done, on a thread of its own (as `asyncio.to_thread` would)."""
    threads = DaemonThreads(1, "parity-blocking")
    return await asyncio.get_running_loop().run_in_executor(threads, partial(call, *args, **kwargs))


class DaemonThreads(Executor):
    """Runs calls, each as soon as there is a thread for it.

    Args:
        most: threads at a time; they end when there is nothing to do.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = 0

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Run a call (see `Executor.submit`)."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((future, partial(fn, *args, **kwargs)))
            if self._running < self._most:
                self._running += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop calls that wait; those under way end by themselves."""
        with self._lock:
            dropped = [future for future, _ in self._waiting]
            self._waiting.clear()
        for future in dropped:
            future.cancel()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - for whoever waits
                future.set_exception(exc)
            else:
                future.set_result(result)
