"""Where in a JSON document the records are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_LEVELS = 4


@dataclass(frozen=True, slots=True)
class RecordsAt:
    """A list of objects in a document.

    Attributes:
        path: Its place, None for the top.
        length: Its items.
    """

    path: str | None
    length: int


def find_records(body: Any) -> tuple[RecordsAt | None, list[RecordsAt]]:
    """Return the longest list of objects, and the others.

    Args:
        body: A parsed document.
    """
    lists = sorted(_lists(body, ()), key=lambda found: -found.length)
    return (lists[0], lists[1:]) if lists else (None, [])


def _lists(value: Any, keys: tuple[str, ...]) -> Iterator[RecordsAt]:
    if isinstance(value, list):
        if all(isinstance(item, dict) for item in value) and (value or not keys):
            yield RecordsAt(path_of(keys), len(value))
    elif isinstance(value, dict) and len(keys) < MOST_LEVELS:
        for name, item in value.items():
            yield from _lists(item, (*keys, name))


def path_of(keys: tuple[str, ...]) -> str | None:
    """Write keys as a path of ``records``."""
    if not keys:
        return None
    if all(key.replace("_", "").replace("-", "").isalnum() for key in keys):
        return ".".join(keys)
    return "$" + "".join(f"[{json.dumps(key, ensure_ascii=False)}]" for key in keys)
