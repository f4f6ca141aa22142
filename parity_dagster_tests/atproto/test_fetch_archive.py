"""Whole repositories over the wire: what a host gives, what it refuses, and which of its failures pass."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO, Literal

import pytest

from parity_dagster.atproto.archive import RepositoryArchive, signing_key
from parity_dagster.atproto.network import Network, open_network
from parity_dagster.errors import (
    AccountDeactivated,
    AccountSuspended,
    AccountTakenDown,
    ArchiveUnavailable,
    HostUnreachable,
    MalformedAnswer,
    ParityError,
    RateLimited,
    RepoNotFound,
    ServerFailure,
)
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork, run_in_thread
from parity_dagster.settings import load_settings
from parity_dagster_tests.quick import quick

Asking = Callable[[Network, str], Awaitable[None]]
CAP = 2**20


@pytest.fixture
def network() -> SampleNetwork:
    return SampleNetwork()


@pytest.fixture
def served(network: SampleNetwork) -> Iterator[Running]:
    with run_in_thread(network) as running:
        yield running


def ask(served: Running, work: Asking, **overrides: object) -> None:
    async def whole() -> None:
        settings = load_settings(allow_private_hosts=True, plc_url=served.plc_url, **overrides)
        network = open_network(settings, longest_wait=5.0)
        try:
            async with asyncio.timeout(60):
                await work(network, served.pds_urls["pds-1"])
        finally:
            await network.aclose()

    asyncio.run(whole())


def fetch(served: Running, did: str, file: BinaryIO, max_bytes: int = CAP, **overrides: object) -> None:
    ask(served, lambda network, pds: network.repos.fetch_archive(pds, did, file, max_bytes=max_bytes), **overrides)


def refused(
    served: Running, did: str, kind: type[ParityError], max_bytes: int = CAP, **overrides: object
) -> ParityError:
    with tempfile.TemporaryFile() as file:
        with pytest.raises(kind) as caught:
            fetch(served, did, file, max_bytes, **overrides)
        assert file.seek(0, 2) <= max_bytes
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize("gzip", [False, True])
def test_an_archive_is_proven_with_the_key_of_the_same_look_up_as_its_pds(
    gzip: bool, network: SampleNetwork, served: Running
) -> None:
    did = network.add_account({POST: 40, LIKE: 7})
    network.behave(gzip=gzip)

    async def work(client: Network, pds: str) -> None:
        identity = await client.identities.resolve_did(did)
        assert identity.pds == pds
        with tempfile.TemporaryFile() as file:
            await client.repos.fetch_archive(pds, did, file, max_bytes=CAP)
            key = signing_key(identity.document, did)
            proof = RepositoryArchive(file).verify(did=did, key=key)
        assert proof.counts == {POST: 40, LIKE: 7}
        assert network.log.count(host="plc") == 1

    ask(served, work)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("takendown", AccountTakenDown), ("suspended", AccountSuspended), ("deactivated", AccountDeactivated)],
)
def test_a_host_says_that_the_account_is_not_to_be_read(
    status: Literal["takendown", "suspended", "deactivated"],
    kind: type[ParityError],
    network: SampleNetwork,
    served: Running,
) -> None:
    did = network.add_account({POST: 5})
    network.set_status(did, status)
    refused(served, did, kind)


def test_a_host_says_that_it_does_not_have_the_account(network: SampleNetwork, served: Running) -> None:
    did = network.add_account({POST: 5})
    network.drop_repo(did)
    refused(served, did, RepoNotFound)


def patience(*faults: Fault) -> float:
    """Seconds that a request may take: few only where they pass anyway, for the machine may be slow, too."""
    return min([60.0, *({"drip": 3.0, "hang": 0.5}.get(fault.kind, 60.0) for fault in faults)])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="501", method="getRepo"),
        Fault(kind="501", method="getRepo", name="RepoTakendown"),
        Fault(kind="404", method="getRepo"),
        Fault(kind="400", method="getRepo", name="AuthMissing"),
        Fault(kind="400", method="getRepo", message="RepoTakendown"),
        Fault(kind="gzip-bomb", method="getRepo", size=2**25),
        Fault(kind="padded", method="getRepo", size=2**25),
        Fault(kind="drip", method="getRepo", seconds=600),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.name}{fault.message}",
)
def test_a_host_without_an_archive_that_can_be_taken_is_asked_once(
    fault: Fault, network: SampleNetwork, served: Running
) -> None:
    did = network.add_account({POST: 400})
    network.behave(faults=(fault,))
    error = refused(served, did, ArchiveUnavailable, request_timeout=patience(fault))
    assert error.code == "archive_unavailable"
    assert network.log.count() == 1


@pytest.mark.long
def test_why_there_is_no_archive_is_said_in_one_line(network: SampleNetwork, served: Running) -> None:
    did = network.add_account({POST: 400})
    pds = served.pds_urls["pds-1"]

    def say(**changes: Any) -> str:
        network.behave_normally()
        network.behave(**changes)
        return str(refused(served, did, ArchiveUnavailable, request_timeout=patience(*changes.get("faults", ()))))

    assert say(archive_surplus=-1) == f"the archive of {did} at {pds} is larger than 1,048,576 bytes"
    assert say(sync_methods=False).startswith(f"{pds} gives no archives: {pds} answered 501")
    assert say(faults=(Fault(kind="404"),)) == f"{pds} gives no archive of {did}: 404 NotFound: Not found"
    assert say(faults=(Fault(kind="drip", seconds=600),)).startswith(
        f"the archive of {did} comes too slowly: 127.0.0.1"
    )


def test_a_disk_that_is_full_is_a_reason_too(network: SampleNetwork, served: Running) -> None:
    did = network.add_account({POST: 40})
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(ArchiveUnavailable, match="on this machine"):  # noqa: PTH123
        fetch(served, did, full)


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    quick(
        4,
        [
            (Fault(kind="cut", method="getRepo", size=500), HostUnreachable, 3),
            (Fault(kind="long-length", method="getRepo"), HostUnreachable, 3),
            (Fault(kind="reset", method="getRepo"), HostUnreachable, 3),
            (Fault(kind="hang", method="getRepo"), HostUnreachable, 3),
            (Fault(kind="500", method="getRepo"), ServerFailure, 3),
            (Fault(kind="503", method="getRepo", message="upstream answered 501"), ServerFailure, 3),
            (Fault(kind="redirect", method="getRepo"), MalformedAnswer, 1),
            (Fault(kind="429", method="getRepo", seconds=3600), RateLimited, 1),
        ],
    ),
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_what_may_pass_is_transient(
    fault: Fault, kind: type[ParityError], tries: int, network: SampleNetwork, served: Running
) -> None:
    did = network.add_account({POST: 400})
    network.behave(faults=(fault,))
    assert refused(served, did, kind, request_timeout=patience(fault)).retryable
    assert network.log.count(method="getRepo") in (tries, 2 * tries)  # aiohttp sends once more what was reset


def test_a_transfer_that_was_cut_begins_anew(network: SampleNetwork, served: Running) -> None:
    did = network.add_account({POST: 400})
    right, file = BytesIO(), BytesIO()
    fetch(served, did, right)
    network.behave(faults=(Fault(kind="cut", method="getRepo", size=50_000, times=1),))
    fetch(served, did, file)
    assert file.getvalue() == right.getvalue()


@pytest.mark.parametrize("changes", [
    {"archive": "forged"},
    {"faults": (Fault(kind="html"),)},
    {"faults": (Fault(kind="empty-body"),)},
    {"faults": (Fault(kind="truncated-json", size=99),)},
])  # fmt: skip
def test_whether_it_is_an_archive_is_found_by_who_reads_it(
    changes: dict[str, Any], network: SampleNetwork, served: Running
) -> None:
    did = network.add_account({POST: 40})
    network.behave(**changes)
    fetch(served, did, BytesIO())


def test_a_limit_of_archives_does_not_delay_pages(network: SampleNetwork, served: Running) -> None:
    did = network.add_account({POST: 5})
    network.behave(repo_rate_limit=2, rate_window=3600.0)

    async def work(client: Network, pds: str) -> None:
        for _ in range(2):
            await client.repos.fetch_archive(pds, did, BytesIO(), max_bytes=CAP)
        with pytest.raises(RateLimited):
            await client.repos.fetch_archive(pds, did, BytesIO(), max_bytes=CAP)
        assert network.log.count() == 2, "its headers have said that none is left"
        page = await client.repos.list_records(pds, did, POST, cursor=None, limit=100)
        assert len(page.records) == 5

    ask(served, work)
