"""Parity's `ImportService`, as anybody would call it: its default settings but for the pause between pages."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Literal

import httpx

from benchmarks.contenders.task import Done, Run, Task
from parity_dagster.events import ImportCompleted, ImportEvent, ImportProgress
from parity_dagster.models import Pair
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings


def settings_for(task: Task) -> Settings:
    """The settings of all of parity's contenders."""
    return load_settings(
        database_url=task.database_url,
        home=Path(task.home),
        plc_url=task.plc_url,
        allow_private_hosts=True,
        page_delay=0,
        collections=tuple(task.collections),
    )


def service(task: Task, stack: ExitStack) -> Run:
    """Import all pairs for the first time."""
    return _import(task, stack, refresh=False)


def refresh(task: Task, stack: ExitStack) -> Run:
    """Import all pairs, which are complete, again."""
    return _import(task, stack, refresh=True)


def repositories(task: Task, stack: ExitStack) -> Run:
    """Import all pairs for the first time, out of their accounts' signed repositories."""
    run = _import(task, stack, refresh=False, source="repo")
    if not task.options.get("weigh"):
        return run
    did, pds = task.accounts[0]
    with httpx.stream("GET", f"{pds}/xrpc/com.atproto.sync.getRepo", params={"did": did}, timeout=120) as answer:
        size = sum(map(len, answer.iter_raw()))

    def weighed() -> Done:
        done = run()
        done.more["archive MB"] = size / 2**20
        return done

    return weighed


def _import(task: Task, stack: ExitStack, *, refresh: bool, source: Literal["list", "repo"] = "list") -> Run:
    importer = stack.enter_context(ImportService(settings_for(task), report=False, source=source))
    importer.import_pairs([])  # now connections and loop are there
    import_module("parity_dagster.atproto.transport")  # loaded late by the service, as is this
    import_module("parity_dagster.importing.importer")
    import_module("parity_dagster.importing.archives")
    pairs = [Pair(did, nsid) for did, nsid, _ in task.pairs]
    progress: list[tuple[float, int]] = []
    pages = fetched = 0

    def listen(event: ImportEvent) -> None:
        nonlocal pages, fetched
        if isinstance(event, ImportProgress):
            pages += 1
            if task.options.get("halves"):
                progress.append((time.perf_counter(), event.records_synced))
        elif isinstance(event, ImportCompleted):
            fetched += event.fetched

    def run() -> Done:
        began = time.perf_counter()
        results = importer.import_pairs(pairs, refresh=refresh, on_event=listen)
        failures = [result.error for result in results if not result.is_success]
        if failures:
            raise RuntimeError(f"{len(failures)} pairs failed, the first one: {failures[0]}")
        hosts = {pds for _, pds in task.accounts}
        # each account's revision is asked for once
        more: dict[str, object] = {"pairs read": fetched, "hosts": len(hosts), "requests": pages + len(task.accounts)}
        records = sum(result.records_synced for result in results)
        if progress:
            half = next(at for at, synced in progress if synced * 2 >= records)
            more["first half s"], more["second half s"] = half - began, progress[-1][0] - half
        return Done(records, pages, more)

    return run
