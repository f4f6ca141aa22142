"""The invariants of docs/invariants.md and their guards know each other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^ *# (I\d+(?:, I\d+)*)$", re.MULTILINE)


def named(folder: str) -> set[str]:
    """Numbers that the modules of a package name in comments of their own."""
    texts = [path.read_text() for path in (ROOT / folder).rglob("*.py")]
    return {number for text in texts for mark in _MARK.findall(text) for number in mark.split(", ")}


def test_every_invariant_is_named_where_it_is_guarded_and_by_a_test_of_it() -> None:
    numbers = re.findall(r"^- \*\*(I\d+)\*\* ", (ROOT / "docs" / "invariants.md").read_text(), re.MULTILINE)
    assert numbers == [f"I{number}" for number in range(1, len(numbers) + 1)]
    assert named("parity_dagster") == set(numbers)
    assert named("parity_dagster_tests") == set(numbers)
