"""Importing processes to be killed: forked from one that has loaded everything, so that each begins at once."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event

from parity_dagster.models import Pair
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [__name__, *(f"parity_dagster.{name}" for name in ("importing.importer", "importing.discovery", "atproto.http"))]
)


def start_import(
    settings: Settings, pairs: Sequence[tuple[str, str]], *, refresh: bool = False
) -> tuple[ForkServerProcess, Event]:
    """Start a process that imports pairs; returns it, and what it sets with its first event."""
    begun = _processes.Event()
    process = _processes.Process(target=_import_all, args=(settings, [tuple(pair) for pair in pairs], refresh, begun))
    process.start()
    return process, begun


def start_refresh(settings: Settings) -> ForkServerProcess:
    """Start a process that looks for stale copies once."""
    process = _processes.Process(target=_refresh, args=(settings,))
    process.start()
    return process


def _refresh(settings: Settings) -> None:
    logging.disable()
    with ImportService(settings, report=False) as service:
        service.refresh_stale()


def start_discovery(settings: Settings, nsid: str) -> ForkServerProcess:
    """Start a process that queues the accounts of a collection."""
    process = _processes.Process(target=_discover, args=(settings, nsid))
    process.start()
    return process


def _discover(settings: Settings, nsid: str) -> None:
    logging.disable()
    with ImportService(settings, report=False) as service:
        service.discover([nsid])


def _import_all(settings: Settings, pairs: list[tuple[str, str]], refresh: bool, begun: Event) -> None:
    logging.disable()
    with ImportService(settings, report=False) as service:
        service.import_pairs([Pair(*pair) for pair in pairs], refresh=refresh, on_event=lambda event: begun.set())
