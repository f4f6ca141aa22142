"""The faults that `scripts/mutate.py` plants are kept up with the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_fault_can_still_be_planted() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "mutate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "can be planted" in done.stdout
