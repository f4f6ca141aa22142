"""Whether and when something that failed is tried again: a pair, a handle of a list, and what a run left behind."""

from __future__ import annotations

from parity_dagster.errors import AccountUnavailable, Interrupted, ParityError, RateLimited
from parity_dagster.settings import Settings
from parity_dagster.store.writes import Ending

LONGEST_WAIT = 3600.0
"""Seconds after which what a run left behind, because it died, is given to another one, at the latest."""

MAX_ERROR_TEXT = 500
"""Characters of an error kept on the row."""


def unexpected(error: Exception) -> ParityError:
    """What nobody foresaw, as an error of the one account or pair that it came from.

    Args:
        error: anything.
    """
    return ParityError(f"unexpected {type(error).__name__}: {error}")


def next_try(error: ParityError, attempts: int, settings: Settings) -> tuple[float | None, int]:
    """Decide whether and when something that failed is tried again.

    Args:
        error: what happened.
        attempts: failed tries before this one.
        settings: `retry_attempts` and `retry_delay` are read.

    Returns:
        Seconds until the next try, None if there is none; and the failed tries including this one if it counts.
    """
    if isinstance(error, RateLimited):
        # Being asked to come back later is not a failed try.
        return error.retry_after, attempts
    if isinstance(error, Interrupted) and error.has_progress:
        # Nor is getting on: a very large account is complete after several runs.
        return settings.retry_delay, attempts
    attempts += 1
    if error.retryable and attempts < settings.retry_attempts:
        return settings.retry_delay * 2 ** (attempts - 1), attempts
    return None, attempts


def pause_after_run(failures: int, settings: Settings) -> float:
    """Seconds until what a run was to do is asked for again: at once, then after pauses that grow.

    Pairs of a batch have no such number; `store.queue.dissolve_batch` lets them wait as long as they have waited.
    """
    return min(settings.retry_delay * (2.0 ** min(failures, 20) - 1), LONGEST_WAIT)


def after_failure(error: ParityError, attempts: int, settings: Settings) -> tuple[Ending, int]:
    """Decide what becomes of a pair whose walk ended with an error.

    Args:
        error: what happened.
        attempts: failed tries before this one.
        settings: `retry_attempts` and `retry_delay` are read.

    Returns:
        The ending to write, and the number of failed tries including this one if it counts.
    """
    retry_in, attempts = next_try(error, attempts, settings)
    text = str(error)
    if len(text) > MAX_ERROR_TEXT:
        text = text[: MAX_ERROR_TEXT - 1] + "…"
    return Ending(
        error=text,
        error_code=error.code,
        retry_in=retry_in,
        deactivate=isinstance(error, AccountUnavailable),
    ), attempts
