"""The inbox: lists of accounts dropped into a folder become imports, and the asset `did_lists` tells how.

What lives here: the asset, one look at the folder, and what the UI shows of each list. What must not: reading a
list (`inbox_reading`), the folder itself (`inbox_files`), or the sensor's definition (`sensors`).
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

from parity_dagster.inbox.files import (
    FileChanged,
    Found,
    find_lists,
    printable,
    report_name,
)
from parity_dagster.inbox.progress import ListProgress, Stage, dump_cursor, load_cursor
from parity_dagster.inbox.reading import ListReader
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect

DID_LISTS_KEY = dg.AssetKey(["did_lists"])
"""The asset whose events are the lists that were dropped."""

TICK_SECONDS = 20.0
"""Time for one look; Dagster gives a tick 60 seconds, of which a slow database may need some."""

QUIET = 2.0
"""Seconds for which a file must not change before it is read."""

LISTED_FILES = 100
"""Files in the table that each event shows."""

DESCRIPTION = """
Lists of accounts (`*.txt`, one DID or handle per line) that were dropped into the inbox, the folder `PARITY_INBOX`.

Every list that was read is a materialization, every one that cannot be read an observation that says why. A list
is read again when it changes; what is known already is not imported twice.
"""

did_lists = dg.AssetSpec(
    key=DID_LISTS_KEY,
    description=DESCRIPTION,
    group_name="atproto",
    kinds={"file"},
    owners=["team:parity"],
)
"""The asset; other modules link to its key."""


class Look(NamedTuple):
    """What came of one look at the inbox."""

    cursor: str
    events: list[dg.AssetMaterialization | dg.AssetObservation]
    summary: str
    """One line for the tick's page."""


def look_into_inbox(
    instance: dg.DagsterInstance, settings: Settings, cursor: str | None, *, seconds: float = TICK_SECONDS
) -> Look:
    """Read what was dropped, as far as the time allows; the next look goes on.

    Args:
        instance: where accounts become partitions.
        settings: `inbox` and `collections`, among others.
        cursor: of the look before.
        seconds: after which nothing new is begun.

    Returns:
        What to remember and what to show.

    Raises:
        OSError: there is no folder to look into.
        DatabaseError: Postgres failed; the next look repeats this one.
    """
    deadline = time.monotonic() + seconds
    before = load_cursor(cursor)
    found = find_lists(settings.inbox)
    progress = {entry.name: _progress_of(entry, before.get(entry.name)) for entry in found}
    ended: list[str] = []
    reading: list[str] = []
    due = [entry for entry in found if _is_due(entry, progress[entry.name])]
    # what is partly read comes first, so that a stream of small lists cannot hold up a long one, or it them
    due.sort(key=lambda entry: (progress[entry.name].stage is not Stage.READING, progress[entry.name].first_seen))
    if due:
        ends = {entry.name: progress[entry.name].ended for entry in due}
        with closing(connect(settings, autocommit=True)) as connection:
            reader = ListReader(instance, connection, settings, deadline)
            for turn, entry in enumerate(due):
                earlier = progress[entry.name]
                if turn == 0 or not reader.is_out_of_time:  # however little time there is, something is done
                    progress[entry.name] = _read(reader, entry, earlier)
                now = progress[entry.name]
                if now.stage is Stage.REFUSED or (now.stage is Stage.DONE and now.ended != ends[entry.name]):
                    ended.append(entry.name)
                elif now.stage is Stage.READING:
                    reading.append(entry.name)
    events = [_event(name, progress[name], _overview(progress)) for name in ended]
    return Look(dump_cursor(progress), events, _summary(progress, ended, reading))


def _progress_of(found: Found, before: ListProgress | None) -> ListProgress:
    if before is None:
        return ListProgress(found.signature)
    if before.signature == found.signature:
        return before
    if before.stage is Stage.REFUSED and before.problem == found.problem:
        return replace(before, signature=found.signature)  # told already
    return before.changed(found.signature)


