"""Imports through a transport of the user's own: around ours, in its place, and hostile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from parity_dagster.errors import SettingsError
from parity_dagster.importing.audit import audit
from parity_dagster.models import Pair
from parity_dagster.orchestration.alerts import post_alert
from parity_dagster.sample_network import LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.imports import assert_equal, query, settings_for, stored
from parity_dagster_tests.quick import quick

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"
PDS = "https://pds.example.com"
RKEYS = [f"3l4d5gaaaaa2{letter}" for letter in "abcdefg"]


class SmallAccount:
    """An account of seven posts, as its directory and its server tell it, in pages of three."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url == f"https://plc.directory/{DID}":
            service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": PDS}
            return httpx.Response(200, json={"id": DID, "alsoKnownAs": ["at://a.example.com"], "service": [service]})
        assert request.url.host == "pds.example.com"
        assert request.method == "GET"
        match request.url.path.removeprefix("/xrpc/"):
            case "com.atproto.sync.getLatestCommit":
                return httpx.Response(200, json={"cid": "bafyreihead", "rev": "3l4d5gabcd22z"})
            case "com.atproto.repo.listRecords" if request.url.params["collection"] == POST:
                start = int(request.url.params.get("cursor", "0"))
                page: dict[str, Any] = {"records": [self.record(rkey) for rkey in RKEYS[start : start + 3]]}
                if start + 3 < len(RKEYS):
                    page["cursor"] = str(start + 3)
                return httpx.Response(200, json=page)
            case "com.atproto.repo.listRecords":
                return httpx.Response(200, json={"records": []})
            case "com.atproto.sync.getRepoStatus":
                return httpx.Response(200, json={"did": DID, "active": True, "rev": "3l4d5gabcd22z"})
        raise AssertionError(f"nobody should ask for {request.url}")

    def record(self, rkey: str) -> dict[str, Any]:
        """One post."""
        value = {"$type": POST, "text": f"post {rkey}", "createdAt": "2026-01-01T00:00:00Z"}
        return {"uri": f"at://{DID}/{POST}/{rkey}", "cid": f"bafyrei{rkey}", "value": value}


@pytest.fixture
def public(settings: Settings) -> Settings:
    """The test's settings, as if the network were the world's."""
    changes = {"allow_private_hosts": False, "plc_url": "https://plc.directory", "collections": (POST, LIKE)}
    return settings.model_copy(update=changes)


def test_a_small_account_is_imported_through_httpx_s_mock_and_no_socket(public: Settings) -> None:
    account = SmallAccount()
    with ImportService(public, transport=httpx.MockTransport(account), report=False) as service:
        result = service.import_user(DID)
        assert (result.completed, result.records_synced, result.error) == (True, len(RKEYS), None)
        asked = len(account.asked)
        assert service.import_user(DID, refresh=True).completed
    expected = {rkey: (one["cid"], one["value"]) for rkey in RKEYS for one in [account.record(rkey)]}
    assert stored(public, DID, POST) == expected
    assert stored(public, DID, LIKE) == {}
    assert len(account.asked) <= asked + 2, "a repository that has not changed is not read again"
    states = query(public, "SELECT collection, status, pds, rev FROM parity_import_states ORDER BY collection")
    assert states == [(nsid, "completed", PDS, "3l4d5gabcd22z") for nsid in sorted((POST, LIKE))]


