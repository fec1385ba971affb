"""Replays: which refused rows are meant, and the partition that takes them through the stages again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, Field, field_validator

from tasks.model.manifest import LakeFile
from tasks.model.partition import Partition
from tasks.model.request import Purpose, RunRequest
from tasks.model.value import Value

SLICE = "_replay"
"""Key of a replay in a partition's slice."""
_ROW_ID = re.compile(r"(\d{1,18})-(\d{1,18})")


class RowId(Value):
    """The name of a refused row: its load, and its place in the quarantine files of that load."""

    load_id: int
    row: int
    """Starting at 1."""

    def __str__(self) -> str:
        return f"{self.load_id}-{self.row}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the row that a text names.

        Raises:
            ValueError: It names none.
        """
        match = _ROW_ID.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is no row of quarantine; write e.g. 12-345")
        return cls(load_id=int(match[1]), row=int(match[2]))


class Selection(Value):
    """Which rows of a dataset's quarantine are meant; all that are open, if nothing is said."""

    child: str | None = None
    """The child table whose refused items are meant; None if rows of the dataset are."""
    rule: str | None = None
    column: str | None = None
    load_id: int | None = None
    rows: tuple[str, ...] = ()
    """Ids of rows, e.g. ``12-345``."""
    seen_before: AwareDatetime | None = None
    resolved_too: bool = False

    @field_validator("rows")
    @classmethod
    def _rows_are_named(cls, rows: tuple[str, ...]) -> tuple[str, ...]:
        for row in rows:
            RowId.parse(row)
        return rows

    @property
    def row_ids(self) -> frozenset[tuple[int, int]]:
        """(load, row) of the rows that are named."""
        parsed = [RowId.parse(row) for row in self.rows]
        return frozenset((row.load_id, row.row) for row in parsed)


class ReplayRequest(RunRequest):
    """A run that takes refused rows through the stages again, instead of what is new."""

    selection: Selection = Field(default_factory=Selection)
    corrections: str | None = None
    """Key in the lake of a corrected export; only its rows are replayed."""
    corrections_name: str | None = None
    """What the user calls it, for messages."""

    @property
    def purpose(self) -> Purpose:
        """Replays go on beside live runs; only another replay takes the dataset over from one."""
        return "replay"


class ReasonRows(Value):
    """Rows of one load's quarantine that one rule refused, as spans of row numbers."""

    stage: str
    rule: str
    column: str | None
    spans: tuple[tuple[int, int], ...]
    """First and last row of each span, both included."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(last - first + 1 for first, last in self.spans)


class ReplaySlice(Value):
    """The slice of a partition that is no slice of the source, but of one load's quarantine."""

    load_id: int
    manifest_key: str
    reasons: tuple[ReasonRows, ...]
    corrections: LakeFile | None = None
    """Values in place of the original ones."""
    first_seen: datetime
    """When these rows were refused for the first time."""
    times_replayed: int = Field(ge=1)
    """The how manieth replay of these rows this is."""
    child: str | None = None
    """The child table whose refused items they are; None if they are rows of the dataset."""

    @property
    def rows(self) -> list[int]:
        """Their row numbers, in order."""
        return sorted(
            row
            for reason in self.reasons
            for first, last in reason.spans
            for row in range(first, last + 1)
        )

    def partition(self, dataset: str) -> Partition:
        """Return the partition that takes these rows through the stages.

        Its fingerprint is decided by the rows and their corrections: a replay that is repeated is
        the same partition.
        """
        count = sum(reason.count for reason in self.reasons)
        what = f"items of {self.child}" if self.child else "rows"
        unset = {"child"} if self.child is None else None
        return Partition(
            dataset=dataset,
            label=f"replay of {count} {what} of load {self.load_id}",
            slice={SLICE: self.model_dump(mode="json", exclude=unset)},
        )


def replay_of(partition: Partition) -> ReplaySlice | None:
    """Return the replay that a partition is, None for a slice of the source."""
    content = partition.slice.get(SLICE)
    return None if content is None else ReplaySlice.model_validate(content)


def spans(rows: list[int]) -> tuple[tuple[int, int], ...]:
    """Return ordered row numbers as spans, each with its first and last row."""
    found: list[list[int]] = []
    for row in rows:
        if found and found[-1][1] == row - 1:
            found[-1][1] = row
        else:
            found.append([row, row])
    return tuple((first, last) for first, last in found)
