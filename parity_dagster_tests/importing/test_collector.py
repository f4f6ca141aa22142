"""The garbage collector is left as it was found."""

from __future__ import annotations

import gc

import pytest

from parity_dagster.importing.collector import THRESHOLDS, fewer_collections


def test_the_collector_looks_less_often_until_the_last_import_has_ended():
    before = gc.get_threshold()
    with fewer_collections():
        assert gc.get_threshold() == THRESHOLDS
        with pytest.raises(ZeroDivisionError), fewer_collections():
            raise ZeroDivisionError
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == before


def test_a_collector_that_is_off_stays_off():
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with fewer_collections():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
