"""The crowd's figures as text: for a terminal, and for `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BEGIN, END = "<!-- crowd: written by `python -m benchmarks.crowd --write` -->", "<!-- end of crowd -->"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures that `measurements.measure` returns, in Markdown."""
    crowd, alone, query = found["crowd"], found["alone"], found["query"]
    pairs = crowd["pairs"]
    yield "| from the drop of the file to the last materialization | seconds |"
    yield "|---|--:|"
    yield f"| all | {crowd['seconds']:.1f} |"
    yield f"| sensor: until every pair is a pending row | {crowd['sensor']:.1f} |"
    yield f"| waiting: from then to the start of the first run that imports | {crowd['waiting']:.1f} |"
    yield f"| a run in Dagster's queue, {crowd['runs']} runs on average | {crowd['planning']:.1f} |"
    yield f"| importing: at least one run at work | {crowd['importing']:.1f} |"
    yield f"| `ImportService` alone, its process's start included | {alone['seconds']:.1f} |"
    yield ""
    elapsed = 1000 * (crowd["seconds"] - alone["seconds"]) / pairs
    processor = 1000 * (crowd["cpu"] - alone["cpu"]) / pairs
    outcome = ", ".join(f"{count:,} {status}" for status, count in sorted(crowd["rows"].items()))
    yield f"- {pairs:,} pairs: {outcome}"
    yield (
        f"- Dagster's share per pair: {elapsed:.1f} ms elapsed and {processor:.1f} ms of processor time (wanted: under"
        " 10 ms): what all of this takes longer than `ImportService` alone, an idle daemon and webserver included"
    )
    if "stock" in found:
        each, count = found["stock"]["seconds per pair"], found["stock"]["pairs"]
        yield (
            f"- stock Dagster, one run per pair, {count} pairs launched at once: {1000 * each:,.0f} ms per pair,"
            f" {each / (crowd['seconds'] / pairs):,.0f} × as long"
        )
    peaks = ", ".join(f"{role} {peak:.0f}" for role, peak in sorted(crowd["peak_mib"].items(), key=lambda one: -one[1]))
    yield f"- peak resident memory in MiB, of the largest process of each kind: {peaks}"
    yield (
        f"- the UI's partition query over {query['numPartitions']:,} partitions, {query['numMaterialized']:,}"
        f" materialized: {query['first']:.2f} s for the first time in a webserver that has just started,"
        f" {query['later']:.2f} s later (wanted: under 2 s)"
    )
