"""Tests that use Dagster's tables: databases are copied from one that has them."""

from __future__ import annotations

import pytest

from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.settings import Settings


@pytest.fixture(scope="session")
def template_database(template_with_dagster: str) -> str:
    """What the databases of this folder's tests are copied from."""
    return template_with_dagster


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    """Settings for two collections of the test's network."""
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})
