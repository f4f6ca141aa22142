"""What a Dagster run writes down about the pairs it imports.

Dagster's own way, an output at the end of the step, would show nothing until the last pair is done and record
nothing at all if one pair fails. So events are written as pairs end, in batches: a completed pair is materialized,
a failed one is observed, each with its whole state row.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast, get_args

import dagster as dg

from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.dagster_instance.events import (
    ALREADY_RECORDED,
    BATCH_SIZE,
    batched,
    plan_partitions,
    write_without_run,
)
from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.errors import PairBusy, ParityError
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed
from parity_dagster.importing.listeners import RunListener
from parity_dagster.models import ImportResult, ImportState, ImportStatus, Pair, Source
from parity_dagster.orchestration.metadata import state_metadata
from parity_dagster.orchestration.partitions import unregistered_dids
from parity_dagster.orchestration.run_progress import RunProgress, saying
from parity_dagster.service import ImportService

REFRESH_TAG = "parity/refresh"
"""Run tag that asks for completed pairs to be read again, if its value is `true`."""

REREAD_TAG = "parity/reread"
"""Run tag that asks for pairs to be read from their start whatever their revision, if its value is `true`."""

SOURCE_TAG = "parity/source"
SOURCE_HELP = "what to read: list or repo (the signed repository in one request); PARITY_SOURCE if not given"
"""Of the run tag, and of the field in run configs."""


def materialization(state: ImportState) -> dg.AssetMaterialization:
    """The materialization that stands for a completed pair."""
    return dg.AssetMaterialization(
        asset_key=RECORDS_KEY, partition=to_partition_key(state.pair), metadata=state_metadata(state)
    )


def observation(state: ImportState) -> dg.AssetObservation:
    """The observation that stands for a failed or partial pair."""
    return dg.AssetObservation(
        asset_key=RECORDS_KEY,
        partition=to_partition_key(state.pair),
        metadata=state_metadata(state),
        description=state.error,
    )


def report_without_run(instance: dg.DagsterInstance, states: Iterable[ImportState]) -> None:
    """Write the events of pairs that ended outside of any run; their DIDs must be registered."""
    ended = list(states)
    withdraw_gone(instance, ended)
    write_without_run(
        instance,
        [materialization(state) for state in ended if state.status is ImportStatus.COMPLETED],
        [observation(state) for state in ended if state.status is not ImportStatus.COMPLETED],
    )


def withdraw_gone(instance: dg.DagsterInstance, states: Iterable[ImportState], run_id: str | None = None) -> None:
    """Let pairs of accounts that are gone not be red: red is what somebody can do something about."""
    keys = [str(to_partition_key(state.pair)) for state in states if state.is_gone]
    if keys and isinstance(instance.event_log_storage, ParityEventLogStorage):
        instance.event_log_storage.withdraw_plans(RECORDS_KEY, keys, run_id)


class StepRecorder(RunListener):
    """A listener that writes asset events of the running step, batch by batch.

    Args:
        progress: counts what is done.
        beyond: accounts that are no partitions, of which nothing is written.

    Attributes:
        written: what was written, for the step to yield so that callers in the same process see it too.
        seconds: wall-clock time from start to end of each pair that was walked.
        unread: pairs that were complete without reading anything.
    """

    def __init__(self, context: dg.OpExecutionContext, progress: RunProgress, beyond: Collection[str]) -> None:
        self._progress = progress
        self._beyond = beyond
        self._step = context.get_step_execution_context()
        self._completed: list[dg.AssetMaterialization] = []
        self._failed: list[dg.AssetObservation] = []
        self.written: list[dg.DagsterEvent] = []
        self._gone: list[ImportState] = []
        self.seconds: dict[Pair, float] = {}
        self.unread: set[Pair] = set()

    def __call__(self, event: ImportEvent) -> None:
        """Take note of an event; write what has piled up when it is a full batch."""
        self._progress(event)
        pair = Pair(event.did, event.collection)
        is_shown = event.did not in self._beyond
        if isinstance(event, ImportCompleted):
            if is_shown:
                self._completed.append(materialization(event.state))
            if not event.fetched:
                self.unread.add(pair)
        elif isinstance(event, ImportFailed) and event.state is not None and is_shown:
            self._failed.append(observation(event.state))
            if event.state.is_gone:
                self._gone.append(event.state)
        if isinstance(event, ImportCompleted | ImportFailed) and event.seconds is not None:
            self.seconds[pair] = event.seconds
        if len(self._completed) + len(self._failed) >= BATCH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write everything that has not been written yet; the service calls this every other second.

        What could not be written is kept for the next call: an event may be written twice, but never not at all.
        """
        if self._gone:
            # as soon as it is known, and before it is told: a run that is killed has failed with all that it planned
            withdraw_gone(self._step.instance, self._gone, self._step.run_id)
            self._gone.clear()
        while self._completed:
            self.written += [
                dg.DagsterEvent.asset_materialization(self._step, event, mark)
                for event, mark in batched(self._completed[:BATCH_SIZE])
            ]
            del self._completed[:BATCH_SIZE]
        while self._failed:
            self.written += [
                dg.DagsterEvent.asset_observation(self._step, event, mark)
                for event, mark in batched(self._failed[:BATCH_SIZE])
            ]
            del self._failed[:BATCH_SIZE]


