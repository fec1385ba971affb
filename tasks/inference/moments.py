"""In which form texts write dates and times: exactly one that fits all of them, or a doubt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_ISO_DATE = r"(?P<Y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?"
_OFFSET = r" ?(?:Z|[+-]\d{2}(?::?\d{2})?)"
_DATE_ONLY = re.compile(_ISO_DATE)
_TIME_ONLY = re.compile(_CLOCK)
_NAIVE = re.compile(f"{_ISO_DATE}[T ]{_CLOCK}")
_INSTANT = re.compile(f"{_ISO_DATE}[T ]{_CLOCK}{_OFFSET}")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_TOKENS = {
    "%Y": r"(?P<Y>\d{4})",
    "%y": r"(?P<y>\d{2})",
    "%m": r"(?P<m>\d{2})",
    "%-m": r"(?P<m>[1-9]\d?)",
    "%d": r"(?P<d>\d{2})",
    "%-d": r"(?P<d>[1-9]\d?)",
    "%b": rf"(?P<b>{_MONTHS})",
    "%H": r"(?:[01]\d|2[0-3])",
    "%M": r"[0-5]\d",
    "%S": r"[0-5]\d",
    "%I": r"(?:0[1-9]|1[0-2])",
    "%p": r"(?:AM|PM)",
}
_TOKEN = re.compile(r"%-?[a-zA-Z]")
_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%-d.%-m.%Y", "%-d/%-m/%Y", "%-m/%-d/%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M:%S", " %H:%M", "T%H:%M:%S", " %I:%M:%S %p", " %I:%M %p")
PIVOT = 70
"""Two-digit years from it on are 19xx."""


@dataclass(frozen=True, slots=True)
class Moments:
    """How a column writes its dates or times.

    Attributes:
        type: ``date``, ``time`` or ``timestamp``.
        formats: strptime formats that all values have; none for ISO 8601. Several are readings that
            contradict each other.
        has_offset: Some values have an offset from UTC.
        is_naive: Some values have none.
    """

    type: str
    formats: tuple[str, ...] = ()
    has_offset: bool = False
    is_naive: bool = True

    @property
    def is_ambiguous(self) -> bool:
        """Tell whether the values can be read in several ways."""
        return len(self.formats) > 1


def find_moments(values: Sequence[str]) -> Moments | None:
    """Return how all values are written as dates or times, None if they are not.

    Args:
        values: Different texts, at least one.
    """
    if all(_matches(_DATE_ONLY, value) for value in values):
        return Moments("date")
    if all(_TIME_ONLY.fullmatch(value) for value in values):
        return Moments("time")
    instants = sum(_matches(_INSTANT, value) for value in values)
    naive = sum(_matches(_NAIVE, value) for value in values)
    if instants + naive == len(values):
        return Moments("timestamp", has_offset=instants > 0, is_naive=naive > 0)
    for clock in _CLOCKS:
        fitting = [made for made in _DATES if _fits(made + clock, values)]
        if fitting:
            orders: dict[str, str] = {}
            for made in fitting:  # 10/11/2024 fits the padded form of an order and the other one
                orders.setdefault(made.replace("%-", "%"), made)
            formats = tuple(made + clock for made in orders.values())
            return Moments("timestamp" if clock else "date", formats)
    return None


def is_compact_date(values: Sequence[str]) -> bool:
    """Tell whether all values are dates as ``20240131`` of a year from 1900 to 2100."""
    return all(
        len(value) == len("20240131")
        and value[:2] in ("19", "20")
        and _matches(re.compile(r"(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})"), value)
        for value in values
    )


def _fits(text_format: str, values: Sequence[str]) -> bool:
    pattern = re.compile(_expression(text_format))
    return all(_matches(pattern, value) for value in values)


def _expression(text_format: str) -> str:
    parts, at = [], 0
    for token in _TOKEN.finditer(text_format):
        parts += [re.escape(text_format[at : token.start()]), _TOKENS[token[0]]]
        at = token.end()
    return "".join([*parts, re.escape(text_format[at:])])


def _matches(pattern: re.Pattern[str], value: str) -> bool:
    """Tell whether a text has a form and its date exists."""
    found = pattern.fullmatch(value)
    if found is None or not value.isascii():
        return False
    part = found.groupdict()
    year = int(part["Y"]) if part.get("Y") else _year(part["y"])
    month = _MONTHS.split("|").index(part["b"]) + 1 if part.get("b") else int(part["m"])
    try:
        datetime(year, month, int(part["d"]))
    except ValueError:
        return False
    return True


def _year(digits: str) -> int:
    return int(digits) + (2000 if int(digits) < PIVOT else 1900)
