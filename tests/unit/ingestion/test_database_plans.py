"""Plans of databases, decided without one: every row is in a partition, whatever fails and in any order."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingestion.database.cursors import (
    decode_cursor,
    encode_cursor,
    even_cuts,
    future_limit,
    moved_back,
    window_bounds,
    written_like,
)
from tasks.ingestion.database.ranges import (
    Mark,
    Range,
    Seen,
    cut_range,
    increment,
)
from tasks.ingestion.database.values import clock_text, unhexed
from tasks.model.database_source import DatabaseSource
from tasks.model.errors import ConfigError
from tasks.model.request import Window

MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1))
CURSORS = st.one_of(
    st.integers(-(2**63), 2**63), st.text(), st.dates(), MOMENTS, st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False), MOMENTS.map(lambda at: at.replace(tzinfo=UTC)),
)  # fmt: skip


@given(CURSORS)
def test_cursor_survives_the_ledger(cursor: Any) -> None:
    assert decode_cursor(encode_cursor(cursor)) == cursor


@pytest.mark.parametrize("cursor", [True, 1.5, b"x", timedelta(1)])
def test_cursor_of_no_order_that_json_keeps_is_refused(cursor: Any) -> None:
    with pytest.raises(Exception, match="a cursor cannot be a"):
        encode_cursor(cursor)


def holds(part: Range, value: int | None) -> bool:
    """Say whether a value is in a range, as the database will."""
    if value is None:
        return part.with_nulls or part.part == "nulls"
    if part.part == "nulls":
        return False
    above = part.low is None or (value > part.low if part.open_low else value >= part.low)
    below = part.high is None or (value <= part.high if part.closed else value < part.high)
    return above and below


@given(
    st.sets(st.integers(1, 99)), st.booleans(), st.booleans(), st.booleans(),
    st.lists(st.one_of(st.none(), st.integers(-5, 105))),
)  # fmt: skip
def test_pieces_of_a_range_have_each_of_its_values_once(
    cuts: set[int], closed: bool, open_low: bool, with_nulls: bool, values: list[int | None]
) -> None:
    whole = Range("v", 0, 100, closed, open_low, with_nulls=with_nulls)
    pieces = cut_range(whole, sorted(cuts))
    for value in [*values, *cuts, 0, 100]:
        assert sum(holds(piece, value) for piece in pieces) == int(holds(whole, value))


@given(st.sets(st.integers(1, 99)), st.lists(st.one_of(st.none(), st.integers(-500, 500))))
def test_pieces_of_all_rows_have_each_row_once(cuts: set[int], values: list[int | None]) -> None:
    pieces = cut_range(Range("v", with_nulls=True), sorted(cuts))
    for value in values:
        assert sum(holds(piece, value) for piece in pieces) == 1


class Source:
    """Rows with a cursor, read by plans of which any part may fail."""

    def __init__(self, lookback: int, *, settled: bool) -> None:
        self.rows: dict[int, int] = {}
        self.lookback = lookback
        self.settled = settled
        self.latest: dict[str, Any] = {}
        self.committed: set[str] = set()
        self.loaded: list[int] = []

    def seen(self, mark: Mark) -> tuple[Seen, Any]:
        if not self.rows:
            return Seen(), None
        high = max(self.rows.values()) - (self.lookback if self.settled else 0)
        low = None if mark.value is None else mark.value - (0 if self.settled else self.lookback)
        digest = lambda a, b: repr(sorted((i, v) for i, v in self.rows.items() if a <= v <= b))  # noqa: E731
        top = digest(high - self.lookback, high)
        return Seen(high, None if low is None else digest(low, mark.value), top), low

    def run(self, cuts: list[int], commit_order: list[int]) -> None:
        mark = Mark.from_state(self.latest, "v")
        seen, low = self.seen(mark)
        planned, after = increment(mark, seen, low, settled=self.settled)
        planned = [
            piece for part in planned
            for piece in cut_range(part, [c for c in sorted(set(cuts))
                if (part.low is None or c > part.low) and c < part.high])
        ]  # fmt: skip
        ranges = mark.missing(frozenset(self.committed)) + planned
        if not planned:
            after = mark
        named = [(hashlib.sha256(repr(part).encode()).hexdigest(), part) for part in ranges]
        if len(named) > 1:
            known = tuple((name, part.to_slice()) for name, part in named)
            after = Mark(**{**after.__dict__, "ranges": known})
        for position in dict.fromkeys(order % len(named) for order in commit_order if named):
            name, part = named[position]
            assert name not in self.committed, "the ledger would skip it"
            self.committed.add(name)
            self.latest = after.to_state()
            self.loaded += [i for i, value in self.rows.items() if holds(part, value)]


RUNS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 6), max_size=4),  # how far the cursor moves, for each new row
        st.lists(st.integers(0, 60), max_size=3),  # cuts
        st.lists(st.integers(0, 9), max_size=5),  # what is committed, in this order
    ),
    max_size=8,
)


@settings(max_examples=300)
@given(RUNS, st.integers(0, 5), st.booleans(), st.randoms())
def test_no_row_is_lost_or_appended_twice(
    runs: list[Any], lookback: int, settled: bool, random: Any
) -> None:
    """Rows may come late by the look-back; partitions fail and are committed in any order."""
    source = Source(lookback, settled=settled)
    largest = 0
    for steps, cuts, order in runs:
        for step in steps:
            largest += step
            late = largest - random.randint(0, lookback) if not settled else largest
            source.rows[len(source.rows)] = max(late, 0)
        source.run(cuts, order)
    source.run([], list(range(10)))
    source.run([], list(range(10)))
    expected = set(source.rows)
    if settled:
        waiting = max(source.rows.values(), default=0) - lookback
        expected = {i for i, value in source.rows.items() if value < waiting}
        assert sorted(source.loaded) == sorted(expected), "each once"
    assert set(source.loaded) == expected


@pytest.mark.parametrize(
    ("value", "lookback", "expected"),
    [
        (100, 30, 70),
        (Decimal("1.5"), 1, Decimal("0.5")),
        (datetime(2013, 1, 2), timedelta(hours=1), datetime(2013, 1, 1, 23)),
        (date(2013, 1, 3), timedelta(hours=30), date(2013, 1, 1)),  # whole days, rounded up
        ("2013-01-02 00:00:00", timedelta(hours=1), "2013-01-01 23:00:00"),
        ("2013-01-02T00:00:00.250Z", timedelta(hours=1), "2013-01-01T23:00:00.250Z"),
        ("anything", 0, "anything"),
    ],
)
def test_lookback_keeps_the_type_of_the_cursor(value: Any, lookback: Any, expected: Any) -> None:
    assert moved_back(value, lookback) == expected


@pytest.mark.parametrize(
    ("value", "lookback"),
    [
        (5, timedelta(1)),
        (datetime(2013, 1, 1), 5),
        ("abc", 5),
        ("abc", timedelta(1)),
        (UUID(int=1), 5),
    ],
)
def test_lookback_of_another_type_is_refused(value: Any, lookback: Any) -> None:
    with pytest.raises(ConfigError, match="does not fit a cursor of type"):
        moved_back(value, lookback)


NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)


def test_future_begins_after_the_skew_of_clocks_and_zones() -> None:
    assert future_limit(NOON, NOON) == NOON + timedelta(minutes=5)
    assert future_limit(NOON.replace(tzinfo=None), NOON) == datetime(2013, 6, 2, 2, 5)
    assert future_limit(date(2099, 1, 1), NOON) == date(2013, 6, 2)
    assert future_limit("2099-01-01T00:00:00Z", NOON) == "2013-06-01T12:05:00Z"
    assert future_limit(7, NOON) is None
    assert future_limit("abc", NOON) is None


def test_window_is_half_open_in_the_type_of_the_cursor() -> None:
    window = Window(
        start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 2, 1, 12, tzinfo=UTC)
    )
    assert window_bounds(window, NOON, "c") == (window.start, window.end)
    assert window_bounds(window, date(2020, 1, 1), "c") == (date(2013, 1, 1), date(2013, 2, 2))
    assert window_bounds(window, "2020-01-01 00:00:00", "c") == (
        "2013-01-01 00:00:00",
        "2013-02-01 12:00:00",
    )


@given(st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)))
def test_texts_of_moments_order_like_the_moments(moment: datetime) -> None:
    sample = "2013-01-01 00:00:00.000000"
    later = moment + timedelta(microseconds=1)
    assert written_like(moment, sample) < written_like(later, sample)


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**18), st.integers(2, 50))
def test_even_cuts_are_inside_and_in_order(low: int, span: int, parts: int) -> None:
    cuts = even_cuts(low, low + span, parts)
    assert len(cuts) < parts
    assert cuts == sorted(set(cuts))
    assert all(low < cut < low + span for cut in cuts)


def test_texts_have_no_middle() -> None:
    assert even_cuts("a", "z", 5) == []


@given(st.lists(st.one_of(st.none(), st.binary(max_size=9))), st.integers(0, 3))
def test_hexadecimal_digits_become_bytes(values: list[bytes | None], skipped: int) -> None:
    digits = pa.array([None if v is None else v.hex() for v in values], pa.string())
    assert unhexed(digits.slice(skipped)).to_pylist() == values[skipped:]


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(hours=12, minutes=30), "12:30:00"),
        (-timedelta(hours=838, minutes=59, seconds=59), "-838:59:59"),
        (timedelta(microseconds=1), "00:00:00.000001"),
    ],
)
def test_time_of_mysql_is_a_span(span: timedelta, text: str) -> None:
    assert clock_text(span) == text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "either 'table' or 'query'"),
        ({"table": "t", "query": "SELECT 1"}, "either 'table' or 'query'"),
        ({"table": "t", "lookback": 5}, "'lookback' is for sources with a 'cursor'"),
        ({"table": "t", "cursor": "c", "lookback": "5 minutes"}, "is no span; write e.g. 30s"),
        ({"table": "t", "cursor": "c", "lookback": -1}, "not negative"),
        ({"table": "t", "cursor": "c", "split_by": "id"}, "'split_by' is for sources without"),
    ],
)
def test_declaration_that_makes_no_sense_is_explained(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DatabaseSource.model_validate({"kind": "database", "block": "b", **keys})