def import_in_step(
    context: dg.OpExecutionContext,
    service: ImportService,
    pairs: Iterable[Pair],
    *,
    refresh: bool,
    reread: bool = False,
    source: str = "",
    refused: Sequence[ImportResult] = (),
    beyond: Collection[str] = (),
    is_planned: bool = True,
) -> Iterator[dg.DagsterEvent | dg.Output[None]]:
    """Import pairs within the running step and write down how each ended.

    Args:
        refresh: read completed pairs again; the run tag `parity/refresh: "true"` does the same.
        reread: read them whatever their revision, and correct what differs; the run tag `parity/reread: "true"` does
            the same.
        source: what to read, `list` or `repo`, what the service reads if empty; the run tag `parity/source` says it,
            too.
        refused: failed results of what was asked for besides and is not a pair at all.
        beyond: accounts that are no partitions, because there are `PARITY_PARTITION_LIMIT` of them.
        is_planned: whether Dagster knows already what the run is to materialize, because it is a run of the asset.

    Yields:
        The asset events, which are in the event log already, and the step's output with a summary.

    Raises:
        dagster.Failure: some pairs failed (it names them; the others are recorded), or nothing could run. Pairs of
            accounts that are gone fail no run.
    """
    refresh = refresh or context.run.tags.get(REFRESH_TAG, "").lower() == "true"
    reread = reread or context.run.tags.get(REREAD_TAG, "").lower() == "true"
    source = source or context.run.tags.get(SOURCE_TAG, "")
    if source not in ("", *get_args(Source)):
        raise dg.Failure(description=f"source is {source!r}; give list or repo", allow_retries=False)
    pairs = list(pairs)
    if not is_planned:
        shown = [pair for pair in pairs if pair.collection in service.settings.collections and pair.did not in beyond]
        keys = [str(to_partition_key(pair)) for pair in shown]
        plan_partitions(context.instance, context.run, context.get_step_execution_context().step.key, RECORDS_KEY, keys)
    began = time.monotonic()
    progress = RunProgress(len(pairs))
    recorder = StepRecorder(context, progress, beyond)
    results: list[ImportResult] | None = None
    is_refused = False
    try:
        with saying(context.log.info, progress):
            results = service.import_pairs(
                pairs,
                refresh=refresh,
                reread=reread,
                patience=service.settings.straggler_patience or None,
                source=cast("Source", source) or None,
                on_event=recorder,
            )
    except ParityError as exc:
        is_refused = True
        raise dg.Failure(description=str(exc), allow_retries=False) from None
    finally:
        if results is None and not is_refused:
            context.log.info(STOPPED)
        # also when the run is canceled: what is committed shows
        recorder.flush()
        if beyond:
            _show_named_since(context.instance, service, beyond)
    yield from recorder.written
    unshown = sum(result.did in beyond for result in results)
    report = RunReport([*results, *refused], time.monotonic() - began, recorder.seconds, recorder.unread, unshown)
    context.log.info(report.summary())
    if report.failed:
        raise dg.Failure(report.failure(), metadata=report.metadata(), allow_retries=False)
    yield dg.Output(None, metadata={**report.metadata(), ALREADY_RECORDED: True})


def _show_named_since(instance: dg.DagsterInstance, service: ImportService, beyond: Collection[str]) -> None:
    """Accounts that became partitions while the run wrote nothing of them, because somebody has named them."""
    without = set(unregistered_dids(instance, beyond))
    with suppress(ParityError):  # the check `state_equals_metadata` names them then
        service.show_in_dagster(did for did in beyond if did not in without)


STOPPED = (
    "This run was stopped; every committed page is kept. If somebody has canceled it, what it leaves waits until "
    "somebody asks for it: Re-execute, `parity import --resume`, `parity import DID`. Otherwise it is launched again "
    "by itself."
)

NAMED_ACCOUNTS = 5
"""Accounts that a message names of each error; the metadata names more."""

NAMED_COLLECTIONS = 2
"""Collections that it names of each, if there are no more."""

