"""Charts as small SVG images, for markdown in the Dagster UI.

The images follow the browser's light or dark mode and have a background of their own, so that they can be read in
either theme of the UI whatever the browser says. They are drawn by hand: a plotting library would be the heaviest
dependency of the package for two kinds of pictures.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import datetime
from html import escape

WIDTH = 760
_ROW = 26
_LABEL_WIDTH = 210
_RIGHT = 90
_STYLE = """<style>
.card{fill:#ffffff;stroke:#d5d9e0}.ink{fill:#1f2430}.soft{fill:#5a6270}.grid{stroke:#d5d9e0}
.s0{fill:#2f7de1}.s1{fill:#d64545}.s2{fill:#c98a00}.s3{fill:#8a93a3}.s4{fill:#ccd1da}
.line{stroke:#2f7de1;fill:none;stroke-width:2}.area{fill:#2f7de1;opacity:.18}
text{font:13px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif}
.title{font-weight:600;font-size:14px}
@media (prefers-color-scheme:dark){.card{fill:#161b24;stroke:#3a4352}.ink{fill:#eef1f6}.soft{fill:#aab3c2}
.grid{stroke:#3a4352}.s0{fill:#6aa9ff}.s1{fill:#ff7b7b}.s2{fill:#ffc34d}.s3{fill:#7d8798}.s4{fill:#414a59}
.line{stroke:#6aa9ff}.area{fill:#6aa9ff}}
</style>"""


def bar_chart(title: str, rows: Sequence[tuple[str, Sequence[float]]], legend: Sequence[str] = ()) -> str:
    """Horizontal bars, one per row of a label and values; several values are stacked."""
    if not rows:
        return "Nothing to draw yet."
    top = 64 if len(legend) > 1 else 40
    height = top + _ROW * len(rows) + 12
    longest = max((sum(values) for _, values in rows), default=0) or 1
    room = WIDTH - _LABEL_WIDTH - _RIGHT
    parts = []
    for number, label in enumerate(legend if len(legend) > 1 else ()):
        at = 20 + 120 * number
        parts.append(f'<rect class="s{number}" x="{at}" y="40" width="12" height="12" rx="2"/>')
        parts.append(f'<text class="soft" x="{at + 18}" y="51">{escape(label)}</text>')
    for number, (label, values) in enumerate(rows):
        y = top + _ROW * number
        shown = label if len(label) <= 30 else f"{label[:14]}…{label[-15:]}"
        parts.append(f'<text class="ink" x="{_LABEL_WIDTH - 10}" y="{y + 17}" text-anchor="end">{escape(shown)}</text>')
        x = float(_LABEL_WIDTH)
        for series, value in enumerate(values):
            # what is there at all must be seen
            width = max(room * value / longest, 2.0) if value else 0.0
            parts.append(f'<rect class="s{series}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="18" rx="2"/>')
            x += width
        parts.append(f'<text class="soft" x="{x + 8:.1f}" y="{y + 17}">{_short(sum(values))}</text>')
    return _image(title, height, "".join(parts))


def time_chart(title: str, points: Sequence[tuple[datetime, float]]) -> str:
    """A line over time."""
    if not points:
        return "Nothing to draw yet."
    height, left, top, bottom = 220, 70, 48, 34
    highest = _round_up(max(value for _, value in points))
    begin, end = points[0][0], points[-1][0]
    span = (end - begin).total_seconds() or 1.0
    floor = height - bottom

    def place(moment: datetime, value: float) -> str:
        x = left + (WIDTH - left - 30) * (moment - begin).total_seconds() / span
        return f"{x:.1f},{floor - (floor - top) * value / highest:.1f}"

    parts = []
    for step in range(5):
        value = highest * step / 4
        y = floor - (floor - top) * step / 4
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - 30}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    line = " ".join(place(*point) for point in points)
    area = f"{place(begin, 0)} {line} {place(end, 0)}"
    parts.append(f'<polygon class="area" points="{area}"/><polyline class="line" points="{line}"/>')
    if len(points) <= 60:
        for point in points:
            x, y_text = place(*point).split(",")
            parts.append(f'<circle class="s0" cx="{x}" cy="{y_text}" r="3"/>')
    shape = "%Y-%m-%d %H:%M" if span < 86_400 * 7 else "%Y-%m-%d"
    parts.append(f'<text class="soft" x="{left}" y="{height - 12}">{begin:{shape}}</text>')
    parts.append(f'<text class="soft" x="{WIDTH - 30}" y="{height - 12}" text-anchor="end">{end:{shape}} UTC</text>')
    return _image(title, height, "".join(parts))


def _image(title: str, height: int, body: str) -> str:
    name = escape(title, quote=True)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" aria-label="{name}">{_STYLE}<rect class="card" x=".5" y=".5" width="{WIDTH - 1}"'
        f' height="{height - 1}" rx="8"/><text class="ink title" x="20" y="26">{name}</text>{body}</svg>'
    )
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size * 10:
            return f"{value / size:,.0f}{unit}"
        if value >= size:
            return f"{value / size:,.1f}{unit}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    size = 10 ** math.floor(math.log10(value))
    return float(next(step * size for step in (1, 2, 4, 5, 10) if step * size >= value))
