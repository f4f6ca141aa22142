"""The folder of the inbox: which files are lists, which are refused, and how they are opened.

What lives here: everything that touches the folder. What must not: what a list holds (`inbox_reading`).

Anybody who may write into the folder may put anything there. So a name is never followed anywhere, nothing but
regular files is opened, and what is opened is compared with what was looked at.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

SUFFIX = ".txt"
REPORT_SUFFIX = ".errors"

MAX_FILE_BYTES = 1 << 30
"""Largest list that is read; twenty million accounts."""


class Signature(NamedTuple):
    """What changes if a file does; equal signatures mean that nothing has to be read."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """The signature of a file.

        Args:
            status: what the system says about it.

        Returns:
            Its signature.
        """
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Found(NamedTuple):
    """An entry of the folder whose name is that of a list."""

    name: str
    signature: Signature
    problem: str | None
    """Why it will not be read."""


class FileChanged(Exception):
    """The file is not the one that was looked at any more; the next look sees the new one."""


def find_lists(folder: Path) -> list[Found]:
    """Look for lists: `*.txt` in any case, without hidden files.

    Args:
        folder: the inbox; made if there is none.

    Returns:
        The entries by name, also those that will not be read.

    Raises:
        OSError: there is no folder to look into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIX):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(Found(entry.name, Signature.of(status), _problem(status)))
    return sorted(found)


def _problem(status: os.stat_result) -> str | None:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "it is a symbolic link; put the file itself here"
    if stat.S_ISDIR(mode):
        return "it is a folder; put its lists directly into the inbox"
    if not stat.S_ISREG(mode):
        return "it is not a regular file"
    if status.st_size > MAX_FILE_BYTES:
        return f"it is larger than {MAX_FILE_BYTES >> 20:,} MiB; split it"
    return None


@contextmanager
def opened(folder: Path, found: Found) -> Iterator[BinaryIO]:
    """Open a list for reading.

    Args:
        folder: the inbox.
        found: what was found there.

    Yields:
        Its bytes.

    Raises:
        FileChanged: it is another file by now.
        OSError: it cannot be read.
    """
    # never a link, and never waiting for the other end of a pipe
    descriptor = os.open(folder / found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if Signature.of(os.fstat(stream.fileno())) != found.signature:
            raise FileChanged
        yield stream


def ends_a_line(stream: BinaryIO) -> bool:
    """Whether the last line of a file is complete; a program may still be about to write the rest of it.

    Args:
        stream: the file; its position is lost.

    Returns:
        True also for an empty file.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 2))
    return size == 0 or b"\n" in stream.read(2)


def printable(name: str) -> str:
    """A file's name as text that can be shown and stored anywhere.

    Args:
        name: as the system gives it, which may hold any bytes.

    Returns:
        The name with what is no text and what is not printable escaped.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def report_name(name: str) -> str:
    """The name of the report beside a list.

    Args:
        name: the list's name.

    Returns:
        A name that is not taken for a list.
    """
    return name + REPORT_SUFFIX


def write_report(folder: Path, name: str, lines: list[str], kept_bytes: int) -> int:
    """Write, or go on writing, the report beside a list.

    Args:
        folder: the inbox.
        name: the list's name.
        lines: to add.
        kept_bytes: how much of the report stays; 0 starts a new one.

    Returns:
        Its size, to be given as `kept_bytes` the next time.

    Raises:
        OSError: it cannot be written.
    """
    target = folder / report_name(name)
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    if kept_bytes:
        descriptor = os.open(target, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "r+b", buffering=0) as report:
            report.truncate(kept_bytes)
            report.seek(kept_bytes)
            report.write(text)
            return kept_bytes + len(text)
    descriptor, temporary = tempfile.mkstemp(prefix=".report-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as report:
            os.fchmod(descriptor, 0o644)
            report.write(text)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return len(text)


def drop_report(folder: Path, name: str) -> None:
    """Remove the report of an earlier version of a list that is without errors now.

    Args:
        folder: the inbox.
        name: the list's name.

    Raises:
        OSError: it cannot be removed.
    """
    (folder / report_name(name)).unlink(missing_ok=True)
