"""The garbage collector is left as it was found."""

from __future__ import annotations

import gc

import pytest

from parity_dagster.importing.gc_thresholds import THRESHOLDS, relaxed_gc


def test_the_collector_looks_less_often_until_the_last_import_has_ended():
    before = gc.get_threshold()
    with relaxed_gc():
        assert gc.get_threshold() == THRESHOLDS
        with pytest.raises(ZeroDivisionError), relaxed_gc():
            raise ZeroDivisionError
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == before


def test_a_collector_that_is_off_stays_off():
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with relaxed_gc():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
