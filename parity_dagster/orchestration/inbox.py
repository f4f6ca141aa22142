"""The inbox in Dagster: the sensor's look at the folder, the run that reads what is new, the asset that shows how.

A look only notices: it is over in a moment whatever was dropped, and asks for a run of `read_did_list` under a key
made of what the files hold. A request that is made twice is launched once, and reading twice adds nothing, so neither
a killed daemon nor a lost cursor does harm. Annotations here are evaluated (no `from __future__ import annotations`),
because Dagster reads them.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import dagster as dg
import psycopg
from pydantic import Field

from parity_dagster.errors import TransientError
from parity_dagster.importing.retry_policy import LONGEST_WAIT, pause_after_run
from parity_dagster.inbox.files import (
    FileChanged,
    Found,
    NotAList,
    Signature,
    digest_of,
    ends_a_line,
    find_lists,
    opened,
    printable,
    quoted,
    report_name,
    unquoted,
)
from parity_dagster.inbox.reading import Destination, ListReader, ReadList
from parity_dagster.models import Pair
from parity_dagster.orchestration.dagster_compat import plain_failures
from parity_dagster.orchestration.partitions import register_within
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, redact
from parity_dagster.store.database import connect
from parity_dagster.store.queue import enqueue

DID_LISTS_KEY = dg.AssetKey(["did_lists"])
"""The asset whose events are the lists that were dropped."""

READ_DID_LIST = "read_did_list"

LIST_TAG = "parity/list"
KEY_TAG = ".dagster/parity_lists"
"""Run tag with the key of what a run reads, also on what is re-executed by hand. The prefix hides it in the UI."""

PRIORITY_TAG = "dagster/priority"
"""Run tag that lets a list pass the imports that wait for a place."""

TICK_SECONDS = 10.0
"""Time for looking into new files; Dagster gives a tick 60 seconds."""

QUIET = 2.0
"""Seconds for which a file must not change before it is read."""

UNFINISHED_QUIET = 10.0
"""The same for a file that ends in the middle of a line."""

LISTS_PER_RUN = 500
RUNS_AT_ONCE = 4
"""Runs that read lists, at most; further lists wait for one of them to end."""

HANDLE_TIMEOUT = 5
"""Seconds that one request for a handle may take."""

EVENTS_PER_TICK = 100
SHOWN_LINES = 50
"""Invalid lines shown in the UI; the report beside the file holds more."""
SHOWN_FILES = 100
"""Files in the table that the last event of a run shows."""

did_lists = dg.AssetSpec(
    key=DID_LISTS_KEY,
    description="""\
Lists of accounts (`*.txt`, one DID or handle per line) that were dropped into the inbox, the folder `PARITY_INBOX`.

Every list that was read is a materialization, every one that cannot be read an observation that says why. A list
is read again when it changes; what is known already is not imported twice.
""",
    group_name="atproto",
    kinds={"file"},
    owners=["team:parity"],
)
"""The asset; other modules link to its key."""


# What the sensor remembers between two looks.


class Stage(StrEnum):
    """How far a file is."""

    WAITING = "waiting"
    """Seen, but perhaps still being written."""
    ASKED = "asked"
    """A run is to read it."""
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class Seen:
    """One file, as the sensor's cursor keeps it."""

    signature: Signature
    first_seen: float
    stage: Stage = Stage.WAITING
    digest: str = ""
    """SHA-256 of the version that was read, or is to be."""
    problem: str = ""
    """Why it was refused."""
    run_key: str = ""
    """Names the run that is to read it."""
    failures: int = 0
    """Runs that ended without having read it."""
    not_before: float = 0.0
    """When it may be asked for again."""


def load_cursor(cursor: str | None) -> dict[str, Seen]:
    """Read the sensor's cursor, by file name; anything else (none, one set by hand) starts over, which is harmless."""
    try:
        return {name: _seen(entry) for name, entry in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}


def dump_cursor(seen: Mapping[str, Seen]) -> str:
    """Write the sensor's cursor: JSON in ASCII, whatever bytes a name holds."""
    entries = {name: {key: value for key, value in asdict(entry).items() if value} for name, entry in seen.items()}
    return json.dumps(entries, separators=(",", ":"))


