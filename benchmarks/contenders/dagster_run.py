"""Parity through a Dagster run: the job `import_records`, Dagster's storage in the same PostgreSQL.

A run in this process, as `dagster job execute` makes it, and what a run costs that imports nothing. Daemons and sensors
are not measured: their intervals are waiting.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contenders.parity import settings_for
from benchmarks.contenders.task import Done, Run, Task


def dagster(task: Task, stack: ExitStack) -> Run:
    """Import all pairs in one run, after a first run of one pair and one that finds it complete."""
    folder = Path(task.home) / f"dagster-{os.getpid()}"
    folder.mkdir()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy(Path(__file__).parents[2] / "dagster.yaml", folder)
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["PARITY_DATABASE_URL"] = task.database_url
    settings = settings_for(task)

    import dagster as dg

    from parity_dagster.definitions import build_defs

    instance = stack.enter_context(dg.DagsterInstance.get())
    job = build_defs(settings).resolve_job_def("import_records")

    def execute(config: dict[str, Any]) -> None:
        if not job.execute_in_process(instance=instance, run_config=config, raise_on_error=False).success:
            raise RuntimeError("the Dagster run failed")

    dids = [did for did, _ in task.accounts]
    one = {"dids": dids[:1], "collections": task.collections[:1]}
    execute(one)
    until_here = time.time() - psutil.Process().create_time()
    began = time.perf_counter()
    execute(one)
    empty_run = time.perf_counter() - began

    def run() -> Done:
        execute({"dids": dids, "collections": list(task.collections)})
        return Done(0, more={"empty run s": empty_run, "start-up s": until_here})

    return run
