"""The chart of `docs/performance.md`: records per second, a bar per contender, a group per workload, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.rounds import Results

_WIDTH, _LEFT, _ROW, _BAR = 860, 300, 26, 16
_COLOURS = {"floor": "#9aa4b2", "parity": "#1f6feb"}
_OTHER = "#d9822b"


def bars(results: Sequence[Results]) -> str:
    """Draw the workloads in which parity is compared with others, legible on light and dark pages."""
    groups = [
        one for one in results if len(one.measured) > 2 and any(label.startswith("floor") for label in one.measured)
    ]
    largest = max((one.rate(label) for one in groups for label in one.measured), default=1.0)
    parts: list[str] = []
    y = 44.0
    for one in groups:
        parts.append(
            f'<text x="12" y="{y:.0f}" class="group">{escape(one.workload.name)}: {escape(one.workload.about)}</text>'
        )
        y += 10
        for label in one.measured:
            rate = one.rate(label)
            width = max(1.0, (_WIDTH - _LEFT - 110) * rate / largest)
            colour = _COLOURS.get(label.split(":")[0].split(",")[0], _OTHER)
            parts += [
                f'<text x="{_LEFT - 10}" y="{y + 13:.0f}" text-anchor="end">{escape(label)}</text>',
                f'<rect x="{_LEFT}" y="{y:.0f}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
                f'<text x="{_LEFT + width + 8:.1f}" y="{y + 13:.0f}">{rate:,.0f}</text>',
            ]
            y += _ROW
        y += 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" width="{_WIDTH}" height="{y:.0f}"'
        ' role="img" aria-label="records per second of every contender">'
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.group{font-weight:600}"
        ".background{fill:#ffffff}</style>"
        f'<rect class="background" width="{_WIDTH}" height="{y:.0f}"/>'
        '<text x="12" y="20">records per second, more is better</text>' + "".join(parts) + "</svg>\n"
    )
