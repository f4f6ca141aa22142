"""Who is told about an import.

What lives here: telling listeners without letting one of them break an import, and finding those that are installed
as plugins. What must not: any particular listener.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from parity_dagster.errors import SettingsError
from parity_dagster.importing.events import ImportEvent, Listener

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "parity_dagster.listeners"


class Audience:
    """The listeners of one call."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def tell(self, event: ImportEvent) -> None:
        """Call every listener; one that raises is logged and stays a listener.

        Args:
            event: what happened.
        """
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("listener %r failed on %s", listener, type(event).__name__)

    def flush(self) -> None:
        """Let listeners that collect events (those with a `flush` method) deliver them."""
        for listener in self._listeners:
            flush = getattr(listener, "flush", None)
            if flush is None:
                continue
            try:
                flush()
            except Exception:
                logger.exception("listener %r failed to deliver", listener)


@cache
def named_listeners() -> tuple[Listener, ...]:
    """The listeners that installed packages bring.

    Returns:
        What the entry points of the group `parity_dagster.listeners` name.

    Raises:
        SettingsError: one cannot be loaded.
    """
    found = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found.append(entry.load())
        except Exception as exc:
            raise SettingsError(
                f"the listener {entry.value} cannot be loaded: {exc}; correct or uninstall the package that names it"
            ) from exc
    return tuple(found)