def _is_due(found: Found, progress: ListProgress) -> bool:
    if progress.stage in (Stage.DONE, Stage.REFUSED):
        return False
    if progress.stage is Stage.READING or found.problem is not None:
        return True
    # the clock of a file may be wrong, so having looked twice is as good as an old file
    now = time.time()
    age = now - found.signature.mtime_ns / 1e9
    return age >= QUIET or now - progress.first_seen >= QUIET


def _read(reader: ListReader, found: Found, progress: ListProgress) -> ListProgress:
    if found.problem is not None:
        return replace(progress, stage=Stage.REFUSED, problem=found.problem)
    try:
        return reader.read(found, progress)
    except FileChanged:
        return replace(progress, first_seen=time.time())
    except FileNotFoundError:
        return progress
    except OSError as exc:
        return replace(progress, stage=Stage.REFUSED, problem=f"it cannot be read: {exc.strerror}")


# What the UI shows.


def _event(
    name: str, progress: ListProgress, overview: dg.TableMetadataValue
) -> dg.AssetMaterialization | dg.AssetObservation:
    metadata: dict[str, dg.MetadataValue] = {"file": dg.MetadataValue.text(printable(name))}
    if progress.problem:
        metadata["problem"] = dg.MetadataValue.text(progress.problem)
    if progress.stage is Stage.REFUSED:
        metadata["files"] = overview
        return dg.AssetObservation(
            DID_LISTS_KEY, description=f"{printable(name)} was not read: {progress.problem}.", metadata=metadata
        )
    metadata |= {
        "lines": dg.MetadataValue.int(progress.position.line),
        "accounts": dg.MetadataValue.int(progress.accounts),
        "new_accounts": dg.MetadataValue.int(progress.new_accounts),
        "new_imports": dg.MetadataValue.int(progress.new_imports),
        "invalid_lines": dg.MetadataValue.int(progress.invalid),
        "bytes": dg.MetadataValue.int(progress.signature.size),
    }
    if progress.samples:
        metadata["invalid"] = dg.MetadataValue.table(
            [dg.TableRecord({"line": line, "problem": problem}) for line, problem in progress.samples]
        )
    if progress.report_bytes:
        metadata["report"] = dg.MetadataValue.text(printable(report_name(name)))
    metadata["files"] = overview
    return dg.AssetMaterialization(DID_LISTS_KEY, description=_sentence(name, progress), metadata=metadata)


def _sentence(name: str, progress: ListProgress) -> str:
    invalid = f"; {progress.invalid:,} invalid lines" if progress.invalid else ""
    return (
        f"{printable(name)}: {progress.accounts:,} accounts on {progress.position.line:,} lines, "
        f"{progress.new_accounts:,} of them new, {progress.new_imports:,} imports queued{invalid}."
    )


def _overview(progress: dict[str, ListProgress]) -> dg.TableMetadataValue:
    newest = sorted(progress.items(), key=lambda item: item[1].ended or item[1].first_seen, reverse=True)
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "file": printable(name),
                    "outcome": state.stage.value,
                    "accounts": state.accounts,
                    "new_imports": state.new_imports,
                    "invalid_lines": state.invalid,
                    "read_at": datetime.fromtimestamp(state.ended, UTC).isoformat(timespec="seconds")
                    if state.ended
                    else "",
                    "problem": state.problem,
                }
            )
            for name, state in newest[:LISTED_FILES]
        ]
    )


def _summary(progress: dict[str, ListProgress], ended: list[str], reading: list[str]) -> str:
    parts = [
        f"{printable(name)} was not read: {progress[name].problem}."
        if progress[name].stage is Stage.REFUSED
        else _sentence(name, progress[name])
        for name in ended[:10]
    ]
    if len(ended) > 10:
        parts.append(f"{len(ended) - 10:,} more lists were read.")
    for name in reading[:10]:
        state = progress[name]
        share = state.position.offset / max(state.signature.size, 1)
        handles = f", {len(state.handles):,} handles wait for an answer" if state.handles else ""
        parts.append(f"{printable(name)}: {share:.0%} read{handles}.")
    return " ".join(parts) or "No list is new."
