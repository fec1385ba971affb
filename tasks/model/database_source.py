"""``source: {kind: database}``: a table or a query, and how its changes are found."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.model.columns import Strict

_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Deletes(Strict):
    """How rows that are gone from the source are found, and how many of them may be."""

    detect: Literal["keys"] = Field(
        description="keys: each run reads the key columns of all rows, and deletes from the table "
        "the rows whose key is not among them."
    )
    max_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Largest share of the table's rows that one run may delete, 0 to 1; beyond it "
        "nothing is deleted, and the run fails.",
    )


class DatabaseSource(Strict):
    """A table or a query of a database that SQLAlchemy can reach."""

    kind: Literal["database"]
    block: str = Field(description="Name of the SourceDatabase block with the connection.")
    table: str | None = Field(None, description="Table or schema.table; a view will do.")
    query: str | None = Field(None, description="A SELECT, instead of a table.")
    cursor: str | None = Field(
        None, description="Column of the source that grows with every change; drives increments."
    )
    lookback: int | str = Field(
        0,
        description="How far before the last cursor a run begins, for rows that are committed late: "
        "a number, or of times 30s, 15m, 2h, 3d.",
    )
    null_cursor: Literal["include", "quarantine", "error"] = Field(
        "include", description="What happens to rows without a cursor; they are never skipped."
    )
    future_cursor: Literal["quarantine", "error", "include"] = Field(
        "quarantine",
        description="What happens to rows whose cursor is later than now; they never move the mark, "
        "unless they are included.",
    )
    backward_cursor: Literal["error", "reread"] = Field(
        "error",
        description="What happens when the largest cursor is smaller than the one that was loaded: "
        "stop, or go on from there.",
    )
    split_by: str | None = Field(
        None,
        description="Column whose ranges are the partitions of a table without cursor; the first "
        "column of the primary key without it.",
    )
    snapshot: Literal["prefer", "require", "none"] = Field(
        "prefer",
        description="Do the partitions of a run see one state of the database? Where it can, only so, "
        "or each its own.",
    )
    deletes: Deletes | None = Field(
        None, description="Delete the rows that are gone from the source; without it they stay."
    )

    @field_validator("lookback")
    @classmethod
    def _lookback_is_a_span(cls, lookback: int | str) -> int | str:
        if isinstance(lookback, int) and lookback < 0:
            raise ValueError("a look-back is not negative")
        if isinstance(lookback, str) and not _SPAN.fullmatch(lookback):
            raise ValueError(f"{lookback!r} is no span; write e.g. 30s, 15m, 2h, 3d, or a number")
        return lookback

    @model_validator(mode="after")
    def _parts_fit_together(self) -> DatabaseSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either 'table' or 'query'")
        if self.cursor is None and self.lookback:
            raise ValueError("'lookback' is for sources with a 'cursor'")
        if self.cursor is not None and self.split_by is not None:
            raise ValueError("'split_by' is for sources without 'cursor': that one splits, too")
        return self

    @property
    def lookback_span(self) -> int | timedelta:
        """The look-back as a number, or as a span of time."""
        if isinstance(self.lookback, int):
            return self.lookback
        match = _SPAN.fullmatch(self.lookback)
        assert match is not None  # the validator checked it
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
