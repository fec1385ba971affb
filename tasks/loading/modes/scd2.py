"""``scd2``: every version of a key, with the span of time in which it held.

A version begins at the cursor of a row that differs from the one before, and ends where the next one
begins or where the key was deleted. What a row confirmed or deleted without opening a version is kept
as a mark, so that the versions depend on the rows only, and not on the order in which they came: a
late row between a version and its confirmation splits it at the right places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from tasks.loading.companion import companion
from tasks.loading.listed import listed, listed_of
from tasks.loading.modes.merge import flagged
from tasks.loading.modes.statements import DELETED, INSERTED_RESTORED, UPDATED, Statement, counted
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.load import Scd2Load

MARKS = "marks"
"""Companion table with the moments at which a key was confirmed or deleted."""
MARKED_DELETED = "_deleted"
EVENTS = "etl_events"
"""Temporary table: all that is known of the staged keys, and what each event does."""
GONE, OPENS, UNTIL, STAGED = "_gone", "_opens", "_until", "_staged"


@dataclass(frozen=True, slots=True)
class _Names:
    """Quoted names that the statements share."""

    spec: DatasetSpec
    load: Scd2Load
    columns: Sequence[TargetColumn]

    @property
    def cursor(self) -> str:
        assert self.spec.cursor is not None
        return self.spec.cursor

    @property
    def values(self) -> list[str]:
        """Columns that tell versions apart: all but the key and the cursor."""
        left_out = {*self.spec.key, self.cursor}
        return [column.name for column in self.columns if column.name not in left_out]

    @property
    def all(self) -> list[str]:
        return [*self.spec.key, self.cursor, *self.values]

    def parts(self) -> dict[str, sql.Composable]:
        """Return what the templates name."""
        named = {
            "cursor": self.cursor,
            "valid_from": self.load.valid_from,
            "valid_to": self.load.valid_to,
            "is_current": self.load.is_current,
            "load_id": LOAD_ID,
            "deleted": MARKED_DELETED,
            "gone": GONE,
            "opens": OPENS,
            "until": UNTIL,
            "is_staged": STAGED,
        }
        return {
            **{name: sql.Identifier(value) for name, value in named.items()},
            "target": target(self.spec),
            "marks": companion(MARKS, self.spec),
            "events": sql.Identifier("pg_temp", EVENTS),
            "staging": sql.Identifier("pg_temp", STAGING),
            "key": listed(self.spec.key),
            "all": listed(self.all),
        }


def scd2_statements(
    spec: DatasetSpec, load: Scd2Load, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    names = _Names(spec, load, columns)
    return [
        Statement(_events(names)),
        Statement(sql.SQL("ANALYZE {events}").format(**names.parts())),
        # In this order no moment has two current versions of a key.
        Statement(counted(_removal(names)), DELETED),
        Statement(_change(names, load_id), UPDATED),
        Statement(_addition(names, load_id), INSERTED_RESTORED),
        *(Statement(statement) for statement in _marking(names, load_id)),
        Statement(sql.SQL("DROP TABLE {events}").format(**names.parts())),
    ]


def mark_columns(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> list[TargetColumn]:
    """Return the columns of the marks: key, cursor, was it a deletion, and the load that said so."""
    types = {column.name: column.type for column in columns}
    assert spec.cursor is not None
    return [
        *(TargetColumn(name, types[name], required=True) for name in (*spec.key, spec.cursor)),
        TargetColumn(MARKED_DELETED, "boolean", required=True),
        TargetColumn(LOAD_ID, "bigint", required=True),
    ]


def current_index_statement(spec: DatasetSpec, load: Scd2Load) -> sql.Composed:
    """Return the DDL of the index of current versions, by which a key has one at most.

    Over partitions by ``valid_from`` PostgreSQL has no such unique index. There it is the statements
    alone that see to it: they lay out all versions of a key anew.
    """
    by = spec.load.partition_by
    unique = "" if by and by.column == load.valid_from else "UNIQUE "
    return sql.SQL(f"CREATE {unique}INDEX ON {{}} ({{}}) WHERE {{}}").format(
        target(spec), listed(spec.key), sql.Identifier(load.is_current)
    )


def broken_versions_statement(spec: DatasetSpec, load: Scd2Load) -> sql.Composed:
    """Return a statement that counts the versions which overlap, end before they begin, or lie."""
    return sql.SQL(
        "SELECT count(*) FROM (SELECT {valid_from} AS since, {valid_to} AS until, {is_current} AS now, "
        "lead({valid_from}) OVER (PARTITION BY {key} ORDER BY {valid_from}) AS following "
        "FROM {target}) AS v WHERE until <= since OR now <> (until IS NULL) "
        "OR (following IS NOT NULL AND (until IS NULL OR until > following))"
    ).format(**_Names(spec, load, ()).parts())


def _events(names: _Names) -> sql.Composed:
    """Return the statement that lays out all events of the staged keys in their order.

    An event opens a version, or the time after a deletion, if it differs from the one before.
    """
    staged = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(staged_value(column, "s"), sql.Identifier(column.name))
        for column in names.columns
    )
    gone = flagged(names.load.delete, names.columns) if names.load.delete else sql.SQL("false")
    types = {column.name: column.type for column in names.columns}
    return sql.SQL(
        "CREATE TEMPORARY TABLE {table} ON COMMIT DROP AS WITH "
        "staged AS (SELECT {staged}, {is_gone} AS {gone} FROM {staging} AS s), "
        "keys AS (SELECT DISTINCT {key} FROM staged), "
        "known AS ("
        "SELECT {t_all}, false AS {gone} FROM {target} AS t JOIN keys USING ({key}) "
        "UNION ALL SELECT {m_key}, m.{cursor}{t_values}, false FROM {marks} AS m "
        "JOIN keys USING ({key}) JOIN {target} AS t ON {t_is_m} AND t.{valid_from} <= m.{cursor} "
        "AND (t.{valid_to} IS NULL OR m.{cursor} < t.{valid_to}) WHERE NOT m.{deleted} "
        "UNION ALL SELECT {m_key}, m.{cursor}{nulls}, true FROM {marks} AS m "
        "JOIN keys USING ({key}) WHERE m.{deleted}), "
        "events AS (SELECT {all}, {gone}, true AS {is_staged} FROM staged "
        "UNION ALL SELECT {all}, {gone}, false FROM known AS k WHERE NOT EXISTS "
        "(SELECT FROM staged AS s WHERE {s_is_k} AND s.{cursor} = k.{cursor})), "
        "compared AS (SELECT *, {differs} AS {opens} FROM events AS e "
        "WINDOW w AS (PARTITION BY {key} ORDER BY {cursor})) "
        "SELECT *, lead({cursor}) OVER (PARTITION BY {key} ORDER BY {cursor}) AS {until} "
        "FROM compared WHERE {opens} "
        "UNION ALL SELECT *, NULL FROM compared WHERE NOT {opens}"
    ).format(
        **names.parts(),
        table=sql.Identifier(EVENTS),
        staged=staged,
        is_gone=gone,
        t_all=listed_of("t", names.all),
        m_key=listed_of("m", names.spec.key),
        t_values=_each(sql.SQL(", t.{}").format(sql.Identifier(name)) for name in names.values),
        nulls=_each(sql.SQL(", NULL::{}").format(sql.SQL(types[name])) for name in names.values),
        t_is_m=_same(names.spec.key, "t", "m"),
        s_is_k=_same(names.spec.key, "s", "k"),
        differs=_differs(names),
    )


def _differs(names: _Names) -> sql.Composed:
    """Return the condition that an event is not like the one before; the first differs."""
    gone = sql.Identifier(GONE)
    unlike: sql.Composable = sql.SQL("false")
    if names.values:
        before = sql.SQL(", ").join(
            sql.SQL("lag({}) OVER w").format(sql.Identifier(name)) for name in names.values
        )
        unlike = sql.SQL("ROW({}) IS DISTINCT FROM ROW({})").format(listed(names.values), before)
    return sql.SQL(
        "CASE WHEN lag({gone}) OVER w IS DISTINCT FROM {gone} THEN true WHEN {gone} THEN false "
        "ELSE {unlike} END"
    ).format(gone=gone, unlike=unlike)


def _removal(names: _Names) -> sql.Composed:
    """Return the removal of versions that are none: a late row said the same before."""
    return sql.SQL(
        "DELETE FROM {target} AS t USING {events} AS e WHERE {same} "
        "AND t.{valid_from} = e.{cursor} AND (e.{gone} OR NOT e.{opens}) RETURNING 1"
    ).format(**names.parts(), same=_same(names.spec.key, "t", "e"))


def _change(names: _Names, load_id: int) -> sql.Composed:
    """Return the update of versions that end elsewhere now, or were corrected; the latter count.

    Whoever only ends a version is not who wrote it: it keeps its load.
    """
    corrected: sql.Composable = sql.SQL("false")
    if names.values:
        corrected = sql.SQL("ROW({}) IS DISTINCT FROM ROW({})").format(
            listed_of("t", names.values), listed_of("e", names.values)
        )
    return sql.SQL(
        "WITH changed AS (UPDATE {target} AS t SET {valid_to} = e.{until}, "
        "{is_current} = e.{until} IS NULL{values}, "
        "{load_id} = CASE WHEN {corrected} THEN {id} ELSE t.{load_id} END "
        "FROM {events} AS e WHERE {same} AND t.{valid_from} = e.{cursor} "
        "AND e.{opens} AND NOT e.{gone} "
        "AND (t.{valid_to} IS DISTINCT FROM e.{until} OR {corrected}) RETURNING t.{load_id} AS id) "
        "SELECT count(*) FILTER (WHERE id = {id}) FROM changed"
    ).format(
        **names.parts(),
        values=_each(
            sql.SQL(", {0} = e.{0}").format(sql.Identifier(name)) for name in names.values
        ),
        corrected=corrected,
        id=sql.Literal(load_id),
        same=_same(names.spec.key, "t", "e"),
    )


def _addition(names: _Names, load_id: int) -> sql.Composed:
    """Return the insertion of new versions, and of those that a late row split off (restored)."""
    return sql.SQL(
        "WITH added AS (SELECT {all}, {until}, {is_staged} FROM {events} AS e "
        "WHERE {opens} AND NOT {gone} AND NOT EXISTS (SELECT FROM {target} AS t "
        "WHERE {same} AND t.{valid_from} = e.{cursor})), "
        "inserted AS (INSERT INTO {target} ({all}, {valid_from}, {valid_to}, {is_current}, {load_id}) "
        "SELECT {all}, {cursor}, {until}, {until} IS NULL, {id} FROM added ORDER BY {key}, {cursor}) "
        "SELECT count(*) FILTER (WHERE {is_staged}), count(*) FILTER (WHERE NOT {is_staged}) "
        "FROM added"
    ).format(**names.parts(), id=sql.Literal(load_id), same=_same(names.spec.key, "t", "e"))


def _marking(names: _Names, load_id: int) -> Iterable[sql.Composed]:
    """Yield the statements that remember the events which no version begins with."""
    yield sql.SQL(
        "DELETE FROM {marks} AS m USING {events} AS e WHERE {same} AND m.{cursor} = e.{cursor} "
        "AND e.{opens} AND NOT e.{gone}"
    ).format(**names.parts(), same=_same(names.spec.key, "m", "e"))
    yield sql.SQL(
        "INSERT INTO {marks} AS m ({key}, {cursor}, {deleted}, {load_id}) "
        "SELECT {key}, {cursor}, {gone}, {id} FROM {events} WHERE {gone} OR NOT {opens} "
        "ON CONFLICT ({key}, {cursor}) DO UPDATE SET {deleted} = excluded.{deleted}, "
        "{load_id} = excluded.{load_id} WHERE m.{deleted} <> excluded.{deleted}"
    ).format(**names.parts(), id=sql.Literal(load_id))


def _same(key: Sequence[str], one: str, other: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name))
        for name in key
    )


def _each(parts: Iterable[sql.Composed]) -> sql.Composed:
    return sql.Composed(list(parts))
