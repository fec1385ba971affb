"""A finding as a picture: the history, the band of the usual, and today. SVG, without a library."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from tasks.model.anomaly import Finding

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 96, 34, 30
ROOM = 0.08
"""Of the heights that are shown, left free above and below."""
TICKS = 4
INK, FAINT, GRID, USUAL, TODAY = "#24292f", "#b6bec9", "#e6e9ed", "#d5ecd6", "#c62828"
_UNITS: dict[str | None, Callable[[float], str]] = {
    "volume": lambda value: f"{value:,.0f}",
    "null_rate": lambda value: f"{value:.1%}",
    "freshness": lambda value: f"{value:.1f} h",
}
_TITLES = {
    "volume": "rows",
    "null_rate": "share of NULL in {column}",
    "freshness": "age of the newest row",
    "drift": "{column}: how far its values are from the usual (stability index)",
    "profile": "the profile as a whole: 1 is like all others",
}


def finding_svg(finding: Finding) -> str:
    """Return the picture of a finding; it needs a value and a history."""
    assert finding.value is not None and finding.at is not None
    low = finding.low if finding.low is not None else finding.value
    high = finding.high if finding.high is not None else finding.value
    values = [*(point.value for point in finding.history), finding.value, low, high]
    times = [*(point.at for point in finding.history), finding.at]
    scale = _Scale(min(times), max(times), min(values), max(values))
    say = _UNITS.get(finding.metric, _number)
    title = _TITLES.get(str(finding.metric), "").format(column=finding.column)
    right = WIDTH - RIGHT
    band_top, band_bottom = scale.y(high), max(scale.y(low), scale.y(high) + 2)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="11" role="img">'
    )
    band = (
        f'<rect class="usual" x="{LEFT}" y="{band_top:.1f}" width="{right - LEFT}" '
        f'height="{band_bottom - band_top:.1f}" fill="{USUAL}"/>'
    )
    parts = [
        head,
        f"<title>{escape(finding.message)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 18, title, size=13),
        band,
        *(_level(scale.y(tick), say(tick)) for tick in scale.levels()),
        *_days(scale),
        _text(right + 8, (band_top + band_bottom) / 2 + 4, "usual", color="#3b7d3e"),
        *_history(finding, scale),
        _today(finding, scale, say),
        "</svg>",
    ]
    return "".join(parts)


def svg_address(svg: str) -> str:
    """Return a picture as an address that can stand in a page by itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _number(value: float) -> str:
    return f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a time and a value are in the picture."""

    first: float
    last: float
    lowest: float
    highest: float

    def x(self, at: float) -> float:
        return LEFT + (at - self.first) / ((self.last - self.first) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        span = (self.highest - self.lowest) or 1.0
        share = ((value - self.lowest) / span + ROOM) / (1 + 2 * ROOM)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def levels(self) -> list[float]:
        """Return round values to draw lines at."""
        rough = ((self.highest - self.lowest) or 1.0) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        count = math.floor(self.highest / step) - math.ceil(self.lowest / step) + 1
        return [(math.ceil(self.lowest / step) + number) * step for number in range(count)]


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", color: str = INK, size: int = 11
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}">'
        f"{escape(words)}</text>"
    )


def _level(y: float, words: str) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
    return line + _text(LEFT - 8, y + 4, words, anchor="end")


def _days(scale: _Scale) -> list[str]:
    """Return the dates below: the first, the last, and some between."""
    words = "%d %b %H:%M" if scale.last - scale.first < 4 * 86_400 else "%d %b %Y"
    found = []
    for number in range(TICKS + 1):
        at = scale.first + (scale.last - scale.first) * number / TICKS
        moment = datetime.fromtimestamp(at, UTC)
        found.append(_text(scale.x(at), HEIGHT - 10, f"{moment:{words}}", anchor="middle"))
    return found


def _history(finding: Finding, scale: _Scale) -> list[str]:
    """Return the days before; those that today is compared with are darker."""
    line = " ".join(f"{scale.x(p.at):.1f},{scale.y(p.value):.1f}" for p in finding.history)
    dots = [
        f'<circle cx="{scale.x(p.at):.1f}" cy="{scale.y(p.value):.1f}" r="{3 if p.alike else 2}" '
        f'fill="{INK if p.alike else FAINT}"/>'
        for p in finding.history
    ]
    return [f'<polyline points="{line}" fill="none" stroke="{FAINT}"/>', *dots]


def _today(finding: Finding, scale: _Scale, say: Callable[[float], str]) -> str:
    assert finding.value is not None and finding.at is not None
    x, y = scale.x(finding.at), scale.y(finding.value)
    dot = f'<circle class="today" cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{TODAY}"/>'
    return dot + _text(x + 10, y + 4, f"today {say(finding.value)}", color=TODAY, size=12)
