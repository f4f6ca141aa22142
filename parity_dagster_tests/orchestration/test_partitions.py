"""Partition keys and the registration of accounts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, strategies as st

from parity_dagster.dagster_instance.keys import from_partition_key, to_partition_key
from parity_dagster.errors import InvalidIdentifier
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import (
    DIDS,
    REGISTER_CHUNK,
    build_partitions,
    register_dids,
    unregistered_dids,
)
from parity_dagster.settings import load_settings

PLC = "abcdefghijklmnopqrstuvwxyz234567"
dids = st.one_of(
    st.text(PLC, min_size=24, max_size=24).map(lambda name: f"did:plc:{name}"),
    st.sampled_from(["did:web:example.com", "did:web:a.b-c.example.org", "did:web:localhost%3A2583"]),
)
nsids = st.sampled_from(["app.bsky.feed.post", "com.example.fooBar", "a.b-c.d.x9"])


def did(number: int) -> str:
    return "did:plc:" + "".join(PLC[number // 32**place % 32] for place in range(24))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as temporary:
        yield temporary


@given(dids, nsids)
def test_a_pair_comes_back_from_its_key(did: str, collection: str) -> None:
    pair = Pair(did, collection)
    assert from_partition_key(to_partition_key(pair)) == pair
    assert str(to_partition_key(pair)) == f"{collection}|{did}"


@pytest.mark.parametrize(
    "key", ["", "|", "app.bsky.feed.post", "app.bsky.feed.post|", "|did:plc:" + "a" * 24,
            "did:plc:" + "a" * 24 + "|app.bsky.feed.post", "app.bsky.feed.post|did:plc:short",
            "app.bsky.feed.post|did:plc:" + "a" * 24 + "|x"],
)  # fmt: skip
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidIdentifier):
        from_partition_key(key)


def test_every_registered_collection_of_every_registered_account_is_a_partition(
    instance: dg.DagsterInstance,
) -> None:
    settings = load_settings(collections="app.bsky.feed.post,com.example.note")
    register_dids(instance, [did(2), did(1)])
    keys = build_partitions(settings).get_partition_keys(dynamic_partitions_store=instance)
    assert [from_partition_key(key) for key in keys] == [
        Pair(account, collection) for collection in settings.collections for account in (did(2), did(1))
    ]


def test_registering_twice_registers_once_and_says_what_was_new(instance: dg.DagsterInstance) -> None:
    assert register_dids(instance, [did(1), did(2), did(1)]) == [did(1), did(2)]
    assert register_dids(instance, [did(2), did(3)]) == [did(3)]
    assert unregistered_dids(instance, [did(3), did(4), did(4)]) == [did(4)]
    assert instance.get_dynamic_partitions(DIDS) == [did(1), did(2), did(3)]


@pytest.mark.long
def test_more_accounts_than_one_statement_takes_are_registered(instance: dg.DagsterInstance) -> None:
    many = [did(number) for number in range(2 * REGISTER_CHUNK + 1)]
    assert register_dids(instance, many) == many
    assert len(instance.get_dynamic_partitions(DIDS)) == len(many)


def _register_one_by_one(folder: str, together: Any) -> None:
    with dg.DagsterInstance.local_temp(folder) as instance:
        together.wait()
        for number in range(40):
            register_dids(instance, [did(number)])


@pytest.mark.long
def test_processes_that_race_to_register_the_same_accounts_all_succeed(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """SQLite refuses a key that another process added between our look and our insert."""
    register_dids(instance, [did(10_000)])  # the tables exist before the race
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    together = context.Barrier(3)
    racers = [context.Process(target=_register_one_by_one, args=(str(tmp_path), together)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert len(instance.get_dynamic_partitions(DIDS)) == 41
