"""What a load does to its child tables, once the parents are in theirs: by the parents' load mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.account import Changes, counts_of
from tasks.loading.children.replayed import publish_replayed
from tasks.loading.children.sets import (
    add_items,
    delete_orphans,
    mark_deleted,
    name_parents,
    publish_set,
    remove_replaced,
)
from tasks.loading.children.staged import StagedChild
from tasks.loading.children.versions import name_moments, publish_versions
from tasks.loading.evolution import Prepared, prepare_target, record_changes
from tasks.loading.job import Load
from tasks.loading.locks import patiently
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.load import AppendLoad, MergeLoad, ReplacePartitionLoad, Scd2Load
from tasks.model.report import RowCounts, SchemaChange


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
    if staged and has_rows and not load.compares_keys:
        _name_published(cursor, load.spec, parents, load_id)
    published = []
    for child in staged:
        table, changes = patiently(
            cursor,
            child.spec,
            lambda child=child: _change_table(  # type: ignore[misc]
                cursor, load, child, parents, load_id, has_rows=has_rows
            ),
        )
        counts = counts_of(child.manifest, changes)
        published.append(PublishedChild(child.name, child.spec, counts, table.changes))
    return published


def _change_table(
    cursor: Cursor,
    load: Load,
    child: StagedChild,
    parents: Sequence[TargetColumn],
    load_id: int,
    *,
    has_rows: bool,
) -> tuple[Prepared, Changes]:
    table = prepare_target(cursor, child.spec, child.columns)
    changes = Changes()
    if load.replayed_child:
        changes = publish_replayed(cursor, load, child, table.columns, load_id)
    elif load.compares_keys:
        changes = Changes(deleted=delete_orphans(cursor, load.spec, child))
    elif has_rows:
        changes = _publish(cursor, load, child, parents, table.columns, load_id)
    return table, changes


def _name_published(
    cursor: Cursor, spec: DatasetSpec, parents: Sequence[TargetColumn], load_id: int
) -> None:
    """Note which parents were published, for the modes in which this decides about their items."""
    if isinstance(spec.load, Scd2Load):
        name_moments(cursor, spec, parents)
    elif not isinstance(spec.load, AppendLoad | ReplacePartitionLoad):
        name_parents(cursor, spec, parents, load_id)


def _publish(
    cursor: Cursor,
    load: Load,
    child: StagedChild,
    parents: Sequence[TargetColumn],
    columns: Sequence[TargetColumn],
    load_id: int,
) -> Changes:
    match load.spec.load:
        case AppendLoad():
            return add_items(cursor, child, columns, load_id)
        case ReplacePartitionLoad() as mode:
            deleted = 0
            if not load.is_replay:  # rows that were refused before are a part of what is there
                deleted = remove_replaced(cursor, child, mode, parents)
            added = add_items(cursor, child, columns, load_id)
            return Changes(inserted=added.inserted, deleted=deleted)
        case Scd2Load():
            return publish_versions(cursor, child, columns, load_id, is_whole=True)
        case mode:
            changes = publish_set(cursor, child, columns, load_id)
            if isinstance(mode, MergeLoad) and mode.delete and mode.delete.kind == "soft":
                mark_deleted(cursor, load.spec, child, parents)
            return changes


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
