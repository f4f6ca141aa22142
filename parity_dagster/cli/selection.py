"""Options that choose imports by what is known of them, for the commands that act on many at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from parity_dagster.models import ImportStatus

if TYPE_CHECKING:
    from parity_dagster.store.selection import Selection

Command = TypeVar("Command", bound=Callable[..., Any])


class Chosen(NamedTuple):
    """What the options say."""

    failed: bool
    errors: Sequence[str]
    hosts: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.failed or self.errors or self.hosts)

    def selection(self, dids: Collection[str] | None, collections: Collection[str]) -> Selection:
        """The rows that are meant, of these accounts or of all."""
        from parity_dagster.store.selection import Selection

        return Selection(
            dids=dids,
            collections=collections or None,
            status=ImportStatus.FAILED if self.failed else None,
            errors=self.errors or None,
            hosts=self.hosts or None,
        )


def selecting(command: Command) -> Command:
    """Give a command the options `--failed`, `--error` and `--pds`."""
    for option in (
        click.option("--pds", "hosts", metavar="HOST", multiple=True, help="Imports of accounts on this server."),
        click.option(
            "--error",
            "errors",
            metavar="CODE",
            multiple=True,
            help="Imports that ended with this error, as `parity import-status --summary` names it.",
        ),
        click.option("--failed", is_flag=True, help="Imports that ended with an error."),
    ):
        command = option(command)
    return command
