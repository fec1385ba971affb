"""Chooses the statements of a dataset's load mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from tasks.loading.modes.append import append_statements
from tasks.loading.modes.insert_only import insert_only_statements
from tasks.loading.modes.merge import merge_rows, merge_statements
from tasks.loading.modes.replace_partition import replace_partition_statements
from tasks.loading.modes.scd2 import scd2_statements
from tasks.loading.modes.statements import Statement
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.load import (
    AppendLoad,
    InsertOnlyLoad,
    MergeLoad,
    ReplaceLoad,
    ReplacePartitionLoad,
    Scd2Load,
)


def statements_of(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    load_id: int,
    *,
    is_replay: bool = False,
) -> list[Statement]:
    """Return the statements that publish the staged rows, in their order, with what they count.

    Args:
        spec: The dataset; its load mode decides.
        columns: Columns of the table that are filled, in the types that they have there.
        load_id: Id of the load, for the rows that it writes.
        is_replay: Are the rows some that were refused before, a part of what is there?
    """
    match spec.load:
        case AppendLoad():
            return append_statements(spec, columns, load_id)
        case InsertOnlyLoad():
            return insert_only_statements(spec, columns, load_id)
        case MergeLoad() as load:
            return merge_statements(spec, load, columns, load_id)
        case ReplaceLoad():
            # What is replayed only: a run's partitions are published together, in ``whole``.
            return (merge_rows if spec.key else append_statements)(spec, columns, load_id)
        case ReplacePartitionLoad() as load:
            return replace_partition_statements(spec, load, columns, load_id, is_replay=is_replay)
        case Scd2Load() as load:
            return scd2_statements(spec, load, columns, load_id)
        case _:
            assert_never(spec.load)
