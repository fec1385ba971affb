"""Paths that tell the date of what is in them: ``inbox/{date:%Y-%m-%d}/*.csv``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DATE_FIELD = re.compile(r"\{date:([^{}]*)\}")
"""The place of a date in a path, with its format."""
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3}
_DIRECTIVE = re.compile(r"%(.)")


@dataclass(frozen=True, slots=True)
class DatedPath:
    """A glob pattern, and where in it dates are written.

    Attributes:
        glob: The pattern, with wildcards in the place of dates.
        formats: The strptime formats of its dates, one after the other.
    """

    glob: str
    formats: tuple[str, ...]
    _expression: re.Pattern[str]

    @classmethod
    def parse(cls, pattern: str) -> DatedPath:
        """Read a pattern.

        Raises:
            ValueError: A date in it is not written as ``{date:%Y-%m-%d}``.
        """
        parts = DATE_FIELD.split(pattern)
        if any("{date" in text for text in parts[::2]):
            raise ValueError(f"{pattern!r}: a date is written as {{date:%Y-%m-%d}}")
        formats = tuple(parts[1::2])
        for text_format in formats:
            _check(text_format)
        if formats and not re.search("%Y", "".join(formats)):
            raise ValueError(f"{pattern!r}: the date has no year, %Y")
        glob = "".join(
            _DIRECTIVE.sub(lambda found: "[0-9]" * _DIGITS[found[1]], part) if odd else part
            for part, odd in zip(parts, [False, True] * len(parts), strict=False)
        )
        seen: set[str] = set()
        expression = "".join(
            _date_expression(part, seen) if odd else _glob_expression(part)
            for part, odd in zip(parts, [False, True] * len(parts), strict=False)
        )
        return cls(glob, formats, re.compile(expression, re.DOTALL))

    def matches(self, path: str) -> bool:
        """Tell whether a path is meant, and its dates are dates."""
        if not self.formats:
            return self._expression.fullmatch(path) is not None
        return self.span(path) is not None

    def span(self, path: str) -> tuple[datetime, datetime] | None:
        """Return start and end of the time that a path tells of, in UTC; None if it tells none."""
        found = self._expression.fullmatch(path)
        if not found or not self.formats:
            return None
        named = found.groupdict()
        try:
            start = datetime.strptime(
                " ".join(named.values()), " ".join(f"%{letter}" for letter in named)
            )
        except ValueError:
            return None
        start = start.replace(tzinfo=UTC)
        return start, _end(start, "".join(self.formats))

    def overlaps(self, path: str, start: datetime, end: datetime) -> bool:
        """Tell whether a path's time has a part between two instants."""
        span = self.span(path)
        return span is not None and span[0] < end and start < span[1]


def _check(text_format: str) -> None:
    used = _DIRECTIVE.findall(text_format)
    unknown = [letter for letter in used if letter not in _DIGITS]
    if unknown or not used:
        known = ", ".join(f"%{letter}" for letter in _DIGITS)
        raise ValueError(f"{{date:{text_format}}}: a date in a path is made of {known}")


def _date_expression(text_format: str, seen: set[str]) -> str:
    """Return a regular expression with a group for each part; one that comes again must be the same."""
    made = []
    for text in re.split(r"(%.)", text_format):
        letter = text[1:]
        if not text.startswith("%"):
            made.append(re.escape(text))
        elif letter in seen:
            made.append(f"(?P={letter})")
        else:
            seen.add(letter)
            made.append(rf"(?P<{letter}>[0-9]{{{_DIGITS[letter]}}})")
    return "".join(made)


def _glob_expression(pattern: str) -> str:
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]]+\])", pattern)
    made = []
    for part in parts:
        if part.startswith("[") and part.endswith("]"):
            made.append(part.replace("[!", "[^", 1))
        else:
            made.append(wildcards.get(part, re.escape(part)))
    return "".join(made)


def _end(start: datetime, formats: str) -> datetime:
    finest = next((letter for letter in "SMHdj" if f"%{letter}" in formats), None)
    if finest is not None:
        return start + {
            "S": timedelta(seconds=1),
            "M": timedelta(minutes=1),
            "H": timedelta(hours=1),
        }.get(finest, timedelta(days=1))
    if "%m" in formats:
        return (start + timedelta(days=31)).replace(day=1)
    return start.replace(year=start.year + 1)
