"""What a run asks for: windows of time, or what changed since the largest value that was committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import structlog

from tasks.ingestion.connectors.rest_paging import value_at
from tasks.model.errors import ConfigError
from tasks.model.request import Window
from tasks.model.rest_source import Incremental, TimeWindows

DECEMBER = 12
CLOCK_SKEW = timedelta(minutes=5)
"""A server's clock may be ahead of ours by this much; a later time is an error of the data."""

Moment = datetime | Decimal

log = structlog.get_logger("dpp.ingestion")


def windows(declared: TimeWindows, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut time into half-open windows, from the declared start to the declared end or now."""
    start = aware(declared.start)
    last = aware(declared.end) if declared.end else now
    while start < last:
        end = _step(start, declared.every)
        if declared.end is not None:
            end = min(end, last)
        yield start, end
        start = end


def windows_in(
    declared: TimeWindows, now: datetime, span: Window | None
) -> list[tuple[datetime, datetime]]:
    """Return the declared windows that a span touches; all of them without a span.

    Raises:
        ConfigError: The span touches none.
    """
    cut = list(windows(declared, now))
    if span is None:
        return cut
    touched = [(start, end) for start, end in cut if start < span.end and end > span.start]
    if not touched:
        raise ConfigError(
            f"nothing of the source is between {span.start} and {span.end}; "
            f"its windows begin at {aware(declared.start)}",
            "change source.windows.start, or ask for a later span",
        )
    return touched


def _step(start: datetime, every: str) -> datetime:
    if every == "month":
        first = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if first.month == DECEMBER:
            return first.replace(year=first.year + 1, month=1)
        return first.replace(month=first.month + 1)
    return start + (timedelta(hours=1) if every == "hour" else timedelta(days=1))


def aware(moment: datetime) -> datetime:
    """Take a moment without a zone for UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def instant(moment: datetime) -> str:
    """Write a moment as APIs expect it: UTC, whole seconds, with a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Mark:
    """The largest value of the cursor field that was seen; it never goes back.

    Args:
        declared: The declaration.
        latest: State that the last committed partition left.
        now: The time; what is later is an error of the data and does not move the mark.
    """

    def __init__(self, declared: Incremental, latest: Mapping[str, Any], now: datetime) -> None:
        self._declared = declared
        self._latest_allowed = now + CLOCK_SKEW
        self._unfit = 0
        self._future = 0
        self._value: Moment | None = None
        if latest.get("field") == declared.field:
            self._value = self._parsed(latest.get("mark"))
        if self._is_future(self._value):
            log.warning("ingestion.mark_in_the_future", mark=str(self._value), used=str(now))
            self._value = now

    def since(self) -> str:
        """Return what the next request asks for: the mark less the look-back, or the start."""
        start = self._parsed(str(self._declared.start))
        assert start is not None  # the model checked it
        if self._value is None:
            return self._written(start)
        back: Any = self._declared.lookback_amount
        if isinstance(self._value, datetime):
            back = timedelta(seconds=back)
        since: Any = self._value - back
        return self._written(max(since, start))

    def see(self, record: Any) -> None:
        """Take a record into account."""
        value = self._parsed(value_at(record, self._declared.field))
        if value is None:
            self._unfit += 1
        elif self._is_future(value):
            self._future += 1
        elif self._value is None or value > self._value:  # type: ignore[operator]
            self._value = value

    def state(self) -> dict[str, Any]:
        """Return where the next run goes on; empty if nothing was ever seen."""
        if self._unfit or self._future:
            log.warning(
                "ingestion.cursor_left_out",
                field=self._declared.field,
                without=self._unfit,
                in_the_future=self._future,
            )
        if self._value is None:
            return {}
        value = self._value
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        return {"field": self._declared.field, "mark": text}

    def _is_future(self, value: Moment | None) -> bool:
        return isinstance(value, datetime) and value > self._latest_allowed

    def _parsed(self, text: Any) -> Moment | None:
        if not isinstance(text, str):
            return None
        try:
            if self._declared.type == "number":
                number = Decimal(text)
                return number if number.is_finite() else None
            return aware(datetime.fromisoformat(text)).astimezone(UTC)
        except (ValueError, InvalidOperation, OverflowError):
            return None

    @staticmethod
    def _written(value: Moment) -> str:
        return instant(value) if isinstance(value, datetime) else format(value, "f")
