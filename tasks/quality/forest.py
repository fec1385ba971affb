"""The whole profile at once: an isolation forest over everything in it that is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

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


def judge(
    history: Sequence[Profile], seasons: Sequence[int], today: Profile, season: int
) -> Verdict | None:
    """Compare a profile with those before it.

    Returns:
        None if the history is too short.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    if len(history) < MIN_HISTORY:
        return None
    # scikit-learn takes seconds to import, and only datasets that ask for it need it.
    from sklearn.ensemble import IsolationForest

    past = [features(profile) for profile in history]
    present = features(today)
    names = [name for name in present if all(name in day for day in past)]
    rows = [[0.0] * len(names) for _ in past]
    last = [0.0] * len(names)
    for position, name in enumerate(names):
        values = [day[name] for day in past]
        bands = {
            of: usual(values, seasons, of, sensitivity=1, floor=_floor) for of in {*seasons, season}
        }
        for row, value, of in zip(rows, values, seasons, strict=True):
            row[position] = _bounded(bands[of].distance(value))
        last[position] = _bounded(bands[season].distance(present[name]))
    forest = IsolationForest(n_estimators=TREES, random_state=0).fit(rows)
    scores = [float(score) + 1 for score in forest.score_samples(rows)]
    score = float(forest.score_samples([last])[0]) + 1
    middle = median(scores)
    spread = MAD_TO_SIGMA * median(abs(one - middle) for one in scores)
    limit = middle - MARGIN * max(spread, SMALLEST_SPREAD)
    if max(map(abs, last), default=0.0) < NEEDED_DEVIATION:
        limit = 0.0
    order = sorted(range(len(names)), key=lambda position: -abs(last[position]))
    furthest = tuple(
        f"{names[position]} {'above' if last[position] > 0 else 'below'} the usual"
        for position in order[:NAMED]
    )
    return Verdict(score, limit, tuple(scores), furthest)


def _floor(center: float) -> float:
    return max(abs(center) * 0.02, 0.005)


def _bounded(distance: float) -> float:
    return max(-FAR, min(FAR, distance))
