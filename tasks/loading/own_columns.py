"""Columns of a target table that no source fills: the load mode does."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.load import DELETED_AT, MergeLoad

_DELETED_AT = TargetColumn(
    DELETED_AT,
    "timestamp with time zone",
    description="When the deletion of this row was loaded; NULL while it is not deleted.",
    staged=False,
)


def own_columns(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> list[TargetColumn]:  # noqa: ARG001
    """Return the columns that the load mode adds to those that the rows fill.

    Args:
        spec: The dataset.
        columns: What the rows fill.
    """
    load = spec.load
    if isinstance(load, MergeLoad) and load.delete and load.delete.kind == "soft":
        return [_DELETED_AT]
    return []
