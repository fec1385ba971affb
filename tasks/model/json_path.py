"""Paths into JSON, to the records of a document or to one value: a part of JSONPath (RFC 9535)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

_NAME = r"[^\W\d][\w-]*"
_STEP = re.compile(
    rf"\.(?P<name>{_NAME})|(?P<any>\.\*|\[\*\])|\[(?P<index>0|[1-9][0-9]{{0,9}})\]"
    r"|\[(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\]"
)


class Every(Enum):
    """A step to many values at once."""

    VALUE = auto()
    """``[*]`` and ``.*``: all items of a list, all values of an object."""
    ITEM = auto()
    """All items of a list; anything but a list is a mistake."""


Step = str | int | Every
"""A key of an object, a position in a list, or every value."""


@dataclass(frozen=True, slots=True)
class RecordsPath:
    """Where the records of a document are.

    Attributes:
        text: As the user wrote it.
        steps: The way from the top of the document to each record.
    """

    text: str
    steps: tuple[Step, ...]

    @property
    def where(self) -> str:
        """Name the place in a message."""
        return self.text or "the top of the document"


def parse_records_path(text: str | None) -> RecordsPath:
    """Read a path.

    ``None`` is a list at the top. ``data.items`` is the list under these keys. A path that begins with
    ``$`` is JSONPath: ``.key``, ``['key']``, ``[0]``, and ``[*]`` or ``.*`` for every item of a list or
    value of an object. One without a wildcard leads to a list, as the dotted one does; one with
    wildcards leads to the records themselves.

    Raises:
        ValueError: It is neither, or a part of JSONPath that is not supported.
    """
    if text is None:
        return RecordsPath("", (Every.ITEM,))
    if not text.startswith("$"):
        keys = text.split(".")
        if "" in keys:
            raise ValueError(f"{text!r}: a key is missing; write keys with dots, e.g. data.items")
        if any(re.search(r"[\[\]*]", key) for key in keys):
            raise ValueError(f"{text!r}: begin a path with wildcards or [] with '$.'")
        return RecordsPath(text, (*keys, Every.ITEM))
    steps: list[Step] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(
                f"{text!r}: cannot read {text[at:]!r}; a path is made of .key, ['key'], [0], [*] "
                "and .* (no '..', filter, slice, union or negative index)"
            )
        steps.append(_step(found))
        at = found.end()
    if Every.VALUE not in steps:
        steps.append(Every.ITEM)
    return RecordsPath(text, tuple(steps))


def _step(found: re.Match[str]) -> Step:
    if found["any"]:
        return Every.VALUE
    if found["index"]:
        return int(found["index"])
    if found["quoted"]:
        return _unquoted(found["quoted"])
    return found["name"]


def _unquoted(quoted: str) -> str:
    inner = quoted[1:-1]
    if quoted[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inner}"'))
    except ValueError:
        raise ValueError(f"{quoted} is no quoted key") from None


ITEM = "_item"
"""Name of the raw column with a whole item of a list, for paths that begin at the item itself."""


@dataclass(frozen=True, slots=True)
class ValuePath:
    """Where one value of a row is.

    Attributes:
        text: As the user wrote it.
        steps: The way to it: keys of objects and positions in lists; none for the item itself.
    """

    text: str
    steps: tuple[str | int, ...]

    @property
    def column(self) -> str:
        """Column of the source in which the way begins."""
        first = self.steps[0] if self.steps else 0
        return first if isinstance(first, str) else ITEM

    @property
    def inner(self) -> tuple[str | int, ...]:
        """What is left of the way inside of that column."""
        return self.steps if self.column == ITEM else self.steps[1:]

    @property
    def is_nested(self) -> bool:
        """Is the value inside of a column, rather than all of it?"""
        return bool(self.inner) or self.column == ITEM


@cache
def parse_value_path(text: str) -> ValuePath:
    """Read a path to one value: ``customer.address.city``, or JSONPath without wildcards.

    Raises:
        ValueError: It is neither, or leads to several values.
    """
    steps = parse_records_path(text).steps
    if steps[-1] is Every.ITEM:
        steps = steps[:-1]
    way = tuple(step for step in steps if not isinstance(step, Every))
    if len(way) != len(steps):
        raise ValueError(f"{text!r}: leads to several values; the items of a list are 'children'")
    return ValuePath(text, way)
