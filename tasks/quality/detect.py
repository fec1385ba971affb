"""Judges a partition by those before it, and says what it finds in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.model.anomaly import Anomaly, Finding, Point, Watched
from tasks.model.profile import Profile
from tasks.quality.bands import Band, usual
from tasks.quality.drift import column_drift
from tasks.quality.forest import ProfileForest

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NOTED_POINTS = 90
"""Points of the history that a plot shows."""
VOLUME_FLOOR = 0.03
"""Smallest standard deviation of a volume that is believed, as a share of it."""
NULL_FLOOR = 0.005
HOUR = 3600.0
LAG_FLOOR = 0.05
"""Of a lag, as a share of it; and never less than LEAST_LAG seconds."""
LEAST_LAG = 600.0
INDEX_FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Observation:
    """One partition as the history remembers it."""

    at: float
    """Which time it belongs to, in seconds since 1970."""
    lag: float | None
    """Seconds between its newest row and its transformation; None without a column of time."""
    profile: Profile


def observe(anomaly: Anomaly | None, profile: Profile, transformed_at: datetime) -> Observation:
    """Return what the history will remember of a partition."""
    made = transformed_at.timestamp()
    column = profile.columns.get(anomaly.time) if anomaly and anomaly.time else None
    if column is None or not column.quantiles:
        return Observation(made, None, profile)
    middle, newest = column.quantiles[len(column.quantiles) // 2], column.quantiles[-1]
    return Observation(middle, made - newest, profile)


def judge(
    anomaly: Anomaly, history: Sequence[Observation], today: Observation
) -> tuple[Finding, ...]:
    """Say what is unusual about a partition.

    Args:
        anomaly: What the dataset file says.
        history: The partitions before it.
        today: The partition.

    Returns:
        Nothing if all is as usual; one note if the history is too short to tell.
    """
    return History(anomaly, history).judge(today)


class History:
    """The partitions before one, and what is learned from them."""

    def __init__(self, anomaly: Anomaly, observations: Sequence[Observation]) -> None:
        self.anomaly = anomaly
        self.latest = sorted(observations, key=lambda one: one.at)[-anomaly.history :]
        self.seasons = [self.season(one.at) for one in self.latest]
        self.forest = ProfileForest([one.profile for one in self.latest], self.seasons)

    def season(self, at: float) -> int:
        """Return which partitions are like one of that time."""
        moment = datetime.fromtimestamp(at, UTC)
        by = {"weekday": moment.weekday(), "hour": moment.hour, "none": 0}
        return by[self.anomaly.season]

    def judge(self, today: Observation) -> tuple[Finding, ...]:
        """Say what is unusual about a partition."""
        needed = self.anomaly.min_history
        if len(self.latest) >= needed:
            return tuple(_Judge(self, today).findings())
        message = (
            f"not judged: {len(self.latest)} partitions before it are known, {needed} are needed"
        )
        return (Finding(severity="note", metric=None, message=message),)


class _Judge:
    """One comparison."""

    def __init__(self, learned: History, today: Observation) -> None:
        self._learned, self._today = learned, today
        self._anomaly, self._history = learned.anomaly, learned.latest
        self._season, self._seasons = learned.season, learned.seasons
        self._now = learned.season(today.at)

    def findings(self) -> Iterator[Finding]:
        checks = {
            "volume": self._volume,
            "freshness": self._freshness,
            "null_rate": self._null_rates,
            "drift": self._drift,
            "profile": self._profile,
        }
        for name in self._anomaly.watch:
            yield from checks[name]()

    def _season_name(self, band: Band) -> str:
        if not band.seasonal or self._anomaly.season == "none":
            return ""
        if self._anomaly.season == "weekday":
            return f"{WEEKDAYS[self._now]} "
        return f"{self._now:02d}:00 "

    def _band(self, values: Sequence[float], seasons: Sequence[int], floor: Any) -> Band:
        sensitivity = self._anomaly.sensitivity
        return usual(values, seasons, self._now, sensitivity=sensitivity, floor=floor)

    def _volume(self) -> Iterator[Finding]:
        counts = [one.profile.rows for one in self._history]
        # In logarithms half as many and twice as many are equally far away.
        band = self._band(
            [math.log1p(count) for count in counts], self._seasons, lambda _: VOLUME_FLOOR
        )
        rows = self._today.profile.rows
        if band.holds(math.log1p(rows)):
            return
        low, high = (max(0, round(math.expm1(end))) for end in (band.low, band.high))
        season = self._season_name(band)
        message = f"{season}volume is usually {low:,}–{high:,}, today {rows:,}"
        yield self._finding("volume", message, rows, (low, high), counts, seasonal=band.seasonal)

    def _freshness(self) -> Iterator[Finding]:
        known = [one for one in self._history if one.lag is not None]
        lag = self._today.lag
        if lag is None or len(known) < self._anomaly.min_history:
            return
        lags = [one.lag or 0.0 for one in known]
        seasons = [self._season(one.at) for one in known]
        band = self._band(lags, seasons, lambda center: max(abs(center) * LAG_FLOOR, LEAST_LAG))
        if lag <= band.high:  # fresher than usual is no complaint
            return
        hours = [value / HOUR for value in lags]
        message = f"the newest row is usually at most {_hours(band.high)} old, today {_hours(lag)}"
        high = band.high / HOUR
        low = max(band.low, 0.0) / HOUR
        yield self._finding(
            "freshness", message, lag / HOUR, (low, high), hours, known, seasonal=band.seasonal
        )

    def _null_rates(self) -> Iterator[Finding]:
        profile = self._today.profile
        for name in profile.columns:
            rate = profile.null_rate(name)
            known = [one for one in self._history if one.profile.null_rate(name) is not None]
            if rate is None or len(known) < self._anomaly.min_history:
                continue
            rates = [one.profile.null_rate(name) or 0.0 for one in known]
            seasons = [self._season(one.at) for one in known]

            def floor(center: float) -> float:  # what chance alone does with so many rows
                likely = min(max(center, 1 / profile.rows), 0.5)
                return max(math.sqrt(likely * (1 - likely) / profile.rows), NULL_FLOOR)

            band = self._band(rates, seasons, floor)
            low, high = max(band.low, 0.0), min(band.high, 1.0)
            if low <= rate <= high:
                continue
            usually = f"{low:.1%}–{high:.1%}" if low > 0 else f"at most {high:.1%}"
            season = self._season_name(band).strip()
            on = f"on {season}s " if season in WEEKDAYS else f"at {season} " if season else ""
            message = f"{name} is NULL in {rate:.1%} of the rows, {on}usually in {usually}"
            yield self._finding(
                "null_rate", message, rate, (low, high), rates, known, name, seasonal=band.seasonal
            )

    def _drift(self) -> Iterator[Finding]:
        for name, column in self._today.profile.columns.items():
            known = [
                one
                for one in self._history
                if name in one.profile.columns and one.profile.columns[name].kind == column.kind
            ]
            if len(known) < self._anomaly.min_history or not self._today.profile.rows:
                continue
            found = column_drift([one.profile.columns[name] for one in known], column)
            if found is None:
                continue
            none = [0] * len(found.before)  # every day is compared with all of them
            sensitivity = self._anomaly.sensitivity
            band = usual(
                found.before, none, 0, sensitivity=sensitivity, floor=lambda _: INDEX_FLOOR
            )
            limit = max(self._anomaly.drift, band.high, *found.before)
            if found.index <= limit:
                continue
            message = (
                f"the values of {name} are distributed otherwise than before: {found.words} "
                f"(stability index {found.index:.2f}, usually below {limit:.2f})"
            )
            yield self._finding(
                "drift", message, found.index, (0.0, limit), found.before, known, name
            )

    def _profile(self) -> Iterator[Finding]:
        try:
            verdict = self._learned.forest.judge(self._today.profile, self._now)
        except ImportError:
            yield Finding(
                severity="note",
                metric="profile",
                message="the profile as a whole was not judged: scikit-learn is not installed; "
                "pip install 'data-processing-pipeline[anomaly]'",
            )
            return
        if verdict is None or verdict.score >= verdict.limit:
            return
        message = (
            f"the profile as a whole is unlike the {len(self._history)} before it: "
            f"{', '.join(verdict.furthest)}"
        )
        yield self._finding(
            "profile", message, verdict.score, (verdict.limit, 1.0), list(verdict.scores)
        )

    def _finding(
        self,
        metric: Watched,
        message: str,
        value: float,
        usual_between: tuple[float, float],
        values: Sequence[float],
        known: Sequence[Observation] | None = None,
        column: str | None = None,
        *,
        seasonal: bool = False,
    ) -> Finding:
        days = self._history if known is None else known
        points = [
            Point(at=day.at, value=v, alike=not seasonal or self._season(day.at) == self._now)
            for day, v in zip(days, values, strict=True)
        ]
        return Finding(
            severity=self._anomaly.action,
            metric=metric,
            column=column,
            message=message,
            value=value,
            low=usual_between[0],
            high=usual_between[1],
            at=self._today.at,
            history=tuple(points[-NOTED_POINTS:]),
        )


def _hours(seconds: float) -> str:
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} minutes"
    return (
        f"{seconds / HOUR:.1f} hours" if seconds < 48 * HOUR else f"{seconds / HOUR / 24:.1f} days"
    )
