"""Several mirrors of the PLC directory: who is asked, how fast, and what one of them is believed alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from parity_dagster.atproto.network import Network, open_network
from parity_dagster.errors import HostUnreachable, ParityError
from parity_dagster.importing.loop import new_event_loop
from parity_dagster.sample_network import LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.settings import Settings, load_settings
from parity_dagster_tests.imports import assert_equal, importing
from parity_dagster_tests.quick import quick


def on_network(network: SampleNetwork, work: Callable[[Network], Awaitable[Any]], **changes: Any) -> Any:
    """What a client of a sample network does."""

    async def main(plc_url: str) -> Any:
        client = open_network(load_settings(allow_private_hosts=True, plc_url=plc_url, **changes))
        try:
            return await work(client)
        finally:
            await client.aclose()

    with run_in_thread(network) as running:
        loop = new_event_loop()
        try:
            return loop.run_until_complete(main(running.plc_url))
        finally:
            loop.close()


def with_mirrors(accounts: int, mirrors: int, hosts: int = 1) -> tuple[SampleNetwork, list[str]]:
    """A network whose directory is so many servers."""
    network = SampleNetwork(hosts=hosts)
    for _ in range(mirrors - 1):
        network.add_mirror()
    return network, [network.add_account({POST: 3}, host="pds-1") for _ in range(accounts)]


async def resolve(client: Network, dids: list[str]) -> list[str]:
    """One after the other, so that what a mirror did is known before the next question."""
    return [(await client.identities.resolve_did(did)).pds for did in dids]


def test_mirrors_share_the_questions() -> None:
    network, dids = with_mirrors(12, mirrors=3)
    on_network(network, lambda client: resolve(client, dids))
    assert [network.log.count(host=name) for name in ("plc", "plc-2", "plc-3")] == [4, 4, 4]


@pytest.mark.parametrize("kind", ["503", "429", "cut", "html", "redirect"])
def test_a_mirror_that_fails_is_left_out(kind: str) -> None:
    """It would want us to wait for ten minutes, or be asked three times for each account."""
    network, dids = with_mirrors(20, mirrors=2)
    fault = {"kind": kind, "method": "did", "seconds": 600}
    network.behave(host="plc-2", faults=[fault])
    found = on_network(network, lambda client: resolve(client, dids))
    assert set(found) == {network.hosts["pds-1"].url}
    assert network.log.count(host="plc-2") == 1
    assert network.log.count(host="plc") == 20


def test_who_fails_last_is_asked_with_patience() -> None:
    network, dids = with_mirrors(1, mirrors=2)
    network.behave(faults=[{"kind": "503", "method": "did", "times": 2}])
    assert on_network(network, lambda client: resolve(client, dids))
    assert network.log.count(method="did", status=503) == 2
    network, dids = with_mirrors(1, mirrors=2)

    async def down(client: Network) -> None:
        network.take_down_host("plc")
        network.take_down_host("plc-2")
        with pytest.raises(HostUnreachable):
            await resolve(client, dids)

    on_network(network, down)


def test_each_mirror_has_the_pace_of_the_settings() -> None:
    network, dids = with_mirrors(40, mirrors=2)

    async def work(client: Network) -> float:
        began = time.monotonic()
        await asyncio.gather(*(client.identities.resolve_did(did) for did in dids))
        return began

    began = on_network(network, work, plc_rate=40.0)
    for name in ("plc", "plc-2"):
        asked = network.log.entries(host=name)
        assert len(asked) == 20
        # since before the first was sent: that one may have been under way for longer than the others
        assert asked[-1].at - began >= 19 / 40


DENIALS: dict[str, dict[str, Any]] = {
    "did_not_found": {"document": {"message": "DID not registered"}, "status": 404},
    "deleted": {"document": {"message": "DID not available"}, "status": 410},
    "no_pds": {"document": {"id": "DID", "service": []}},
    "blocked_endpoint": {
        "document": {
            "id": "DID",
            "service": [
                {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "ftp://pds.example.org"}
            ],
        }
    },
}


def deny(network: SampleNetwork, did: str, code: str, mirror: str) -> None:
    """Let a mirror say something final of an account."""
    given = DENIALS[code]
    document = {name: did if value == "DID" else value for name, value in given["document"].items()}
    network.set_document(did, document, status=given.get("status", 200), mirror=mirror)


@pytest.mark.parametrize("code", quick(2, DENIALS))
def test_no_single_mirror_makes_an_account_gone(settings: Settings, code: str) -> None:
    network, dids = with_mirrors(4, mirrors=3)
    with importing(settings, network) as (service, _):
        for did in dids:
            deny(network, did, code, "plc-2")
            assert service.import_user(did, [POST]).completed, code
            assert_equal(settings, network, did, POST)
        lost = network.add_account({POST: 1})
        for mirror in network.mirrors:
            deny(network, lost, code, mirror)
        assert service.import_user(lost, [POST]).error_code == code, "what two of them say is believed"


def test_of_two_that_deny_an_account_the_one_that_denies_less_is_believed() -> None:
    network, (did, *_) = with_mirrors(1, mirrors=2)

    async def work(client: Network) -> None:
        for first, second in (("deleted", "did_not_found"), ("did_not_found", "deleted")):
            deny(network, did, first, "plc")
            deny(network, did, second, "plc-2")
            for _ in range(2):
                with pytest.raises(ParityError) as caught:
                    await client.identities.resolve_did(did)
                assert caught.value.code == "did_not_found"

    on_network(network, work)


@pytest.mark.long
@pytest.mark.parametrize("code", DENIALS)
def test_what_no_second_mirror_confirms_is_tried_again(settings: Settings, code: str) -> None:
    network, dids = with_mirrors(2, mirrors=2)
    with importing(settings, network, retry_delay=0.1) as (service, _):
        network.take_down_host("plc")
        for did in dids:
            deny(network, did, code, "plc-2")
            result = service.import_user(did, [POST])
            assert result.error_code == "unconfirmed"
            state = service.get_status(did, POST)
            assert state is not None
            assert state.next_attempt_at is not None, "by itself, later"
        network.bring_up_host("plc")
    with importing(settings, network) as (service, _):
        assert all(service.import_user(did, [POST]).completed for did in dids)


@pytest.mark.parametrize("old", quick(1, ["deactivated", "gone"]))
def test_a_mirror_that_is_behind_does_not_send_an_account_into_its_old_hosts_grave(
    settings: Settings, old: Any
) -> None:
    """The old host says that the account is deactivated, or knows nothing of it: true there alone."""
    network, dids = with_mirrors(6, mirrors=2, hosts=2)
    with importing(settings, network) as (service, running):
        mirror = running.plc_url.split(",")[1]
        for did in dids:
            assert service.import_user(did, [LIKE]).completed, "the old host is known by now"
            network.set_document(did, httpx.get(f"{mirror}/{did}").content, mirror="plc-2")
            network.migrate(did, "pds-2", old=old)
        for did in dids:
            assert service.import_user(did, [POST]).completed
            assert_equal(settings, network, did, POST)


@pytest.mark.long
def test_mirrors_that_disagree_end_nothing_while_the_new_host_is_down(settings: Settings) -> None:
    network, dids = with_mirrors(4, mirrors=2, hosts=2)
    with importing(settings, network) as (service, running):
        mirror = running.plc_url.split(",")[1]
        for did in dids:
            network.set_document(did, httpx.get(f"{mirror}/{did}").content, mirror="plc-2")
            network.migrate(did, "pds-2")
        network.take_down_host("pds-2")
        codes = {service.import_user(did, [POST]).error_code for did in dids}
        assert codes <= {"unconfirmed", "unreachable", "host_paused"}, codes
