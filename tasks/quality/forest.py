"""The whole profile at once: an isolation forest over everything in it that is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tasks.model.profile import Profile
from tasks.quality.bands import MAD_TO_SIGMA, usual

MIN_HISTORY = 30
"""With fewer partitions a forest knows too little of what is usual."""
TREES = 200
FAR = 12.0
"""Deviations beyond it are all the same: far."""
NAMED = 3
MARGIN = 4.5
"""How far below the usual a score must be, in robust standard deviations."""
SMALLEST_SPREAD = 0.01
NEEDED_DEVIATION = 4.0
"""At least one feature of an unusual profile is as far away as this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How unusual a profile is."""

    score: float
    """Of the forest: 0 is isolated at once, 1 never."""
    limit: float
    scores: tuple[float, ...]
    """Of the history."""
    furthest: tuple[str, ...]
    """What is farthest from usual, in words."""


def features(profile: Profile) -> dict[str, float]:
    """Return what a profile says in numbers, by name."""
    found = {"rows": math.log1p(profile.rows)}
    for name, column in profile.columns.items():
        rate = profile.null_rate(name)
        if rate is not None:
            found[f"null rate of {name}"] = rate
        found[f"distinct values of {name}"] = math.log1p(column.distinct)
        if column.lengths:
            found[f"mean length of {name}"] = column.lengths[1]
        if column.kind == "number" and column.quantiles:
            found[f"median of {name}"] = column.quantiles[5]
            found[f"spread of {name}"] = column.quantiles[9] - column.quantiles[1]
    return found


class ProfileForest:
    """What is learned from some profiles: the usual of each number in them, and a forest over all."""

    def __init__(self, profiles: Sequence[Profile], seasons: Sequence[int]) -> None:
        self._past = [features(profile) for profile in profiles]
        self._seasons = seasons
        self._learned: dict[tuple[str, ...], _Learned] = {}

    def judge(self, today: Profile, season: int) -> Verdict | None:
        """Compare a profile with those before it.

        Returns:
            None if the history is too short.

        Raises:
            ImportError: scikit-learn is not installed.
        """
        if len(self._past) < MIN_HISTORY:
            return None
        present = features(today)
        names = tuple(name for name in present if all(name in day for day in self._past))
        if names not in self._learned:
            self._learned[names] = _learn(names, self._past, self._seasons)
        learned = self._learned[names]
        last = [
            _bounded(
                usual(values, self._seasons, season, sensitivity=1, floor=_floor).distance(
                    present[name]
                )
            )
            for name, values in zip(names, learned.values, strict=True)
        ]
        score = float(learned.forest.score_samples([last])[0]) + 1
        middle = median(learned.scores)
        spread = MAD_TO_SIGMA * median(abs(one - middle) for one in learned.scores)
        limit = middle - MARGIN * max(spread, SMALLEST_SPREAD)
        if max(map(abs, last), default=0.0) < NEEDED_DEVIATION:
            limit = 0.0
        order = sorted(range(len(names)), key=lambda position: -abs(last[position]))
        furthest = tuple(
            f"{names[position]} {'above' if last[position] > 0 else 'below'} the usual"
            for position in order[:NAMED]
        )
        return Verdict(score, limit, learned.scores, furthest)


@dataclass(frozen=True, slots=True)
class _Learned:
    """A forest over some features, their values in the history, and its scores of that."""

    forest: Any
    values: list[list[float]]
    scores: tuple[float, ...]


def _learn(
    names: Sequence[str], past: Sequence[dict[str, float]], seasons: Sequence[int]
) -> _Learned:
    # scikit-learn takes seconds to import, and only datasets that ask for it need it.
    from sklearn.ensemble import IsolationForest

    columns = [[day[name] for day in past] for name in names]
    distances = []
    for values in columns:
        bands = {
            season: usual(values, seasons, season, sensitivity=1, floor=_floor)
            for season in {*seasons}
        }
        distances.append(
            [
                _bounded(bands[season].distance(value))
                for value, season in zip(values, seasons, strict=True)
            ]
        )
    rows = list(zip(*distances, strict=True))
    forest = IsolationForest(n_estimators=TREES, random_state=0).fit(rows)
    scores = tuple(float(score) + 1 for score in forest.score_samples(rows))
    return _Learned(forest, columns, scores)


def _floor(center: float) -> float:
    return max(abs(center) * 0.02, 0.005)


def _bounded(distance: float) -> float:
    return max(-FAR, min(FAR, distance))
