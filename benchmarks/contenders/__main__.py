"""One measurement: `python -m benchmarks.contenders NAME`, the task as one line of JSON on standard input.

It prints a line when it is ready, waits for a line, works, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.contenders.task import Prepare, Task

CONTENDERS = {
    "download": "floor",
    "copy": "floor",
    "service": "parity",
    "refresh": "parity",
    "repositories": "parity",
    "dagster": "dagster_run",
    "sdk": "sdk",
    "dlt": "dlt_rest",
}


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's size at the moment of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(name: str, say: Callable[[str], None]) -> None:
    """Prepare, wait, work; `say` sends a line to the parent."""
    logging.disable(logging.WARNING)
    task = Task(**json.loads(sys.stdin.readline()))
    prepare: Prepare = getattr(import_module(f"benchmarks.contenders.{CONTENDERS[name]}"), name)
    with ExitStack() as stack:
        run = prepare(task, stack)
        say("ready")
        sys.stdin.readline()
        began, cpu = time.perf_counter(), time.process_time()
        done = run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        say(json.dumps({**asdict(done), "seconds": seconds, "cpu": cpu, "memory": peak_memory()}))


if __name__ == "__main__":
    # Libraries may print; the parent's line is kept apart from that.
    answers, sys.stdout = sys.stdout, sys.stderr
    main(sys.argv[1], lambda line: print(line, file=answers, flush=True))
