"""What "longer than usual" is, as learned from runs that completed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.bootstrap.usual import LEAST_RUNS, usual_time

DURATIONS = st.lists(st.floats(0, 90_000), min_size=LEAST_RUNS, max_size=50)


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [
        ([60.0] * 9, None),
        ([0.2] * 10, 1),
        ([60.0] * 50, 2),
        ([61.0] * 50, 3),
        ([600.0] * 48 + [9000.0] * 2, 20),  # one in twenty-five is no usual run
        ([600.0] * 45 + [3000.0] * 5, 120),  # one in ten is
        ([50_000.0] * 10, 1667),
    ],
)
def test_longer_than_usual_is_twice_what_one_run_in_twenty_takes(
    seconds: list[float], minutes: int | None
) -> None:
    assert usual_time(seconds) == (None if minutes is None else timedelta(minutes=minutes))


@given(DURATIONS)
def test_most_runs_are_no_longer_than_half_of_it_and_their_order_does_not_matter(
    seconds: list[float],
) -> None:
    usual = usual_time(seconds)
    assert usual is not None
    within = [one for one in seconds if one * 2 <= usual.total_seconds() * (1 + 1e-9)]
    assert len(within) * 20 >= len(seconds) * 19
    assert usual_time(seconds[::-1]) == usual
