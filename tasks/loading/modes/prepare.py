"""Prepares what a load mode needs beside the target table: an index, or what it remembers."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.companion import drop_companion, ensure_companion
from tasks.loading.modes.merge import TOMBSTONES, remembers_deletions, tombstone_columns
from tasks.loading.modes.replace_partition import index_statement
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec


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
        if is_new:
            drop_companion(cursor, TOMBSTONES, spec)
        ensure_companion(
            cursor,
            TOMBSTONES,
            spec,
            tombstone_columns(spec, columns),
            spec.key,
            f"Keys deleted from {spec.load.table}, so that no older version of them comes back.",
        )
    index = index_statement(spec) if is_new else None
    if index:
        cursor.execute(index)
