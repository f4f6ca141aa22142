"""A network that changes and fails at random, importers that come, go and are killed: in the end, table = network.

A failure names its history, which is played again by

    PARITY_TEST_MODEL_SEED=1234 PARITY_TEST_MODEL_STEPS=1 pytest -s -m soak -k network_model

PARITY_TEST_MODEL_STEPS says how much is played at least, PARITY_TEST_MODEL_MOVES how long a history is.
"""

from __future__ import annotations

import os
from itertools import count

import pytest

from parity_dagster.settings import Settings
from parity_dagster_tests.importing.network_model.moves import Figures
from parity_dagster_tests.importing.network_model.play import play
from parity_dagster_tests.quick import quick


def given(name: str, default: int) -> int:
    return int(os.environ.get(f"PARITY_TEST_MODEL_{name}", default))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", quick(1, [5, 1, 2, 3, 4]))
def test_whatever_happens_the_table_equals_the_network(settings: Settings, seed: int) -> None:
    play(settings, seed, 20, Figures())


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_whatever_happens_for_hours_the_table_equals_the_network(settings: Settings) -> None:
    figures, failures = Figures(), []
    for seed in count(given("SEED", 1000)):
        try:
            play(settings, seed, given("MOVES", 40), figures)
        except Exception as exc:  # noqa: BLE001 - a long search goes on, and tells of all that it found
            print(f"history {seed}: {exc!r} {exc.__notes__}", flush=True)
            failures.append(exc)
        print(f"history {seed}; {figures}", flush=True)
        if figures.moves + figures.changes >= given("STEPS", 20_000):
            break
    if failures:
        raise ExceptionGroup(f"{len(failures)} histories failed", failures)
