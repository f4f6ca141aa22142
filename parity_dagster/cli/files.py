"""Files that a command writes: what is said when it is stopped amid them, or cannot write them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from parity_dagster.cli.exits import let_go_of_output, say_when_stopped

if TYPE_CHECKING:
    from parity_dagster.exporting.destinations import NewFile, NewFolder, OpenStream

_CURES = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some of your quota, or name a place on another disk",
    errno.EFBIG: "raise the limit (ulimit -f), or name a place on a file system that takes larger files",
    errno.EPIPE: "whoever read it went away before the end",
    errno.EEXIST: "something came there meanwhile; name another one",
    errno.ENOTEMPTY: "something came there meanwhile; name another one",
    errno.ENOTDIR: "something came there meanwhile; name another one",
}


def is_stdout(destination: NewFile | NewFolder | OpenStream) -> bool:
    """Whether what is written goes to standard output, so that nothing else may."""
    from parity_dagster.exporting.destinations import OpenStream

    return isinstance(destination, OpenStream) and destination.stream is sys.stdout.buffer


@contextmanager
def writing(path: str, destination: NewFile | NewFolder | OpenStream) -> Iterator[None]:
    """Have the command end with a line that says why the file could not be written, if so."""
    from parity_dagster.exporting.destinations import OpenStream

    is_stream = isinstance(destination, OpenStream)
    say_when_stopped("what was written is not all" if is_stream else "nothing half-written is left, start it again")
    try:
        yield
    except OSError as exc:
        if is_stdout(destination):
            if isinstance(exc, BrokenPipeError):
                raise  # as with every other command
            let_go_of_output()
        cure = _CURES.get(exc.errno or 0)
        reason = f"{exc.strerror or type(exc).__name__}{'; ' if cure else ''}{cure or ''}"
        raise click.ClickException(f"{path} could not be written: {reason}") from exc
