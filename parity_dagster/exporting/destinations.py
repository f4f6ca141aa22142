"""Where an export goes. What has a name has it only when it is complete; a pipe gets the bytes as they come."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from parity_dagster.errors import SettingsError

HIDDEN = ".parity-export-"
"""What the name of something that is not complete yet begins with."""
_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/self/fd)/([0-9]{1,9})")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


class NewFile:
    """A file that is made under another name beside its own, and renamed when it is complete.

    Args:
        path: its name; of a symbolic link, what it leads to.
        overwrite: whether it may be there already; if so, it is replaced and its permissions are kept.

    Raises:
        SettingsError: nothing can be written there.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self._path, found = _look_at(path)
        self._overwrite = overwrite
        self._mode: int | None = None
        if path.endswith("/") or (found and stat.S_ISDIR(found.st_mode)):
            raise SettingsError(f"{path} is a folder; name a file")
        if found is None:
            return
        if not overwrite:
            raise SettingsError(f"{path} exists; --overwrite replaces it")
        if not os.access(self._path, os.W_OK):
            raise SettingsError(f"{path} may not be written; name another file, or permit it with chmod u+w")
        self._mode = found.st_mode & 0o777

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Give the stream to write to; what it was given is under the file's name if nothing is raised.

        Raises:
            SettingsError: no file can be made in its folder.
            OSError: it cannot be written to its end, or something has come under its name meanwhile.
        """
        hidden = self._path.with_name(hidden_name())
        try:
            with beginning(self._path.parent):
                stream = hidden.open("xb")
            with closing(stream):
                if self._mode is not None:
                    with suppress(PermissionError):  # a file system without permissions
                        os.fchmod(stream.fileno(), self._mode)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if self._overwrite:
                hidden.replace(self._path)
            else:
                rename_to_free_name(hidden, self._path)
        finally:
            remove(hidden)
        sync_folder(self._path.parent)


class NewFolder:
    """A folder of files, made under another name; one that is there and empty gets them renamed, one after the other.

    Args:
        path: its name; of a symbolic link, what it leads to.

    Raises:
        SettingsError: nothing can be written there, or it holds something.
    """

    def __init__(self, path: str) -> None:
        self._path, found = _look_at(path.rstrip("/") or path)
        self._exists = found is not None
        if found is None:
            return
        if not stat.S_ISDIR(found.st_mode):
            raise SettingsError(f"{path} is no folder; name one that is empty or not there yet")
        with beginning(self._path):
            first = min(self._path.iterdir(), default=None)
        if first is not None:
            cure = "name a folder that is empty or not there yet"
            if first.name.startswith(HIDDEN):
                cure = "an export is at work there, or was killed; if none is, remove that"
            raise SettingsError(f"{path} is not empty, it holds {first.name}; {cure}")

    @contextmanager
    def open(self) -> Iterator[Path]:
        """Give the folder to make files in; they are under its name if nothing is raised.

        Raises:
            SettingsError: no folder can be made there.
            OSError: something has come under its name meanwhile.
        """
        hidden = self._path / hidden_name() if self._exists else self._path.with_name(hidden_name())
        try:
            with beginning(hidden.parent):
                hidden.mkdir()
            yield hidden
            sync_folder(hidden)
            if self._exists:
                self._take(hidden)
            else:
                hidden.rename(self._path)  # refused if it holds something by now
        finally:
            remove(hidden)
        sync_folder(hidden.parent)

    def _take(self, hidden: Path) -> None:
        """Rename the files of a folder inside into this one; if that fails, none is left."""
        if any(path != hidden for path in self._path.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        # the first file comes last: where it is, all are
        files = sorted(hidden.iterdir(), reverse=True)
        try:
            for path in files:
                rename_to_free_name(path, self._path / path.name)
        except BaseException:
            for path in files:
                if not path.exists():
                    remove(self._path / path.name)
            raise


class OpenStream:
    """What takes bytes as they come: a pipe, a device, what whoever started this process has opened for it.

    Args:
        path: of what there is and is no regular file.
        descriptor: its number, if this process has it open.
        stream: what it leads to, if that is standard output.
    """

    def __init__(self, path: str, *, descriptor: int | None = None, stream: BinaryIO | None = None) -> None:
        self._path = path
        self._descriptor = descriptor
        self.stream = stream

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Give the stream to write to; a FIFO is waited for until somebody reads it.

        Raises:
            SettingsError: it cannot be opened.
            OSError: it takes no more.
        """
        if self.stream is not None:
            yield self.stream
            self.stream.flush()
            return
        with beginning(Path(self._path)):
            if self._descriptor is not None:
                stream = os.fdopen(os.dup(self._descriptor), "wb")  # opened anew, it would begin at its start
            else:
                # not created: what is gone by now is not to become a file
                stream = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_NOCTTY), "wb")
        with closing(stream):
            yield stream


def find_destination(path: str, stdout: BinaryIO, *, overwrite: bool = False) -> NewFile | OpenStream:
    """Tell a file from what takes bytes as they come.

    Args:
        path: a name, or `-` for standard output.
        stdout: standard output; whatever leads to it is it.
        overwrite: see `NewFile`.

    Raises:
        SettingsError: nothing can be written there.
    """
    named = _DESCRIPTOR.fullmatch(path)
    descriptor = int(named[1]) if named else _STANDARD.get(path)
    if descriptor is not None:
        return OpenStream(path, descriptor=descriptor, stream=stdout if descriptor == 1 else None)
    _, found = _look_at(path)
    if found is None or stat.S_ISDIR(found.st_mode):
        return NewFile(path, overwrite=overwrite)
    with suppress(OSError):  # a stream without a number is no file's
        if os.path.samestat(found, os.fstat(stdout.fileno())):
            return OpenStream(path, stream=stdout)
    return NewFile(path, overwrite=overwrite) if stat.S_ISREG(found.st_mode) else OpenStream(path)


def _look_at(path: str) -> tuple[Path, os.stat_result | None]:
    """What a name leads to, and what is there; None if the name is free and its folder is there."""
    if not path:
        raise SettingsError("an empty name is given for what is to be written")
    try:
        real = Path(os.path.realpath(path))
        try:
            return real, Path(path).stat()
        except FileNotFoundError:
            if real.parent.is_dir():
                return real, None
            raise SettingsError(
                f"there is no folder {real.parent}; make it with mkdir -p, or name another one"
            ) from None
    except OSError as exc:
        raise SettingsError(f"{path} cannot be written: {exc.strerror}") from None


@contextmanager
def beginning(place: Path) -> Iterator[None]:
    """Say that it cannot be begun, and why."""
    try:
        yield
    except OSError as exc:
        raise SettingsError(f"{place} cannot be written: {exc.strerror}; name another place") from None


@contextmanager
def closing(stream: BinaryIO) -> Iterator[None]:
    """Close a stream; what its buffer cannot be rid of is no news after another error."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    stream.close()


def hidden_name() -> str:
    """A name for what is not complete; not made of the final one, which may be as long as a name can be."""
    return HIDDEN + secrets.token_hex(8)


def rename_to_free_name(old: Path, new: Path) -> None:
    """Rename a file, and never over another one."""
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
        old.rename(new)
    else:
        old.unlink()


def remove(path: Path) -> None:
    """Remove what may be there; whoever presses Ctrl-C twice does not keep it."""
    while True:
        try:
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        except KeyboardInterrupt:
            continue
        return


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a crash of the machine, where the file system can."""
    with suppress(PermissionError):  # it may be written and not read
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
