"""A child table seen as a dataset: it is transformed and published by the same means."""

from __future__ import annotations

from tasks.model.children import POSITION, ChildTable
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, Quality
from tasks.model.load import AppendLoad, MergeLoad

PARENT = "_parent."
"""Before the names of the parent's key columns, in raw items."""
_LOADS: dict[str, type[AppendLoad | MergeLoad]] = {"append": AppendLoad, "merge": MergeLoad}
_KEPT_OF_KEY = ("type", "timezone", "values", "pii")


def child_datasets(spec: DatasetSpec) -> dict[str, DatasetSpec]:
    """Return the child tables of a dataset as they are transformed, by the children's names.

    Their sources are the raw items. All have a column ``_position``, which decides between items of
    one key: the last of them counts.
    """
    return {name: _child(spec, name, child) for name, child in spec.children.items()}


def child_tables(spec: DatasetSpec) -> dict[str, DatasetSpec]:
    """Return the child tables of a dataset as they are loaded: ``_position`` only as a key."""
    return {
        name: child.model_copy(
            update={
                "cursor": None,
                "columns": {
                    column: kind
                    for column, kind in child.columns.items()
                    if column != POSITION or POSITION in child.key
                },
            }
        )
        for name, child in child_datasets(spec).items()
    }


def _child(spec: DatasetSpec, name: str, child: ChildTable) -> DatasetSpec:
    links = {
        mine: linked_column(theirs, spec.columns[theirs])
        for mine, theirs in child.links(spec.key).items()
    }
    position = {POSITION: ColumnSpec(type="int64", nullable=False)}
    emptied = spec.keys_only()
    return emptied.model_copy(
        update={
            "name": f"{spec.name}.{name}",
            "description": child.description or f"{name} of {spec.name}, one row per item",
            "columns": {**links, **position, **child.columns},
            "key": (*links, *(child.key or (POSITION,))),
            "cursor": POSITION if child.key else None,
            "contract": child.contract or spec.contract,
            "rules": child.rules,
            "quality": Quality(),
            "load": _LOADS[spec.load.mode].model_validate(
                {"table": child.table, "mode": spec.load.mode}
            ),
        }
    )


def linked_column(name: str, column: ColumnSpec) -> ColumnSpec:
    """Return a column with the parent's key: the value as it is in the parent's table."""
    kept = {option: getattr(column, option) for option in _KEPT_OF_KEY}
    return ColumnSpec(source=f"{PARENT}{name}", nullable=False, **kept)
