"""What the inbox remembers between two looks: the cursor of the sensor.

What lives here: the values and their form as JSON. What must not: files or the database.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple

from parity_dagster.inbox.did_list import ListPosition
from parity_dagster.inbox.files import Signature

MAX_SAMPLES = 50
"""Invalid lines shown in the UI; the report beside the file holds more."""


class Stage(StrEnum):
    """How far a file is."""

    WAITING = "waiting"
    """Seen, but perhaps still being written."""
    READING = "reading"
    """Partly read; the next look goes on."""
    DONE = "done"
    REFUSED = "refused"


class WaitingHandle(NamedTuple):
    """A handle that nobody could resolve yet."""

    line: int
    handle: str
    attempts: int
    due: float
    """Unix time of the next try."""


@dataclass
class ListProgress:
    """One file: which version of it, how far it was read, and what it held."""

    signature: Signature
    first_seen: float = field(default_factory=time.time)
    stage: Stage = Stage.WAITING
    digest: str = ""
    """SHA-256 of the version that was read last."""
    position: ListPosition = field(default_factory=ListPosition)
    accounts: int = 0
    """Lines that name an account."""
    new_accounts: int = 0
    new_imports: int = 0
    """Pairs that nobody had asked for before."""
    invalid: int = 0
    samples: list[tuple[int, str]] = field(default_factory=list)
    report_bytes: int = 0
    """Size of the report beside the file; 0 if there is none."""
    has_old_report: bool = False
    """Whether the report of the version before is still there."""
    handles: list[WaitingHandle] = field(default_factory=list)
    problem: str = ""
    """Why the file was refused, or what else the operator should know."""
    ended: float = 0.0

    def changed(self, signature: Signature) -> ListProgress:
        """The progress of a file that was touched; what it held is known until its content turns out to differ.

        Args:
            signature: of the new version.

        Returns:
            A progress that waits for the file to be quiet.
        """
        digest = self.digest if self.stage is Stage.DONE else ""
        return replace(self, signature=signature, first_seen=time.time(), stage=Stage.WAITING, digest=digest)

    def restarted(self, digest: str) -> ListProgress:
        """The progress at the start of a content.

        Args:
            digest: of the content.

        Returns:
            A progress without any counts.
        """
        return ListProgress(
            self.signature,
            self.first_seen,
            Stage.READING,
            digest,
            has_old_report=self.has_old_report or self.report_bytes > 0,
        )


def load_cursor(cursor: str | None) -> dict[str, ListProgress]:
    """Read the sensor's cursor.

    Args:
        cursor: what `dump_cursor` wrote; anything else (none, one set by hand) starts over, which is harmless.

    Returns:
        Progress by file name.
    """
    try:
        return {name: _progress(entry) for name, entry in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def dump_cursor(progress: dict[str, ListProgress]) -> str:
    """Write the sensor's cursor.

    Args:
        progress: by file name.

    Returns:
        JSON in ASCII, whatever bytes a name holds; what equals its default is left out.
    """
    return json.dumps({name: _entry(value) for name, value in progress.items()}, separators=(",", ":"))


_EMPTY = ListProgress(Signature(0, 0, 0, 0), first_seen=0.0)


def _entry(progress: ListProgress) -> dict[str, Any]:
    return {name: value for name, value in asdict(progress).items() if value != getattr(_EMPTY, name)}


def _progress(entry: dict[str, Any]) -> ListProgress:
    known = {given.name for given in fields(ListProgress)}
    values = {name: value for name, value in entry.items() if name in known}
    values["signature"] = Signature(*values["signature"])
    values["stage"] = Stage(values.get("stage", Stage.WAITING))
    values["position"] = ListPosition(*values.get("position", ()))
    values["samples"] = [(int(line), str(problem)) for line, problem in values.get("samples", ())]
    values["handles"] = [WaitingHandle(*handle) for handle in values.get("handles", ())]
    return ListProgress(**values)
