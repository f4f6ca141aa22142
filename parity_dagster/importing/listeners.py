"""Who hears of an import: listeners of a call, of the settings, and of installed packages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from parity_dagster.errors import ParityError, SettingsError
from parity_dagster.events import ImportEvent, Listener
from parity_dagster.settings import load_object

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "parity_dagster.listeners"
"""Listeners that installed packages bring; called for every import, in Dagster runs, too."""


class RunListener:
    """A listener by which a Dagster run writes down itself how its pairs end: nobody else reports what it was told."""


class Listeners:
    """The listeners of one call."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def notify(self, event: ImportEvent) -> None:
        """Call every listener; one that raises is logged and stays a listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("listener %r failed on %s", listener, type(event).__name__)

    def flush(self) -> bool:
        """Let listeners that collect events (those with a `flush` method) deliver them."""
        is_delivered = True
        for listener in self._listeners:
            flush = getattr(listener, "flush", None)
            if flush is None:
                continue
            try:
                flush()
            except ParityError as exc:
                is_delivered = False
                logger.warning("%s", exc)
            except Exception:
                is_delivered = False
                logger.exception("listener %r failed to deliver", listener)
        return is_delivered


@cache
def installed_listeners() -> tuple[Listener, ...]:
    """The listeners that installed packages bring; raises `SettingsError` if one cannot be loaded."""
    found: list[Listener] = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found.append(entry.load())
        except Exception as exc:
            raise SettingsError(
                f"the listener {entry.value} cannot be loaded: {exc}; correct or uninstall the package that names it"
            ) from exc
    return tuple(found)


@cache
def named_listeners(names: tuple[str, ...]) -> tuple[Listener, ...]:
    """The listeners that `PARITY_LISTENERS` names, each a `package.module:function`."""
    found: list[Listener] = []
    for name in names:
        listener = load_object("PARITY_LISTENERS", name)
        if not callable(listener):
            raise SettingsError(f"PARITY_LISTENERS: {name} is not a function")
        found.append(listener)
    return tuple(found)
