"""Values of a cursor: kept as JSON, compared with now, moved back, and cut into even ranges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.request import Window

CLOCK_SKEW = timedelta(minutes=5)
"""The source's clock may be ahead of ours by this much; a later cursor is an error of the data."""
EASTERNMOST = timedelta(hours=14)
"""A time without a zone may be the local time of a place this far east."""


def encode_cursor(value: Any) -> Any:
    """Write a cursor as JSON, with its type where JSON has none."""
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, UUID):
        return {"uuid": str(value)}
    raise SourceRejected(f"a cursor cannot be a {type(value).__name__}", "choose another column")


def decode_cursor(encoded: Any) -> Any:
    """Read what ``encode_cursor`` wrote."""
    if not isinstance(encoded, dict):
        return encoded
    ((kind, text),) = encoded.items()
    read: dict[str, Callable[[str], Any]] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "decimal": Decimal,
        "uuid": UUID,
    }
    return read[kind](text)


def moved_back(value: Any, lookback: int | timedelta) -> Any:
    """Return the cursor where a run begins: the mark less the look-back.

    Raises:
        ConfigError: The look-back does not fit the type of the cursor.
    """
    if not lookback:
        return value
    moment = text_moment(value)
    if moment is not None and isinstance(lookback, timedelta):
        return written_like(moment - lookback, value)
    if isinstance(lookback, int) and isinstance(value, int | Decimal):
        return value - lookback
    if isinstance(lookback, timedelta) and isinstance(value, date):
        return value - (lookback if isinstance(value, datetime) else _whole_days(lookback))
    raise ConfigError(
        f"source.lookback {lookback} does not fit a cursor of type {type(value).__name__}",
        "write a number for a cursor of numbers, and 15m, 2h or 3d for one of times",
    )


def _whole_days(span: timedelta) -> timedelta:
    return timedelta(days=-(-span // timedelta(days=1)))


def text_moment(value: Any) -> datetime | None:
    """Read a text as a moment; None if it is none. SQLite keeps times as texts."""
    if not isinstance(value, str) or not value[:4].isdecimal() or value[4:5] != "-":
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def written_like(moment: datetime, sample: str) -> str:
    """Write a moment as another one is written, so that the two compare as texts."""
    if len(sample) == len("2013-01-01"):
        return moment.date().isoformat()
    zone = sample[-1] if sample.endswith("Z") else ""
    bare = moment.astimezone(UTC).replace(tzinfo=None) if zone else moment
    spec = "microseconds" if "." in sample else "seconds"
    text = bare.isoformat(sep=sample[10], timespec=spec)
    if "." in sample and bare.tzinfo is None:
        decimals = len(sample.removesuffix("Z").partition(".")[2])
        text = text[: len(text) - 6 + min(decimals, 6)]
    return text + zone


def future_limit(sample: Any, now: datetime) -> Any:
    """Return the largest cursor that is not in the future; None where there is no such notion."""
    moment = text_moment(sample)
    if moment is not None:
        zoned = moment.tzinfo is not None
        limit = now + CLOCK_SKEW if zoned else _naive(now) + CLOCK_SKEW + EASTERNMOST
        return written_like(limit.astimezone(moment.tzinfo) if zoned else limit, sample)
    if isinstance(sample, datetime):
        if sample.tzinfo is not None:
            return now + CLOCK_SKEW
        return _naive(now) + CLOCK_SKEW + EASTERNMOST
    if isinstance(sample, date):
        return (now + EASTERNMOST).date()
    return None


def window_bounds(window: Window, sample: Any, column: str) -> tuple[Any, Any]:
    """Return the bounds ``from <= cursor < to`` of a backfill, in the cursor's own type.

    Raises:
        ConfigError: The cursor is no time.
    """
    moments = [window.start.astimezone(UTC), window.end.astimezone(UTC)]
    if isinstance(sample, datetime):
        if sample.tzinfo is None:
            moments = [_naive(moment) for moment in moments]
        return moments[0], moments[1]
    if isinstance(sample, date):
        first, last = (_next_midnight(moment) for moment in moments)
        return first, last
    if text_moment(sample) is not None:
        first_text, last_text = (
            written_like(m if sample.endswith("Z") else _naive(m), sample) for m in moments
        )
        return first_text, last_text
    raise ConfigError(
        f"the cursor {column!r} is a {type(sample).__name__}, no time: it cannot be backfilled by time",
        "declare a column of type date or timestamp as source.cursor",
    )


def _next_midnight(moment: datetime) -> date:
    """Return the first day that begins at the moment or after it."""
    day = moment.date()
    return day if moment == datetime(day.year, day.month, day.day, tzinfo=UTC) else day + _DAY


_DAY = timedelta(days=1)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def even_cuts(low: Any, high: Any, parts: int) -> list[Any]:
    """Return at most ``parts - 1`` values that cut a span evenly; none if the type has no middle."""
    low, high = _number(low), _number(high)
    try:
        span = high - low
        steps = {low + span * part // parts if isinstance(span, int) else low + span * part / parts
                 for part in range(1, parts)}  # fmt: skip
    except TypeError:
        return []
    return sorted(step for step in steps if low < step < high)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value.is_finite() else value
