"""The keys that ``path`` means, and the folders to list for a span of time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.model.dated_paths import DATE_FIELD, DatedPath
from tasks.model.request import Window

MOST_FOLDERS = 400
"""A span with more folders than this is listed by the next larger unit."""
_UNITS = {"Y": "Y", "m": "Ym", "d": "Ymd", "j": "Yj", "H": "YmdjH"}
"""What the name of a folder may be made of, by the finest unit in it."""
_WILDCARD = re.compile(r"[*?\[]")
_DIRECTIVE = re.compile(r"%(.)")


class KeyPattern:
    """The keys of one source.

    Args:
        path: The declared path.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._dated = DatedPath.parse(path)

    @property
    def dated(self) -> bool:
        """Do the keys say which time their rows are of?"""
        return bool(self._dated.formats)

    @property
    def single(self) -> str | None:
        """The key, if the path is that of one object."""
        return None if self.dated or _WILDCARD.search(self._path) else self._path

    def match(self, key: str, span: Window | None = None) -> bool:
        """Tell whether a key is meant, and its period overlaps a span."""
        if key.endswith("/"):
            return False
        if span is None:
            return self._dated.matches(key)
        return self._dated.overlaps(key, span.start, span.end)

    def folders(self, span: Window | None = None) -> list[str]:
        """Return the folders to list for a span; '' is the whole bucket."""
        if span is not None and self.dated:
            for unit in ("H", "j", "d", "m", "Y"):
                found = self._folders_by(unit, span)
                if found is not None:
                    return found
        return [literal_prefix(self._path)]

    def _folders_by(self, unit: str, span: Window) -> list[str] | None:
        """Return the folders that a span has by a unit, None if they have none, or are too many."""
        template = DATE_FIELD.sub(lambda match: match[1], self._path)
        finer = (at for at in _DIRECTIVE.finditer(template) if at[1] not in _UNITS[unit])
        ends = [found.start() for found in (next(finer, None), _WILDCARD.search(template)) if found]
        head = template[: min(ends, default=len(template))].rpartition("/")[0]
        if f"%{unit}" not in head:
            return None
        found: dict[str, None] = {}
        for start in _periods(span, unit):
            year = f"{start.year:04d}"  # strftime writes years before 1000 with fewer digits
            folder = _DIRECTIVE.sub(
                lambda match, at=start, year=year: (  # type: ignore[misc]
                    year if match[1] == "Y" else at.strftime(match[0])
                ),
                head,
            )
            found[folder] = None
            if len(found) > MOST_FOLDERS:
                return None
        return list(found)


def _periods(span: Window, unit: str) -> Iterator[datetime]:
    at = span.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if unit != "H":
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
    if unit in "dj":
        return start + timedelta(days=1)
    months = start.year * 12 + start.month - 1 + (1 if unit == "m" else 12)
    return start.replace(year=months // 12, month=months % 12 + 1)


def literal_prefix(pattern: str) -> str:
    """Return the folder that all keys of a pattern are in; only it is listed."""
    fixed = re.split(r"[*?\[]|\{date:", pattern, maxsplit=1)[0]
    return fixed if fixed == pattern else fixed.rpartition("/")[0]
