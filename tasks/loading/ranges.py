"""Ranges of a partitioned table: which there are, which are missing, and how they are called. Pure.

Times are naive datetimes: of a date its midnight, of an instant its time in UTC. The first and the
last period that Python knows are open, so that there is no time that is in none.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime, timedelta

from tasks.model.table import PartitionBy, Period, Retention

Point = datetime | int
_BOUNDS = re.compile(r"FOR VALUES FROM \((.+?)\) TO \((.+?)\)")
_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


@dataclass(frozen=True, slots=True)
class Range:
    """Values from ``lower`` on, up to but without ``upper``; None is without a bound."""

    lower: Point | None
    upper: Point | None

    def covers(self, point: Point) -> bool:
        """Tell whether a value is in it."""
        return (self.lower is None or self.lower <= point) and (  # type: ignore[operator]
            self.upper is None or point < self.upper  # type: ignore[operator]
        )


def period_of(point: Point, every: Period | int) -> Range:
    """Return the period that a value is in."""
    if isinstance(point, int) and isinstance(every, int):
        lower = point // every * every
        return Range(lower, lower + every)
    assert isinstance(point, datetime)
    assert isinstance(every, str)
    begin = _begin(point, every)
    end = _later(begin, every, 1)
    return Range(None if begin == _begin(datetime.min, every) else begin, end)


def periods_ahead(point: Point, every: Period | int, count: int) -> list[Range]:
    """Return the period that a value is in, and those that come next."""
    found = [period_of(point, every)]
    while len(found) <= count and (upper := found[-1].upper) is not None:
        found.append(period_of(upper, every))
    return found


def _begin(point: datetime, every: str) -> datetime:
    midnight = datetime(point.year, point.month, point.day)
    if every == "day":
        return midnight
    if every == "week":
        return midnight - timedelta(days=midnight.weekday())
    return datetime(point.year, point.month if every == "month" else 1, 1)


def _later(point: datetime, every: str, count: int) -> datetime | None:
    """Return a time so many periods later, or earlier; None if the calendar has none."""
    if every in _DAYS:
        try:
            return point + timedelta(days=_DAYS[every] * count)
        except OverflowError:
            return None
    year, month = divmod(point.year * 12 + point.month - 1 + _MONTHS[every] * count, 12)
    if not MINYEAR <= year <= MAXYEAR:
        return None
    # The 31st of a month of 30 days is its 30th.
    day = min(point.day, monthrange(year, month + 1)[1])
    return point.replace(year=year, month=month + 1, day=day)


def oldest_kept(now: datetime, kept: Retention) -> datetime:
    """Return the time from which on rows are kept."""
    return _later(now, kept.period, -kept.count) or datetime.min


def bounded(text: str, *, numbers: bool) -> Range | None:
    """Return the range that PostgreSQL says of a partition, None of the default partition."""
    match = _BOUNDS.fullmatch(text)
    if match is None:
        return None
    return Range(_point(match[1], numbers=numbers), _point(match[2], numbers=numbers))


def _point(text: str, *, numbers: bool) -> Point | None:
    if text in ("MINVALUE", "MAXVALUE"):
        return None
    return read_point(text.strip("'"), numbers=numbers)


def read_point(text: str, *, numbers: bool) -> Point:
    """Return a value that PostgreSQL wrote; one that Python does not know is its first or last."""
    if numbers:
        return int(text)
    if text.endswith("BC") or text == "-infinity":
        return datetime.min
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return datetime.max


def gaps(wanted: Range, there: Iterable[Range]) -> list[Range]:
    """Return the parts of a range that are in none of the others."""
    missing = [wanted]
    for other in there:
        missing = [part for one in missing for part in _without(one, other)]
    return missing


def _without(one: Range, other: Range) -> list[Range]:
    if _reaches(one.lower, other.upper) or _reaches(other.lower, one.upper):
        return [one]
    parts = []
    if other.lower is not None and (one.lower is None or one.lower < other.lower):  # type: ignore[operator]
        parts.append(Range(one.lower, other.lower))
    if other.upper is not None and (one.upper is None or other.upper < one.upper):  # type: ignore[operator]
        parts.append(Range(other.upper, one.upper))
    return parts


def _reaches(lower: Point | None, upper: Point | None) -> bool:
    """Tell whether one range begins only where, or after, the other ends."""
    return lower is not None and upper is not None and lower >= upper  # type: ignore[operator]


def missing_ranges(
    by: PartitionBy, points: Iterable[Point], now: Point | None, there: Sequence[Range]
) -> list[Range]:
    """Return the ranges that are to be made, in their order.

    Args:
        by: What the dataset file says.
        points: A value of each period that there are rows for.
        now: From where to look ahead; None to look ahead from the largest of the values.
        there: The ranges that are there.
    """
    wanted = [period_of(point, by.every) for point in points]
    if now is None:
        ends = [one.upper for one in wanted if one.upper is not None]
        if ends and by.ahead:
            wanted += periods_ahead(max(ends), by.every, by.ahead - 1)
    else:
        wanted += periods_ahead(now, by.every, by.ahead)
    made: list[Range] = []
    for period in wanted:
        made += gaps(period, (*there, *made))
    return sorted(made, key=_order)


def _order(one: Range) -> tuple[bool, Point]:
    return one.lower is not None, one.lower if one.lower is not None else 0


def is_regular(by: PartitionBy, point: datetime, now: datetime) -> bool:
    """Tell whether a time is neither older than what is kept nor farther away than 'ahead'."""
    kept = by.kept
    # A period is dropped when all of it is too old.
    period = period_of(point, by.every)
    if kept and isinstance(period.upper, datetime) and period.upper <= oldest_kept(now, kept):
        return False
    last = periods_ahead(now, by.every, by.ahead)[-1]
    return last.upper is None or point < last.upper  # type: ignore[operator]


def range_suffix(one: Range, every: Period | int) -> str:
    """Return what is added to the name of the table for the name of a partition."""
    point = one.lower
    if point is None:
        point = datetime.min if isinstance(every, str) else -1
    if one == period_of(point, every):
        return f"p{_label(point, every)}"
    lower = "min" if one.lower is None else _label(one.lower, "day")
    upper = "max" if one.upper is None else _label(one.upper, "day")
    return f"p{lower}_to_{upper}"


def _label(point: Point, every: Period | int) -> str:
    if isinstance(point, int):
        return str(point) if point >= 0 else f"m{-point}"
    if every == "week":
        year, week, _ = point.isocalendar()
        return f"{year:04d}w{week:02d}"
    texts = {
        "year": f"{point.year:04d}",
        "month": f"{point.year:04d}_{point.month:02d}",
        "day": f"{point.year:04d}_{point.month:02d}_{point.day:02d}",
    }
    time = "" if point == _begin(point, "day") else f"_{point:%H%M%S%f}"
    return texts[every] + time  # type: ignore[index]
