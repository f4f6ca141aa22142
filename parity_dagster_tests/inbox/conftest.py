"""Tests that use Dagster's tables: databases are copied from one that has them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    """What the databases of this folder's tests are copied from."""
    return template_with_dagster
