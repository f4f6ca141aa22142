"""The results as text: tables, the ratios that the project promises, the generated part of `docs/performance.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chart import CHARTS
from benchmarks.rounds import Results
from benchmarks.start import Start
from benchmarks.workloads import LISTS, RATE_LIMIT, RATE_WINDOW, WHOLE, WORKLOADS

BEGIN, END = "<!-- results: written by `python -m benchmarks --write` -->", "<!-- end of results -->"
HEAD = (
    "contender", "seconds", "records/s", "pages/s", "CPU s: own", "PostgreSQL", "server", "server busy",
    "peak MB", "rewritten", "requests/account",
)  # fmt: skip


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """One row of cells per contender, medians over the rounds."""
    for label, measured in results.measured.items():
        seconds = results.median(label)
        pages = results.median(label, "pages")
        busy = results.median(label, "server_cpu") / seconds
        yield (
            label,
            f"{seconds:.2f}",
            f"{results.rate(label):,.0f}",
            f"{pages / seconds:,.0f}" if pages else "",
            f"{results.median(label, 'cpu'):.2f}",
            f"{results.median(label, 'database_cpu'):.2f}",
            f"{results.median(label, 'server_cpu'):.2f}",
            f"{busy:.0%}",
            f"{max(one.memory for one in measured):.0f}",
            f"{results.median(label, 'rewritten'):,.0f}",
            f"{results.per_account(label, 'requests'):,.3g}",
        )
    for label, failure in results.failures.items():
        yield (label, f"failed: {failure}", *[""] * (len(HEAD) - 2))


def findings(results: Results) -> Iterator[str]:
    """The ratios and limits that the project promises, as far as a workload shows them."""
    has = results.measured.keys()
    parity = LISTS
    if parity in has and {"floor: download", "floor: COPY"} <= has:
        floors = {label: results.median(label) for label in has if label.startswith("floor")}
        own = results.median(parity)
        slower = max(floors["floor: download"], floors["floor: COPY"])
        yield f"ImportService takes {own / slower:.2f} × the slower floor (wanted on wide: 1.6)"
        for label, seconds in floors.items():
            yield f"ImportService takes {own / seconds:.2f} × the {label}"
    for peer, asked in (("SDK loop (atproto)", 8), ("dlt REST source", 12)):
        if parity in has and peer in has and results.workload.shape != "limited":  # there both wait, and no more
            ratio = results.rate(parity) / results.rate(peer)
            yield f"ImportService stores {ratio:.1f} × the records/s of the {peer} (wanted on wide: {asked})"
    dagster = "parity, Dagster run"
    if parity in has and dagster in has:
        more = results.measured[dagster][-1].more
        beyond = results.median(dagster) - more["empty run s"]
        yield (
            f"a Dagster run takes {beyond / results.median(parity):.2f} × the service's time (wanted: 1.3), beyond the"
            f" {more['empty run s']:.2f} s of a run that imports nothing; before that, process, Dagster's import, code"
            f" location, storage and a first run take {more['start-up s']:.1f} s"
        )
    if WHOLE in has:
        yield from _of_repositories(results)
    for label, measured in results.measured.items():
        more = measured[-1].more
        if "first half s" in more:
            yield (
                f"{label}: first half {more['first half s']:.2f} s, second half {more['second half s']:.2f} s,"
                f" peak {measured[-1].memory:.0f} MB"
            )
    if "first import" in has:
        for label in has:
            if label != "first import":
                ratio = results.median(label) / results.median("first import")
                yield (
                    f"refresh, {label}: {ratio:.2f} × the time of the first import,"
                    f" {results.median(label, 'rewritten'):,.0f} rows rewritten or deleted"
                )
    free, limited = "hosts without a limit", "hosts that allow 50 requests in 5 s"
    if free in has:
        one = results.measured[free][0]
        yield (
            f"{free}: {one.pages / one.seconds:,.0f} pages/s; 64 requests in flight (PARITY_CONCURRENCY) at 50 ms"
            " each would be 1,280"
        )
    if limited in has:
        one = results.measured[limited][0]
        requests, hosts = one.more["requests"], one.more["hosts"]
        # The first window is open at once, so the last one opens after all others but one have passed.
        least = (math.ceil(requests / hosts / RATE_LIMIT) - 1) * RATE_WINDOW
        said = (
            f"{limited}: {one.seconds:.1f} s where the limits ask for {least:.0f} s at least:"
            f" {requests / one.seconds:,.0f} requests/s, {least / one.seconds:.0%} of what is allowed (wanted: 80 %)"
        )
        yield said if least else f"{limited}: too few requests at this scale to reach a limit"
    if results.server_limit:
        yield f"the sample network serves {results.server_limit:,.0f} pages/s to a raw client that reads nothing"


def _of_repositories(results: Results) -> Iterator[str]:
    """What reading whole repositories brings beside reading lists."""
    cpu = {label: 1e6 * results.median(label, "cpu") / results.records for label in (LISTS, WHOLE)}
    requests = {label: results.per_account(label, "requests") for label in (LISTS, WHOLE)}
    ratio = results.median(WHOLE) / results.median(LISTS)
    yield (
        f"whole repositories: {requests[WHOLE]:.2f} requests per account to the PDSes (wanted: 1.2 at most), lists"
        f" {requests[LISTS]:,.1f}; to the directory {results.per_account(WHOLE, 'lookups'):.2f} and"
        f" {results.per_account(LISTS, 'lookups'):.2f}"
    )
    yield (
        f"whole repositories: {ratio:.2f} × the time of the lists (wanted on narrow: 0.5), {1 / ratio:.1f} × the"
        " accounts per minute (wanted on limited: 10)"
    )
    yield (
        f"whole repositories: {cpu[WHOLE]:.1f} µs of CPU per record in the importing process, everything verified"
        f" (wanted: 25), lists {cpu[LISTS]:.1f} µs"
    )
    last = results.measured[WHOLE][-1]
    if "archive MB" in last.more:
        yield (
            f"whole repositories: peak {last.memory:.0f} MB for a repository of {last.records:,} records, a file of"
            f" {last.more['archive MB']:.0f} MB (wanted: under 300 MB for a million)"
        )


def summary(results: Sequence[Results], machine: str) -> str:
    """Everything, for a terminal."""
    parts = [machine]
    for one in results:
        cells = [HEAD, *rows(one)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
        parts.append(f"\n{one.workload.name}: {one.workload.about}{_scaled(one)}")
        parts += [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        parts += [f"- {finding}" for finding in findings(one)]
    return "\n".join(parts)


def _scaled(results: Results) -> str:
    return "" if results.scale == 1 else f" (× {results.scale:g})"


def write_report(
    results: Sequence[Results], machine: str, command: str, checks: str, docs: Path, start: Start | None = None
) -> list[Path]:
    """Write what was measured into the generated part of performance.md, and the charts that can be drawn of it.

    Workloads that were not measured stay as they are, and so does a chart that needs one of them.

    Returns:
        The files below the folder `docs` that were written.
    """
    measured = f"measured {datetime.now(UTC):%Y-%m-%d} with `{command}` on {machine}"
    sections: dict[str, list[str]] = {}
    for one in results:
        rounds = max((len(measured) for measured in one.measured.values()), default=0)
        about = one.workload.about
        sections[one.workload.name] = [
            f"{about[0].upper()}{about[1:]}{_scaled(one)}: {one.pairs:,} pairs, {one.records:,} records;"
            f" {'median of ' + str(rounds) + ' rounds' if rounds > 1 else 'one round'}, {measured}.",
            "",
            f"| {' | '.join(HEAD)} |",
            f"|{'---|' + '--:|' * (len(HEAD) - 1)}",
            *(f"| {' | '.join(row)} |" for row in rows(one)),
            "",
            *(f"- {finding}" for finding in findings(one)),
        ]
    if start is not None:
        sections["A command's start"] = list(start.lines())
    if checks:
        sections["Validation"] = [f"{checks}."]
    page = docs / "performance.md"
    known = _sections(page.read_text(encoding="utf-8"))
    known.update({name: "\n".join(lines) for name, lines in sections.items()})
    order = [one.name for one in WORKLOADS if one.name in known]
    order += [name for name in known if name not in order]
    replace_part(page, BEGIN, END, ["", *(f"### {name}\n\n{known[name]}\n" for name in order)])
    written = [page]
    for chart in CHARTS:
        if chart.workloads <= {one.workload.name for one in results}:
            written.append(docs / chart.file)
            written[-1].write_text(chart.draw(results), encoding="utf-8")
    return written


def _sections(page: str) -> dict[str, str]:
    """The generated part by its headings."""
    _, *found = page.partition(BEGIN)[2].partition(END)[0].split("\n### ")
    return {name: text.strip() for name, _, text in (one.partition("\n") for one in found)}


def replace_part(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of a text file that has both."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text("\n".join([before + begin, *lines, end]) + rest.partition(end)[2], encoding="utf-8")