FAILED_PAIRS = "failed_pairs"
"""In a failed run's metadata: the pairs that failed, with their errors."""

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
    unshown: int = 0
    """Pairs whose accounts are no partitions."""

    @property
    def failed(self) -> list[ImportResult]:
        """Results of the pairs that are not complete now and should be."""
        return [result for result in self.results if not result.is_success and not result.is_gone]

    @property
    def gone(self) -> list[ImportResult]:
        """Results of the pairs that cannot be complete, because their accounts are gone."""
        return [result for result in self.results if result.is_gone]

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
                ("failed records", sum(result.records_failed for result in self._read)),
            )
            if count
        )
        unread = f", {len(self.unread):,} of them complete before" if self.unread else ""
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        gone = f", {len(self.gone):,} of accounts that are gone ({_codes(self.gone)})" if self.gone else ""
        unshown = f", {self.unshown:,} pairs without a partition (PARITY_PARTITION_LIMIT)" if self.unshown else ""
        done = sum(result.is_success for result in self.results)
        return (
            f"{done:,} of {len(self.results):,} pairs complete{unread}{failed}{gone}: "
            f"{synced:,} records synced{rest}{unshown} in {self.elapsed:.1f} s ({self._rate:,.0f} records/s)"
        )

    @property
    def _rate(self) -> float:
        return sum(result.records_synced for result in self._read) / max(self.elapsed, 1e-3)

    def failure(self) -> str:
        """Why the run failed: which pairs, by error, and what becomes of them."""
        by_code: defaultdict[str, list[ImportResult]] = defaultdict(list)
        for result in self.failed:
            by_code[result.error_code or "unknown"].append(result)
        said = [
            f"{len(self.failed):,} of {len(self.results):,} pairs failed, the others are recorded"
            + (f" ({len(self.gone):,} of accounts that are gone: {_codes(self.gone)})" if self.gone else ""),
            *(_group(code, by_code[code]) for code in sorted(by_code, key=lambda code: -len(by_code[code]))),
        ]
        if by_code.keys() - {PairBusy.code}:
            said.append(
                "`parity import-status --failed` lists what failed, `parity import --resume` tries it again now"
            )
        return ".\n".join(said) + "."

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """Counts that Dagster can plot, and the pairs worth a look."""
        read = self._read
        metadata: dict[str, dg.MetadataValue] = {
            "pairs": dg.MetadataValue.int(len(self.results)),
            "pairs_failed": dg.MetadataValue.int(len(self.failed)),
            "pairs_gone": dg.MetadataValue.int(len(self.gone)),
            "pairs_complete_before": dg.MetadataValue.int(len(self.unread)),
            "records_synced": dg.MetadataValue.int(sum(result.records_synced for result in read)),
            "records_skipped": dg.MetadataValue.int(sum(result.records_skipped for result in read)),
            "records_failed": dg.MetadataValue.int(sum(result.records_failed for result in read)),
            "seconds": dg.MetadataValue.float(round(self.elapsed, 3)),
            "records_per_second": dg.MetadataValue.float(round(self._rate, 1)),
        }
        if self.unshown:
            metadata["pairs_without_partition"] = dg.MetadataValue.int(self.unshown)
        if self.seconds:
            slowest = sorted(self.seconds.items(), key=lambda item: item[1], reverse=True)[:SLOWEST_PAIRS]
            metadata["slowest_pairs"] = dg.MetadataValue.table(
                [
                    dg.TableRecord({"partition": str(to_partition_key(pair)), "seconds": round(seconds, 3)})
                    for pair, seconds in slowest
                ]
            )
        for name, results in ((FAILED_PAIRS, self.failed), ("gone_pairs", self.gone)):
            if results:
                metadata[name] = dg.MetadataValue.table([_row(result) for result in results[:LISTED_PAIRS]])
        return metadata


def _key(result: ImportResult) -> str:
    # a result may be about something that is no DID at all, which no partition key can spell
    return f"{result.collection}|{result.did}"


def _row(result: ImportResult) -> dg.TableRecord:
    return dg.TableRecord(
        {"partition": _key(result), "error_code": result.error_code or "", "error": _said(result)[:_ERROR_LENGTH]}
    )


def _codes(results: Sequence[ImportResult]) -> str:
    counted = Counter(result.error_code or "unknown" for result in results)
    return ", ".join(f"{code} {count:,}" for code, count in counted.most_common())


def _group(code: str, results: Sequence[ImportResult]) -> str:
    """Pairs that failed alike: how many, of which accounts, and what was said of the first."""
    collections: defaultdict[str, list[str]] = defaultdict(list)
    for result in results:
        collections[result.did].append(result.collection)
    named = [
        f"{did} ({', '.join(nsids)})" if len(nsids) <= NAMED_COLLECTIONS else f"{did} ({len(nsids)} collections)"
        for did, nsids in list(collections.items())[:NAMED_ACCOUNTS]
    ]
    more = f" and {len(collections) - NAMED_ACCOUNTS:,} more" if len(collections) > NAMED_ACCOUNTS else ""
    pairs = "1 pair" if len(results) == 1 else f"{len(results):,} pairs"
    accounts = "1 account" if len(collections) == 1 else f"{len(collections):,} accounts"
    return f"{code}, {pairs} of {accounts}: {', '.join(named)}{more}: {_said(results[0])[:_ERROR_LENGTH].rstrip('.')}"


def _said(result: ImportResult) -> str:
    return result.error or "not completed"