def _seen(entry: dict[str, Any]) -> Seen:
    stage = entry.get("stage", Stage.WAITING)
    # earlier versions read lists in several looks, and were in the middle of one
    is_known = stage in set(Stage) and (stage != Stage.ASKED or bool(entry.get("run_key")))
    return Seen(
        Signature(*map(int, entry["signature"])),
        float(entry.get("first_seen", 0)),
        Stage(stage) if is_known else Stage.WAITING,
        str(entry.get("digest", "")) if is_known else "",
        str(entry.get("problem", "")) if stage == Stage.REFUSED else "",
        str(entry.get("run_key", "")),
        int(entry.get("failures", 0)),
        float(entry.get("not_before", 0)),
    )


# The sensor's look.


class Look(NamedTuple):
    """What came of one look at the inbox."""

    cursor: str
    requests: list[dg.RunRequest]
    events: list[dg.AssetObservation]
    """Files that are not read, and why."""
    summary: str
    """One line for the tick's page."""


def look_into_inbox(
    instance: dg.DagsterInstance, settings: Settings, cursor: str | None, *, seconds: float = TICK_SECONDS
) -> Look:
    """Notice what was dropped, and ask for runs that read it.

    Args:
        cursor: of the look before.
        seconds: after which no further file is looked into; the next look goes on.

    Raises:
        SettingsError: there is no folder to look into.
    """
    deadline = time.monotonic() + seconds
    found = {entry.name: entry for entry in find_lists(settings.inbox)}
    before = {name: entry for name, entry in load_cursor(cursor).items() if name in found}
    inbox = _Inbox(instance, settings, found, before)
    inbox.follow_up()
    inbox.notice()
    inbox.ask(deadline)
    return Look(dump_cursor(inbox.seen), inbox.requests(), inbox.events(), inbox.summary())


