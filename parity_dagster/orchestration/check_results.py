"""What the checks share: their run config, which pairs they look at, and how they tell what they found.

What lives here: config, scope, connection, and the form of a result. What must not: any particular check (`checks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import dagster as dg
from pydantic import Field

from parity_dagster.importing.models import Pair
from parity_dagster.orchestration.markdown import table
from parity_dagster.orchestration.partitions import RECORDS_KEY
from parity_dagster.orchestration.plain_failures import plain_failures
from parity_dagster.settings import Settings
from parity_dagster.store.comparing import Comparer
from parity_dagster.store.database import connect

LISTED = 100
"""Rows that a check's tables show."""


class AuditConfig(dg.Config):
    """Run config of `sample_audit`."""

    accounts: int = Field(5, ge=1, le=1000, description="accounts read again")
    max_pages: int = Field(100, ge=1, description="pages read of each of their pairs")
    seed: int = Field(0, description="of the draw; 0 draws anew each time")


class SuspectsConfig(dg.Config):
    """Run config of `no_suspicious_copies`."""

    seconds: int = Field(60, ge=1, description="how long to look; the next execution begins at another account")


class FreshnessConfig(dg.Config):
    """Run config of `import_freshness`."""

    stuck_minutes: int = Field(60, ge=1, description="how long a pair may wait, or be in progress, without a change")
    stale_days: int = Field(30, ge=1, description="how old the last complete reading of a pair may be")


def scope(context: dg.AssetCheckExecutionContext) -> str | None:
    """Which pairs a check looks at.

    Args:
        context: the running check.

    Returns:
        The run's id if the run also imports; None for all pairs.
    """
    selected = context.run.asset_selection
    is_import = selected is not None and RECORDS_KEY in selected
    has_partition = any(key.startswith(("dagster/partition", "dagster/asset_partition")) for key in context.run.tags)
    return context.run.run_id if is_import or has_partition else None


@contextmanager
def comparer(settings: Settings, run_id: str | None) -> Iterator[Comparer]:
    """A comparer on a connection of its own.

    Args:
        settings: the database.
        run_id: see `scope`.
    """
    with plain_failures(), closing(connect(settings, autocommit=True)) as conn:
        yield Comparer(conn, settings.state_table, run_id)


def result(
    run_id: str | None,
    *,
    passed: bool,
    said: str,
    headings: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **numbers: int | float,
) -> dg.AssetCheckResult:
    """A check's outcome.

    Args:
        run_id: see `scope`.
        passed: whether all is well.
        said: what was found, and what to do about it.
        headings: of the table of what is wrong.
        rows: of that table.
        severity: how bad it is, if it is.
        numbers: plotted by the UI.

    Returns:
        The result with the table in its metadata.
    """
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(value)
        for name, value in numbers.items()
    }
    metadata["looked_at"] = dg.MetadataValue.text("what this run has read" if run_id else "everything")
    if rows:
        shown = table(headings, rows[:LISTED], len(rows) - LISTED)
        metadata["found"] = dg.MetadataValue.md(shown)
    return dg.AssetCheckResult(passed=passed, description=said, metadata=metadata, severity=severity)


def named(pairs: Sequence[Pair], most: int = 3) -> str:
    """Pairs for a sentence.

    Args:
        pairs: some.
        most: how many are named.

    Returns:
        Partition keys, and how many more there are.
    """
    names = ", ".join(f"{pair.collection}|{pair.did}" for pair in pairs[:most])
    return names + (f" and {len(pairs) - most:,} more" if len(pairs) > most else "")
