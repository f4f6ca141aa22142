"""The charts of `docs/performance.md`: a bar per contender, a group per workload, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.rounds import Results
from benchmarks.workloads import WORKLOADS

_WIDTH, _LEFT, _ROW, _BAR = 860, 300, 26, 16
_COLOURS = {"floor": "#9aa4b2", "parity": "#1f6feb"}
_OTHER = "#d9822b"


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn of some workloads.

    Attributes:
        file: its name in `docs/`.
        title: what the bars are.
        workloads: that it compares.
        value: of a contender; one of which it is 0 is left out.
        spell: the value as text.
    """

    file: str
    title: str
    workloads: frozenset[str]
    value: Callable[[Results, str], float]
    spell: str

    def draw(self, results: Sequence[Results]) -> str:
        """Draw it, legible on light and dark pages."""
        groups = [
            (one, {label: value for label in one.measured if (value := self.value(one, label))})
            for one in results
            if one.workload.name in self.workloads
        ]
        return _draw(self.title, groups, self.spell)


CHARTS = (
    Chart(
        "performance.svg",
        "records per second, more is better",
        frozenset(one.name for one in WORKLOADS if any(each.program == "copy" for each in one.contenders)),
        lambda results, label: results.rate(label),
        ",.0f",
    ),
    Chart(
        "requests.svg",
        "requests to PDSes per account, fewer is better",
        frozenset(
            one.name for one in WORKLOADS if {"repositories", "sdk"} <= {each.program for each in one.contenders}
        ),
        lambda results, label: results.per_account(label, "requests"),
        ".1f",
    ),
)


def _draw(title: str, groups: Sequence[tuple[Results, dict[str, float]]], spell: str) -> str:
    largest = max((value for _, values in groups for value in values.values()), default=1.0)
    parts: list[str] = []
    y = 44.0
    for one, values in groups:
        parts.append(
            f'<text x="12" y="{y:.0f}" class="group">{escape(one.workload.name)}: {escape(one.workload.about)}</text>'
        )
        y += 10
        for label, value in values.items():
            width = max(1.0, (_WIDTH - _LEFT - 110) * value / largest)
            colour = _COLOURS.get(label.split(":")[0].split(",")[0], _OTHER)
            parts += [
                f'<text x="{_LEFT - 10}" y="{y + 13:.0f}" text-anchor="end">{escape(label)}</text>',
                f'<rect x="{_LEFT}" y="{y:.0f}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
                f'<text x="{_LEFT + width + 8:.1f}" y="{y + 13:.0f}">{value:{spell}}</text>',
            ]
            y += _ROW
        y += 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" width="{_WIDTH}" height="{y:.0f}"'
        f' role="img" aria-label="{title}, of every contender">'
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.group{font-weight:600}"
        ".background{fill:#ffffff}</style>"
        f'<rect class="background" width="{_WIDTH}" height="{y:.0f}"/>'
        f'<text x="12" y="20">{title}</text>' + "".join(parts) + "</svg>\n"
    )
