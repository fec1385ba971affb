"""Tables made what the tables beside them are: rows that differ are replaced, no other is rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.children.staged import StagedChild
from tasks.loading.content import compare, table_values
from tasks.loading.evolution import prepare_target
from tasks.loading.expected import Expected, expected_session
from tasks.loading.listed import listed, listed_of
from tasks.loading.modes.prepare import prepare_mode
from tasks.loading.partitions import make_partitions, period_begin
from tasks.loading.past import Past
from tasks.loading.queries import query
from tasks.loading.ranges import read_point
from tasks.loading.reapply import outside_created
from tasks.loading.restore import Restored, send_affected
from tasks.loading.schema import LOAD_ID, existing_columns, target, target_columns
from tasks.loading.shadow import Shadow, fill_expected, restore_companions, shadow_layout
from tasks.model.child_dataset import child_tables
from tasks.model.column_types import is_integer
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.manifest import ChildManifest


@dataclass
class Outcome:
    """What was done to the tables of a dataset.

    Attributes:
        loads: Loads whose rows were not as they must be.
        restored: Rows taken out and put in, in all tables.
        differences: Number of different rows, by what was wrong with them.
        made: Tables that were gone.
    """

    loads: set[int] = field(default_factory=set)
    restored: Restored = field(default_factory=Restored)
    differences: Counter[str] = field(default_factory=Counter)
    made: list[str] = field(default_factory=list)


def missing_tables(cursor: Cursor, spec: DatasetSpec) -> list[str]:
    """Return the tables of a dataset, its own and its children's, that are not there."""
    tables = [spec, *child_tables(spec).values()]
    return [one.load.table for one in tables if not existing_columns(cursor, one)]


def restore_tables(
    cursor: Cursor,
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    past: Past,
    made: Shadow,
) -> Outcome:
    """Make the tables of a dataset what those beside them are; one that is gone is made.

    Args:
        cursor: In a transaction that owns the tables, with those beside them.
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        lookups: What it looks up.
        past: Its past, for the columns of a table that is made.
        made: The tables beside.
    """
    outcome = Outcome()
    outcome.made = missing_tables(cursor, spec)
    if outcome.made:
        _make_tables(cursor, spec, lookups, past)
    _make_partitions(cursor, spec, made.spec)
    for mine, beside in made.tables(spec):
        if not existing_columns(cursor, beside):
            continue  # no load ever had rows for it
        layout = shadow_layout(cursor, mine, cursor, beside)
        with expected_session(engine, lake, layout) as expected:
            fill_expected(cursor, beside, expected)
            comparison = compare(cursor, mine, expected)
            if not comparison.loads:
                continue
            done = _replace(cursor, mine, beside, expected)
        outcome.loads |= set(comparison.loads)
        outcome.differences.update(comparison.rows)
        outcome.restored = Restored(
            outcome.restored.deleted + done.deleted, outcome.restored.inserted + done.inserted
        )
    restore_companions(cursor, spec, made.spec)
    return outcome


def _replace(
    cursor: Cursor, mine: DatasetSpec, beside: DatasetSpec, expected: Expected
) -> Restored:
    """Replace the rows in the session's table ``differences``; without a key, those of whole loads."""
    cursor.execute(query("plain_columns"), {"table": mine.load.table})
    there = [row[0] for row in cursor.fetchall()]
    kept = existing_columns(cursor, beside)
    names = [name for name in there if name in kept]
    keyed = bool(expected.layout.key)
    rows = expected.layout.key_hash(table_values([c.name for c in expected.layout.key]))
    chosen = sql.SQL("{}::uuid IN (SELECT k FROM {})")
    out = "SELECT DISTINCT k FROM differences WHERE found_load IS NOT NULL"
    into = "SELECT DISTINCT k FROM differences WHERE expected_load IS NOT NULL"
    if not keyed:
        rows = sql.SQL("lpad(to_hex(t.{}), 32, '0')").format(sql.Identifier(LOAD_ID))
        out = into = "SELECT DISTINCT lpad(printf('%x', load), 32, '0')::UUID AS k FROM differing"
    affected = send_affected(cursor, expected, out)
    cursor.execute(
        sql.SQL("DELETE FROM {} t WHERE {}").format(target(mine), chosen.format(rows, affected))
    )
    deleted = int(cursor.rowcount)
    affected = send_affected(cursor, expected, into)
    cursor.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} t WHERE {}").format(
            target(mine),
            listed(names),
            listed_of("t", names),
            target(beside),
            chosen.format(rows, affected),
        )
    )
    return Restored(deleted, int(cursor.rowcount))


def _make_tables(
    cursor: Cursor, spec: DatasetSpec, lookups: Mapping[str, LookedUp], past: Past
) -> None:
    """Make the tables that are gone, with the columns that the loads of the past had."""
    children = child_tables(spec)
    for load in past.loads:
        manifest = load.manifest
        if not existing_columns(cursor, spec) or manifest.columns_added or manifest.column_types:
            columns = target_columns(spec, lookups, manifest.columns_added, manifest.column_types)
            table = prepare_target(cursor, spec, columns)
            prepare_mode(cursor, spec, table.columns, is_new=table.is_new)
        for name, child in children.items():
            of_child = manifest.children.get(name, ChildManifest())
            prepare_target(cursor, child, StagedChild(name, child, of_child, None, {}).columns)


def _make_partitions(cursor: Cursor, spec: DatasetSpec, beside: DatasetSpec) -> None:
    """Make the partitions that rows of the table beside need."""
    by = spec.load.partition_by
    kept = existing_columns(cursor, beside)
    if by is None or not kept:
        return
    column = spec.partition_column
    assert column is not None, "the dataset file is validated"
    begin = period_begin(by, sql.Identifier(by.column), kept[by.column].type)
    cursor.execute(sql.SQL("SELECT DISTINCT ({})::text FROM {}").format(begin, target(beside)))
    numbers = is_integer(column.type)
    points = [read_point(row[0], numbers=numbers) for row in cursor.fetchall()]
    make_partitions(cursor, outside_created(spec), points)
