"""Drift of a column's distribution: the population stability index over quantiles or top values."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from tasks.model.profile import DECILES, ColumnProfile

SMALLEST_SHARE = 1e-3
"""Of a bin. An empty bin would make the index infinite."""
COVERED = 0.5
"""Share of the values that the top ones must be, for them to stand for all."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the values of a column are from what they were."""

    index: float
    """Of today's values against those of the whole history."""
    before: list[float]
    """Of each day of the history."""
    words: str
    """What has changed most; it shows no value of a row."""


def stability_index(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the population stability index of two distributions over the same bins.

    It is never negative, zero for equal ones, and the same both ways round. Below 0.1 means little,
    above 0.25 much.
    """
    return sum(
        (b - a) * math.log(b / a) for a, b in zip(_kept(expected), _kept(found), strict=True)
    )


def _kept(shares: Sequence[float]) -> list[float]:
    raised = [max(share, SMALLEST_SHARE) for share in shares]
    return [share / sum(raised) for share in raised]


def share_below(quantiles: Sequence[float], value: float) -> float:
    """Return the share of values up to one, by straight lines between the deciles."""
    position = bisect.bisect_right(quantiles, value)
    if position == 0:
        return 0.0
    if position == len(quantiles):
        return 1.0
    low, high = quantiles[position - 1], quantiles[position]
    return (position - 1 + (value - low) / (high - low)) * DECILES[1]


def column_drift(history: Sequence[ColumnProfile], today: ColumnProfile) -> Drift | None:
    """Compare today's values with all of the history, and each day of it.

    Returns:
        None if the profiles do not say enough to compare: times go on, and keys are all different.
    """
    if today.kind in ("text", "boolean", "number") and _is_covered([*history, today]):
        return _top_drift([dict(profile.top) for profile in history], dict(today.top))
    if today.kind == "number" and today.quantiles:
        before = [profile.quantiles for profile in history if profile.quantiles]
        return _quantile_drift(before, today.quantiles) if before else None
    return None


def _is_covered(profiles: Sequence[ColumnProfile]) -> bool:
    return median(sum(share for _, share in profile.top) for profile in profiles) >= COVERED


def _top_drift(history: Sequence[Mapping[str, float]], today: Mapping[str, float]) -> Drift:
    pooled: dict[str, float] = {}
    for shares in history:
        for value, share in shares.items():
            pooled[value] = pooled.get(value, 0.0) + share / len(history)
    names = sorted({*pooled, *today})

    def shares_of(top: Mapping[str, float]) -> list[float]:
        listed = [top.get(name, 0.0) for name in names]
        return [*listed, max(1.0 - sum(listed), 0.0)]

    expected = shares_of(pooled)
    each = [stability_index(expected, shares_of(shares)) for shares in history]
    most = max(names, key=lambda name: abs(today.get(name, 0.0) - pooled.get(name, 0.0)))
    words = (
        f"a value that is usually {pooled.get(most, 0.0):.0%} of them is {today.get(most, 0.0):.0%}"
    )
    return Drift(stability_index(expected, shares_of(today)), each, words)


def _quantile_drift(history: Sequence[Sequence[float]], today: Sequence[float]) -> Drift:
    edges = sorted({median(day[step] for day in history) for step in range(1, len(DECILES) - 1)})

    def shares_of(quantiles: Sequence[float]) -> list[float]:
        below = [0.0, *(share_below(quantiles, edge) for edge in edges), 1.0]
        return [high - low for low, high in pairwise(below)]

    days = [shares_of(quantiles) for quantiles in history]
    expected = [fmean(bins) for bins in zip(*days, strict=True)]
    each = [stability_index(expected, day) for day in days]
    return Drift(stability_index(expected, shares_of(today)), each, _moved(history, today))


def _moved(history: Sequence[Sequence[float]], today: Sequence[float]) -> str:
    """Say which of the lower tenth, the middle and the upper tenth has moved most."""
    usually = [median(quantiles) for quantiles in zip(*history, strict=True)]
    width = max(usually[9] - usually[1], 1e-9)
    names = {5: "the median is", 1: "the lowest tenth ends at", 9: "the highest tenth begins at"}
    step = max(names, key=lambda step: abs(today[step] - usually[step]) / width)
    return f"{names[step]} usually {usually[step]:,.6g}, today {today[step]:,.6g}"
