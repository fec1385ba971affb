"""``merge``: one row per key. The newest by cursor wins; what is as it was is not rewritten.

Deletions that the source marks with a flag are as new as their cursor says. A soft one is a version
of the row. A hard one removes the row, and is remembered in a table of tombstones, so that an older
version that comes late does not bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from tasks.loading.companion import companion
from tasks.loading.listed import listed, listed_of
from tasks.loading.modes.statements import (
    DELETED,
    INSERTED_UPDATED,
    Statement,
    counted,
    counted_new,
    insert_staged,
    returning_new,
    same_key,
)
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.load import DELETED_AT, DeleteFlag, Flag, MergeLoad

TOMBSTONES = "tombstones"
"""Companion table with the deleted keys, and the cursor of the deletion."""


def merge_statements(
    spec: DatasetSpec, load: MergeLoad, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    if load.delete is None:
        return merge_rows(spec, columns, load_id)
    if load.delete.kind == "soft":
        return [_soft(spec, load.delete, columns, load_id)]
    return _hard(spec, load.delete, columns, load_id)


def merge_rows(spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int) -> list[Statement]:
    """Return the statements that merge the staged rows, none of which is a deletion."""
    return [_upsert(spec, columns, load_id)]


def remembers_deletions(spec: DatasetSpec) -> bool:
    """Tell whether a dataset has tombstones: without a cursor what comes later is newer."""
    load = spec.load
    hard = isinstance(load, MergeLoad) and load.delete is not None and load.delete.kind == "hard"
    return hard and _has_versions(spec)


def tombstone_columns(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> list[TargetColumn]:
    """Return the columns of the tombstones: key, cursor, and the load that deleted."""
    kept = {column.name: column.type for column in columns}
    return [
        *(TargetColumn(name, kept[name], required=True) for name in _of_version(spec)),
        TargetColumn(LOAD_ID, "bigint", required=True),
    ]


def revived_statement(spec: DatasetSpec) -> sql.Composed:
    """Return a statement that counts the rows which are older than the deletion of their key."""
    assert spec.cursor is not None
    return sql.SQL(
        "SELECT count(*) FROM {target} AS t JOIN {tombstones} AS d USING ({key}) "
        "WHERE t.{cursor} IS NULL OR t.{cursor} < d.{cursor}"
    ).format(
        target=target(spec),
        tombstones=companion(TOMBSTONES, spec),
        key=listed(spec.key),
        cursor=sql.Identifier(spec.cursor),
    )


def _has_versions(spec: DatasetSpec) -> bool:
    """Are there older and newer rows of a key?"""
    return spec.cursor is not None and spec.cursor not in spec.key


def _of_version(spec: DatasetSpec) -> list[str]:
    assert spec.cursor is not None
    return [*spec.key, spec.cursor]


def _upsert(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    load_id: int,
    where: sql.Composable | None = None,
) -> Statement:
    # In key order two loads lock the same rows in the same order; and it is faster.
    merged = (
        insert_staged(spec, columns, load_id, order=spec.key, where=where)
        + on_conflict(spec, [column.name for column in columns])
        + returning_new(spec)
    )
    return Statement(counted_new(spec, merged), INSERTED_UPDATED)


def on_conflict(
    spec: DatasetSpec, names: Sequence[str], *, only_newer: bool = True
) -> sql.Composed:
    """Return what happens to a row whose key is there: it is updated if it is newer and differs.

    Args:
        spec: The dataset.
        names: Columns that are filled.
        only_newer: Does its cursor decide? Else it is updated if it differs.
    """
    values = [name for name in names if name not in spec.key]
    if not values:
        return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(listed(spec.key))
    assignments = {name: sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in values}
    differs = sql.SQL("({}) IS DISTINCT FROM ({})").format(
        listed_of("t", values), listed_of("excluded", values)
    )
    return _update(spec, assignments, differs, only_newer=only_newer)


def _update(
    spec: DatasetSpec,
    assignments: dict[str, sql.Composed],
    differs: sql.Composable,
    *,
    only_newer: bool = True,
) -> sql.Composed:
    load_id = sql.SQL("excluded.{}").format(sql.Identifier(LOAD_ID))
    condition = differs
    if only_newer and _has_versions(spec):
        # NULL is older than every cursor.
        newer = sql.SQL("(t.{0} IS NULL OR excluded.{0} >= t.{0})").format(
            sql.Identifier(spec.cursor or "")
        )
        condition = sql.SQL("{} AND {}").format(newer, differs)
    return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {}").format(
        listed(spec.key),
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), value)
            for name, value in {**assignments, LOAD_ID: load_id}.items()
        ),
        condition,
    )


def flagged(delete: Flag, columns: Sequence[TargetColumn]) -> sql.Composed:
    """Return the condition that a staged row ``s`` marks a deletion; never NULL."""
    flag = next(column for column in columns if column.name == delete.column)
    return sql.SQL("coalesce({} IN ({}), false)").format(
        staged_value(flag, "s"), sql.SQL(", ").join(map(sql.Literal, delete.values))
    )


def _soft(
    spec: DatasetSpec, delete: DeleteFlag, columns: Sequence[TargetColumn], load_id: int
) -> Statement:
    """Return an upsert in which a deletion is a version that keeps the values of the one before.

    What a source sends of a deleted row is often its key alone.
    """
    mark = sql.Identifier(DELETED_AT)
    gone = sql.SQL("CASE WHEN {} THEN now() END").format(flagged(delete, columns))
    own_of_deletion = {delete.column, spec.cursor}
    names = [column.name for column in columns if column.name not in spec.key]
    assignments = {}
    for name in names:
        kept = "" if name in own_of_deletion else "CASE WHEN excluded.{mark} IS NULL THEN "
        end = "" if name in own_of_deletion else " ELSE t.{name} END"
        assignments[name] = sql.SQL(f"{kept}excluded.{{name}}{end}").format(
            mark=mark, name=sql.Identifier(name)
        )
    assignments[DELETED_AT] = sql.SQL(
        "CASE WHEN excluded.{mark} IS NOT NULL THEN coalesce(t.{mark}, excluded.{mark}) END"
    ).format(mark=mark)
    differs = sql.SQL(
        "((t.{mark} IS NULL) <> (excluded.{mark} IS NULL) OR CASE WHEN excluded.{mark} IS NULL "
        "THEN ({there}) IS DISTINCT FROM ({new}) ELSE ({flag}) IS DISTINCT FROM ({new_flag}) END)"
    ).format(
        mark=mark,
        there=listed_of("t", names),
        new=listed_of("excluded", names),
        flag=listed_of("t", [name for name in names if name in own_of_deletion]),
        new_flag=listed_of("excluded", [name for name in names if name in own_of_deletion]),
    )
    merged = (
        insert_staged(spec, columns, load_id, order=spec.key, own={DELETED_AT: gone})
        + _update(spec, assignments, differs)
        + returning_new(spec)
    )
    return Statement(counted_new(spec, merged), INSERTED_UPDATED)


def _hard(
    spec: DatasetSpec, delete: DeleteFlag, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the removal of flagged rows, and an upsert of the others that are newer than one."""
    key = [column for column in columns if column.name in spec.key]
    gone = flagged(delete, columns)
    not_gone = sql.SQL("NOT {}").format(gone)
    newer: sql.Composable = sql.SQL("")
    if _has_versions(spec):
        newer = sql.SQL(" AND (t.{0} IS NULL OR {1} >= t.{0})").format(
            sql.Identifier(spec.cursor or ""), _cursor_value(spec, columns)
        )
    removal = sql.SQL(
        "DELETE FROM {target} AS t USING {staging} AS s WHERE {same} AND {gone}{newer} RETURNING 1"
    ).format(
        target=target(spec),
        staging=sql.Identifier("pg_temp", STAGING),
        same=same_key(key, "t"),
        gone=gone,
        newer=newer,
    )
    removed = Statement(counted(removal), DELETED)
    if not remembers_deletions(spec):
        return [removed, _upsert(spec, columns, load_id, not_gone)]
    alive = sql.SQL("{} AND {}").format(not_gone, _after_deletion(spec, columns, key))
    return [
        removed,
        _bury(spec, columns, key, gone, load_id),
        _upsert(spec, columns, load_id, alive),
        _unbury(spec, columns, key, not_gone),
    ]


