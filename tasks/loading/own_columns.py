"""Columns of a target table that no source fills: the load mode does."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.load import DELETED_AT, MergeLoad, Scd2Load

_DELETED_AT = TargetColumn(
    DELETED_AT,
    "timestamp with time zone",
    description="When the deletion of this row was loaded; NULL while it is not deleted.",
    staged=False,
)


def own_columns(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> list[TargetColumn]:
    """Return the columns that the load mode adds to those that the rows fill.

    Args:
        spec: The dataset.
        columns: What the rows fill.
    """
    load = spec.load
    if isinstance(load, MergeLoad) and load.delete and load.delete.kind == "soft":
        return [_DELETED_AT]
    if isinstance(load, Scd2Load):
        moment = next(column.type for column in columns if column.name == spec.cursor)
        since, until, now = load.own_columns
        first = TargetColumn(since, moment, True, "From when this version holds.", staged=False)
        return [
            *([] if since == spec.cursor else [first]),  # rows of a child table come with it
            TargetColumn(until, moment, False, "Until when; NULL if it still does.", staged=False),
            TargetColumn(now, "boolean", True, "Does this version hold now?", staged=False),
        ]
    return []
