"""Gates: what must hold of the staged rows of a partition before any of them is visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from tasks.model.columns import ColumnSpec, Identifier, Strict
from tasks.model.lookup import Span, TableName

SHOWN_SQL = 60

Share = Annotated[float, Field(ge=0, le=1)]


class RowsBetween(Strict):
    """The partition must have this many clean rows."""

    rows_between: tuple[int, int]

    @property
    def label(self) -> str:
        """The gate in a few words."""
        return "rows_between"


class NullRate(Strict):
    """Largest allowed share of NULL per column, 0 to 1."""

    null_rate: dict[str, Share] = Field(min_length=1)

    @property
    def label(self) -> str:
        """The gate in a few words."""
        return f"null_rate {', '.join(self.null_rate)}"


class QuarantineRate(Strict):
    """Largest allowed share of quarantined rows in a partition, 0 to 1."""

    quarantine_rate: Share

    @property
    def label(self) -> str:
        """The gate in a few words."""
        return "quarantine_rate"


class UniqueRows(Strict):
    """No two staged rows have the same values in these columns; NULL is like nothing."""

    unique: tuple[Identifier, ...] = Field(min_length=1)

    @property
    def label(self) -> str:
        """The gate in a few words."""
        return f"unique ({', '.join(self.unique)})"


class Referenced(Strict):
    """Where the values of some columns must be found; NULL refers to nothing."""

    dataset: Identifier | None = Field(None, description="The dataset whose table has the values.")
    table: TableName | None = Field(
        None, description="A table that no dataset fills has them: schema.table."
    )
    columns: dict[Identifier, str] = Field(
        min_length=1, description="Column of this dataset: column of the other table."
    )
    missing: Share = Field(
        0, description="Largest share of rows whose values may be missing there."
    )

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if (self.dataset is None) == (self.table is None):
            raise ValueError("references: give either 'dataset' or 'table'")
        return self


class References(Strict):
    """The values of some columns are in another table of the warehouse when the rows are published."""

    references: Referenced

    @property
    def label(self) -> str:
        """The gate in a few words."""
        place = self.references.dataset or self.references.table
        return f"references {place} ({', '.join(self.references.columns)})"


class NewestRow(Strict):
    """How old the newest row of a partition may be."""

    column: Identifier = Field(description="A date or a timestamp; one without a zone is UTC.")
    max_age: Span = Field(description="Age of its largest value, at most: 90s, 15m, 3h, 7d.")


class Freshness(Strict):
    """The newest staged row is young enough. Backfills and refreshes are not held to it."""

    freshness: NewestRow

    @property
    def label(self) -> str:
        """The gate in a few words."""
        return f"freshness {self.freshness.column}"


def _one_query(text: str) -> str:
    if not text.strip():
        raise ValueError("sql is empty; write a query that returns no rows where all is well")
    return text


class NoRows(Strict):
    """A query of the user's that must return no rows; it reads the staged rows as ``staged``."""

    sql: Annotated[str, AfterValidator(_one_query)] = Field(
        description="One SELECT that returns the rows that should not be; 'staged' has the rows of "
        "the partition. It can read the warehouse, and change nothing."
    )
    name: Identifier | None = Field(None, description="Names the gate in messages.")
    timeout: Span = Field("60s", description="How long the query may take.")

    @property
    def label(self) -> str:
        """The gate in a few words."""
        words = " ".join(self.sql.split())
        shown = words if len(words) <= SHOWN_SQL else f"{words[: SHOWN_SQL - 1]}…"
        return f"sql {self.name or shown}"


_BRANCHES: dict[str, str] = {
    "rows_between": "<rows_between>",
    "null_rate": "<null_rate>",
    "quarantine_rate": "<quarantine_rate>",
    "unique": "<unique>",
    "references": "<references>",
    "freshness": "<freshness>",
    "sql": "<sql>",
}
GATE_BRANCHES = frozenset(_BRANCHES.values())
"""Parts of the location of a mistake that no dataset file has."""


def _which(gate: object) -> str | None:
    has: Callable[[str], bool] = (
        gate.__contains__ if isinstance(gate, Mapping) else lambda name: hasattr(gate, name)
    )
    return next((tag for name, tag in _BRANCHES.items() if has(name)), None)


Gate = Annotated[
    Annotated[RowsBetween, Tag("<rows_between>")]
    | Annotated[NullRate, Tag("<null_rate>")]
    | Annotated[QuarantineRate, Tag("<quarantine_rate>")]
    | Annotated[UniqueRows, Tag("<unique>")]
    | Annotated[References, Tag("<references>")]
    | Annotated[Freshness, Tag("<freshness>")]
    | Annotated[NoRows, Tag("<sql>")],
    Discriminator(
        _which,
        custom_error_type="no_gate",
        custom_error_message=f"a gate is one of {', '.join(_BRANCHES)}",
    ),
]


class QuarantineLimits(Strict):
    """How many rows of a partition may be refused before people are told, or nothing is published."""

    max_rows: int | None = Field(None, ge=0, description="Most refused rows of a partition.")
    max_share: float | None = Field(
        None, ge=0, le=1, description="Largest share of refused rows of a partition, 0 to 1."
    )
    alert_rows: int | None = Field(
        None, ge=0, description="Above so many the event etl.quarantine.threshold is sent."
    )
    alert_share: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="Above this share too; the other rows are loaded. null: never.",
    )


def gate_columns(gate: Gate) -> tuple[str, ...]:
    """Return the columns that a gate names."""
    if isinstance(gate, NullRate):
        return tuple(gate.null_rate)
    if isinstance(gate, UniqueRows):
        return gate.unique
    if isinstance(gate, References):
        return tuple(gate.references.columns)
    return (gate.freshness.column,) if isinstance(gate, Freshness) else ()


def check_column(gate: Gate, columns: Mapping[str, ColumnSpec]) -> None:
    """Refuse a gate about the age of a column that is no time.

    Raises:
        ValueError: Says which column, and of what type it is.
    """
    if not isinstance(gate, Freshness):
        return
    column = columns.get(gate.freshness.column)
    if column is not None and column.type not in ("date", "timestamp"):
        raise ValueError(
            f"gate freshness: column {gate.freshness.column!r} is {column.type}, not a time"
        )


@dataclass(frozen=True, slots=True)
class FailedGate:
    """A gate that does not hold.

    Attributes:
        gate: The gate in a few words.
        found: What was found, and what is allowed; counts and shares, never a value of a row.
        evidence: Some of the rows that it is about, for the warehouse only; personal values are masked.
        null_column: The column that has too many NULLs, if it is about that.
    """

    gate: str
    found: str
    evidence: tuple[dict[str, Any], ...] = ()
    null_column: str | None = None

    def __str__(self) -> str:
        return f"{self.gate}: {self.found}"
