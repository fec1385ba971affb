"""What is to be created, changed and removed. Pure: what is declared and what is there decide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Content = Mapping[str, Any]
"""What is compared: keys of a thing, and their values."""


class Action(StrEnum):
    """What is done with one thing."""

    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"
    LEAVE = "leave"
    """It was made by an earlier bootstrap, is no longer declared, and pruning was not asked for."""
    KEEP = "unchanged"


@dataclass(frozen=True, slots=True)
class Present:
    """One thing on the server.

    Attributes:
        id: Its id there.
        content: Its keys, as they are compared.
    """

    id: str
    content: Content


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with one thing.

    Attributes:
        kind: What it is, e.g. deployment.
        name: Its name; unique among its kind.
        action: What is done.
        keys: The keys that change; values are never shown.
    """

    kind: str
    name: str
    action: Action
    keys: tuple[str, ...] = ()


def plan(
    kind: str,
    declared: Mapping[str, Content],
    present: Mapping[str, Present],
    made: Mapping[str, str],
    *,
    prune: bool,
) -> Iterator[Step]:
    """Yield a step for each thing that is declared, and for each that no longer is.

    Args:
        kind: What the things are.
        declared: What should be there, by name.
        present: What is there, by name; at least what is declared, and what was made.
        made: Ids of what earlier bootstraps made, by name. Nothing else is ever removed: what has
            another id today was made by somebody else.
        prune: Remove what is no longer declared.
    """
    for name, content in declared.items():
        there = present.get(name)
        if there is None:
            yield Step(kind, name, Action.CREATE)
            continue
        keys = tuple(key for key in content if content[key] != there.content.get(key))
        yield Step(kind, name, Action.CHANGE if keys else Action.KEEP, keys)
    for name, known_id in made.items():
        if name not in declared and name in present and present[name].id == known_id:
            yield Step(kind, name, Action.REMOVE if prune else Action.LEAVE)