class _Inbox:
    def __init__(
        self,
        instance: dg.DagsterInstance,
        settings: Settings,
        found: Mapping[str, Found],
        before: Mapping[str, Seen],
    ) -> None:
        self._instance = instance
        self._settings = settings
        self._found = found
        self._now = time.time()
        self.seen = dict(before)
        self._unlaunched: set[str] = set()  # keys of runs that are asked for
        self._running: set[str] = set()  # keys of runs that are under way
        self._told: list[tuple[str, str]] = []  # files that are not read, and why

    def follow_up(self) -> None:
        """See what became of the runs that were asked for."""
        asked = {name: entry for name, entry in self.seen.items() if entry.stage is Stage.ASKED}
        keys = sorted({entry.run_key for entry in asked.values()})
        runs: dict[str, dg.DagsterRun] = {}
        for run in self._instance.get_runs(filters=dg.RunsFilter(tags={KEY_TAG: keys})) if keys else ():
            key = run.tags[KEY_TAG]
            # as long as any of them is under way, be it re-executed by hand, the lists are being read
            if key not in runs or runs[key].is_finished:
                runs[key] = run
        ended = {key: run for key, run in runs.items() if run.is_finished}
        read = {key: _read_by(self._instance, run.run_id) for key, run in ended.items()}
        self._unlaunched = set(keys) - set(runs)
        self._running = set(runs) - set(ended)
        for name, entry in asked.items():
            if entry.run_key not in ended:
                continue
            if (printable(name), entry.digest) in read[entry.run_key]:
                self.seen[name] = Seen(entry.signature, entry.first_seen, Stage.DONE, entry.digest)
            else:
                self._ask_again(name, entry, ended[entry.run_key])

    def _ask_again(self, name: str, entry: Seen, run: dg.DagsterRun) -> None:
        pause = pause_after_run(entry.failures, self._settings)
        failures = entry.failures + 1
        self.seen[name] = Seen(
            entry.signature, entry.first_seen, failures=failures, not_before=self._now + pause if pause else 0
        )
        if self._found[name].signature == entry.signature:
            when = f"in {pause:.0f} s" if pause else "at once"
            outcome = run.status.value.lower()
            self._told.append((name, f"its run {run.run_id[:8]} ended early ({outcome}); the next one starts {when}"))

    def notice(self) -> None:
        """Compare what is there with what was."""
        for name, found in self._found.items():
            entry = self.seen.get(name)
            if entry is None:
                self.seen[name] = Seen(found.signature, self._now)
            elif entry.signature == found.signature:
                if entry.first_seen > self._now:  # the clock was set back
                    self.seen[name] = replace(entry, first_seen=self._now)
            elif entry.stage is Stage.REFUSED and entry.problem == found.problem:
                self.seen[name] = replace(entry, signature=found.signature)  # reported already
            else:
                # what it held is known until its content turns out to differ
                is_read = entry.stage is Stage.DONE or (entry.stage is Stage.WAITING and entry.digest)
                self.seen[name] = Seen(found.signature, self._now, digest=entry.digest if is_read else "")

    def ask(self, deadline: float) -> None:
        """Look into what is quiet: refuse it, or have it read."""
        asked: list[str] = []
        for name, entry in self.seen.items():
            if entry.stage is not Stage.WAITING or len(self._told) >= EVENTS_PER_TICK:
                continue
            if (problem := self._found[name].problem) is not None:
                self._refuse(name, entry, problem)
            else:
                is_waiting = self._now < entry.not_before <= self._now + LONGEST_WAIT
                is_full = len(asked) >= LISTS_PER_RUN or len(self._running | self._unlaunched) >= RUNS_AT_ONCE
                if is_full or is_waiting or self._quiet_for(entry) < QUIET:
                    continue
                try:
                    self.seen[name] = self._looked_into(name, entry)
                except NotAList as exc:
                    self._refuse(name, entry, str(exc))
                except OSError as exc:
                    self._refuse(name, entry, f"it cannot be read: {exc.strerror}")
                if self.seen[name].stage is Stage.ASKED:
                    asked.append(name)
            if time.monotonic() >= deadline:
                break
        if asked:
            key = _run_key({name: self.seen[name] for name in asked})
            self.seen.update({name: replace(self.seen[name], run_key=key) for name in asked})
            self._unlaunched.add(key)

    def _refuse(self, name: str, entry: Seen, problem: str) -> None:
        self.seen[name] = replace(entry, stage=Stage.REFUSED, problem=problem, digest="")
        self._told.append((name, problem))

    def _quiet_for(self, entry: Seen) -> float:
        # the clock of a file may be wrong, so having looked twice is as good as an old file
        return self._now - min(entry.first_seen, entry.signature.mtime_ns / 1e9)

    def _looked_into(self, name: str, entry: Seen) -> Seen:
        try:
            with opened(self._settings.inbox, self._found[name]) as stream:
                if not ends_a_line(stream) and self._quiet_for(entry) < UNFINISHED_QUIET:
                    return entry
                digest = digest_of(stream)
        except (FileChanged, FileNotFoundError):
            return entry
        stage = Stage.DONE if digest == entry.digest else Stage.ASKED
        return replace(entry, stage=stage, digest=digest, not_before=0.0)

    def requests(self) -> list[dg.RunRequest]:
        """The runs to ask for; one that was asked for before is launched once."""
        wanted: dict[str, dict[str, str]] = {key: {} for key in sorted(self._unlaunched)}
        for name, entry in self.seen.items():
            if entry.stage is Stage.ASKED and entry.run_key in wanted:
                wanted[entry.run_key][name] = entry.digest
        return [
            dg.RunRequest(
                run_key=key,
                run_config=run_config(lists),
                tags={LIST_TAG: _named(lists), KEY_TAG: key, PRIORITY_TAG: "1"},
            )
            for key, lists in wanted.items()
            if lists
        ]

    def events(self) -> list[dg.AssetObservation]:
        """Observations of what is not read, the last with a table of all files."""
        metadata = [_file_metadata(name, problem=problem) for name, problem in self._told]
        if metadata:
            metadata[-1]["files"] = _files_table(self._instance, self._found, metadata)
        return [
            dg.AssetObservation(DID_LISTS_KEY, description=_refusal(name, problem), metadata=entry)
            for (name, problem), entry in zip(self._told, metadata, strict=True)
        ]

    def summary(self) -> str:
        """What the tick's page says."""
        parts = [_refusal(name, problem) for name, problem in self._told[:10]]
        if len(self._told) > 10:
            parts.append(f"{len(self._told) - 10:,} more files were not read.")
        stages = [entry.stage for entry in self.seen.values()]
        if asked := stages.count(Stage.ASKED):
            parts.append(f"{_lists(asked)} being read.")
        if waiting := stages.count(Stage.WAITING):
            parts.append(f"{_lists(waiting)} waiting until nobody writes into it, or for a place.")
        return " ".join(parts) or "No list is new."


