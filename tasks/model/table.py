"""How the table of a dataset is made, beside its columns: indexes, grants, partitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, model_validator

from tasks.model.column_types import is_integer
from tasks.model.columns import MAX_IDENTIFIER_BYTES, ColumnSpec, Identifier, Strict
from tasks.model.index_expression import IndexExpression, read_expression

MAX_INDEX_COLUMNS = 32
_WHY = (
    "PostgreSQL keeps a key unique within each partition only, so {} must contain the column of the "
    "partitions"
)
_RETENTION = re.compile(r"([1-9]\d{0,3}) (day|week|month|year)s?")

Privilege = Literal["select", "insert", "update", "delete", "truncate", "references", "trigger"]
Period = Literal["day", "week", "month", "year"]


class IndexSpec(Strict):
    """An index of the table; its name is made from the table's and from what is declared here."""

    columns: tuple[str, ...] = Field(
        min_length=1,
        max_length=MAX_INDEX_COLUMNS,
        description="Columns, or expressions over them such as lower(email).",
    )
    method: Literal["btree", "hash", "brin", "gin"] = Field(
        "btree", description="How PostgreSQL keeps it."
    )
    unique: bool = Field(False, description="Refuse a load that would put a value there twice.")
    where: str | None = Field(
        None, description="Only rows for which this is true, e.g. cancelled IS NULL."
    )

    @model_validator(mode="after")
    def _method_fits(self) -> IndexSpec:
        if self.unique and self.method != "btree":
            raise ValueError(f"'unique' needs method btree, found {self.method}")
        if self.method == "hash" and len(self.columns) > 1:
            raise ValueError("a hash index has one column")
        return self

    def expressions(self, known: Sequence[str]) -> list[IndexExpression]:
        """Return what it is made of, checked against the columns that there are."""
        return [read_expression(text, known) for text in self.columns]

    def condition(self, known: Sequence[str]) -> IndexExpression | None:
        """Return which rows it has, None for all."""
        return read_expression(self.where, known) if self.where else None


def _role(name: str) -> str:
    if not name or "\0" in name or len(name.encode()) > MAX_IDENTIFIER_BYTES or name == "none":
        raise ValueError(
            f"{name!r} is no role: 1 to {MAX_IDENTIFIER_BYTES} bytes, as CREATE ROLE has it; "
            "public means everybody"
        )
    return name


Role = Annotated[str, AfterValidator(_role)]
Grants = dict[Role, tuple[Privilege, ...]]
"""What roles may do with the table."""


class Retention(Strict):
    """A span of time: so many periods."""

    count: int
    period: Period


def _retention(text: str) -> str:
    if not _RETENTION.fullmatch(text):
        raise ValueError(f"{text!r} is no span of time; write e.g. 24 months, 90 days, 7 years")
    return text


class PartitionBy(Strict):
    """The table is cut into partitions by ranges of a column."""

    column: Identifier = Field(description="A date, timestamp or integer that is never NULL.")
    every: Period | Annotated[StrictInt, Field(ge=1)] = Field(
        description="Size of a partition: day, week, month, year; of an integer so many numbers."
    )
    ahead: int = Field(
        3, ge=0, le=366, description="Partitions that are made before there are rows for them."
    )
    retention: Annotated[str, AfterValidator(_retention)] | None = Field(
        None, description="Partitions that are older are dropped by dpp maintain, e.g. 24 months."
    )
    outside: Literal["create", "default", "refuse"] = Field(
        "create",
        description="Rows older than the retention, or farther in the future than 'ahead': create a "
        "partition for them, put them into a default partition, or refuse to load them.",
    )

    @property
    def kept(self) -> Retention | None:
        """The retention, taken apart."""
        if self.retention is None:
            return None
        match = _RETENTION.fullmatch(self.retention)
        assert match is not None, "the field is validated"
        return Retention(count=int(match[1]), period=match[2])


def check_indexes(indexes: Sequence[IndexSpec], known: Sequence[str]) -> None:
    """Refuse indexes over what is no column, and two that are alike.

    Raises:
        ValueError: Names the index.
    """
    for position, index in enumerate(indexes):
        where = f"load.indexes.{position}"
        try:
            index.expressions(known)
            index.condition(known)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if index in indexes[:position]:
            raise ValueError(f"{where}: it is declared twice")


def check_partitions(
    by: PartitionBy,
    column: ColumnSpec | None,
    *,
    required: bool,
    table_key: Sequence[str],
    columns: Sequence[str],
    indexes: Sequence[IndexSpec],
) -> None:
    """Refuse partitions that PostgreSQL could not make, or could not keep keys unique over.

    Args:
        by: What the dataset file says.
        column: The column by which the table is partitioned; None if there is none of the name.
        required: Is it refused to be NULL?
        table_key: The primary key of the table.
        columns: Names of the columns that are declared or computed.
        indexes: The declared indexes.

    Raises:
        ValueError: Says what, and why.
    """
    where = "load.partition_by"
    if column is None:
        raise ValueError(
            f"{where}.column: no column {by.column!r}; declared are {', '.join(columns)}"
        )
    _check_period(by, column)
    if not required:
        raise ValueError(
            f"{where}.column: a row without {by.column!r} belongs to no partition; declare the "
            "column with nullable: false"
        )
    if table_key and by.column not in table_key:
        raise ValueError(
            f"{where}: column {by.column!r} is not part of the primary key of the table "
            f"({', '.join(table_key)}); {_WHY.format('the key')}"
        )
    for position, index in enumerate(indexes):
        if index.unique and by.column not in index.columns:
            raise ValueError(
                f"load.indexes.{position}: it is unique and has not {by.column!r}, by which the "
                f"table is partitioned; {_WHY.format('it')}"
            )
        if index.unique and any(not e.is_column for e in index.expressions(list(columns))):
            raise ValueError(
                f"load.indexes.{position}: PostgreSQL has no unique index over an expression on a "
                "partitioned table"
            )


def check_version_partitions(by: PartitionBy, valid_from: str, cursor: str | None) -> None:
    """Refuse partitions that do not suit versions of keys.

    Args:
        by: What the dataset file says.
        valid_from: Column of the time from which a version holds.
        cursor: Column that it has its values from.

    Raises:
        ValueError: Says what, and why.
    """
    where = "load.partition_by"
    if by.column == cursor:
        raise ValueError(
            f"{where}.column: {valid_from!r} has the values of {cursor!r} and is part of the "
            f"primary key, which PostgreSQL demands; write column: {valid_from}"
        )
    if by.column == valid_from and by.retention:
        raise ValueError(
            f"{where}.retention: a version that began long ago may still hold, and would be "
            "dropped; leave 'retention' out, or partition by a column of the key"
        )


def _check_period(by: PartitionBy, column: ColumnSpec) -> None:
    where = "load.partition_by"
    if is_integer(column.type):
        if not isinstance(by.every, int):
            raise ValueError(
                f"{where}.every: column {by.column!r} is {column.type}; say how many numbers a "
                "partition has, e.g. 1000000"
            )
        if by.retention or by.outside != "create":
            raise ValueError(f"{where}: 'retention' and 'outside' are for times, not for numbers")
    elif column.type not in ("date", "timestamp"):
        raise ValueError(
            f"{where}.column: {by.column!r} is {column.type}; partitions are ranges of a date, a "
            "timestamp or an integer"
        )
    elif isinstance(by.every, int):
        raise ValueError(f"{where}.every: found {by.every}; of a time: day, week, month or year")
