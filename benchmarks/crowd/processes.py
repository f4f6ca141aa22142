"""What the processes of a whole installation need, found by a mark in their environment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from parity_dagster.embedded_postgres import sharing as embedded

MARK = "PARITY_CROWD"
ROLES = {
    "run_server": "run server and runs",
    "dagster._daemon": "daemon",
    "dagster_webserver": "webserver",
    "api grpc": "code server",
    "code-server": "code server's proxy",
    "dagster dev": "dagster dev",
    "postgres": "PostgreSQL",
}


class Processes:
    """The processes of a mark: their processor time and their largest memory."""

    def __init__(self, mark: str, home: Path) -> None:
        self._mark = mark
        self._postmaster = int((embedded.data_folder(home) / "postmaster.pid").read_text().split()[0])
        self._cpu: dict[tuple[int, float], float] = {}
        self._peak: dict[tuple[int, float], tuple[str, float]] = {}

    def look(self) -> None:
        """Take a sample; what ends between two samples counts with its last one."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError, ValueError):
                name = process.name()
                if name == "postgres":
                    if self._postmaster not in (process.pid, process.ppid()):
                        continue
                elif process.environ().get(MARK) != self._mark:
                    continue
                key = (process.pid, process.create_time())
                times = process.cpu_times()
                self._cpu[key] = times.user + times.system
                if name != "postgres":
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                    words = " ".join(process.cmdline())
                    role = next((role for part, role in ROLES.items() if part in words), name)
                    self._peak[key] = (role, peak)

    @property
    def cpu(self) -> float:
        """Seconds of all of them together."""
        return sum(self._cpu.values())

    @property
    def peaks(self) -> dict[str, float]:
        """Largest resident memory in MiB by role."""
        peaks: dict[str, float] = {}
        for role, peak in self._peak.values():
            peaks[role] = max(peak, peaks.get(role, 0))
        return peaks
