"""The benchmark runs, and what it compares did the same work; no test looks at a time."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from benchmarks.chart import CHARTS
from benchmarks.checking import cost_of_checks
from benchmarks.environment import Database, database
from benchmarks.report import BEGIN, END, summary, write_report
from benchmarks.rounds import Results, run_workload
from benchmarks.start import COMPLETE, SMALL, STATUS, time_commands
from benchmarks.workloads import WORKLOADS

pytestmark = [pytest.mark.processes, pytest.mark.long]

TINY = {"wide": 0.01, "limited": 0.03, "whale": 0.003, "refresh": 0.01}
OTHERS = {"sdk": "atproto", "dlt": "dlt"}
OWN = {"download", "copy", "service", "refresh", "repositories"}


@pytest.fixture(scope="module")
def bench_database():
    with database() as server:
        yield server


@pytest.fixture(scope="module")
def results(bench_database: Database) -> dict[str, Results]:
    """Four workloads once, by parity's own contenders alone: the others take seconds to load."""
    found = {}
    for workload in WORKLOADS:
        if workload.name not in TINY:
            continue
        contenders = tuple(one for one in workload.contenders if one.program in OWN)
        small = type(workload)(
            **{**{name: getattr(workload, name) for name in workload.__slots__}, "contenders": contenders}
        )
        found[workload.name] = run_workload(
            small, bench_database, rounds=1, scale=TINY[workload.name], say=lambda line: None
        )
    return found


def test_no_contender_fails(results: dict[str, Results]) -> None:
    assert {name: one.failures for name, one in results.items() if one.failures} == {}


@pytest.mark.parametrize("workload", ["wide", "whale"])
def test_parity_stores_as_many_records_as_the_floor_copies(results: dict[str, Results], workload: str) -> None:
    measured = results[workload].measured
    stored = measured["parity, ImportService"][0].records
    assert stored == measured["floor: COPY"][0].records == results[workload].records > 0


def test_a_whole_repository_is_one_request_for_the_same_records(results: dict[str, Results]) -> None:
    for workload, pages in (("limited", 5 * 3), ("whale", 1500 // 100 + 1)):
        one = results[workload]
        lists, whole = one.measured["parity, ImportService"][0], one.measured["parity, whole repositories"][0]
        assert lists.records == whole.records == one.records
        assert one.per_account("parity, ImportService", "requests") == pages + 1, "the revision is asked for first"
        assert one.per_account("parity, whole repositories", "requests") == 1
        assert one.per_account("parity, whole repositories", "lookups") == 1
    assert whole.more["archive MB"] > 0


def test_a_refresh_rewrites_what_changed_and_nothing_else(results: dict[str, Results]) -> None:
    measured = results["refresh"].measured
    total = measured["first import"][0].records
    assert measured["unchanged"][0].rewritten == 0
    assert measured["unchanged"][0].more["pairs read"] == 0
    assert measured["unchanged, getLatestCommit answers 501"][0].rewritten == 0
    assert measured["unchanged, getLatestCommit answers 501"][0].more["pairs read"] > 0
    assert measured["2 % changed"][0].rewritten == total * 2 // 100


def test_the_other_ways_store_the_same_records(bench_database: Database) -> None:
    wide = next(workload for workload in WORKLOADS if workload.name == "wide")
    contenders = tuple(dataclasses.replace(one, share=1.0) for one in wide.contenders if one.program in OTHERS)
    small = dataclasses.replace(wide, contenders=contenders)
    found = run_workload(small, bench_database, rounds=1, scale=TINY["wide"], say=lambda line: None)
    assert found.failures == {}
    assert {one[0].records for one in found.measured.values()} == {found.records}


def test_the_report_shows_every_contender_and_keeps_the_words_around_it(
    results: dict[str, Results], bench_database: Database, tmp_path: Path
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold figures\n{END}\nafter\n", encoding="utf-8")
    start = time_commands(bench_database, rounds=1, say=lambda line: None)
    write_report(list(results.values()), "a machine", "python -m benchmarks", cost_of_checks(20), tmp_path, start)
    text = page.read_text(encoding="utf-8")
    for label in (STATUS, COMPLETE, SMALL):
        assert f"| {label} |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old figures" not in text
    for one in results.values():
        for label in one.measured:
            assert f"| {label} |" in text
    refresh = results["refresh"]
    write_report([refresh], "a machine", "python -m benchmarks --workload refresh", "", tmp_path)
    again = page.read_text(encoding="utf-8")
    assert again.replace(" --workload refresh", "") == text, "what was not measured again stays"
    assert "× the slower floor" in summary(list(results.values()), "a machine")


def test_the_chart_has_a_bar_for_every_contender_that_is_compared(results: dict[str, Results]) -> None:
    speeds, requests = (chart.draw(list(results.values())) for chart in CHARTS)
    compared = [one for one in results.values() if "floor: COPY" in one.measured]
    assert len(re.findall("<rect x=", speeds)) == sum(len(one.measured) for one in compared)
    assert re.findall(r">([\d.]+)</text>", requests) == ["16.0", "1.0"]
    assert speeds.startswith("<svg ")
