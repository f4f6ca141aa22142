"""What every contender is given, and what it answers, as plain values that travel as JSON."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be imported, from where, to where.

    Attributes:
        database_url: of a migrated database.
        home: folder for files.
        plc_url: the directory.
        accounts: (DID, origin of its PDS).
        collections: of each account.
        options: of this contender.
    """

    database_url: str
    home: str
    plc_url: str
    accounts: list[tuple[str, str]]
    collections: list[str]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str, str]]:
        """(DID, collection, origin) of all that is imported."""
        return [(did, nsid, pds) for did, pds in self.accounts for nsid in self.collections]


@dataclass(slots=True)
class Done:
    """What a contender did.

    Attributes:
        records: stored (or downloaded).
        pages: fetched, if it knows.
        more: further findings, by name.
    """

    records: int
    pages: int = 0
    more: dict[str, Any] = field(default_factory=dict)


Run = Callable[[], Done]
Prepare = Callable[[Task, ExitStack], Run]
