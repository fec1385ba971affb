"""``replace``: the rows of all partitions of a run take the place of those in the table.

They do so by DELETE and INSERT. After TRUNCATE, or where another table takes the name of this one, a
reader whose snapshot is older than the replacement sees an empty table; and views stay with the table
that they were made on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

from tasks.loading.listed import listed
from tasks.loading.modes.merge import on_conflict
from tasks.loading.modes.statements import counted_new, returning_new
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec


@dataclass(slots=True)
class Pile:
    """Staged rows of several partitions that have the same columns, in a temporary table.

    Attributes:
        name: Name of the table.
        columns: Its columns; each row has the id of its load too.
        is_there: Was it made? It is when a partition has rows.
    """

    name: str
    columns: list[TargetColumn]
    is_there: bool = False


def pile_statement(pile: Pile, load_id: int, staging: str = STAGING) -> sql.Composed:
    """Return the statement that adds the rows that are staged now to a pile."""
    rows = sql.SQL("SELECT {values}, {id}::bigint AS {load_id} FROM {staging}").format(
        values=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(staged_value(column), sql.Identifier(column.name))
            for column in pile.columns
        ),
        id=sql.Literal(load_id),
        load_id=sql.Identifier(LOAD_ID),
        staging=sql.Identifier("pg_temp", staging),
    )
    if pile.is_there:
        return sql.SQL("INSERT INTO {} {}").format(sql.Identifier("pg_temp", pile.name), rows)
    return sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {}").format(
        sql.Identifier(pile.name), rows
    )


def all_rows(piles: Sequence[tuple[Pile, Sequence[TargetColumn]]]) -> sql.Composed:
    """Return a query for the rows of all piles in the types of the table.

    Args:
        piles: Each with the columns of the table that its rows fill, in the types that they have there.
    """
    types = {column.name: column.type for _, columns in piles for column in columns}
    queries = []
    for pile, _ in piles:
        own = {column.name for column in pile.columns}
        values = [
            sql.SQL("{value}::{type} AS {name}").format(
                value=sql.Identifier(name) if name in own else sql.SQL("NULL"),
                type=sql.SQL(kind),
                name=sql.Identifier(name),
            )
            for name, kind in types.items()
        ]
        queries.append(
            sql.SQL("SELECT {}, {} FROM {}").format(
                sql.SQL(", ").join(values),
                sql.Identifier(LOAD_ID),
                sql.Identifier("pg_temp", pile.name),
            )
        )
    return sql.SQL(" UNION ALL ").join(queries)


def delete_statement(spec: DatasetSpec, rows: sql.Composable | None) -> sql.Composed:
    """Return the statement that removes what is not to stay: with a key, the rows of other keys.

    Args:
        spec: The dataset.
        rows: The query for the new rows; None if there are none.
    """
    if not spec.key or rows is None:
        return sql.SQL("DELETE FROM {}").format(target(spec))
    same = sql.SQL(" AND ").join(
        sql.SQL("n.{0} = t.{0}").format(sql.Identifier(name)) for name in spec.key
    )
    return sql.SQL("DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM ({}) AS n WHERE {})").format(
        target(spec), rows, same
    )


def insert_statement(spec: DatasetSpec, names: Sequence[str], rows: sql.Composable) -> sql.Composed:
    """Return the statement that puts the new rows in; it gives (load, inserted, updated) by load.

    With a key there is one row of each, the newest of all partitions, and what is as it was is not
    rewritten: readers and the write-ahead log notice the differences only.
    """
    load_id = sql.Identifier(LOAD_ID)
    if not spec.key:
        inserted = _insert(spec, names, rows) + sql.SQL(" RETURNING t.{}").format(load_id)
        return sql.SQL(
            "WITH published AS ({}) SELECT {load_id}, count(*), 0 FROM published GROUP BY {load_id}"
        ).format(inserted, load_id=load_id)
    order: list[sql.Composable] = [sql.Identifier(name) for name in spec.key]
    if spec.cursor:
        order.append(sql.SQL("{} DESC NULLS LAST").format(sql.Identifier(spec.cursor)))
    newest = sql.SQL(
        "SELECT DISTINCT ON ({key}) * FROM ({rows}) AS n ORDER BY {order}, {load_id} DESC"
    ).format(key=listed(spec.key), rows=rows, order=sql.SQL(", ").join(order), load_id=load_id)
    merged = (
        _insert(spec, names, newest)
        + on_conflict(spec, names, only_newer=False)
        + returning_new(spec)
    )
    return counted_new(spec, merged, per_load=True)


def _insert(spec: DatasetSpec, names: Sequence[str], rows: sql.Composable) -> sql.Composed:
    return sql.SQL("INSERT INTO {target} AS t ({names}) SELECT {names} FROM ({rows}) AS r").format(
        target=target(spec), names=listed([*names, LOAD_ID]), rows=rows
    )
