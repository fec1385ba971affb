"""``load:`` of a dataset file: where the rows go, and how they meet the rows that are there."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from tasks.model.column_types import is_integer
from tasks.model.columns import ColumnSpec, Identifier, Strict, check_identifier
from tasks.model.search import SearchIndex
from tasks.model.table import Grants, IndexSpec, PartitionBy

DELETED_AT = "_deleted_at"
"""Own column of a table with soft deletes: when the deletion of the row was loaded."""


def check_table_name(name: str) -> str:
    """Return the name of a table as it is.

    Raises:
        ValueError: It is not schema.table, or its schema is not for data.
    """
    parts = name.split(".")
    if len(parts) != 2:  # noqa: PLR2004 - schema and table
        raise ValueError(f"{name!r}: write schema.table, e.g. analytics.flights")
    for part in parts:
        check_identifier(part)
    if parts[0] == "etl":
        raise ValueError("schema 'etl' belongs to the ledger; choose another")
    if parts[0] == "information_schema" or parts[0].startswith("pg_"):
        raise ValueError(f"schema {parts[0]!r} belongs to PostgreSQL; choose another")
    return name


class LoadTarget(Strict):
    """What every mode has: the table, and what it is created with."""

    needs_key: ClassVar[bool] = False
    """Does the mode need a key?"""
    one_row_per_key: ClassVar[bool] = False
    """Is the key that of the table?"""
    takes_repeats: ClassVar[bool] = False
    """Is a row that is read twice, in whichever partitions, there once?"""
    whole_objects: ClassVar[bool] = False
    """Is each object of the source a partition of its own, however large or small?"""

    table: Annotated[str, AfterValidator(check_table_name)] = Field(description="schema.table")
    index: SearchIndex | None = None
    indexes: tuple[IndexSpec, ...] = Field((), description="Indexes beside that of the key.")
    grants: Grants | None = Field(
        None, description="What roles may do with the table, e.g. {reporting: [select]}."
    )
    partition_by: PartitionBy | None = Field(
        None, description="Cut the table into partitions by ranges of a column."
    )


class AppendLoad(LoadTarget):
    """Every row of every partition is added."""

    mode: Literal["append"] = Field(description="Each partition once; every row is added.")


class InsertOnlyLoad(LoadTarget):
    """One row per key, the first."""

    needs_key = one_row_per_key = takes_repeats = True

    mode: Literal["insert_only"] = Field(
        description="Rows with a new key are added; a row whose key is there stays as it is."
    )


class Flag(Strict):
    """Rows that say of themselves that theirs is deleted."""

    column: Identifier = Field(description="The column that says what a row is about.")
    values: tuple[str | int | bool, ...] = Field(
        min_length=1, description="Its values that mark a deletion, e.g. [D]."
    )

    def check_column(self, column: ColumnSpec | None) -> None:
        """Refuse a column that cannot have these values.

        Raises:
            ValueError: It says what does not fit.
        """
        where = "load.delete"
        if column is None:
            raise ValueError(f"{where}: no column {self.column!r} is declared")
        expected: type = str
        if column.type == "boolean":
            expected = bool
        elif is_integer(column.type):
            expected = int
        elif column.type not in ("string", "enum"):
            raise ValueError(
                f"{where}: column {self.column!r} is {column.type}; a flag is a string, an enum, an "
                "integer or a boolean"
            )
        for value in self.values:
            if type(value) is not expected:
                raise ValueError(
                    f"{where}: column {self.column!r} is {column.type}, and never {value!r}"
                )


class DeleteFlag(Flag):
    """Rows that delete the one of their key, and how."""

    kind: Literal["hard", "soft"] = Field(
        "hard", description="hard: the row is removed. soft: it stays, and has a _deleted_at."
    )


class MergeLoad(LoadTarget):
    """One row per key, the newest."""

    needs_key = one_row_per_key = takes_repeats = True

    mode: Literal["merge"] = Field(
        description="One row per key; the newest by cursor wins, also against the table."
    )
    delete: DeleteFlag | None = Field(
        None, description="Which rows delete the one of their key instead of updating it."
    )


_VALUES_TO_REPLACE_BY = ("date", "timestamp", "string", "enum", "boolean", "uuid")


class ReplacePartitionLoad(LoadTarget):
    """The rows of an object take the place of those with the same value in a column."""

    whole_objects = True

    mode: Literal["replace_partition"] = Field(
        description="The rows of each object replace those with the same value in a column, e.g. a day."
    )
    by: Identifier = Field(description="The column whose values are replaced as a whole.")

    def check_column(self, column: ColumnSpec | None, *, declared: bool) -> None:
        """Refuse a column by whose values rows cannot be told apart exactly.

        Args:
            column: The column; None if there is none of the name.
            declared: Is it one of the source's?

        Raises:
            ValueError: It says what does not fit.
        """
        if column is None:
            raise ValueError(f"load.by: no column {self.by!r} is declared")
        if column.type not in _VALUES_TO_REPLACE_BY and not is_integer(column.type):
            raise ValueError(
                f"load.by: column {self.by!r} is {column.type}; rows are replaced by a "
                f"{', '.join(_VALUES_TO_REPLACE_BY)} or an integer"
            )
        if not declared and column.nullable:
            raise ValueError(f"load.by: declare the column {self.by!r} nullable: false")


class ReplaceLoad(LoadTarget):
    """The rows of the whole source take the place of those that are there."""

    one_row_per_key = takes_repeats = True

    mode: Literal["replace"] = Field(
        description="The rows of all partitions of a run replace those of the table, or none do."
    )
    allow_empty: bool = Field(
        False, description="May a source without a single row empty the table?"
    )


class Scd2Load(LoadTarget):
    """Every version of a key, with the span of time in which it held."""

    needs_key = takes_repeats = True

    mode: Literal["scd2"] = Field(
        description="Every version of a key is a row, with the span of time in which it held."
    )
    valid_from: Identifier = Field(
        "valid_from", description="Column of the time from which a version holds: its cursor."
    )
    valid_to: Identifier = Field(
        "valid_to", description="Column of the time until which it holds, itself not included."
    )
    is_current: Identifier = Field(
        "is_current", description="Column that says whether it is the version of now."
    )
    delete: Flag | None = Field(None, description="Which rows end the last version of their key.")

    @property
    def own_columns(self) -> tuple[str, str, str]:
        """Names of the columns that the mode fills."""
        return (self.valid_from, self.valid_to, self.is_current)


LoadSpec = Annotated[
    AppendLoad | InsertOnlyLoad | MergeLoad | ReplaceLoad | ReplacePartitionLoad | Scd2Load,
    Field(discriminator="mode"),
]
"""How the rows meet those that are there; each mode has options of its own."""
