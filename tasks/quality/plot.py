"""A finding as a picture: the history, the band of the usual, and today. SVG, without a library."""

from __future__ import annotations

import base64
from html import escape

from tasks.model.anomaly import Finding

WIDTH, HEIGHT, EDGE, FOOT = 640, 200, 56, 24


def finding_svg(finding: Finding) -> str:
    """Return the picture of a finding; it needs a value and a history."""
    assert finding.value is not None and finding.at is not None
    low = finding.low if finding.low is not None else finding.value
    high = finding.high if finding.high is not None else finding.value
    values = [*(point.value for point in finding.history), finding.value, low, high]
    times = [*(point.at for point in finding.history), finding.at]
    bottom, top = min(values), max(values)
    first, last = min(times), max(times)

    def x(at: float) -> float:
        return EDGE + (at - first) / ((last - first) or 1.0) * (WIDTH - EDGE - 16)

    def y(value: float) -> float:
        return HEIGHT - FOOT - (value - bottom) / ((top - bottom) or 1.0) * (HEIGHT - FOOT - 16)

    line = " ".join(f"{x(p.at):.1f},{y(p.value):.1f}" for p in finding.history)
    band = f'y="{y(high):.1f}" width="{WIDTH - EDGE - 16}" height="{max(y(low) - y(high), 1):.1f}"'
    labels = "".join(
        f'<text x="{EDGE - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        for value in sorted({bottom, top})
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="11" role="img">'
        f"<title>{escape(finding.message)}</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<rect class="usual" x="{EDGE}" {band} fill="#cfe8cf"/>'
        f'<polyline points="{line}" fill="none" stroke="#456" stroke-width="1.5"/>'
        f'<circle class="today" cx="{x(finding.at):.1f}" cy="{y(finding.value):.1f}" r="5" '
        f'fill="#c22"/>{labels}'
        f'<text x="{EDGE}" y="{HEIGHT - 6}">usual in green, today in red</text></svg>'
    )


def svg_address(svg: str) -> str:
    """Return a picture as an address that can stand in a page by itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004
