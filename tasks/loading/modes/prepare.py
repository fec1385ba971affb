"""Prepares what a load mode needs beside the target table: an index, or what it remembers."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.companion import (
    Companion,
    companion_exists,
    companion_statements,
    drop_companion,
    ensure_companion,
)
from tasks.loading.modes.merge import TOMBSTONES, remembers_deletions, tombstone_columns
from tasks.loading.modes.replace_partition import index_statement
from tasks.loading.modes.scd2 import MARKS, current_index_statement, mark_columns
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.load import Scd2Load


def prepare_mode(
    cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn], *, is_new: bool
) -> None:
    """Create what a dataset's mode needs, or bring it up to the dataset's table.

    Args:
        cursor: In the transaction of the load, when it is our turn.
        spec: The dataset.
        columns: Columns of its table.
        is_new: Was the table made just now? Then what is remembered is of another one.
    """
    remembered = _remembered(spec, columns)
    if remembered:
        if is_new:
            drop_companion(cursor, remembered.kind, spec)
        ensure_companion(cursor, remembered, spec)
    if is_new:
        for index in _indexes(spec):
            cursor.execute(index)


def mode_statements(
    cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]
) -> list[sql.Composed]:
    """Return the DDL of what the mode of a dataset needs beside a new table."""
    statements = _indexes(spec)
    remembered = _remembered(spec, columns)
    if remembered and not companion_exists(cursor, remembered.kind, spec):
        statements += companion_statements(remembered, spec)
    return statements


def _indexes(spec: DatasetSpec) -> list[sql.Composed]:
    if isinstance(spec.load, Scd2Load):
        return [current_index_statement(spec, spec.load)]
    by_value = index_statement(spec)
    return [by_value] if by_value else []


def _remembered(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> Companion | None:
    """Return the table of what the mode remembers of keys, None if it remembers nothing."""
    if remembers_deletions(spec):
        why = f"Keys deleted from {spec.load.table}, so that no older version of them comes back."
        return Companion(TOMBSTONES, tombstone_columns(spec, columns), spec.key, why)
    if isinstance(spec.load, Scd2Load):
        why = f"When keys of {spec.load.table} were confirmed or deleted, for rows that come late."
        return Companion(MARKS, mark_columns(spec, columns), spec.row_key, why)
    return None
