"""What a run did, in numbers and in words.

What lives here: the summary on a run's page in the UI, and the message of a run that failed. What must not:
writing asset events (`recording`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from parity_dagster.importing.models import ImportResult, Pair
from parity_dagster.orchestration.partitions import to_partition_key

NAMED_PAIRS = 10
"""Failed pairs that a message names one by one; the metadata names more."""

LISTED_PAIRS = 1000
"""Failed pairs that the metadata lists, at most."""

SLOWEST_PAIRS = 5
"""Slowest pairs that the metadata lists."""

_ERROR_LENGTH = 200


@dataclass(frozen=True)
class RunReport:
    """The outcome of a list of pairs."""

    results: Sequence[ImportResult]
    """One per pair."""
    elapsed: float
    """Wall-clock seconds of the whole list."""
    seconds: Mapping[Pair, float] = field(default_factory=dict)
    """Wall-clock seconds of each pair that was walked."""
    unread: Collection[Pair] = ()
    """Pairs of which nothing had to be read, because they were complete."""

    @property
    def failed(self) -> list[ImportResult]:
        """Results of the pairs that are not complete now."""
        return [result for result in self.results if not result.is_success]

    @property
    def _read(self) -> list[ImportResult]:
        return [result for result in self.results if Pair(result.did, result.collection) not in self.unread]

    def summary(self) -> str:
        """One line with counts and rate."""
        synced = sum(result.records_synced for result in self._read)
        rest = "".join(
            f", {count:,} {word}"
            for word, count in (
                ("skipped", sum(result.records_skipped for result in self._read)),
                ("dead-lettered", sum(result.records_failed for result in self._read)),
            )
            if count
        )
        unread = f", {len(self.unread):,} of them complete before" if self.unread else ""
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        return (
            f"{len(self.results) - len(self.failed):,} of {len(self.results):,} pairs complete{unread}{failed}: "
            f"{synced:,} records synced{rest} in {self.elapsed:.1f} s ({self._rate:,.0f} records/s)"
        )

    @property
    def _rate(self) -> float:
        return sum(result.records_synced for result in self._read) / max(self.elapsed, 1e-3)

    def failure(self) -> str:
        """Why the run failed: which pairs, and what becomes of them."""
        named = "; ".join(
            f"{_key(result)}: {(result.error or 'not completed')[:_ERROR_LENGTH]}"
            for result in self.failed[:NAMED_PAIRS]
        )
        more = f"; and {len(self.failed) - NAMED_PAIRS:,} more" if len(self.failed) > NAMED_PAIRS else ""
        return (
            f"{len(self.failed):,} of {len(self.results):,} pairs failed, the others are recorded. {named}{more}. "
            "`parity import-status --failed` lists them, `parity import --resume` tries them again now."
        )

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """Counts that Dagster can plot, and the pairs worth a look."""
        read = self._read
        metadata: dict[str, dg.MetadataValue] = {
            "pairs": dg.MetadataValue.int(len(self.results)),
            "pairs_failed": dg.MetadataValue.int(len(self.failed)),
            "pairs_complete_before": dg.MetadataValue.int(len(self.unread)),
            "records_synced": dg.MetadataValue.int(sum(result.records_synced for result in read)),
            "records_skipped": dg.MetadataValue.int(sum(result.records_skipped for result in read)),
            "records_failed": dg.MetadataValue.int(sum(result.records_failed for result in read)),
            "seconds": dg.MetadataValue.float(round(self.elapsed, 3)),
            "records_per_second": dg.MetadataValue.float(round(self._rate, 1)),
        }
        if self.seconds:
            slowest = sorted(self.seconds.items(), key=lambda item: item[1], reverse=True)[:SLOWEST_PAIRS]
            metadata["slowest_pairs"] = dg.MetadataValue.table(
                [
                    dg.TableRecord({"partition": str(to_partition_key(pair)), "seconds": round(seconds, 3)})
                    for pair, seconds in slowest
                ]
            )
        if self.failed:
            metadata["failed_pairs"] = dg.MetadataValue.table(
                [
                    dg.TableRecord(
                        {
                            "partition": _key(result),
                            "error_code": result.error_code or "",
                            "error": (result.error or "not completed")[:_ERROR_LENGTH],
                        }
                    )
                    for result in self.failed[:LISTED_PAIRS]
                ]
            )
        return metadata


def _key(result: ImportResult) -> str:
    # a result may be about something that is no DID at all, which no partition key can spell
    return f"{result.collection}|{result.did}"
