"""Items whose parents have one row each: a parent that is published brings the whole set of its items.

What is new is inserted, what differs is updated, what is gone is deleted, the rest is not written. A
parent that is older than the one in the table changes nothing, and neither do its items.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.account import Changes
from tasks.loading.children.staged import StagedChild, orphans_condition
from tasks.loading.modes.merge import flagged, on_conflict
from tasks.loading.modes.statements import (
    counted,
    counted_new,
    insert_staged,
    returning_new,
    same_key,
)
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.load import DELETED_AT, InsertOnlyLoad, MergeLoad, ReplacePartitionLoad

PARENTS = "etl_parents"
"""Temporary table with the keys of the staged parents whose items are published, or go."""


def name_parents(
    cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int
) -> None:
    """Note the staged parents that were published, and whether they are in their table now.

    Args:
        cursor: In the transaction of the load; the parents are in their table.
        spec: The parents' dataset.
        columns: Columns of their table, in the types that it has.
        load_id: Id of the load.
    """
    key = [column for column in columns if column.name in spec.key]
    named = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(staged_value(column, "s"), sql.Identifier(column.name))
        for column in key
    )
    # A row that is not in the table was deleted by this load: its items go, and none come.
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {parents} ON COMMIT DROP AS "
            "SELECT {named}, t.{load_id} IS NOT NULL AS _is_there FROM {staging} AS s "
            "LEFT JOIN {target} AS t ON {same} WHERE t.{load_id} IS NULL OR {published}"
        ).format(
            parents=sql.Identifier(PARENTS),
            named=named,
            load_id=sql.Identifier(LOAD_ID),
            staging=sql.Identifier("pg_temp", STAGING),
            target=target(spec),
            same=same_key(key, "t"),
            published=_published(spec, columns, load_id),
        )
    )
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", PARENTS)))


def _published(spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int) -> sql.Composable:
    """Return the condition that a staged parent ``s`` is the row ``t`` that the table has now."""
    if isinstance(spec.load, InsertOnlyLoad):
        return sql.SQL("t.{} = {}").format(sql.Identifier(LOAD_ID), sql.Literal(load_id))
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if spec.cursor and spec.cursor not in spec.key:
        # Of one that lost against a newer row the cursor differs.
        moment = next(column for column in columns if column.name == spec.cursor)
        conditions.append(
            sql.SQL("t.{} IS NOT DISTINCT FROM {}").format(
                sql.Identifier(spec.cursor), staged_value(moment, "s")
            )
        )
    if isinstance(spec.load, MergeLoad) and spec.load.delete:
        # A soft deletion keeps the values of the row before, and its items; a hard one is no row.
        conditions.append(sql.SQL("NOT {}").format(flagged(spec.load.delete, columns)))
    return sql.SQL(" AND ").join(conditions)


def publish_set(
    cursor: Cursor,
    child: StagedChild,
    columns: Sequence[TargetColumn],
    load_id: int,
) -> Changes:
    """Make the items of the parents that ``name_parents`` noted those that are staged.

    Args:
        cursor: In the transaction of the load.
        child: The items.
        columns: Columns of the child table, in the types that it has.
        load_id: Id of the load.
    """
    deleted = _run(cursor, _delete_vanished(child, columns))
    inserted = updated = 0
    if child.staging:
        there = sql.SQL("EXISTS (SELECT FROM {} AS p WHERE p._is_there AND {})").format(
            sql.Identifier("pg_temp", PARENTS), child.linked_staged(columns)
        )
        upsert = (
            insert_staged(
                child.spec,
                columns,
                load_id,
                order=child.spec.key,
                where=there,
                staging=child.staging,
            )
            + on_conflict(child.spec, [column.name for column in columns])
            + returning_new(child.spec)
        )
        cursor.execute(counted_new(child.spec, upsert))
        inserted, updated = cursor.fetchone() or (0, 0)
    return Changes(inserted, updated, deleted)


def _delete_vanished(child: StagedChild, columns: Sequence[TargetColumn]) -> sql.Composed:
    """Return the statement that deletes the items which their published parents no longer have."""
    kept: sql.Composable = sql.SQL("false")
    if child.staging:
        key = [column for column in columns if column.name in child.spec.key]
        kept = sql.SQL("p._is_there AND EXISTS (SELECT FROM {} AS s WHERE {})").format(
            child.rows, same_key(key, "c")
        )
    return sql.SQL(
        "DELETE FROM {target} AS c USING {parents} AS p WHERE {linked} AND NOT ({kept})"
    ).format(
        target=target(child.spec),
        parents=sql.Identifier("pg_temp", PARENTS),
        linked=child.linked_row("c"),
        kept=kept,
    )


def mark_deleted(
    cursor: Cursor, parent: DatasetSpec, child: StagedChild, columns: Sequence[TargetColumn]
) -> None:
    """Give the items of the staged parents the mark of a soft deletion that these have.

    Whoever only marks an item is not who wrote it: it keeps its load.

    Args:
        cursor: In the transaction of the load.
        parent: The parents' dataset.
        child: The items.
        columns: Columns of the parents' table, in the types that it has.
    """
    key = [column for column in columns if column.name in parent.key]
    cursor.execute(
        sql.SQL(
            "UPDATE {child} AS c SET {mark} = p.{mark} FROM {parent} AS p WHERE {linked} "
            "AND c.{mark} IS DISTINCT FROM p.{mark} AND EXISTS (SELECT FROM {staging} AS s "
            "WHERE {same})"
        ).format(
            child=target(child.spec),
            mark=sql.Identifier(DELETED_AT),
            parent=target(parent),
            linked=child.linked_row("c"),
            staging=sql.Identifier("pg_temp", STAGING),
            same=same_key(key, "p"),
        )
    )


def add_items(
    cursor: Cursor, child: StagedChild, columns: Sequence[TargetColumn], load_id: int
) -> Changes:
    """Add all staged items."""
    if not child.staging:
        return Changes()
    added = insert_staged(
        child.spec, columns, load_id, order=child.spec.key, staging=child.staging
    ) + sql.SQL(" RETURNING 1")
    cursor.execute(counted(added))
    return Changes(inserted=(cursor.fetchone() or (0,))[0])


def remove_replaced(
    cursor: Cursor, child: StagedChild, load: ReplacePartitionLoad, parents: Sequence[TargetColumn]
) -> int:
    """Delete the items of the rows that were replaced: those of the staged rows' values.

    Args:
        cursor: In the transaction of the load.
        child: The items.
        load: The mode of the parents.
        parents: Columns of the parents' table, in the types that it has.
    """
    by = next(column for column in parents if column.name == load.by)
    mine = next(name for name, theirs in child.link.items() if theirs == load.by)
    return _run(
        cursor,
        sql.SQL(
            "DELETE FROM {child} AS c USING (SELECT DISTINCT {value} AS value FROM {staging}) AS s "
            "WHERE c.{mine} = s.value"
        ).format(
            child=target(child.spec),
            value=staged_value(by),
            staging=sql.Identifier("pg_temp", STAGING),
            mine=sql.Identifier(mine),
        ),
    )


def delete_orphans(cursor: Cursor, parent: DatasetSpec, child: StagedChild) -> int:
    """Delete the items whose parents are gone from their table; return how many."""
    return _run(
        cursor,
        sql.SQL("DELETE FROM {} AS c WHERE {}").format(
            target(child.spec), orphans_condition(parent, child)
        ),
    )


def _run(cursor: Cursor, statement: sql.Composed) -> int:
    cursor.execute(statement)
    return int(cursor.rowcount)
