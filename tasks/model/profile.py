"""The profile of a partition: what its clean rows look like, in numbers that can be compared."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DECILES = tuple(step / 10 for step in range(11))
"""The quantiles that a profile keeps."""
ColumnKind = Literal["number", "time", "text", "boolean", "other"]


class ColumnProfile(BaseModel):
    """What the values of one column look like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ColumnKind
    nulls: int
    distinct: int
    """An estimate, right within a few per cent."""
    protected: bool = False
    """True if the column's values must not be shown: then there are none in here."""
    min: str | None = None
    max: str | None = None
    quantiles: tuple[float, ...] = ()
    """Deciles, both ends included; of times the seconds since 1970. Finite values only."""
    top: tuple[tuple[str, float], ...] = ()
    """The most frequent values, with their share of the values that are there."""
    lengths: tuple[int, float, int] | None = None
    """Of texts: shortest, mean and longest, in characters."""


class Profile(BaseModel):
    """What the clean rows of a partition look like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    sampled: int = 0
    """Rows that quantiles, top values and bounds of texts are of; all else is of all rows."""
    columns: dict[str, ColumnProfile] = Field(default_factory=dict)

    def null_rate(self, column: str) -> float | None:
        """Return the share of NULL in a column, None if nothing is known of it."""
        found = self.columns.get(column)
        return found.nulls / self.rows if found is not None and self.rows else None
