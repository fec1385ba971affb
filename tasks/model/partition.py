"""Partitions: the unit of work, a slice of a source that is known by its fingerprint."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from tasks.model.value import Value, json_digest


class Part(Value):
    """A span of a large object, half open; it begins and ends between two records.

    ``str()`` of it is its identity. The other fields only help to read it.
    """

    unit: Literal["bytes", "row groups"]
    start: int
    end: int
    of: int
    """The object's bytes, or its row groups."""
    first_row: int | None = None
    """Number of its first record in the object; None when only a reader of all of it would know."""
    header: int = 0
    """Bytes at the object's beginning that name the columns of all its parts."""

    def __str__(self) -> str:
        return f"{self.unit} {self.start}-{self.end}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that a text of the ledger stands for."""
        unit, _, numbers = text.rpartition(" ")
        start, end, of = (int(number) for number in re.split("[-/]", numbers))
        return cls.model_validate({"unit": unit, "start": start, "end": end, "of": of})


class SourceItem(Value):
    """One object or file of a source, or a part of one, pinned to the version that was listed."""

    uri: str
    version: str
    """What changes when the content changes: an ETag with the size, or a SHA-256."""
    bytes: int = 0
    part: Part | None = None
    """None: all of it."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from others."""
        return (self.uri, self.version, *([str(self.part)] if self.part else []))

    @property
    def origin(self) -> str:
        """What its rows say about where they are from.

        It names the part where rows are counted from the beginning of the part, not of the object.
        """
        if self.part is None or self.part.first_row is not None:
            return self.uri
        return f"{self.uri}#{self.part.unit}={self.part.start}-{self.part.end}"


class Partition(Value):
    """The unit of work: an immutable description of a slice of the source."""

    dataset: str
    label: str
    """For people: which slice this is."""
    items: tuple[SourceItem, ...] = ()
    slice: dict[str, Any] = Field(default_factory=dict)
    """For sources without objects: the window, the range or the query."""
    state: dict[str, Any] = Field(default_factory=dict)
    """Where the next plan goes on once this partition is committed."""
    deletes_up_to: int | None = None
    """Set where the slice is the keys of all rows: the last load whose rows it may delete."""
    refresh: str | None = None
    """Id of the run that asked for it again although it was loaded; None otherwise."""
    planned_after: int | None = None
    """Id of the last load that the plan knew of, 0 for none; its items must not be loaded by others
    meanwhile. None where that cannot be, or does not matter."""

    @property
    def bytes(self) -> int:
        """Size of the slice in the source, in bytes, as far as the source says it."""
        return sum(item.bytes for item in self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the dataset's name and the content of the slice, not over the dataset file."""
        identity: dict[str, Any] = {
            "dataset": self.dataset,
            "items": sorted(item.identity for item in self.items),
            "slice": self.slice,
        }
        if self.refresh is not None:
            identity["refresh"] = self.refresh
        return json_digest(identity)
