"""Alerts: a failed run and a failed check reach a real HTTP listener, once each, and nothing is posted unless asked."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from parity_dagster.definitions import build_defs
from parity_dagster.models import Pair
from parity_dagster.orchestration import alerts
from parity_dagster.orchestration.partitions import register_dids
from parity_dagster.sample_network import POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import one, run
from parity_dagster_tests.quick import quick


class Listener:
    """A webhook that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.authorizations: list[str | None] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                listener.authorizations.append(self.headers["Authorization"])
                status = listener.answers.pop(0) if listener.answers else 200
                if status == 200:
                    listener.bodies.append(json.loads(body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def settings(settings: Settings, network: Running, listener: Listener) -> Settings:
    changes = {"plc_url": network.plc_url, "collections": (POST,), "alert_webhook": SecretStr(listener.url)}
    return settings.model_copy(update=changes)


class Ticker:
    """Evaluates a sensor as the daemon does, cursor and all."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
        self._repository = build_defs(settings).get_repository_def()
        self._sensor = self._repository.get_sensor_def(name)
        self._instance = instance
        self._cursor: str | None = None

    def tick(self) -> Any:
        with dg.build_sensor_context(
            instance=self._instance, cursor=self._cursor, repository_def=self._repository
        ) as context:
            said = self._sensor.evaluate_tick(context)
        self._cursor = said.cursor
        return said


def test_a_failed_run_is_posted_once_with_what_failed(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    did = network.network.add_account({POST: 5})
    network.network.behave(did=did, faults=(Fault(kind="400", method="listRecords"),))
    register_dids(instance, [did])
    ticker = Ticker(settings, instance, "alert_on_run_failure")
    ticker.tick()
    failed = run(settings, instance, tags=one(Pair(did, POST)))
    assert not failed.success
    ticker.tick()
    ticker.tick()
    (body,) = listener.bodies
    assert body["event"] == "run_failure"
    assert body["run_id"] == failed.run_id
    assert body["job"] == "import_partitions"
    assert body["path"] == f"/runs/{failed.run_id}"
    for said in (did, POST, failed.run_id[:8], "failed"):
        assert said in body["text"]


def test_what_a_server_says_pings_nobody_and_plants_no_link(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    did = network.network.add_account({POST: 5})
    register_dids(instance, [did])
    bait = Fault(kind="400", method="listRecords", message="<!channel> & <https://evil.test|log in again>")
    network.network.behave(did=did, faults=(bait,))
    ticker = Ticker(settings, instance, "alert_on_run_failure")
    ticker.tick()
    assert not run(settings, instance, tags=one(Pair(did, POST))).success
    ticker.tick()
    (body,) = listener.bodies
    assert "&lt;!channel&gt; &amp; &lt;https://evil.test|log in again&gt;" in body["text"]
    assert "<" not in body["text"]
    assert "<!channel>" in body["message"], "what programs read is as it was said"


@pytest.mark.long
def test_a_run_that_succeeds_is_not_posted(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    did = network.network.add_account({POST: 5})
    register_dids(instance, [did])
    tickers = [Ticker(settings, instance, name) for name in ("alert_on_run_failure", "alert_on_check_failure")]
    for ticker in tickers:
        ticker.tick()
    assert run(settings, instance, tags=one(Pair(did, POST))).success
    assert run(settings, instance, "run_all_checks").success
    for ticker in tickers:
        ticker.tick()
    assert listener.bodies == []


def fail_a_check(settings: Settings, instance: dg.DagsterInstance, network: Running) -> str:
    did = network.network.add_account({POST: 5})
    network.network.behave(did=did, faults=(Fault(kind="400", method="listRecords"),))
    with ImportService(settings, report=False) as service:
        service.import_user(did)
    run(settings, instance, "run_all_checks")
    return did


def test_a_failed_check_is_posted_once_and_names_the_pair(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    ticker = Ticker(settings, instance, "alert_on_check_failure")
    ticker.tick()
    did = fail_a_check(settings, instance, network)
    ticker.tick()
    ticker.tick()
    by_check = {body["check"]: body for body in listener.bodies}
    assert len(by_check) == len(listener.bodies)
    body = by_check["no_failed_imports"]
    assert body["event"] == "check_failure"
    assert body["asset"] == "import_checks"
    assert body["severity"] == "ERROR"
    assert did in body["text"]


@pytest.mark.long
def test_the_same_facts_are_posted_once_and_others_again(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    tickers = [Ticker(settings, instance, name) for name in ("alert_on_run_failure", "alert_on_check_failure")]

    def posted(of: str) -> int:
        for ticker in tickers:
            ticker.tick()
        found = [body for body in listener.bodies if body.get("check", body["event"]) == of]
        listener.bodies.clear()
        return len(found)

    posted("")
    did = fail_a_check(settings, instance, network)
    assert posted("no_failed_imports") == 1
    with ImportService(settings, report=False) as service:
        service.import_user(network.network.add_account({POST: 5}))
        service.import_user(network.network.add_account({POST: 5}, status="deactivated"))
    run(settings, instance, "refresh_overview")
    assert posted("no_failed_imports") == 0, "others are complete since, or gone, and it fails for what it failed for"
    register_dids(instance, [did])
    for alerts_expected in (1, 0):
        assert not run(settings, instance, tags=one(Pair(did, POST))).success
        assert posted("run_failure") == alerts_expected
    dids = [did]
    for alerts_expected in (1, 0):
        config = {"dids": dids, "collections": [POST]}
        assert not run(settings, instance, "import_records", config=config).success
        assert posted("run_failure") == alerts_expected, "how many others a run has is no news"
        dids.append(network.network.add_account({POST: 5}))
    other = network.network.add_account({POST: 5})
    network.network.behave(did=other, faults=(Fault(kind="400", method="listRecords"),))
    register_dids(instance, [other])
    assert not run(settings, instance, tags=one(Pair(other, POST))).success
    assert posted("run_failure") == 1
    run(settings, instance, "refresh_overview")
    assert posted("no_failed_imports") == 1, "one more has failed"
    for name in (did, other):
        network.network.behave(did=name, faults=())
        with ImportService(settings, report=False) as service:
            service.import_user(name)
    run(settings, instance, "refresh_overview")
    assert posted("no_failed_imports") == 0
    network.network.behave(did=other, faults=(Fault(kind="400", method="listRecords"),))
    with ImportService(settings, report=False) as service:
        service.import_pairs([Pair(other, POST)], reread=True)
    run(settings, instance, "refresh_overview")
    assert posted("no_failed_imports") == 1, "it had passed meanwhile"


def test_what_failed_before_the_sensor_was_turned_on_is_not_posted(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    fail_a_check(settings, instance, network)
    ticker = Ticker(settings, instance, "alert_on_check_failure")
    ticker.tick()
    ticker.tick()
    assert listener.bodies == []


@pytest.mark.long
def test_an_alert_about_a_check_waits_for_a_webhook_that_is_down(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    ticker = Ticker(settings, instance, "alert_on_check_failure")
    ticker.tick()
    fail_a_check(settings, instance, network)
    listener.answers = [503] * alerts.TRIES
    with pytest.raises(Exception, match="did not take the alert"):
        ticker.tick()
    assert listener.bodies == []
    ticker.tick()
    assert {body["check"] for body in listener.bodies} >= {"no_failed_imports"}


@pytest.mark.long
def test_a_webhook_that_stumbles_gets_the_alert_all_the_same(settings: Settings, listener: Listener) -> None:
    listener.answers = [500, 429]
    assert alerts.post_alert(settings, "hello", {"event": "test"})
    assert listener.bodies == [{"text": "hello", "unfurl_links": False, "source": "parity_dagster", "event": "test"}]


def test_name_and_password_in_the_webhooks_url_are_sent_as_a_header(settings: Settings, listener: Listener) -> None:
    url = listener.url.replace("://", "://me:pa%20ss@")
    assert alerts.post_alert(settings.model_copy(update={"alert_webhook": SecretStr(url)}), "hello", {})
    assert listener.authorizations == ["Basic bWU6cGEgc3M="]
    assert alerts.post_alert(settings, "hello", {})
    assert listener.authorizations[1:] == [None]


@pytest.mark.parametrize(
    "url", quick(1, ["{listener}", "http://127.0.0.1:9/hooks/s3cret", "http://[::bad/hooks/s3cret"])
)
def test_neither_error_nor_log_shows_the_webhooks_url(
    settings: Settings, listener: Listener, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    for name in ("httpx", "httpcore", "parity_dagster"):
        caplog.set_level(logging.DEBUG if name == "parity_dagster" else logging.INFO, name)
    listener.answers = [404]
    here = settings.model_copy(update={"alert_webhook": SecretStr(url.format(listener=listener.url))})
    with pytest.raises(alerts.AlertFailed) as caught:
        alerts.post_alert(here, "hello", {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "s3cret" not in caplog.text


def test_without_a_webhook_the_sensors_are_off_and_post_nothing(
    settings: Settings, instance: dg.DagsterInstance, network: Running, listener: Listener
) -> None:
    off = settings.model_copy(update={"alert_webhook": None})
    for here, status in ((off, dg.DefaultSensorStatus.STOPPED), (settings, dg.DefaultSensorStatus.RUNNING)):
        repository = build_defs(here).get_repository_def()
        for name in ("alert_on_run_failure", "alert_on_check_failure"):
            assert repository.get_sensor_def(name).default_status is status
    ticker = Ticker(off, instance, "alert_on_check_failure")
    ticker.tick()
    fail_a_check(off, instance, network)
    ticker.tick()
    assert listener.bodies == []
