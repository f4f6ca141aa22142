"""The form of import results: rows, summary, JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from parity_dagster.cli.output import Column, plural, seconds_text, write_table
from parity_dagster.errors import CollectionNotRegistered, HandleNotFound, InvalidIdentifier
from parity_dagster.models import ImportResult

_COLUMNS = (
    Column("did", 32),
    Column("collection", 22),
    Column("status", 10),
    Column("synced", 9, right=True),
    Column("skipped", 7, right=True, spare=2),
    Column("failed", 6, right=True, spare=1),
    Column("error", 5, wraps=True),
)

_MOST_RESULTS = 50
"""Rows after which only the failed ones are printed."""

# these never got a row, so there is nothing to go on with
_NOTHING_TO_RESUME = {CollectionNotRegistered.code, HandleNotFound.code, InvalidIdentifier.code}


def result_object(result: ImportResult) -> dict[str, object]:
    """A result as the JSON object that `--json` prints."""
    return {**dataclasses.asdict(result), "status": status_word(result)}


def status_word(result: ImportResult) -> str:
    """One word for how an import ended: `completed`, `failed`, or `in_progress` if it was left midway."""
    if result.is_failed:
        return "failed"
    return "completed" if result.completed else "in_progress"


def print_results(results: Sequence[ImportResult]) -> None:
    """Print one row per result, or only the failed ones if there are many."""
    shown = results
    if len(results) > _MOST_RESULTS:
        shown = [result for result in results if not result.is_success][:_MOST_RESULTS]
    write_table(
        _COLUMNS,
        (
            (
                result.did,
                result.collection,
                status_word(result),
                f"{result.records_synced:,}",
                f"{result.records_skipped:,}",
                f"{result.records_failed:,}",
                result.error or "",
            )
            for result in shown
        ),
    )


def summary(
    results: Sequence[ImportResult], seconds: float, unread: int = 0, verified: int = 0, *, refreshed: bool = False
) -> str:
    """Say in a few lines what an import did and what to do next; `unread` pairs were complete and not read."""
    done = sum(result.is_success for result in results)
    total = ImportResult.aggregate("*", results)
    others = "".join(
        f", {count:,} {word}"
        for count, word in ((total.records_skipped, "skipped"), (total.records_failed, "failed"))
        if count
    )
    lines = [
        f"{done:,} of {plural(len(results), 'import')} complete: {plural(total.records_synced, 'record')}"
        f"{others}, {seconds_text(seconds)}"
    ]
    if verified:
        lines.append(f"{verified:,} of them verified by their accounts' signatures.")
    if unread:
        hint = "" if refreshed else "; --refresh asks their servers for changes"
        lines.append(f"Nothing new to read in {unread:,} of them{hint}.")
    if gone := sum(result.is_gone for result in results):
        lines.append(f"{plural(gone, 'import')} of accounts that are gone: deactivated, deleted or the like.")
    failed = [result for result in results if not result.is_success]
    if len(results) > _MOST_RESULTS and len(failed) > _MOST_RESULTS:
        lines.append(f"{len(failed) - _MOST_RESULTS:,} more failed: `parity import-status --failed`")
    if any(result.error_code not in _NOTHING_TO_RESUME and not result.is_gone for result in failed):
        lines.append("`parity import --resume` tries what failed again.")
    if total.records_failed:
        lines.append("`parity failed-records` lists the records that could not be stored.")
    return "\n".join(lines)