def _cursor_value(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> sql.Composed:
    return staged_value(next(column for column in columns if column.name == spec.cursor), "s")


def _after_deletion(
    spec: DatasetSpec, columns: Sequence[TargetColumn], key: Sequence[TargetColumn]
) -> sql.Composed:
    """Return the condition that a staged row is not older than the deletion of its key."""
    return sql.SQL(
        "NOT EXISTS (SELECT FROM {tombstones} AS d WHERE {same} "
        "AND ({value} IS NULL OR {value} < d.{cursor}))"
    ).format(
        tombstones=companion(TOMBSTONES, spec),
        same=same_key(key, "d"),
        value=_cursor_value(spec, columns),
        cursor=sql.Identifier(spec.cursor or ""),
    )


def _bury(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    key: Sequence[TargetColumn],
    gone: sql.Composable,
    load_id: int,
) -> Statement:
    """Return the statement that remembers deletions, but of keys that have a newer row."""
    value = _cursor_value(spec, columns)
    by_name = {column.name: column for column in columns}
    return Statement(
        sql.SQL(
            "INSERT INTO {tombstones} AS d ({names}) SELECT {values}, {id} FROM {staging} AS s "
            "WHERE {gone} AND {value} IS NOT NULL "
            "AND NOT EXISTS (SELECT FROM {target} AS t WHERE {same}) "
            "ON CONFLICT ({key}) DO UPDATE SET {cursor} = excluded.{cursor}, "
            "{load_id} = excluded.{load_id} WHERE excluded.{cursor} > d.{cursor}"
        ).format(
            tombstones=companion(TOMBSTONES, spec),
            names=listed([*_of_version(spec), LOAD_ID]),
            values=sql.SQL(", ").join(
                staged_value(by_name[name], "s") for name in _of_version(spec)
            ),
            id=sql.Literal(load_id),
            staging=sql.Identifier("pg_temp", STAGING),
            gone=gone,
            value=value,
            target=target(spec),
            same=same_key(key, "t"),
            key=listed(spec.key),
            cursor=sql.Identifier(spec.cursor or ""),
            load_id=sql.Identifier(LOAD_ID),
        )
    )


def _unbury(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    key: Sequence[TargetColumn],
    not_gone: sql.Composable,
) -> Statement:
    """Return the statement that forgets the deletion of keys that have a row again."""
    return Statement(
        sql.SQL(
            "DELETE FROM {tombstones} AS d USING {staging} AS s "
            "WHERE {same} AND {not_gone} AND {value} >= d.{cursor}"
        ).format(
            tombstones=companion(TOMBSTONES, spec),
            staging=sql.Identifier("pg_temp", STAGING),
            same=same_key(key, "d"),
            not_gone=not_gone,
            value=_cursor_value(spec, columns),
            cursor=sql.Identifier(spec.cursor or ""),
        )
    )
