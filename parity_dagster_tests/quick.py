"""Which cases of a test run every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(count: int, cases: Iterable[Any]) -> list[Any]:
    """Cases for `parametrize`, of which the first few are quick and the others long; a tuple is one value per name."""
    rest = iter(cases)
    return [*(next(rest) for _ in range(count)), *(_long(case) for case in rest)]


def _long(case: Any) -> Any:
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.long], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else [case]), marks=pytest.mark.long)