class Annotating(httpx.AsyncBaseTransport):
    """Counts what passes, and leaves a mark on it."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.counts: Counter[str] = Counter()
        made.append(self)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.counts["requests"] += 1
        self.counts[request.url.path] += 1
        request.headers["X-Mark"] = "ours"
        response = await self.inner.handle_async_request(request)
        response.extensions["seen"] = True
        self.counts[f"status {response.status_code}"] += 1
        return response

    async def aclose(self) -> None:
        self.counts["closed"] += 1
        await self.inner.aclose()


made: list[Annotating] = []


@pytest.fixture(autouse=True)
def _none_made() -> None:
    made.clear()


def test_a_transport_around_ours_sees_every_request_and_changes_no_row(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    dids = [network.add_account({POST: 57, LIKE: 3}, host=f"pds-{1 + n % 2}") for n in range(4)]
    network.behave(host="pds-2", faults=[{"kind": "503", "method": "listRecords", "times": 1}])
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running, page_size=10), transport=Annotating, report=False) as service,
    ):
        pairs = [Pair(did, nsid) for did in dids for nsid in (POST, LIKE)]
        assert all(result.completed for result in service.import_pairs(pairs))
        service.close()
        assert service.import_user_collection(dids[0], POST, refresh=True).completed
    for pair in pairs:
        assert_equal(settings, network, pair.did, pair.collection)
    assert len(made) == 2, "one for each time that connections were opened"
    assert sum(one.counts["requests"] for one in made) == network.log.count()
    assert sum(one.counts["status 503"] for one in made) == 1
    assert made[0].counts["/xrpc/com.atproto.repo.listRecords"] >= 4 * 8
    assert [one.counts["closed"] for one in made] == [1, 1]


@pytest.mark.long
def test_the_setting_names_a_transport_for_imports_audits_and_alerts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_TRANSPORT", f"{__name__}:Annotating")
    monkeypatch.setenv("PARITY_ALERT_WEBHOOK", "http://127.0.0.1:9/hook")
    given = load_settings()
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    with run_in_thread(network) as running:
        changes = {"transport": given.transport, "alert_webhook": given.alert_webhook}
        here = settings_for(settings, running, **changes)
        with ImportService(here, report=False) as service:
            assert service.import_user_collection(did, POST).completed
        report = audit(here, accounts=1)
        assert (report.compared, report.lost) == (5, 0)
        with pytest.raises(Exception, match="HostUnreachable"):
            post_alert(here, "hello", {})
    assert [one.counts["requests"] > 0 for one in made] == [True, True, True]
    assert made[2].counts["/hook"] == made[2].counts["requests"]
    with (
        ImportService(here.model_copy(update={"transport": "builtins:str"}), report=False) as service,
        pytest.raises(SettingsError, match="transport: str is no httpx"),
    ):
        service.import_user_collection(did, LIKE)
    with (
        ImportService(here.model_copy(update={"transport": "json:dumps"}), report=False) as service,
        pytest.raises(SettingsError, match=r"dumps.* cannot be called with ours \(TypeError"),
    ):
        service.import_user_collection(did, LIKE)


class Hostile(httpx.AsyncBaseTransport):
    """Does to one account's requests for records what it is told to."""

    def __init__(self, inner: httpx.AsyncBaseTransport, did: str, how: str) -> None:
        self.inner = inner
        self.did = did
        self.how = how

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if request.url.params.get("repo") == self.did:
            match self.how:
                case "raises":
                    raise LookupError("nobody expects this\x1b[31m")
                case "cancels":
                    raise asyncio.CancelledError
                case "none":
                    return None  # type: ignore[return-value] # on purpose
                case "group":
                    raise BaseExceptionGroup("several", [LookupError(), ValueError()])
            return httpx.Response(200, stream=_Stream(self.how))
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, how: str) -> None:
        self.how = how

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.how == "raises in the stream":
            raise LookupError("nobody expects this")
        while True:
            yield b"" if self.how == "endless nothing" else b"{" * 2**16


@pytest.mark.parametrize(
    ("how", "code"),
    quick(
        3,
        [
            ("cancels", "transport_failed"),
            ("raises in the stream", "transport_failed"),
            ("endless", "malformed_answer"),
            ("raises", "transport_failed"),
            ("none", "transport_failed"),
            ("group", "transport_failed"),
            ("endless nothing", "unreachable"),
        ],
    ),
)
def test_a_hostile_transport_costs_the_pair_that_asked(settings: Settings, how: str, code: str) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 30}) for _ in range(5)]
    with (
        run_in_thread(network) as running,
        ImportService(
            settings_for(settings, running, request_timeout=2.0, page_size=10),
            transport=lambda inner: Hostile(inner, dids[2], how),
            report=False,
        ) as service,
    ):
        results = service.import_pairs(Pair(did, POST) for did in dids)
    assert [result.completed for result in results] == [True, True, False, True, True]
    assert results[2].error_code == code
    assert results[2].error is not None
    assert results[2].error.isprintable()
    for did in (*dids[:2], *dids[3:]):
        assert_equal(settings, network, did, POST)
    assert query(settings, "SELECT error_code FROM parity_import_states WHERE did = %s", dids[2]) == [(code,)]


def test_the_transport_lives_on_the_thread_that_imports(public: Settings) -> None:
    threads: set[str] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        threads.add(threading.current_thread().name)
        return SmallAccount()(request)

    with ImportService(public, transport=httpx.MockTransport(answer), report=False) as service:
        assert service.import_user_collection(DID, POST).completed
    assert len(threads) == 1
    assert threads != {threading.current_thread().name}


PROGRAM = """
import sys
from parity_dagster import ImportService
with ImportService(report=False) as service:
    result = service.import_user(sys.argv[1])
print(result.completed, *{"httpx", "aiohttp", "dns", "sqlalchemy", "pandas", "dagster"} & set(sys.modules))
"""


def test_an_account_that_is_complete_already_is_told_so_without_loading_anything_of_the_network(
    settings: Settings,
) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with run_in_thread(network) as running:
        here = settings_for(settings, running, collections=(POST,))
        with ImportService(here, report=False) as service:
            assert service.import_user(did).completed
    command = [sys.executable, "-c", PROGRAM, did]
    environment = variables(here, PARITY_COLLECTIONS=POST)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True"]
