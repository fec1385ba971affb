"""How the rows of a table are compared: by hashes of key and row that both databases can make. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from tasks.loading.canonical import (
    ComparedColumn,
    duckdb_hash,
    duckdb_order,
    duckdb_row,
    ordered_type,
    postgres_hash,
    postgres_order,
    postgres_row,
    quoted,
)
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec

NO_KEY = "'00000000-0000-0000-0000-000000000000'"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a table are compared.

    Attributes:
        columns: What is compared, in the types of the table.
        key: The columns that tell rows apart; none in a table of mode append.
        cursor: The column by which the newest row of a key wins, if there is one.
    """

    columns: tuple[ComparedColumn, ...]
    key: tuple[ComparedColumn, ...] = ()
    cursor: ComparedColumn | None = None
    first_wins: bool = False
    """Does a row stay as it is when its key is read again?"""

    @property
    def order(self) -> str:
        """DuckDB type of the cursor; any, where there is none."""
        return (ordered_type(self.cursor.type) if self.cursor else None) or "BIGINT"

    def row_hash(self, value: Mapping[str, sql.Composable]) -> sql.Composed:
        """Return SQL of PostgreSQL for the hash of a row."""
        return postgres_hash(postgres_row(self.columns, [value[c.name] for c in self.columns]))

    def key_hash(self, value: Mapping[str, sql.Composable]) -> sql.Composable:
        """Return SQL of PostgreSQL for the hash of a row's key."""
        if not self.key:
            return sql.SQL(NO_KEY)
        return sql.SQL("md5({})").format(postgres_row(self.key, [value[c.name] for c in self.key]))

    def order_of(self, value: Mapping[str, sql.Composable]) -> sql.Composable:
        """Return SQL of PostgreSQL for the place of a row's cursor."""
        if self.cursor is None:
            return sql.SQL("NULL")
        return postgres_order(self.cursor.type, value[self.cursor.name])


def layout_of(spec: DatasetSpec, there: Sequence[TargetColumn], filled: set[str]) -> Layout:
    """Return how the rows of a dataset's table are compared.

    Args:
        spec: The dataset.
        there: The columns of its table.
        filled: Names of the columns that loads fill.
    """
    columns = {c.name: ComparedColumn(c.name, c.type) for c in there if c.name in filled}
    if not spec.table_key:
        return Layout(tuple(columns.values()))
    key = tuple(columns[name] for name in spec.table_key)
    if spec.load.mode == "insert_only":
        return Layout(tuple(columns.values()), key, first_wins=True)
    cursor = columns.get(spec.cursor) if spec.cursor and spec.cursor not in spec.key else None
    return Layout(tuple(columns.values()), key, cursor)


def duckdb_versions(layout: Layout, held: Mapping[str, str]) -> str | None:
    """Return what DuckDB selects of a file, None where only PostgreSQL knows it; ``?`` is the load."""
    row = duckdb_row(layout.columns, [held.get(c.name) for c in layout.columns])
    if row is None:
        return None
    key, order = NO_KEY, "NULL"
    if layout.key:
        text = duckdb_row(layout.key, [held.get(c.name) for c in layout.key])
        key = f"md5({text})"
    if layout.cursor and layout.cursor.name in held:
        name = layout.cursor.name
        found = duckdb_order(layout.cursor.type, held[name], quoted(name))
        if found is None:
            return None
        order = found
    return f"{key}::UUID, {order}, ?::BIGINT, {duckdb_hash(row)}"
