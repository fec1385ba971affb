"""What is wrong, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.documents import Document, Location


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One mistake.

    Attributes:
        path: The file.
        line: The line in it, from 1; 0 for the file as a whole.
        key: The key, with the names of its parents.
        message: What was found, and what is allowed.
    """

    path: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Write it as compilers do."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


def finding(document: Document, location: Location, message: str) -> Finding:
    """Make a finding about a place of a document."""
    return Finding(str(document.path), document.line(location), shown(document, location), message)


def shown(document: Document, location: Location) -> str:
    """Write a location for people: items of lists by their names, where they have one."""
    node: Any = document.content
    parts: list[str] = []
    for part in location:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
        name = node.get("name") if isinstance(node, Mapping) else None
        parts.append(str(name) if isinstance(part, int) and isinstance(name, str) else str(part))
    return ".".join(parts)


def values(node: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield each text below a node with its place, but no keys."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from values(value, (*location, str(key)))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from values(value, (*location, position))
    elif isinstance(node, str):
        yield location, str(node)


def keys(node: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield each key below a node with its place."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield (*location, str(key)), str(key)
            yield from keys(value, (*location, str(key)))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from keys(value, (*location, position))
