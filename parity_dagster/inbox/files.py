"""The folder of the inbox: which files are lists, which are refused, how they are opened, and the reports beside them.

Anybody who may write into the folder may put anything there. So a name is never followed anywhere, nothing but regular
files is opened, and what is opened is compared with what was looked at.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from parity_dagster.errors import SettingsError
from parity_dagster.text import escaped

SUFFIX = ".txt"
REPORT_SUFFIX = ".errors"

MAX_FILE_BYTES = 1 << 30
"""Largest list that is read; twenty million accounts."""

MAX_REPORTED = 10_000
"""Invalid lines that the report beside a file lists."""

_BLOCK = 1 << 20


class Signature(NamedTuple):
    """What changes if a file does; equal signatures mean that nothing has to be read."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """The signature of a file of which the system says this."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Found(NamedTuple):
    """An entry of the folder whose name is that of a list."""

    name: str
    signature: Signature
    problem: str | None = None
    """Why it will not be read."""


class FileChanged(Exception):
    """The file is not the one that was looked at any more."""


class NotAList(Exception):
    """What the file holds is no text."""


def find_lists(folder: Path) -> list[Found]:
    """Look for lists: `*.txt` in any case, without hidden files; also those that will not be read.

    `SettingsError` if there is no folder to look into.
    """
    found = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIX):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append(Found(entry.name, Signature.of(status), _problem(status)))
    except OSError as exc:
        raise SettingsError(
            f"PARITY_INBOX names {printable(str(folder))}, which is no folder that can be read ({exc.strerror}); "
            "make it one, or name another"
        ) from None
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
    """Open a list for reading; `FileChanged` if it is another file by now."""
    # never a link, and never waiting for the other end of a pipe
    descriptor = os.open(folder / found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if Signature.of(os.fstat(stream.fileno())) != found.signature:
            raise FileChanged
        yield stream


def has_changed(folder: Path, found: Found) -> bool:
    """Whether the name is another file's by now; one that was deleted is still open and can be read to its end."""
    try:
        return Signature.of((folder / found.name).lstat()) != found.signature
    except FileNotFoundError:
        return False


def ends_a_line(stream: BinaryIO) -> bool:
    """Whether the last line is complete; else a program may be about to write the rest. The position is lost."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 2))
    return size == 0 or b"\n" in stream.read(2)


def digest_of(stream: BinaryIO) -> str:
    """SHA-256 of the whole file, which is left at its start; `NotAList` if it is a binary file."""
    stream.seek(0)
    start = stream.read(8192)
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NotAList("it is a binary file, not a list of accounts")
    digest = hashlib.sha256(start)
    while block := stream.read(_BLOCK):
        digest.update(block)
    stream.seek(0)
    return digest.hexdigest()


def printable(name: str) -> str:
    """A file's name, which may hold any bytes, as text that can be shown and stored anywhere."""
    return escaped(os.fsencode(name).decode("utf-8", "backslashreplace"))


def quoted(name: str) -> str:
    """A file's name for run config: as in a URL, so that any bytes survive; plain names stay as they are."""
    return quote(os.fsencode(name), safe=" ()[]+,@'!")


def unquoted(text: str) -> str:
    """The name that `quoted` was given."""
    return os.fsdecode(unquote_to_bytes(text))


# The report beside a list.


def report_name(name: str) -> str:
    """The name of the report beside a list, which is not taken for a list."""
    return name + REPORT_SUFFIX


def write_report(folder: Path, name: str, invalid: int, lines: list[tuple[int, str]]) -> None:
    """Put the report beside a list, or take away that of an earlier version which is without errors now.

    Args:
        invalid: how many lines name no account.
        lines: number and problem of the first of them.
    """
    target = folder / report_name(name)
    title = f"# These lines of {printable(name)} name no account and were passed over."
    if not invalid:
        if _starts_with(target, title):  # a file that is not ours stays
            target.unlink()
        return
    more = [f"# … and {invalid - len(lines):,} more"] if invalid > len(lines) else []
    text = "\n".join([title, *(f"{number}: {problem}" for number, problem in lines), *more, ""])
    descriptor, temporary = tempfile.mkstemp(prefix=".report-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as report:
            os.fchmod(descriptor, 0o644)
            report.write(text.encode("utf-8", "backslashreplace"))
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _starts_with(path: Path, title: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as stream:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and stream.readline(len(title.encode()) + 1) == f"{title}\n".encode()
