"""Metrics and logs: the numbers agree with the tables, and a stranger's text cannot forge a line."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from parity_dagster import ImportService, Pair, Settings, load_settings
from parity_dagster.monitoring.logs import JsonFormatter, TextFormatter, configure_logging
from parity_dagster.monitoring.prometheus import ImportMetrics, state_registry
from parity_dagster.sample_network import LIKE, POST, Fault, Running
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import call, run, start, variables

DOCS = Path(__file__).parents[2] / "docs"
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})


def values(text: str) -> Values:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(registry: CollectorRegistry) -> Values:
    return values(generate_latest(registry).decode())


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def test_the_listener_counts_pairs_pages_records_and_errors(settings: Settings, network: Running) -> None:
    good = network.network.add_account({POST: 250, LIKE: 3})
    bad = network.network.add_account({POST: 5})
    network.network.add_odd(good, LIKE, ["nul"] if "nul" in _odd_kinds() else _odd_kinds()[:1])
    network.network.set_status(bad, "takendown")
    registry = CollectorRegistry()
    with ImportService(settings, [ImportMetrics(registry)], report=False) as service:
        results = service.import_pairs([Pair(good, POST), Pair(good, LIKE), Pair(bad, POST)])
        service.import_pairs([Pair(good, POST)])
    found = scrape(registry)
    assert found[key("parity_imports_started_total", collection=POST)] == 2
    assert found[key("parity_imports_completed_total", collection=POST, fetched="true")] == 1
    assert found[key("parity_imports_completed_total", collection=POST, fetched="false")] == 1
    assert found[key("parity_imports_failed_total", collection=POST, error_code="takendown")] == 1
    assert found[key("parity_records_total", collection=POST, outcome="synced")] == 250
    assert found[key("parity_records_total", collection=LIKE, outcome="synced")] == results[1].records_synced
    assert found[key("parity_records_total", collection=LIKE, outcome="failed")] == results[1].records_failed == 1
    assert found[key("parity_pages_total", collection=POST)] >= 3
    assert found[key("parity_import_seconds_count", collection=POST)] == 2
    assert not any("did:" in str(name) for name in found), "a label per account would not stay small"


def _odd_kinds() -> list[str]:
    from parity_dagster.sample_network import ODD_KINDS

    return [kind for kind in ODD_KINDS if "nul" in kind] or list(ODD_KINDS)


def test_a_resumed_walk_does_not_count_again_what_was_committed_before(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 500})
    broken = Fault(kind="429", method="listRecords", skip=3, seconds=3600)
    network.network.behave(did=did, faults=(broken,))
    with ImportService(settings, report=False) as service:
        assert not service.import_user_collection(did, POST).is_success
        before = service.get_status(did, POST)
        assert before is not None
        assert 0 < before.records_synced < 500
        network.network.behave(did=did, faults=())
        registry = CollectorRegistry()
        with ImportService(settings, [ImportMetrics(registry)], report=False) as second:
            assert second.import_user_collection(did, POST).records_synced == 500
    counted = scrape(registry).get(key("parity_records_total", collection=POST, outcome="synced"), 0)
    assert counted <= 500 - before.records_synced


def test_the_state_tables_metrics_agree_with_it(settings: Settings, network: Running) -> None:
    good, bad = network.network.add_account({POST: 7}), network.network.add_account({POST: 5})
    network.network.set_status(bad, "deactivated")
    with ImportService(settings) as service:
        service.import_pairs([Pair(good, POST), Pair(bad, POST)])
        service.enqueue([Pair(good, LIKE)])
    with connect(settings, autocommit=True) as connection:
        connection.execute(
            "UPDATE parity_import_states SET updated_at = now() - interval '5 min' WHERE status = 'pending'"
        )
        connection.execute("UPDATE parity_import_states SET completed_at = completed_at - interval '1 day'")
        connection.execute(
            "INSERT INTO parity_import_states (did, collection, status, error_code, next_attempt_at, importer_id)"
            " VALUES ('did:plc:a', 'x', 'failed', 'unreachable', now() - interval '1 s', NULL),"
            " ('did:plc:b', 'x', 'failed', 'unreachable', now() + interval '1 h', NULL),"
            " ('did:plc:c', 'x', 'in_progress', NULL, NULL, 4711)"
        )
        connection.execute(
            "INSERT INTO parity_import_states (did, collection, status, error_code, next_attempt_at, updated_at, batch)"
            " SELECT 'did:plc:' || status, 'y', status, 'unreachable', now() - interval '1 s', now() - interval '1 d',"
            " 'held:run' FROM unnest('{pending,in_progress,failed}'::text[]) status"
        )
        connection.execute(
            "INSERT INTO parity_failed_records (did, collection, fingerprint, reason, detail, body, walk)"
            " VALUES ('did:plc:a', 'x', 'f', 'nul_character', '', '', 1)"
        )
    found = scrape(state_registry(settings))
    expected = {
        key("parity_database_up"): 1,
        key("parity_pairs", status="completed"): 1,
        key("parity_pairs", status="pending"): 1 + 1,
        key("parity_pairs", status="failed"): 3 + 1,
        key("parity_pairs", status="in_progress"): 1 + 1,
        key("parity_pairs_failed", error_code="deactivated"): 1,
        key("parity_pairs_failed", error_code="unreachable"): 2 + 1,
        key("parity_pair_records", outcome="synced"): 7,
        key("parity_retries_due"): 1,
        key("parity_pairs_held"): 3,
        key("parity_pairs_gone"): 1,
        key("parity_pairs_left"): 1 + 1 + 2,
        key("parity_pairs_running"): 0,
        key("parity_retries_scheduled"): 1,
        key("parity_pairs_interrupted"): 1,
        key("parity_failed_records", reason="nul_character"): 1,
        key("parity_importers"): 0,
        key("parity_announcements_waiting"): 0,
        key("parity_reports_waiting"): 2,
        key("parity_tombstones"): 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 300 <= found[key("parity_oldest_pending_seconds")] < 330
    assert 86_400 <= found[key("parity_stalest_copy_seconds")] < 86_430
    with connect(settings, autocommit=True) as connection:
        connection.execute("UPDATE parity_import_states SET confirmed_at = now() - interval '1 hour'")
    assert 3600 <= scrape(state_registry(settings))[key("parity_stalest_copy_seconds")] < 3630


def test_metrics_of_a_database_that_is_away_say_so(tmp_path: Path) -> None:
    away = load_settings(database_url="postgresql://nobody@127.0.0.1:1/none", home=tmp_path)
    assert scrape(state_registry(away)) == {key("parity_database_up"): 0}


def test_the_command_prints_metrics_once(settings: Settings) -> None:
    done = call("metrics", env=variables(settings))
    assert done.exit_code == 0, done.output
    assert values(done.stdout)[key("parity_pairs", status="completed")] == 0


@pytest.mark.processes
def test_the_command_serves_metrics_until_it_is_told_to_stop(settings: Settings) -> None:
    with start("metrics", "--serve", "--port", "0", env=variables(settings)) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", line)
        assert found, line
        with urllib.request.urlopen(found[0], timeout=10) as answer:
            assert values(answer.read().decode())[key("parity_database_up")] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


def test_every_metric_that_dashboard_alerts_and_docs_name_exists(settings: Settings) -> None:
    registry = CollectorRegistry()
    ImportMetrics(registry)
    state = state_registry(settings)
    exist = {
        name
        for each in (registry, state)
        for family in text_string_to_metric_families(generate_latest(each).decode())
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket", *(s.name for s in family.samples))
    }
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    alerts = (DOCS / "alerts.md").read_text()
    named = set(re.findall(r"\bparity_[a-z_]+", expressions)) | set(
        re.findall(r"\bparity_[a-z_]+", " ".join(re.findall(r"expr: (.*)", alerts)))
    )
    assert len(named) > 12
    assert named <= exist, f"no such metric: {sorted(named - exist)}"
    described = set(re.findall(r"^\| `(parity_[a-z_]+)", (DOCS / "monitoring.md").read_text(), re.MULTILINE))
    base = {re.sub(r"_(total|bucket|created)$", "", name) for name in exist}
    assert {re.sub(r"_total$", "", name) for name in described} <= base
    collected = {family.name for family in text_string_to_metric_families(generate_latest(state).decode())}
    counted = {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}
    missing = collected | counted
    assert missing <= {re.sub(r"_total$", "", name) for name in described}, "docs/monitoring.md explains every metric"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = configure_logging("json", stream=stream)
    yield stream
    logging.getLogger().removeHandler(handler)
    logging.getLogger("parity_dagster").setLevel(logging.NOTSET)


def test_json_logs_tell_did_collection_pds_and_run(settings: Settings, network: Running, log: io.StringIO) -> None:
    good, bad = network.network.add_account({POST: 3}), network.network.add_account({POST: 3})
    network.network.set_status(bad, "suspended")
    with ImportService(settings, report=False, run_id="run-1") as service:
        service.import_pairs([Pair(good, POST), Pair(bad, POST)])
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    events = [line for line in lines if line["logger"] == "parity_dagster.events"]
    done = next(line for line in events if line["event"] == "ImportCompleted")
    assert {name: done[name] for name in ("did", "collection", "pds", "run_id", "records_synced")} == {
        "did": good,
        "collection": POST,
        "pds": network.pds_urls["pds-1"],
        "run_id": "run-1",
        "records_synced": 3,
    }
    failed = next(line for line in events if line["event"] == "ImportFailed")
    assert failed["error_code"] == "suspended"
    assert failed["did"] == bad
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", done["timestamp"])


NASTY = "line one\nERROR forged \x1b[2J \x85 \u202e \u2028 end"


def test_control_characters_never_reach_a_log_as_they_are() -> None:
    record = logging.LogRecord("parity_dagster", logging.WARNING, __file__, 1, "said %s", (NASTY,), None)
    record.did = NASTY
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(record)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]", line)
    assert json.loads(JsonFormatter().format(record))["body"] == f"said {NASTY}"


def test_an_exception_is_one_line_of_json() -> None:
    try:
        raise ValueError(NASTY)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "oh", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception.type"] == "ValueError"
    assert "test_monitoring" in json.loads(line)["exception.stacktrace"]
    assert "\nTraceback (most recent call last)" in TextFormatter().format(record)


def test_the_command_line_logs_json_when_asked_to(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 2})
    env = variables(settings, PARITY_COLLECTIONS=POST, PARITY_LOG_FORMAT="json")
    done = run("import", did, env=env)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert "ImportCompleted" in [line.get("event") for line in lines if line.get("did") == did]
