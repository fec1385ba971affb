"""Learned checks: what is usual, what is not, and how it is said."""

from __future__ import annotations

import math
import random
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.anomaly import Anomaly, Finding
from tasks.model.profile import ColumnProfile, Profile
from tasks.quality.bands import usual
from tasks.quality.detect import Observation, judge, observe
from tasks.quality.drift import share_below, stability_index
from tasks.quality.plot import finding_svg

MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)
FLOATS = st.floats(-1e6, 1e6)
SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4)


def day(
    number: int, rows: int, *, nulls: int = 5, shift: float = 0.0, lag: float = 6.0
) -> Observation:
    """One day: a number whose deciles are 0..100, a third of the codes each A, B and C."""
    columns = {
        "price": ColumnProfile(
            kind="number", nulls=nulls, distinct=500,
            quantiles=tuple(10.0 * step + shift for step in range(11)),
        ),
        "code": ColumnProfile(
            kind="text", nulls=0, distinct=3, top=(("A", 0.4), ("B", 0.3), ("C", 0.3)),
            lengths=(1, 1.0, 1),
        ),
    }  # fmt: skip
    at = MONDAY + timedelta(days=number)
    return Observation(at.timestamp(), lag * 3600, Profile(rows=rows, columns=columns))


def weeks(days: int = 56) -> list[Observation]:
    """Eight weeks; weekends have a third of the rows."""
    chance = random.Random(7)
    usually = [900, 910, 920, 905, 915, 300, 310]
    return [
        day(
            -days + number,
            usually[number % 7] + chance.randint(-15, 15),
            nulls=chance.randint(3, 7),
            shift=chance.uniform(-1, 1),
            lag=6 + chance.uniform(-0.2, 0.2),
        )
        for number in range(days)
    ]


def metrics(found: tuple[Finding, ...]) -> set[str | None]:
    return {finding.metric for finding in found}


@given(st.lists(FLOATS, min_size=7, max_size=60), st.floats(-1e9, 1e9))
def test_one_bad_day_does_not_decide_what_is_usual(values: list[float], bad: float) -> None:
    """The middle lies among the values that are there, however far away one of them is moved."""
    moved = [bad, *values[1:]]
    band = usual(moved, [0] * len(moved), 0, sensitivity=3, floor=lambda _: 0.0)
    rest = sorted(values[1:])
    assert rest[0] <= band.center <= rest[-1]
    assert band.low <= band.center <= band.high


@given(st.lists(FLOATS, min_size=1, max_size=40), FLOATS, st.floats(0.1, 10))
def test_band_moves_with_its_values(values: list[float], shift: float, sensitivity: float) -> None:
    """Adding a number to all values moves the band by it, and nothing else."""
    seasons = [number % 3 for number in range(len(values))]
    before = usual(values, seasons, 1, sensitivity=sensitivity, floor=lambda _: 1.0)
    after = usual(
        [v + shift for v in values], seasons, 1, sensitivity=sensitivity, floor=lambda _: 1.0
    )
    assert math.isclose(after.center, before.center + shift, abs_tol=1e-3)
    assert math.isclose(after.scale, before.scale, rel_tol=1e-3, abs_tol=1e-3)


@given(SHARES, SHARES)
def test_stability_index_is_a_distance(one: list[float], other: list[float]) -> None:
    """Never negative, zero for the same, the same both ways round, finite for empty bins."""
    index = stability_index(one, other)
    assert index >= -1e-12 and math.isfinite(index)
    assert math.isclose(index, stability_index(other, one), abs_tol=1e-9)
    assert stability_index(one, one) == 0


