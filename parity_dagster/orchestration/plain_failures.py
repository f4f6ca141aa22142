"""Errors as the UI should show them: one sentence that names the cure, without a stack trace.

What lives here: the one conversion that assets and checks share. What must not: deciding what an error is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from parity_dagster.errors import ParityError


@contextmanager
def plain_failures() -> Iterator[None]:
    """Turn the package's own errors into failed steps that say what to do.

    Raises:
        dagster.Failure: in place of a `ParityError`.
    """
    try:
        yield
    except ParityError as exc:
        raise dg.Failure(description=str(exc), allow_retries=False) from None
