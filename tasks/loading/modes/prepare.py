"""Prepares what a load mode needs beside the target table: an index, or what it remembers."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.companion import drop_companion, ensure_companion
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
    if remembers_deletions(spec):
        comment = (
            f"Keys deleted from {spec.load.table}, so that no older version of them comes back."
        )
        remembered = tombstone_columns(spec, columns)
        _companion(cursor, TOMBSTONES, spec, remembered, spec.key, comment, is_new=is_new)
    if isinstance(spec.load, Scd2Load):
        comment = (
            f"When keys of {spec.load.table} were confirmed or deleted, for rows that come late."
        )
        remembered = mark_columns(spec, columns)
        _companion(cursor, MARKS, spec, remembered, spec.row_key, comment, is_new=is_new)
        if is_new:
            cursor.execute(current_index_statement(spec, spec.load))
    index = index_statement(spec) if is_new else None
    if index:
        cursor.execute(index)


def _companion(
    cursor: Cursor,
    kind: str,
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    key: Sequence[str],
    comment: str,
    *,
    is_new: bool,
) -> None:
    if is_new:
        drop_companion(cursor, kind, spec)
    ensure_companion(cursor, kind, spec, columns, key, comment)