@given(st.lists(FLOATS, min_size=11, max_size=11).map(sorted), FLOATS, FLOATS)
def test_share_below_never_falls(quantiles: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= share_below(quantiles, low) <= share_below(quantiles, high) <= 1


def test_usual_days_are_usual() -> None:
    """A Monday and a Saturday like those before them are not complained about."""
    anomaly = Anomaly()
    assert judge(anomaly, weeks(), day(0, 903)) == ()
    assert judge(anomaly, weeks(), day(5, 305)) == ()


@pytest.mark.parametrize(
    ("today", "metric", "words"),
    [
        (day(0, 312), "volume", r"Monday volume is usually \d{3}–\d{3}|1,\d{3}, today 312"),
        (day(5, 905), "volume", "Saturday volume is usually .* today 905"),  # a usual Monday
        (day(0, 0), "volume", "today 0"),
        (day(0, 903, nulls=400), "null_rate", "price is NULL in 44.3% of the rows, on Mondays usually in at most 3.0%"),
        (day(0, 903, shift=40), "drift", r"values of price .* than before: the median is usually 49\.\d+, today 90 \("),
        (day(0, 903, lag=30), "freshness", "usually at most .* hours old, today 30.0 hours"),
    ],
)  # fmt: skip
def test_fault_is_found_and_said(today: Observation, metric: str, words: str) -> None:
    """Each fault is found by the check that is made for it; the history with it is in the picture."""
    import re

    found = judge(Anomaly(action="fail"), weeks(), today)
    of_metric = next(finding for finding in found if finding.metric == metric)
    assert re.search(words, of_metric.message)
    assert of_metric.severity == "fail"
    # Eight weeks: eight days are of today's weekday; drift is compared with all of them.
    assert sum(point.alike for point in of_metric.history) == (56 if metric == "drift" else 8)
    picture = finding_svg(of_metric)
    assert (
        picture.count("<polyline") == 1
        and 'class="usual"' in picture
        and 'class="today"' in picture
    )


def test_top_values_drift() -> None:
    """A code that is suddenly most of them is drift, whatever the numbers say."""
    today = day(0, 903)
    column = today.profile.columns["code"].model_copy(update={"top": (("Z", 0.9), ("A", 0.1))})
    profile = today.profile.model_copy(
        update={"columns": {**today.profile.columns, "code": column}}
    )
    found = judge(Anomaly(watch=("drift",)), weeks(), Observation(today.at, None, profile))
    assert [finding.column for finding in found] == ["code"]
    assert "a value that is usually 0% of them is 90% (" in found[0].message
    assert "Z" not in found[0].message  # it may be anybody's


def test_profile_as_a_whole() -> None:
    """Many small things at once: the forest says so, and names the furthest."""
    today = day(0, 870, nulls=40, shift=12)
    column = today.profile.columns["code"].model_copy(
        update={"distinct": 40, "lengths": (1, 3.0, 9)}
    )
    profile = today.profile.model_copy(
        update={"columns": {**today.profile.columns, "code": column}}
    )
    anomaly = Anomaly(watch=("profile",))
    found = judge(anomaly, weeks(), Observation(today.at, None, profile))
    assert metrics(found) == {"profile"}
    assert "of code above the usual" in found[0].message
    assert judge(anomaly, weeks(), day(0, 903)) == ()


def test_short_history_is_said_and_never_fails() -> None:
    found = judge(Anomaly(action="fail", min_history=14), weeks()[:13], day(0, 0))
    assert [(one.severity, one.metric) for one in found] == [("note", None)]
    assert "13 partitions before it are known, 14 are needed" in found[0].message


def test_without_scikit_learn_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    found = judge(Anomaly(action="fail"), weeks(), day(0, 312))
    assert {(one.severity, one.metric) for one in found} == {
        ("fail", "volume"),
        ("note", "profile"),
    }


def test_partition_belongs_to_the_time_of_its_rows() -> None:
    """Its place in the history is the middle of its rows, its lag that of the newest."""
    column = ColumnProfile(
        kind="time", nulls=0, distinct=11, quantiles=tuple(float(s) for s in range(11))
    )
    profile = Profile(rows=11, columns={"seen": column})
    made = datetime.fromtimestamp(100, UTC)
    seen = observe(Anomaly(time="seen"), profile, made)
    assert (seen.at, seen.lag) == (5.0, 90.0)
    assert observe(None, profile, made).at == 100
