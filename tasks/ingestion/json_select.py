"""Finds the records in a parsed JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.model.json_path import Every, Step, parse_records_path


def records_at(body: Any, path: str | None) -> list[Any] | None:
    """Return the records at a path of a parsed document.

    Args:
        body: What ``parse_json`` made of the document.
        path: As ``parse_records_path`` reads it.

    Returns:
        The records; None if what the path leads to before its first wildcard is not there, or not a
        list.
    """
    steps = parse_records_path(path).steps
    first = next(n for n, step in enumerate(steps) if isinstance(step, Every))
    parents = list(_values(body, steps[:first]))
    kinds = list if steps[first] is Every.ITEM else (list, dict)
    if not parents or not isinstance(parents[0], kinds):
        return None
    return list(_values(parents[0], steps[first:]))


def _values(value: Any, steps: tuple[Step, ...]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(step, Every):
        if isinstance(value, dict) and step is Every.VALUE:
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            yield from _values(item, rest)
    elif isinstance(step, str):
        if isinstance(value, dict) and step in value:
            yield from _values(value[step], rest)
    elif isinstance(value, list) and step < len(value):
        yield from _values(value[step], rest)
