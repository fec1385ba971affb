"""Robust seasonal statistics: what is usual, from medians, so that a bad day teaches nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
MIN_OF_SEASON = 3
"""With fewer values of one season, all values are taken."""


@dataclass(frozen=True, slots=True)
class Band:
    """Between which values something usually is."""

    center: float
    scale: float
    low: float
    high: float
    seasonal: bool
    """Is it the band of the season, or that of the whole history?"""

    def holds(self, value: float) -> bool:
        """Tell whether a value is usual."""
        return self.low <= value <= self.high

    def distance(self, value: float) -> float:
        """Return how many robust standard deviations a value is away from the middle."""
        return (value - self.center) / self.scale


def usual(
    values: Sequence[float],
    seasons: Sequence[int],
    season: int,
    *,
    sensitivity: float,
    floor: Callable[[float], float],
) -> Band:
    """Return the band of a season.

    The middle is the median of the season's values. The width comes from the deviations of all values
    from the medians of their own seasons: one season alone has too few of them.

    Args:
        values: The history; at least one.
        seasons: The season of each.
        season: The one that is asked for.
        sensitivity: Half the width, in robust standard deviations.
        floor: Gives the smallest standard deviation that is believed, for a middle.
    """
    if not values:
        raise ValueError("without a history nothing is usual")
    by_season: dict[int, list[float]] = {}
    for value, of in zip(values, seasons, strict=True):
        by_season.setdefault(of, []).append(value)
    seasonal = len(by_season.get(season, ())) >= MIN_OF_SEASON
    everything = median(values)
    middles = {
        of: median(some) if len(some) >= MIN_OF_SEASON else everything
        for of, some in by_season.items()
    }
    if not seasonal:
        middles = dict.fromkeys(by_season, everything)
    deviations = [abs(value - middles[of]) for value, of in zip(values, seasons, strict=True)]
    own = [of for of, some in by_season.items() if seasonal and len(some) >= MIN_OF_SEASON]
    # Each median brings its own values closer to itself.
    spent = len(own) + (len(own) < len(by_season))
    correction = math.sqrt(len(values) / max(len(values) - spent, 1))
    center = middles[season] if seasonal else everything
    scale = max(MAD_TO_SIGMA * median(deviations) * correction, floor(center), 1e-12)
    return Band(center, scale, center - sensitivity * scale, center + sensitivity * scale, seasonal)
