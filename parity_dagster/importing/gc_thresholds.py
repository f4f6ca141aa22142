"""Thresholds of Python's garbage collector while something is imported."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 100)
"""An import makes hundreds of objects per page, none of them in cycles, and frees them soon; looking for garbage after
every 700 of them costs a tenth of the importing process's CPU time (benchmark `wide`), after so many a hundredth."""

_lock = threading.Lock()
_users = 0
_before: tuple[int, int, int] = gc.get_threshold()


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Collect less often inside; the process's own thresholds are back when its last import has ended."""
    global _users, _before
    with _lock:
        if not _users:
            _before = gc.get_threshold()
            if _before[0]:  # 0 means that somebody switched the collector off, which stays so
                gc.set_threshold(*THRESHOLDS)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                gc.set_threshold(*_before)
