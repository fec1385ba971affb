"""The keys that ``path`` means, and the folders to list for a span of time.

``path`` is a glob with dates: ``in/{date:%Y/%m/%d}/*.csv``. A key stands for the period that its date
names: a day here, an hour with ``%H``, a month without ``%d``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.model.run import Window
from tasks.model.source import DATE_FIELD

MOST_FOLDERS = 400
"""A span with more folders than this is listed by the next larger unit."""
_UNITS = "YmdH"
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2}
_GLOB = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?)")
_DIRECTIVE = re.compile(r"%([YmdH])")


class KeyPattern:
    """The keys of one source.

    Args:
        path: The declared path.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        directives = "".join(DATE_FIELD.findall(path))
        self._units = [unit for unit in _UNITS if f"%{unit}" in directives]
        self._regex = key_pattern(path)

    @property
    def dated(self) -> bool:
        """Do the keys say which time their rows are of?"""
        return bool(self._units)

    @property
    def single(self) -> str | None:
        """The key, if the path is that of one object."""
        return None if self.dated or _WILDCARD.search(self._path) else self._path

    def match(self, key: str, span: Window | None = None) -> bool:
        """Tell whether a key is meant, and its period overlaps a span."""
        found = self._regex.fullmatch(key)
        if found is None or key.endswith("/"):
            return False
        if not self.dated:
            return True
        named = {unit: int(found[unit]) for unit in self._units}
        year, month, day = (named.get(unit, 1) for unit in "Ymd")
        try:
            start = datetime(year, month, day, named.get("H", 0), tzinfo=UTC)
        except ValueError:
            return False  # 2013/02/31 is no date
        return span is None or (start < span.end and _next(start, self._units[-1]) > span.start)

    def folders(self, span: Window | None = None) -> list[str]:
        """Return the folders to list for a span; '' is the whole bucket."""
        if span is None or not self.dated:
            return [literal_prefix(self._path)]
        for number in range(len(self._units), 0, -1):
            found = self._folders_by(self._units[:number], span)
            if found is not None:
                return found
        return [literal_prefix(self._path)]

    def _folders_by(self, units: list[str], span: Window) -> list[str] | None:
        """Return the folders that a span has by a unit, None if there are too many."""
        template = DATE_FIELD.sub(lambda match: match[1], self._path)
        finer = next(
            (found for found in _DIRECTIVE.finditer(template) if found[1] not in units), None
        )
        wildcard = _WILDCARD.search(template)
        end = min(
            finer.start() if finer else len(template),
            wildcard.start() if wildcard else len(template),
        )
        head = template[:end].rpartition("/")[0]
        found: dict[str, None] = {}
        for start in _periods(span, units[-1]):
            folder = _DIRECTIVE.sub(lambda match, at=start: at.strftime(match[0]), head)  # type: ignore[misc]
            found[folder.replace("%Y", f"{start.year:04d}")] = None
            if len(found) > MOST_FOLDERS:
                return None
        return list(found)


def _periods(span: Window, unit: str) -> Iterator[datetime]:
    at = span.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if unit in "Ymd":
        at = at.replace(hour=0)
    if unit in "Ym":
        at = at.replace(day=1)
    if unit == "Y":
        at = at.replace(month=1)
    while at < span.end:
        yield at
        at = _next(at, unit)


def _next(start: datetime, unit: str) -> datetime:
    if unit == "H":
        return start + timedelta(hours=1)
    if unit == "d":
        return start + timedelta(days=1)
    months = start.year * 12 + start.month - 1 + (1 if unit == "m" else 12)
    return start.replace(year=months // 12, month=months % 12 + 1)


def literal_prefix(pattern: str) -> str:
    """Return the folder that all keys of a pattern are in; only it is listed."""
    fixed = re.split(r"[*?]|\{date:", pattern, maxsplit=1)[0]
    return fixed if fixed == pattern else fixed.rpartition("/")[0]


def key_pattern(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for a path.

    ``**`` crosses slashes, ``*`` and ``?`` do not. Each part of a date is a group; one that is
    there twice must be the same.
    """
    parts: list[str] = []
    seen: set[str] = set()
    for number, text in enumerate(DATE_FIELD.split(pattern)):
        if number % 2:
            for literal, unit in _directives(text):
                parts.append(re.escape(literal))
                if unit:
                    again = (
                        f"(?P={unit})" if unit in seen else rf"(?P<{unit}>[0-9]{{{_DIGITS[unit]}}})"
                    )
                    parts.append(again)
                    seen.add(unit)
        else:
            parts += [_GLOB.get(part) or re.escape(part) for part in _WILDCARD.split(text)]
    return re.compile("".join(parts), re.DOTALL)


def _directives(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    for found in _DIRECTIVE.finditer(text):
        yield text[at : found.start()], found[1]
        at = found.end()
    yield text[at:], None
