"""A row's story: what is told of it. Values of columns marked ``pii`` are masked in it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from tasks.model.value import Value

What = Literal["inserted", "updated", "unchanged", "not taken: older", "deleted", "loaded"]


class Cell(Value):
    """One value, before and after the transformation, as texts."""

    column: str
    raw: str | None
    clean: str | None
    changed: bool
    """Did cleaning change it?"""
    origin: Literal["source", "nested", "made"] = "source"
    """Was it a field of the source, a value inside of one, or was it computed or looked up?"""


class Version(Value):
    """What one load had for the row."""

    load_id: int
    label: str
    run: str
    loaded_at: AwareDatetime
    what: What
    """What the load did with it, by the rules of the load mode."""
    is_current: bool
    """Is it what the table has?"""
    source_uri: str | None = None
    source_row: int | None = None
    cells: tuple[Cell, ...] = ()


class RefusedAncestor(Value):
    """A row with that key which was refused."""

    id: str
    load_id: int
    first_seen: AwareDatetime
    source_uri: str
    source_row: int
    failures: str
    raw: dict[str, str | None]
    resolution: str | None
    """What became of it; None: it waits."""
    resolved_by: str | None
    replay_load_id: int | None


class Story(Value):
    """All that is known of a row."""

    dataset: str
    table: str
    key: dict[str, str]
    row: dict[str, str | None] | None
    """The row as the table has it; None if it has none."""
    load_id: int | None
    """The load that wrote it."""
    versions: tuple[Version, ...]
    refused: tuple[RefusedAncestor, ...]
    notes: tuple[str, ...] = ()
    """What could not be looked at."""
