"""What is read: a table or a query, its columns, and the SELECT of a range of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from tasks.ingestion.database import postgres_columns, reflected
from tasks.ingestion.database.columns import Column
from tasks.ingestion.database.ranges import Range
from tasks.model.database_source import DatabaseSource
from tasks.model.errors import SourceRejected

ALIAS = "dpp_rows"
"""No column has this name, so that in PostgreSQL it stands for the whole row."""


@dataclass(frozen=True)
class Relation:
    """A table or a query of an open database.

    Attributes:
        name: What it is called, for messages.
        selectable: It, under an alias.
        columns: Its columns.
    """

    name: str
    selectable: sa.FromClause | sa.TextClause
    columns: Sequence[Column]

    def column(self, name: str, key: str) -> Column:
        """Return a column that the dataset file names.

        Raises:
            SourceRejected: There is none of this name.
        """
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(column.name for column in self.columns)
        raise SourceRejected(
            f"{self.name}: no column {name!r} for source.{key}; there are {names}",
            f"correct source.{key}",
        )

    def select(self, part: Range) -> sa.Select[Any]:
        """Return the SELECT of a range, each column as it is to be asked for."""
        query = sa.select(*(column.expression.label(column.name) for column in self.columns))
        return query.select_from(self.selectable).where(*self.conditions(part))

    def conditions(self, part: Range) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of a range."""
        if part.column is None:
            return []
        value: sa.ColumnElement[Any] = sa.column(part.column)
        low, high = bound(part.low), bound(part.high)
        if part.part == "nulls":
            return [value.is_(None)]
        found: list[sa.ColumnElement[bool]] = []
        if low is not None:
            found.append(value > low if part.open_low else value >= low)
        if high is not None:
            found.append(value <= high if part.closed else value < high)
        if part.with_nulls and found:
            return [sa.or_(sa.and_(*found), value.is_(None))]
        return found


def bound(value: Any) -> Any:
    """Return a value as drivers take it: a UUID as its text."""
    return str(value) if isinstance(value, UUID) else value


def relation_of(connection: sa.Connection, source: DatabaseSource) -> Relation:
    """Find the table or query of a source, and its columns.

    Raises:
        SourceRejected: There is no such table, or the query is wrong.
    """
    postgres = connection.dialect.name == "postgresql"
    if source.query is not None:
        query = _query(source.query)
        read = postgres_columns.result_columns if postgres else reflected.query_columns
        return Relation("query", query, read(connection, query))
    name = source.table or ""
    schema, _, table = name.rpartition(".")
    selectable = sa.table(table, schema=schema or None).alias(ALIAS)
    columns = (
        postgres_columns.result_columns(connection, selectable)
        if postgres
        else reflected.table_columns(connection, schema or None, table)
    )
    return Relation(name, selectable, columns)


def _query(text: str) -> sa.TextClause:
    """Make the user's own SELECT something to select from; colons in it are no parameters."""
    own = text.strip().rstrip(";").replace(":", r"\:")
    # The line's end closes a comment that the query may end with.
    return sa.text(f"({own}\n) {ALIAS}")
