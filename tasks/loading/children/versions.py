"""Items of ``scd2``: every item has versions of its own, each with the span of time in which it held.

A row of a parent says which items there are from its cursor on, until that of its next row. So an item
has a version for each span in which it was there, and was the same. What was there at each moment at
which a parent was read follows from the versions that are in the table; the moments are known of the
parents: their versions begin there, or a mark confirms or ends one. So the versions of items depend
on the rows only, and not on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.account import Changes
from tasks.loading.children.staged import StagedChild
from tasks.loading.companion import companion
from tasks.loading.listed import listed, listed_of
from tasks.loading.modes.scd2 import MARKED_DELETED, MARKS
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.load import Scd2Load

MOMENTS = "etl_moments"
"""Temporary table: when the staged parents were read, from the moment before the first on."""
VERSIONS = "etl_item_versions"
"""Temporary table: the versions of their items from then on, as they must be."""


def name_moments(cursor: Cursor, parent: DatasetSpec, columns: Sequence[TargetColumn]) -> None:
    """Note the moments of the staged parents.

    Args:
        cursor: In the transaction of the load; the parents are in their table.
        parent: The parents' dataset.
        columns: Columns of their table, in the types that it has.
    """
    by_name = {column.name: column for column in columns}
    names = [*parent.key, str(parent.cursor)]
    asked = sql.SQL("SELECT {} FROM {} AS s").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(staged_value(by_name[name], "s"), sql.Identifier(name))
            for name in names
        ),
        sql.Identifier("pg_temp", STAGING),
    )
    _name_moments(cursor, parent, asked)


def name_moments_of_items(
    cursor: Cursor, parent: DatasetSpec, child: StagedChild, columns: Sequence[TargetColumn]
) -> None:
    """Note the moments of the parents that staged items are of; the others as ``name_moments``."""
    by_name = {column.name: column for column in columns}
    mine = {theirs: name for name, theirs in child.link.items()}
    mine[str(parent.cursor)] = str(child.spec.cursor)
    asked = sql.SQL("SELECT DISTINCT {} FROM {} AS s").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(staged_value(by_name[name], "s"), sql.Identifier(theirs))
            for theirs, name in mine.items()
        ),
        child.rows,
    )
    _name_moments(cursor, parent, asked)


def _name_moments(cursor: Cursor, parent: DatasetSpec, asked: sql.Composed) -> None:
    load = parent.load
    assert isinstance(load, Scd2Load)
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("pg_temp", MOMENTS)))
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {moments} ON COMMIT DROP AS WITH "
            "asked AS ({asked}), "
            "known AS (SELECT {t_key}, t.{valid_from} AS _at, false AS _gone FROM {target} AS t "
            "WHERE ({t_key}) IN (SELECT {key} FROM asked) "
            "UNION ALL SELECT {m_key}, m.{cursor}, m.{deleted} FROM {marks} AS m "
            "WHERE ({m_key}) IN (SELECT {key} FROM asked)), "
            "flagged AS (SELECT k.*, a.{cursor} IS NOT NULL AS _asked "
            "FROM known AS k LEFT JOIN asked AS a ON {a_is_k} AND a.{cursor} = k._at), "
            "counted AS (SELECT *, lead(_at) OVER w AS _until, "
            "count(*) FILTER (WHERE _asked) OVER w AS _asked_so_far, "
            "lead(_asked, 1, false) OVER w AS _before_asked "
            "FROM flagged WINDOW w AS (PARTITION BY {key} ORDER BY _at)) "
            "SELECT {key}, _at, _until, _gone, _asked, "
            "row_number() OVER (PARTITION BY {key} ORDER BY _at) AS _n "
            "FROM counted WHERE _asked_so_far > 0 OR _before_asked"
        ).format(
            moments=sql.Identifier(MOMENTS),
            asked=asked,
            t_key=listed_of("t", parent.key),
            m_key=listed_of("m", parent.key),
            key=listed(parent.key),
            valid_from=sql.Identifier(load.valid_from),
            cursor=sql.Identifier(str(parent.cursor)),
            deleted=sql.Identifier(MARKED_DELETED),
            target=target(parent),
            marks=companion(MARKS, parent),
            a_is_k=sql.SQL(" AND ").join(
                sql.SQL("a.{0} = k.{0}").format(sql.Identifier(name)) for name in parent.key
            ),
        )
    )
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", MOMENTS)))


@dataclass(frozen=True, slots=True)
class _Names:
    """Quoted names that the statements share."""

    child: StagedChild
    columns: Sequence[TargetColumn]

    def format(self, template: LiteralString, **more: sql.Composable) -> sql.Composed:
        """Return a statement made of a template."""
        load = self.child.spec.load
        assert isinstance(load, Scd2Load)
        key = self.child.spec.key
        values = [
            column.name for column in self.columns if column.name not in (*key, load.valid_from)
        ]
        each = [sql.Identifier(name) for name in values]
        return sql.SQL(template).format(
            child=target(self.child.spec),
            moments=sql.Identifier("pg_temp", MOMENTS),
            versions=sql.Identifier("pg_temp", VERSIONS),
            key=listed(key),
            c_is_m=self.child.linked(
                {name: sql.Identifier("c", name) for name in self.child.link}, "m"
            ),
            v_is_m=self.child.linked(
                {name: sql.Identifier("v", name) for name in self.child.link}, "m"
            ),
            c_is_v=sql.SQL(" AND ").join(
                sql.SQL("c.{0} = v.{0}").format(sql.Identifier(name)) for name in key
            ),
            all=listed([*key, *values]),
            c_all=listed_of("c", [*key, *values]),
            changed=_differ([sql.SQL("lag({}) OVER w").format(name) for name in each], each),
            corrected=_differ(
                [sql.Identifier("c", name) for name in values],
                [sql.Identifier("v", name) for name in values],
            ),
            assigned=sql.Composed([sql.SQL(", {0} = v.{0}").format(name) for name in each]),
            valid_from=sql.Identifier(load.valid_from),
            valid_to=sql.Identifier(load.valid_to),
            is_current=sql.Identifier(load.is_current),
            load_id=sql.Identifier(LOAD_ID),
            **more,
        )


def _differ(one: Sequence[sql.Composable], other: Sequence[sql.Composable]) -> sql.Composed:
    """Return the condition that two rows of values differ; those without any do not."""
    if not one:
        return sql.SQL("false").format()
    return sql.SQL("(ROW({}) IS DISTINCT FROM ROW({}))").format(
        sql.SQL(", ").join(one), sql.SQL(", ").join(other)
    )


def publish_versions(
    cursor: Cursor,
    child: StagedChild,
    columns: Sequence[TargetColumn],
    load_id: int,
    *,
    is_whole: bool,
) -> Changes:
    """Make the versions of items those that follow from the staged items.

    Args:
        cursor: In the transaction of the load; the moments are named.
        child: The items.
        columns: Columns of the child table, in the types that it has.
        load_id: Id of the load.
        is_whole: Are the staged items all that their parents had then? Else they are some that were
            refused before, and one of a key that is there stays.
    """
    names = _Names(child, columns)
    cursor.execute(_make_versions(names, is_whole=is_whole))
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", VERSIONS)))
    cursor.execute(
        names.format(
            "DELETE FROM {child} AS c USING {moments} AS m WHERE m._n = 1 AND {c_is_m} "
            "AND (c.{valid_to} IS NULL OR c.{valid_to} > m._at) AND NOT EXISTS "
            "(SELECT FROM {versions} AS v WHERE {c_is_v} AND v._since = c.{valid_from})"
        )
    )
    deleted = int(cursor.rowcount)
    cursor.execute(_change(names, load_id))
    (updated,) = cursor.fetchone() or (0,)
    cursor.execute(_addition(names, load_id))
    inserted, restored = cursor.fetchone() or (0, 0)
    cursor.execute(names.format("DROP TABLE {versions}"))
    return Changes(inserted, updated, deleted, restored)


def _make_versions(names: _Names, *, is_whole: bool) -> sql.Composed:
    """Return the statement that lays out what was there at each moment, as versions."""
    return names.format(
        "CREATE TEMPORARY TABLE {made} ON COMMIT DROP AS WITH "
        "states AS ({states}), "
        "compared AS (SELECT *, lag(_n) OVER w IS DISTINCT FROM _n - 1 OR {changed} AS _opens "
        "FROM states WINDOW w AS (PARTITION BY {key} ORDER BY _n)), "
        "numbered AS (SELECT *, count(*) FILTER (WHERE _opens) OVER "
        "(PARTITION BY {key} ORDER BY _n) AS _version FROM compared), "
        "spans AS (SELECT *, max(_n) OVER (PARTITION BY {key}, _version) AS _last, "
        "row_number() OVER (PARTITION BY {key}, _version ORDER BY _n) AS _place FROM numbered) "
        "SELECT {v_all}, v._since, v._new, m._until FROM spans AS v "
        "JOIN {moments} AS m ON {v_is_m} AND m._n = v._last WHERE v._place = 1",
        made=sql.Identifier(VERSIONS),
        states=_states(names, is_whole=is_whole),
        v_all=_all(names, "v"),
    )


def _states(names: _Names, *, is_whole: bool) -> sql.Composed:
    """Return the query for what was there at each moment: by the staged items, and by the table.

    Of the first moment it is what the table has, for it is the one before the first that is new.
    """
    known = names.format(
        "SELECT {c_all}, m._n, CASE WHEN m._n = 1 THEN c.{valid_from} ELSE m._at END AS _since, "
        "false AS _new FROM {child} AS c JOIN {moments} AS m ON {c_is_m} "
        "AND c.{valid_from} <= m._at AND (c.{valid_to} IS NULL OR m._at < c.{valid_to})"
    )
    if is_whole:
        known += sql.SQL(" WHERE NOT m._asked")
    if not names.child.staging:
        return known
    parts = _staged_parts(names)
    staged = names.format(
        "SELECT {s_all}, m._n, m._at AS _since, true AS _new FROM {staged} AS s "
        "JOIN {moments} AS m ON {s_is_m} AND m._at = {s_at} WHERE m._asked AND NOT m._gone",
        **parts,
    )
    if not is_whole:
        staged += names.format(
            " AND NOT EXISTS (SELECT FROM {child} AS c WHERE {c_is_s} "
            "AND c.{valid_from} <= m._at AND (c.{valid_to} IS NULL OR m._at < c.{valid_to}))",
            **parts,
        )
    return staged + sql.SQL(" UNION ALL ") + known


def _staged_parts(names: _Names) -> dict[str, sql.Composable]:
    child = names.child
    by_name = {column.name: column for column in names.columns}
    return {
        "staged": child.rows,
        "s_is_m": child.linked_staged(names.columns, "m"),
        "s_at": staged_value(by_name[str(child.spec.cursor)], "s"),
        "s_all": sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(staged_value(by_name[name], "s"), sql.Identifier(name))
            for name in _ordered(names)
        ),
        "c_is_s": sql.SQL(" AND ").join(
            sql.SQL("{} = c.{}").format(staged_value(by_name[name], "s"), sql.Identifier(name))
            for name in child.spec.key
        ),
    }


def _ordered(names: _Names) -> list[str]:
    """Return the key and the values, in the order that all statements have."""
    key = names.child.spec.key
    left_out = {*key, names.child.spec.cursor}
    return [*key, *(column.name for column in names.columns if column.name not in left_out)]


def _all(names: _Names, alias: str) -> sql.Composed:
    return listed_of(alias, _ordered(names))


def _change(names: _Names, load_id: int) -> sql.Composed:
    """Return the update of versions that end elsewhere now, or were corrected; the latter count.

    Whoever only ends a version is not who wrote it: it keeps its load.
    """
    return names.format(
        "WITH changed AS (UPDATE {child} AS c SET {valid_to} = v._until, "
        "{is_current} = v._until IS NULL{assigned}, "
        "{load_id} = CASE WHEN {corrected} THEN {id} ELSE c.{load_id} END "
        "FROM {versions} AS v WHERE {c_is_v} AND c.{valid_from} = v._since "
        "AND (c.{valid_to} IS DISTINCT FROM v._until OR {corrected}) "
        "RETURNING c.{load_id} AS id) SELECT count(*) FILTER (WHERE id = {id}) FROM changed",
        id=sql.Literal(load_id),
    )


def _addition(names: _Names, load_id: int) -> sql.Composed:
    """Return the insertion of new versions, and of those that a late row split off (restored)."""
    return names.format(
        "WITH added AS (SELECT {all}, _since, _until, _new FROM {versions} AS v WHERE NOT EXISTS "
        "(SELECT FROM {child} AS c WHERE {c_is_v} AND c.{valid_from} = v._since)), "
        "inserted AS (INSERT INTO {child} "
        "({all}, {valid_from}, {valid_to}, {is_current}, {load_id}) "
        "SELECT {all}, _since, _until, _until IS NULL, {id} FROM added ORDER BY {key}, _since) "
        "SELECT count(*) FILTER (WHERE _new), count(*) FILTER (WHERE NOT _new) FROM added",
        id=sql.Literal(load_id),
    )
