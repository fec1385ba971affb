"""The statements that publish staged rows. Pure: names and types in, SQL out."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec


def publish_statement(
    spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int
) -> sql.Composed:
    """Return the statement that publishes the staged rows and counts what it did.

    It gives one row: (inserted, updated). Staged rows that are neither are unchanged: they are in
    the table already, or the table has a newer version of them.

    Args:
        spec: The dataset.
        columns: Columns of the target that are staged.
        load_id: Id of the load, for the rows it writes.
    """
    names = [column.name for column in columns]
    staged = sql.SQL(", ").join(map(staged_value, columns))
    inserted = sql.SQL(
        "INSERT INTO {target} AS t ({names}, {load_id}) SELECT {staged}, {id} FROM {staging}{order}"
    ).format(
        target=target(spec),
        names=_list(names),
        load_id=sql.Identifier(LOAD_ID),
        staged=staged,
        id=sql.Literal(load_id),
        staging=sql.Identifier("pg_temp", STAGING),
        # In key order two loads lock the same rows in the same order; and it is faster.
        order=sql.SQL(" ORDER BY {}").format(_list(spec.key)) if spec.key else sql.SQL(""),
    )
    if spec.load.mode == "append":
        published = inserted + sql.SQL(" RETURNING true AS is_new")
    else:
        published = (
            inserted + _on_conflict(spec, names) + sql.SQL(" RETURNING t.xmax = 0 AS is_new")
        )
    return sql.SQL(
        "WITH published AS ({}) SELECT count(*) FILTER (WHERE is_new), "
        "count(*) FILTER (WHERE NOT is_new) FROM published"
    ).format(published)


def _on_conflict(spec: DatasetSpec, names: Sequence[str]) -> sql.Composed:
    """Return what happens to a row whose key is there: it is updated if it is newer and differs."""
    values = [name for name in names if name not in spec.key]
    if not values:
        return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(_list(spec.key))
    assignments = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in [*values, LOAD_ID]
    )
    differs = sql.SQL("({}) IS DISTINCT FROM ({})").format(
        _row("t", values), _row("excluded", values)
    )
    condition = differs
    if spec.cursor and spec.cursor not in spec.key:
        # NULL is older than every cursor.
        newer = sql.SQL("(t.{0} IS NULL OR excluded.{0} >= t.{0})").format(
            sql.Identifier(spec.cursor)
        )
        condition = sql.SQL("{} AND {}").format(newer, differs)
    return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {}").format(
        _list(spec.key), assignments, condition
    )


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _row(alias: str, names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)
