"""What the modes have in common: parts of their statements, and how these are counted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from psycopg2 import sql

from tasks.loading.listed import listed, listed_of
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec

Count = Literal["inserted", "updated", "deleted", "restored"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a mode.

    Attributes:
        sql: It gives one row, of as many numbers as ``counts`` has names.
        counts: What the numbers are of. A staged row that no statement counts as inserted or updated
            is unchanged: the table has it already, or has a newer one.
    """

    sql: sql.Composed
    counts: tuple[Count, ...] = ()


INSERTED: tuple[Count, ...] = ("inserted",)
UPDATED: tuple[Count, ...] = ("updated",)
INSERTED_RESTORED: tuple[Count, ...] = ("inserted", "restored")
DELETED: tuple[Count, ...] = ("deleted",)
INSERTED_UPDATED: tuple[Count, ...] = ("inserted", "updated")


def insert_staged(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    load_id: int,
    *,
    order: Sequence[str] = (),
    where: sql.Composable | None = None,
    own: Mapping[str, sql.Composable] = MappingProxyType({}),
    staging: str = STAGING,
) -> sql.Composed:
    """Return the statement that inserts the staged rows in the types of the table, still without end.

    Args:
        spec: The dataset.
        columns: Columns of the table that are filled from the rows.
        load_id: Id of the load, for the rows that it writes.
        order: Columns by which the rows are taken in order.
        where: Which of the rows, as a condition on ``s``.
        own: Values of columns that are the product's own.
        staging: Temporary table with the rows.
    """
    values = [*map(staged_value, columns), *own.values(), sql.Literal(load_id)]
    by = sql.SQL(" ORDER BY {}").format(listed(order)) if order else sql.SQL("")
    only = sql.SQL(" WHERE {}").format(where) if where else sql.SQL("")
    return sql.SQL(
        "INSERT INTO {target} AS t ({names}) SELECT {values} FROM {staging} AS s{only}{by}"
    ).format(
        target=target(spec),
        names=listed([*(column.name for column in columns), *own, LOAD_ID]),
        values=sql.SQL(", ").join(values),
        staging=sql.Identifier("pg_temp", staging),
        only=only,
        by=by,
    )


def same_key(key: Sequence[TargetColumn], alias: str) -> sql.Composed:
    """Return the condition that a staged row ``s`` and a row of a table are of one key."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(staged_value(column, "s"), sql.Identifier(alias, column.name))
        for column in key
    )


def counted(statement: sql.Composable) -> sql.Composed:
    """Return a statement that gives the number of rows that another one returns."""
    return sql.SQL("WITH changed AS ({}) SELECT count(*) FROM changed").format(statement)


def returning_new(spec: DatasetSpec) -> sql.Composed:
    """Return the end of an INSERT … ON CONFLICT whose rows ``counted_new`` tells apart."""
    load_id = sql.Identifier("t", LOAD_ID)
    if spec.load.partition_by is None:
        return sql.SQL(" RETURNING {}, t.xmax = 0 AS is_new").format(load_id)
    # Of a partitioned table PostgreSQL returns no xmax.
    return sql.SQL(" RETURNING {}, {}").format(load_id, listed_of("t", spec.key))


def counted_new(
    spec: DatasetSpec, statement: sql.Composable, *, per_load: bool = False
) -> sql.Composed:
    """Return a statement that gives (inserted, updated) of one that ends with ``returning_new``.

    Args:
        spec: The dataset.
        statement: The INSERT.
        per_load: Is it to give (load, inserted, updated) of each load that wrote rows?
    """
    load_id = sql.Identifier("p", LOAD_ID)
    first = sql.SQL("{}, ").format(load_id) if per_load else sql.SQL("")
    last = sql.SQL(" GROUP BY {}").format(load_id) if per_load else sql.SQL("")
    if spec.load.partition_by is None:
        return sql.SQL(
            "WITH published AS ({}) SELECT {}count(*) FILTER (WHERE is_new), "
            "count(*) FILTER (WHERE NOT is_new) FROM published AS p{}"
        ).format(statement, first, last)
    # The table that is joined is as it was before the statement: what it has not is new.
    same = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("o", name), sql.Identifier("p", name))
        for name in spec.key
    )
    return sql.SQL(
        "WITH published AS ({}) SELECT {}count(*) - count({there}), count({there}) "
        "FROM published AS p LEFT JOIN {} AS o ON {}{}"
    ).format(statement, first, target(spec), same, last, there=sql.Identifier("o", LOAD_ID))
