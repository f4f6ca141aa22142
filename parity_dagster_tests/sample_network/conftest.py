"""A network of two hosts, and a client that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from parity_dagster.sample_network import Running, SampleNetwork, run_in_thread


@pytest.fixture
def network() -> SampleNetwork:
    return SampleNetwork(hosts=2)


@pytest.fixture
def served(network: SampleNetwork) -> Iterator[Running]:
    with run_in_thread(network) as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20, trust_env=False) as client:
        yield client
