"""Several pages of one pair as one write of one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from operator import ge, le

from parity_dagster.atproto.pages import find_entries
from parity_dagster.errors import Reason
from parity_dagster.events import ImportProgress
from parity_dagster.importing.pair_task import FetchedPage, PairTask, WalkEnd
from parity_dagster.models import ImportState, ImportStatus
from parity_dagster.store.copy_text import Row
from parity_dagster.store.mapper_tables import MappedRow
from parity_dagster.store.writes import Counts, PageRow, PairWrite, fingerprint

Item = FetchedPage | WalkEnd


class PairBatch:
    """What a transaction takes of one pair: its pages in order, perhaps the end of its walk."""

    def __init__(self, task: PairTask) -> None:
        self.task = task
        self.items: list[FetchedPage] = []
        self.counts: list[Counts] = []
        state = task.claim.state
        self.write = PairWrite(
            state_id=state.id, did=task.did, collection=task.collection, position=task.saved, counts=task.counts,
            attempts=state.attempts, is_new_walk=False, is_counted=task.saved.pages == 0 or task.last_rkey is not None,
            is_direct=task.is_direct, is_fresh=task.claim.is_fresh, is_reread=task.claim.reread,
        )  # fmt: skip
        self._last_rkey = task.last_rkey
        self._rows: list[Row] = []
        self._mapped: dict[str, MappedRow] = {}

    @property
    def has_pages(self) -> bool:
        """Whether anything was read of the pair in this run."""
        return bool(self.items) or self.task.is_started

    def add(self, item: Item) -> None:
        """Take the pair's next item."""
        write = self.write
        if item.position.walk != write.position.walk:
            write.position, write.counts = item.position, Counts()
            write.is_new_walk, write.is_counted, self._last_rkey = True, True, None
            if item.position.walk > 1:  # what an earlier walk left in the table has to be met and, in the end, swept
                write.is_direct = write.is_fresh = self.task.is_direct = False
            write.page_rows.clear()
            write.failed_rows.clear()
            self._rows.clear()
            self._mapped.clear()
            self.items.clear()
            self.counts.clear()
        if isinstance(item, WalkEnd):
            write.ending, write.attempts = item.ending, item.attempts
            return
        self.items.append(item)
        rkeys = [row[0] for row in item.rows]
        self._check_order(rkeys, item)
        self._rows += item.rows
        for mapped in item.mapped:
            self._mapped[mapped.rkey] = mapped
        write.position = item.position
        write.failed_rows.extend((r.rkey, r.reason, r.detail, r.body) for r in item.failed)
        failed = [fingerprint(r.body) for r in item.failed]
        write.page_rows.append(PageRow(item.position.pages, rkeys, item.skipped, failed))
        write.counts = write.counts.plus(len(item.rows), len(item.skipped), len(item.failed))
        self.counts.append(write.counts)

    # I9
    def _check_order(self, rkeys: list[str], item: FetchedPage) -> None:
        """What descends all the way, or ascends as an archive does, holds nothing twice and need not be counted."""
        seen = rkeys if self._last_rkey is None else [self._last_rkey, *rkeys]
        is_out_of_order = le if item.position.source == "list" else ge
        if item.failed or item.skipped or any(map(is_out_of_order, seen, seen[1:])):
            self.write.is_counted = False
        self._last_rkey = seen[-1] if seen else None

    def close(self) -> None:
        """Decide what only the whole batch shows."""
        write = self.write
        if not write.is_counted:
            self._rows = list({row[0]: row for row in self._rows}.values())
        write.rows = list(self._rows)
        write.mapped = list(self._mapped.values())
        write.fetched = self.has_pages
        starts = 0 < write.position.pages == len(write.page_rows)
        if write.completes and write.is_fresh and write.position.walk == 1 and starts and write.is_counted:
            write.is_at_once = True
            write.page_rows.clear()

    @property
    def records(self) -> list[Row]:
        """Every record of the batch, those included that turned out to be stored already."""
        return self._rows

    def fail_records(self, bad: dict[str, str], reason: Reason) -> None:
        """Make failed records of rows that Postgres refuses."""
        if not bad:
            return
        write = self.write
        entries: dict[str, bytes] = {}
        for item in self.items:
            if met := bad.keys() & {row[0] for row in item.rows}:
                entries.update(find_entries(item.body, write.did, write.collection, met))
        for rkey, detail in bad.items():
            write.failed_rows.append((rkey, reason, detail, entries[rkey]))
        write.rows = [row for row in write.rows if row[0] not in bad]
        write.mapped = [row for row in write.mapped if row.rkey not in bad]
        write.page_rows = [
            row._replace(
                rkeys=[k for k in row.rkeys if k not in bad],
                failed=row.failed + [fingerprint(entries[k]) for k in row.rkeys if k in bad],
            )
            for row in write.page_rows
        ]
        write.counts = write.counts.plus(-len(bad), 0, len(bad))

    def committed(self) -> None:
        """The transaction went through: note on the task how far the pair has come."""
        task, write = self.task, self.write
        task.saved, task.counts = write.position, write.counts
        task.last_rkey = self._last_rkey if write.is_counted else None
        task.is_started = task.is_started or bool(self.items)

    def progress(self) -> list[ImportProgress]:
        """One event per page of the batch."""
        return [
            ImportProgress(self.task.did, self.task.collection, at.pds or "", at.cursor, at.pages, *counts)
            for at, counts in zip((item.position for item in self.items), self.counts, strict=True)
        ]

    def is_written_as(self, state: ImportState) -> bool:
        """Whether a row shows what this write would have made of it, so that the write went through."""
        write = self.write
        position = write.position
        return (
            write.ending is not None
            and state.importer_id is None
            and state.status in (ImportStatus.COMPLETED, ImportStatus.FAILED)
            and (state.walk, state.pages, state.cursor) == (position.walk, position.pages, position.cursor)
        )


def by_pair(items: Sequence[Item]) -> list[PairBatch]:
    """One batch per pair, each pair's items in the order they came."""
    batches: dict[int, PairBatch] = {}
    for item in items:
        key = item.task.claim.state.id
        if key not in batches:
            batches[key] = PairBatch(item.task)
        batches[key].add(item)
    for batch in batches.values():
        batch.close()
    return list(batches.values())