def _read_by(instance: dg.DagsterInstance, run_id: str) -> set[tuple[Any, Any]]:
    """File and digest of each list that a run has reported."""
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION}
    reported = set()
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.asset_materialization or entry.asset_observation
        if event is not None and "sha256" in event.metadata:
            reported.add((event.metadata["file"].value, event.metadata["sha256"].value))
    return reported


def _run_key(lists: Mapping[str, Seen]) -> str:
    """The same for the same versions of the same files, and for nothing else."""
    versions = sorted(
        (quoted(name), entry.digest, entry.signature.ctime_ns, entry.failures) for name, entry in lists.items()
    )
    return f"{_named(lists)} {hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]}"


def _named(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    text = shown[0] if len(shown) == 1 else f"{len(shown)} lists: {', '.join(shown[:5])}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _lists(count: int) -> str:
    return "1 list is" if count == 1 else f"{count:,} lists are"


# The run that reads.


class ReadDidListConfig(dg.Config):
    """Run config of the job `read_did_list`."""

    lists: dict[str, str] = Field(
        {},
        description="files of the inbox, spelled as in a URL, each with the SHA-256 that it must have, or '' "
        "for whatever it holds now",
    )


def run_config(lists: Mapping[str, str]) -> dict[str, Any]:
    """Run config of `read_did_list` for these files and what they must hold."""
    config = {"lists": {quoted(name): digest for name, digest in lists.items()}}
    return {"ops": {READ_DID_LIST: {"config": config}}}


@dg.op(out=dg.Out(dg.Nothing))
def read_lists(
    context: dg.OpExecutionContext,
    config: ReadDidListConfig,
    import_service: dg.ResourceParam[ImportService],
) -> Iterator[dg.Output[None]]:
    """Read lists of the inbox: register their accounts as partitions and queue their imports."""
    settings = import_service.settings
    wanted = {unquoted(name): digest for name, digest in config.lists.items()}
    if not wanted:
        raise dg.Failure(
            description="Nothing to read: name files of the inbox, as in "
            "{ops: {read_did_list: {config: {lists: {dids.txt: ''}}}}}.",
            allow_retries=False,
        )
    ended: list[ReadList] = []
    with plain_failures(), _destination(context.instance, settings) as destination:
        reader = ListReader(settings.inbox, destination, settings, context.log.info)
        for read in reader.read(wanted):
            ended.append(read)
            metadata = _metadata(read)
            if len(ended) == len(wanted):
                names = {entry.name for entry in find_lists(settings.inbox)}
                metadata["files"] = _files_table(context.instance, names, [metadata])
            kind = dg.AssetObservation if read.is_refused else dg.AssetMaterialization
            context.log_event(kind(DID_LISTS_KEY, description=_sentence(read), metadata=metadata))
            context.log.info(_sentence(read))
    yield dg.Output(
        None,
        metadata={
            "lists": len(ended),
            "accounts": sum(read.accounts for read in ended),
            "new_imports": sum(read.new_imports for read in ended),
            "invalid_lines": sum(read.invalid for read in ended),
        },
    )


@contextmanager
def _destination(instance: dg.DagsterInstance, settings: Settings) -> Iterator[Destination]:
    hurried = settings.model_copy(update={"request_timeout": min(settings.request_timeout, HANDLE_TIMEOUT)})
    with closing(connect(settings, autocommit=True)) as connection, ImportService(hurried, report=False) as service:

        def queue(dids: Sequence[str]) -> int:
            pairs = (Pair(did, nsid) for did in dids for nsid in settings.collections)
            try:
                return len(enqueue(connection, settings.state_table, pairs, only_new=True))
            except psycopg.Error as exc:
                raise TransientError(f"PostgreSQL failed while a list was read: {redact(str(exc), settings)}") from None

        def register(dids: Sequence[str]) -> tuple[int, int]:
            found = register_within(instance, dids, settings.partition_limit)
            return len(found.new), len(found.beyond)

        yield Destination(register, queue, service.resolve)


@dg.job(
    name=READ_DID_LIST,
    executor_def=dg.in_process_executor,
    description="Reads lists of the inbox: registers their accounts as partitions and queues their imports. "
    "`did_list_sensor` launches it.",
)
def read_did_list() -> None:
    """One step, in which the lists are read one after the other."""
    # the alias is the name in run config; op definitions and jobs may not share one
    read_lists.alias(READ_DID_LIST)()


# What the UI shows.


def _file_metadata(name: str, *, problem: str = "", digest: str = "") -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {"file": dg.MetadataValue.text(printable(name))}
    if problem:
        metadata["problem"] = dg.MetadataValue.text(problem)
    if digest:
        metadata["sha256"] = dg.MetadataValue.text(digest)
    return metadata


def _metadata(read: ReadList) -> dict[str, dg.MetadataValue]:
    metadata = _file_metadata(read.found.name, problem=read.problem, digest=read.digest)
    if read.is_refused:
        return metadata
    metadata |= {
        "lines": dg.MetadataValue.int(read.lines),
        "accounts": dg.MetadataValue.int(read.accounts),
        "new_accounts": dg.MetadataValue.int(read.new_accounts),
        "new_imports": dg.MetadataValue.int(read.new_imports),
        "invalid_lines": dg.MetadataValue.int(read.invalid),
        "bytes": dg.MetadataValue.int(read.found.signature.size),
    }
    if read.beyond:
        metadata["accounts_without_partition"] = dg.MetadataValue.int(read.beyond)
    if read.invalid:
        shown = [dg.TableRecord({"line": line, "problem": problem}) for line, problem in read.problems[:SHOWN_LINES]]
        metadata["invalid"] = dg.MetadataValue.table(shown)
        if not read.problem:
            metadata["report"] = dg.MetadataValue.text(printable(report_name(read.found.name)))
    return metadata


def _refusal(name: str, problem: str) -> str:
    return f"{printable(name)} was not read: {problem}."


def _sentence(read: ReadList) -> str:
    if read.is_refused:
        return _refusal(read.found.name, read.problem)
    invalid = ""
    if read.invalid:
        lines = "1 invalid line" if read.invalid == 1 else f"{read.invalid:,} invalid lines"
        first = f" (line {read.problems[0][0]:,}: {read.problems[0][1]})" if read.problems else ""
        invalid = f"; {lines}{first}"
    beyond = f"; {read.beyond:,} have no partition (PARITY_PARTITION_LIMIT)" if read.beyond else ""
    return (
        f"{printable(read.found.name)}: {read.accounts:,} accounts on {read.lines:,} lines, "
        f"{read.new_accounts:,} of them new, {read.new_imports:,} imports queued{beyond}{invalid}."
    )


def _files_table(
    instance: dg.DagsterInstance, names: Iterable[str], newest: Iterable[Mapping[str, dg.MetadataValue]]
) -> dg.TableMetadataValue:
    """The last outcome of each file of the inbox, those with problems first."""
    logged = [
        *instance.fetch_materializations(DID_LISTS_KEY, limit=SHOWN_FILES).records,
        *instance.fetch_observations(DID_LISTS_KEY, limit=SHOWN_FILES).records,
    ]
    events = [(time.time(), metadata) for metadata in newest]
    for record in sorted(logged, key=lambda record: record.timestamp, reverse=True):
        event = record.asset_materialization or record.event_log_entry.asset_observation
        if event is not None:
            events.append((record.timestamp, event.metadata))
    there = {printable(name) for name in names}
    rows: dict[str, dict[str, str | int]] = {}
    for told_at, metadata in events:
        values: dict[str, Any] = {key: entry.value for key, entry in metadata.items()}
        file = str(values.get("file", ""))
        if file in there and file not in rows:
            rows[file] = {
                "file": file,
                "outcome": "read" if "lines" in values else "not read",
                "accounts": values.get("accounts", 0),
                "new_imports": values.get("new_imports", 0),
                "invalid_lines": values.get("invalid_lines", 0),
                "told_at": datetime.fromtimestamp(told_at, UTC).isoformat(timespec="seconds"),
                "problem": values.get("problem", ""),
            }
    ordered = sorted(rows.values(), key=lambda row: not (row["problem"] or row["invalid_lines"]))
    return dg.MetadataValue.table([dg.TableRecord(row) for row in ordered[:SHOWN_FILES]])
