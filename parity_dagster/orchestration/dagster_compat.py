"""Our failures as Dagster's, which of its runs are under way, and its notices that a part is "beta" unsaid: an operator
can do nothing about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from parity_dagster.errors import ParityError

_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in _ENDED]
"""Of runs that may still write events."""


@contextmanager
def plain_failures() -> Iterator[None]:
    """Turn the package's own errors into failed steps (`dagster.Failure`) that say what to do."""
    try:
        yield
    except ParityError as exc:
        raise dg.Failure(description=str(exc), allow_retries=False) from None


@contextmanager
def beta_parts() -> Iterator[None]:
    """Use parts of Dagster that may still change; this package pins the versions it was tested with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        yield
