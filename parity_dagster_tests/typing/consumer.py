"""What an application writes against the public API; checked with `mypy --strict`, and run, by test_public_api."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from parity_dagster import (
    HandleNotFound,
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    ImportResult,
    ImportService,
    ImportStarted,
    ImportState,
    ImportStatus,
    ImportUserJob,
    Listener,
    LiveRecord,
    Pair,
    ParityError,
    QueuedImport,
    RecordMapper,
    Settings,
    SourceRecord,
    load_settings,
)


class Posts(RecordMapper):
    """A mapper of the application's own."""

    collection = "app.bsky.feed.post"
    table = "my_posts"
    columns = ("text",)

    def should_import(self, record: SourceRecord) -> bool:
        """Only what has a text."""
        return isinstance(record.value.get("text"), str)

    def to_row(self, record: SourceRecord) -> Mapping[str, Any]:
        """One column."""
        return {"text": record.value["text"]}


def describe(event: ImportEvent) -> str:
    """Every event, told apart by its type."""
    if isinstance(event, ImportStarted):
        return f"reading from {event.pds} at {event.cursor or 'the start'}"
    if isinstance(event, ImportProgress):
        return f"{event.records_synced + 0} records on {event.pages} pages"
    if isinstance(event, ImportCompleted):
        result: ImportResult = event.result
        return f"{result.records_synced} records, {event.state.status.value}"
    failed: ImportFailed = event
    return f"{failed.error_code}: {failed.error}"


def main(did: str) -> int:
    """Use every part once."""
    settings: Settings = load_settings(page_size=50)
    told: list[str] = []

    def listen(event: ImportEvent) -> None:
        told.append(describe(event))

    listeners: list[Listener] = [listen]
    with ImportService(settings, listeners, report=False) as service:
        try:
            account: str = service.resolve(did)
        except HandleNotFound as exc:
            return len(exc.code)
        result = service.import_user(account, None, lambda progress: told.append(progress.collection))
        assert result.is_success
        assert not result.is_partial
        assert not result.is_failed
        results: list[ImportResult] = service.import_pairs([Pair(account, settings.collections[0])])
        state: ImportState | None = service.get_status(account, settings.collections[0])
        assert state is not None
        assert state.status is ImportStatus.COMPLETED
        assert not state.can_resume
        rev: str = state.rev or ""
        uri = f"at://{account}/{settings.collections[0]}/3zzzzzzzzzz2a"
        record = LiveRecord(uri=uri, rev="3zzzzzzzzzz2b", cid=None, value={"text": "live"})
        written: int = service.upsert_records([record])
        is_gone: bool = service.delete_record(uri, "3zzzzzzzzzz2c")
        forgotten: int = service.reset(account, settings.collections[0])
        queued: QueuedImport = ImportUserJob.dispatch(account, settings.collections[0], settings=settings)
        status: ImportStatus = queued.status()
    print(len(results), bool(rev), written, is_gone, forgotten, status, len(told) > 3)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except ParityError as error:
        sys.exit(f"{error.code}: {error}")
