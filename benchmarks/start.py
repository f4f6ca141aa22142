"""What a command costs that has little to do: whole processes, from their start to their end, taking turns.

`import-status` is the yardstick: a command of the same program that asks the database once. The database is an external
one, as far as the commands know.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.environment import Database, Network, network
from parity_dagster.sample_network import FOLLOW, LIKE, POST

COMPLETE, SMALL, STATUS = "import of a complete account", "import of a small account", "import-status"
_WANTED = {COMPLETE: 1.6, SMALL: 2.2}
_SMALL_ACCOUNT = {POST: 40, LIKE: 40, FOLLOW: 20}


@dataclass(slots=True)
class Start:
    """Seconds of each command over the rounds."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, label: str) -> float:
        """Median of a command."""
        return statistics.median(self.seconds[label])

    def findings(self) -> Iterator[str]:
        """The ratios that the project promises."""
        for label, wanted in _WANTED.items():
            ratio = self.median(label) / self.median(STATUS)
            yield f"{label}: {ratio:.2f} × `import-status` (wanted: {wanted})"

    def lines(self) -> list[str]:
        """A table and the ratios."""
        return [
            "| command | seconds | range |",
            "|---|--:|--:|",
            *(
                f"| {label} | {self.median(label):.2f} | {min(times):.2f} to {max(times):.2f} |"
                for label, times in self.seconds.items()
            ),
            "",
            *(f"- {finding}" for finding in self.findings()),
        ]


def time_commands(database: Database, *, rounds: int, say: Callable[[str], None]) -> Start:
    """Time each command once a round; a first round, which fills the system's caches, does not count."""
    start = Start()
    with network("wide", 0.01) as served:
        database.reset()
        env = _environment(database, served)
        (complete,) = served.dids
        _time(["import", complete], env)
        for number in range(rounds + 1):
            small = str(served.control("add_account", {"collections": _SMALL_ACCOUNT}))
            for label, command in (
                (STATUS, ["import-status"]),
                (COMPLETE, ["import", complete]),
                (SMALL, ["import", small]),
            ):
                seconds = _time(command, env)
                if number:
                    start.seconds.setdefault(label, []).append(seconds)
                    say(f"start {number}/{rounds}: {label:<45} {seconds:8.2f} s")
    return start


def _environment(database: Database, served: Network) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARITY_")},
        "PARITY_DATABASE_URL": database.url,
        "PARITY_PLC_URL": served.plc_url,
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_DELAY": "0",  # as for every contender: waiting is no work
        "PARITY_COLLECTIONS": ",".join(_SMALL_ACCOUNT),
    }


def _time(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    # what the program `parity` does
    program = [sys.executable, "-c", "from parity_dagster.__main__ import main; main()"]
    done = subprocess.run([*program, *command], env=env, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"`parity {' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
    return seconds
