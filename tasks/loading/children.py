"""Child tables in the load transaction: staged beside their parents, published after them.

In mode ``merge`` a parent that is published brings the whole set of its children: what is new is
inserted, what differs is updated, what is gone is deleted, the rest is not written. A parent that
is older than the one in the table changes nothing, and neither do its children.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2.extras
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.encoding import check_columns, staged_schema
from tasks.loading.evolution import prepare_target, record_changes
from tasks.loading.job import Load
from tasks.loading.queries import query
from tasks.loading.schema import (
    LOAD_ID,
    TargetColumn,
    ensure_schema,
    staged_value,
    target,
    target_columns,
)
from tasks.loading.staged import clean_files
from tasks.loading.staging import (
    STAGING,
    analyze_staging,
    clean_batches,
    copy_into_staging,
    create_staging,
)
from tasks.model.child_dataset import child_tables
from tasks.model.children import POSITION
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.run import ChildManifest, RowCounts, SchemaChange

PARENTS = "etl_parents"
"""Temporary table with the keys of the staged parents that are in their table now."""


@dataclass(frozen=True, slots=True)
class StagedChild:
    """A child table, and the rows for it that are staged.

    Attributes:
        name: Name of the child.
        spec: The child as a dataset.
        manifest: Account of its rows.
        staging: Temporary table with the rows; None if there are none.
        link: Column of the child table → column of the parent's key.
    """

    name: str
    spec: DatasetSpec
    manifest: ChildManifest
    staging: str | None
    link: Mapping[str, str]

    @property
    def columns(self) -> list[TargetColumn]:
        """Columns of the table that the rows fill."""
        return target_columns(
            self.spec, {}, self.manifest.columns_added, self.manifest.column_types
        )


@dataclass(frozen=True, slots=True)
class PublishedChild:
    """What a load did to a child table.

    Attributes:
        name: Name of the child.
        spec: The child as a dataset.
        counts: Account of its items.
        changes: What was altered in the table.
    """

    name: str
    spec: DatasetSpec
    counts: RowCounts
    changes: tuple[SchemaChange, ...]


def child_files(lake: Lake, scratch: Path, load: Load) -> dict[str, list[Path]]:
    """Return the clean files of each child, each with the content that its manifest names."""
    return {
        name: clean_files(lake, scratch, manifest)
        for name, manifest in load.manifest.children.items()
    }


def ensure_child_schemas(engine: Engine, spec: DatasetSpec) -> None:
    """Create the schemas of the child tables, unless they are there."""
    for child in child_tables(spec).values():
        ensure_schema(engine, child)


def stage_children(
    cursor: Cursor, load: Load, files: Mapping[str, Sequence[Path]]
) -> list[StagedChild]:
    """Copy the clean items of each child into a staging table of its own.

    Raises:
        ContractBroken: The files are not those of the dataset file.
    """
    staged = []
    for number, (name, spec) in enumerate(child_tables(load.spec).items()):
        manifest = load.manifest.children.get(name, ChildManifest())
        paths = files.get(name, ())
        link = load.spec.children[name].links(load.spec.key)
        child = StagedChild(name, spec, manifest, f"{STAGING}_{number}" if paths else None, link)
        if child.staging:
            _stage(cursor, child, child.staging, paths)
        staged.append(child)
    return staged


def _stage(cursor: Cursor, child: StagedChild, staging: str, paths: Sequence[Path]) -> None:
    schema = staged_schema(pq.read_schema(paths[0]), also=(POSITION,))
    check_columns(schema.names, [column.name for column in child.columns])
    create_staging(cursor, schema, staging)
    batches = clean_batches(paths, schema)
    rows = copy_into_staging(cursor, schema, batches, lambda: None, staging)
    if rows != child.manifest.rows:
        raise ContractBroken(
            f"{child.spec.name}: COPY took {rows} rows, the manifest has {child.manifest.rows}",
            "this must never happen; keep the lake files and report it",
        )
    analyze_staging(cursor, sql.Identifier("pg_temp", staging))


def publish_children(
    cursor: Cursor,
    load: Load,
    staged: Sequence[StagedChild],
    parents: Sequence[TargetColumn],
    load_id: int,
    *,
    has_rows: bool,
) -> list[PublishedChild]:
    """Publish the staged items of parents that were published.

    Args:
        cursor: In the transaction of the load; the parents are in their table.
        load: The load.
        staged: What is staged of each child.
        parents: Columns of the parents' table, in the types that it has.
        load_id: Id of the load, for the rows that it writes.
        has_rows: Are parents staged?

    Returns:
        What was done, by child.
    """
    merges = has_rows and load.spec.load.mode == "merge" and not load.compares_keys
    if merges and staged:
        _name_parents(cursor, load.spec, parents)
    published = []
    for child in staged:
        table = prepare_target(cursor, child.spec, child.columns)
        inserted = updated = deleted = 0
        if load.compares_keys:
            deleted = _run(cursor, delete_orphans(load.spec, child))
        elif merges:
            deleted = _run(cursor, delete_vanished(child, table.columns))
        if child.staging:
            cursor.execute(upsert(child, child.staging, table.columns, load_id))
            inserted, updated = cursor.fetchone() or (0, 0)
        counts = _counts(child.manifest, inserted, updated, deleted)
        published.append(PublishedChild(child.name, child.spec, counts, table.changes))
    return published


def delete_orphans(parent: DatasetSpec, child: StagedChild) -> sql.Composed:
    """Return the statement that deletes the items whose parents are gone from their table."""
    there = _linked(child, {name: sql.Identifier("c", name) for name in child.link})
    return sql.SQL(
        "DELETE FROM {child} AS c WHERE NOT EXISTS (SELECT FROM {parent} AS p WHERE {there})"
    ).format(child=target(child.spec), parent=target(parent), there=there)


def _counts(manifest: ChildManifest, inserted: int, updated: int, deleted: int) -> RowCounts:
    """Return the account of a child; clean items that changed nothing are counted as unchanged."""
    return RowCounts(
        read=manifest.rows_read,
        inserted=inserted,
        updated=updated,
        unchanged=manifest.rows - inserted - updated,
        deduplicated=manifest.rows_deduplicated,
        quarantined=manifest.rows_quarantined,
        deleted=deleted,
    )


def _name_parents(cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]) -> None:
    """Note the staged keys, and whether the row that was staged is the one that is there now.

    Of one that lost against a newer row the cursor differs.
    """
    by_name = {column.name: column for column in columns}
    key = [by_name[name] for name in spec.key]
    same = sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(column.name), staged_value(column, "s"))
        for column in key
    )
    is_there: sql.Composable = sql.SQL("true")
    if spec.cursor and spec.cursor not in spec.key:
        is_there = sql.SQL("t.{} IS NOT DISTINCT FROM {}").format(
            sql.Identifier(spec.cursor), staged_value(by_name[spec.cursor], "s")
        )
    named = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(staged_value(column, "s"), sql.Identifier(column.name))
        for column in key
    )
    # A row that is not in the table was deleted by this load: its items go, and none come.
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {parents} ON COMMIT DROP AS "
            "SELECT {named}, t.{load_id} IS NOT NULL AS is_there FROM {staging} AS s "
            "LEFT JOIN {target} AS t ON {same} WHERE t.{load_id} IS NULL OR {is_there}"
        ).format(
            parents=sql.Identifier(PARENTS),
            named=named,
            load_id=sql.Identifier(LOAD_ID),
            staging=sql.Identifier("pg_temp", STAGING),
            target=target(spec),
            same=same,
            is_there=is_there,
        )
    )
    analyze_staging(cursor, sql.Identifier("pg_temp", PARENTS))


def delete_vanished(child: StagedChild, columns: Sequence[TargetColumn]) -> sql.Composed:
    """Return the statement that deletes the items which their published parents no longer have."""
    kept: sql.Composable = sql.SQL("false")
    if child.staging:
        by_name = {column.name: column for column in columns}
        same = sql.SQL(" AND ").join(
            sql.SQL("{} = c.{}").format(staged_value(by_name[name], "s"), sql.Identifier(name))
            for name in child.spec.key
        )
        kept = sql.SQL("p.is_there AND EXISTS (SELECT FROM {} AS s WHERE {})").format(
            sql.Identifier("pg_temp", child.staging), same
        )
    return sql.SQL(
        "DELETE FROM {target} AS c USING {parents} AS p WHERE {linked} AND NOT ({kept})"
    ).format(
        target=target(child.spec),
        parents=sql.Identifier("pg_temp", PARENTS),
        linked=_linked(child, {name: sql.Identifier("c", name) for name in child.link}),
        kept=kept,
    )


def upsert(
    child: StagedChild, staging: str, columns: Sequence[TargetColumn], load_id: int
) -> sql.Composed:
    """Return the statement that publishes staged items; it gives one row: (inserted, updated)."""
    key = child.spec.key
    names = [column.name for column in columns]
    merges = child.spec.load.mode == "merge"
    where: sql.Composable = sql.SQL("")
    end: sql.Composable = sql.SQL("")
    if merges:
        by_name = {column.name: column for column in columns}
        values = {name: staged_value(by_name[name], "s") for name in child.link}
        where = sql.SQL(" WHERE EXISTS (SELECT FROM {} AS p WHERE p.is_there AND {})").format(
            sql.Identifier("pg_temp", PARENTS), _linked(child, values)
        )
        end = _on_conflict(key, names)
    return sql.SQL(
        "WITH published AS (INSERT INTO {target} AS t ({names}, {load_id}) "
        "SELECT {staged}, {id} FROM {staging} AS s{where} ORDER BY {key}{end} "
        "RETURNING {is_new} AS is_new) "
        "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM published"
    ).format(
        target=target(child.spec),
        names=_list(names),
        load_id=sql.Identifier(LOAD_ID),
        staged=sql.SQL(", ").join(staged_value(column, "s") for column in columns),
        id=sql.Literal(load_id),
        staging=sql.Identifier("pg_temp", staging),
        where=where,
        key=sql.SQL(", ").join(sql.Identifier("s", name) for name in key),
        end=end,
        is_new=sql.SQL("t.xmax = 0") if merges else sql.SQL("true"),
    )


def _on_conflict(key: Sequence[str], names: Sequence[str]) -> sql.Composed:
    values = [name for name in names if name not in key]
    if not values:
        return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(_list(key))
    return sql.SQL(
        " ON CONFLICT ({key}) DO UPDATE SET {assignments} WHERE ({there}) IS DISTINCT FROM ({new})"
    ).format(
        key=_list(key),
        assignments=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in [*values, LOAD_ID]
        ),
        there=sql.SQL(", ").join(sql.Identifier("t", name) for name in values),
        new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in values),
    )


def _linked(child: StagedChild, values: Mapping[str, sql.Composable]) -> sql.Composed:
    """Return the condition that an item's link leads to the parent ``p``."""
    return sql.SQL(" AND ").join(
        sql.SQL("p.{} = {}").format(sql.Identifier(theirs), values[mine])
        for mine, theirs in child.link.items()
    )


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _run(cursor: Cursor, statement: sql.Composed) -> int:
    cursor.execute(statement)
    return int(cursor.rowcount)


def write_child_accounts(
    cursor: Cursor, load: Load, load_id: int, published: Sequence[PublishedChild]
) -> None:
    """Write the account of each child, and what was refused of it; they commit with the rows."""
    for child in published:
        name, table = child.name, child.spec.load.table
        row = {"load_id": load_id, "child": name, "target": table, **child.counts.model_dump()}
        cursor.execute(query("insert_child_load"), row)
        record_changes(cursor, child.spec, load_id, child.changes)
        manifest = load.manifest.children.get(name)
        reasons = [
            (
                load_id,
                name,
                reason.rule,
                reason.column,
                reason.rows,
                reason.message,
                reason.source_uri,
                reason.source_row,
            )
            for reason in (manifest.reasons if manifest else ())
        ]
        if reasons:
            psycopg2.extras.execute_values(cursor, query("insert_child_quarantine"), reasons)
