"""``merge``: one row per key. The newest by cursor wins; what is as it was is not rewritten."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from tasks.loading.modes.statements import (
    INSERTED_UPDATED,
    Statement,
    counted_new,
    insert_staged,
    listed,
    listed_of,
)
from tasks.loading.schema import LOAD_ID, TargetColumn
from tasks.model.dataset import DatasetSpec


def merge_statements(
    spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    names = [column.name for column in columns]
    # In key order two loads lock the same rows in the same order; and it is faster.
    merged = (
        insert_staged(spec, columns, load_id, spec.key)
        + on_conflict(spec, names)
        + sql.SQL(" RETURNING t.xmax = 0 AS is_new")
    )
    return [Statement(counted_new(merged), INSERTED_UPDATED)]


def on_conflict(spec: DatasetSpec, names: Sequence[str]) -> sql.Composed:
    """Return what happens to a row whose key is there: it is updated if it is newer and differs."""
    values = [name for name in names if name not in spec.key]
    if not values:
        return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(listed(spec.key))
    assignments = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in [*values, LOAD_ID]
    )
    condition = sql.SQL("({}) IS DISTINCT FROM ({})").format(
        listed_of("t", values), listed_of("excluded", values)
    )
    if spec.cursor and spec.cursor not in spec.key:
        # NULL is older than every cursor.
        newer = sql.SQL("(t.{0} IS NULL OR excluded.{0} >= t.{0})").format(
            sql.Identifier(spec.cursor)
        )
        condition = sql.SQL("{} AND {}").format(newer, condition)
    return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {}").format(
        listed(spec.key), assignments, condition
    )
