"""The processes of the embedded PostgreSQL: is it there, start it, stop it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from parity_dagster.embedded_postgres.programs import (
    MAJOR,
    kill_program,
    make_data_folder,
    run_program,
    server_account,
)
from parity_dagster.errors import DatabaseUnreachable

# Only names the socket file; nothing listens on TCP. Explicit, so that PGPORT of the environment has no say.
PORT = 5432
# sun_path of a Unix socket address is 108 bytes on Linux and 104 on macOS, with the closing NUL.
MAX_SOCKET_PATH = 103
# After a crash the server replays its log before it is ready; with max_wal_size = 4GB that can take minutes.
START_TIMEOUT = 300
STOP_TIMEOUT = 60
# Time, process, SQLSTATE: a code says what a message means, in whatever words or language.
LOG_PREFIX = "%m [%p] %e "
_LOG_LINE = re.compile(r"^\S+ \S+ \S+ \[\d+\] ([0-9A-Z]{5}) (LOG|FATAL|PANIC): +(.*)", re.MULTILINE)
SUCCESS = "00000"
DISK_FULL = "53100"
CONFIG_FILE_ERROR = "F0000"
LOCK_FILE_EXISTS = "F0001"
# Bytes; a segment of the write-ahead log. With less not even the server's log may hold the reason.
NEEDED_TO_START = 16 * 2**20


def log_of(home: Path) -> Path:
    """Where the server of a PARITY_HOME writes its log."""
    return home.expanduser().resolve() / "postgres" / "log"


def _postmaster(data: Path) -> tuple[int, Path, str] | None:
    """Read postmaster.pid: process id, folder of the socket, status (lines 1, 5 and 8, see pidfile.h)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), data / lines[4], lines[7].strip()
    except (OSError, IndexError, ValueError):
        return None


def listening(data: Path) -> Path | None:
    """The folder of the server's socket if the server is ready, else None.

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


def start(data: Path, settings: Mapping[str, str], is_given_up: Callable[[], bool] = lambda: False) -> Path:
    """Start the server, after making its data folder if there is none; the caller holds the lock for that.

    Args:
        is_given_up: asked between the steps; see `give_up`.

    Raises:
        DatabaseUnreachable: it does not start; the message shows the reason in its log.
    """
    version = data / "PG_VERSION"
    if not version.exists():
        make_data_folder(data, settings)
    elif (made_by := version.read_text().strip()) != MAJOR:
        raise DatabaseUnreachable(
            f"{data} was made by PostgreSQL {made_by} and the programs here are of {MAJOR}: move it with pg_dumpall of "
            f"{made_by} to a new PARITY_HOME, or run PostgreSQL {made_by} on it and name that in PARITY_DATABASE_URL"
        )
    folder = _socket_folder(data)
    # A quoted folder name in a list, inside an option, inside a shell command (pg_ctl uses /bin/sh).
    sockets = "." if folder == data else '"' + str(folder).replace('"', '""') + '"'
    options = f"-p {PORT} -k {shlex.quote(sockets)} -c {shlex.quote(f'log_line_prefix={LOG_PREFIX}')}"
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        for lock in (data / "postmaster.pid", folder / f".s.PGSQL.{PORT}.lock"):
            _remove_if_stale(lock)
        old_log = _size(data / "log")
        problem = run_program(data, "pg_ctl", "-w", "-t", str(START_TIMEOUT), "-l", "log", "-o", options, "start")
        found = listening(data)
        if found is not None:
            return found
        code, reason = _reason(data / "log", old_log)
        # Backends of a killed server hold its shared memory for a moment, and a server that another process
        # began to start, or asked to stop, keeps its file until that is done.
        busy = code == LOCK_FILE_EXISTS or _postmaster(data) is not None
        if not busy or is_given_up() or time.monotonic() > deadline:
            is_full = code == DISK_FULL or shutil.disk_usage(data).free < NEEDED_TO_START
            cure = "free some disk space" if is_full else "PARITY_DATABASE_URL names another server to use instead"
            raise DatabaseUnreachable(
                f"the embedded PostgreSQL in {data} does not start: {reason or problem or 'it gave no reason'}. "
                f"Its log is {data / 'log'}; {cure}"
            )
        time.sleep(0.2)


def give_up(data: Path) -> None:
    """Let a `start` that another thread is in come to an end, and no server stay; to be called until it has."""
    kill_program("initdb")
    # pg_ctl is left to itself: its server is on its own by now, and pg_ctl ends with it.
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return
    import psutil

    with suppress(psutil.Error, OSError):
        # after a reboot the file can name another PostgreSQL
        if Path(psutil.Process(pid).cwd()) == data:
            os.kill(pid, signal.SIGINT)


def _remove_if_stale(lock: Path) -> None:
    """Remove a lock file of PostgreSQL whose process id now belongs to another program, or to a zombie.

    PostgreSQL only asks whether that process exists, and would refuse to start. If backends of a killed
    server are still there, its check of the shared memory refuses anyway.
    """
    try:
        pid = int(lock.read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return
    import psutil  # 0.04 s, and needed after a crash only

    try:
        process = psutil.Process(pid)
        stale = "postgres" not in process.name() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        stale = True
    if stale:
        lock.unlink(missing_ok=True)


def stop(data: Path) -> bool:
    """Shut the server down in order; SIGINT is its "fast" mode, which rolls open transactions back."""
    found = _postmaster(data)
    if found is None or listening(data) is None:
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


def _reason(log: Path, start: int) -> tuple[str, str]:
    """Return the SQLSTATE and the text in which the lines since `start` say why the server did not start."""
    if not log.exists():
        return "", ""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    found = [(code, level, message.strip()) for code, level, message in _LOG_LINE.findall(text) if code != SUCCESS]
    fatal = [(code, message) for code, level, message in found if level != "LOG"]
    # An error in the configuration is named before the final message.
    if not fatal or fatal[0][0] == CONFIG_FILE_ERROR:
        fatal = [(code, message) for code, _, message in found]
    return fatal[0] if fatal else ("", "")


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
