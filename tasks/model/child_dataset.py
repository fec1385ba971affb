"""A child table seen as a dataset: it is transformed and published by the same means."""

from __future__ import annotations

from typing import assert_never

from tasks.model.children import POSITION, ChildTable
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, Quality
from tasks.model.load import (
    AppendLoad,
    InsertOnlyLoad,
    LoadSpec,
    MergeLoad,
    ReplaceLoad,
    ReplacePartitionLoad,
    Scd2Load,
)

PARENT = "_parent."
"""Before the names of the parent's columns, in raw items."""
VERSION = "_version"
"""Column with the parent's cursor, by which an item that is replayed finds the version it is of."""
_KEPT_OF_KEY = ("type", "timezone", "values", "pii")


def child_datasets(spec: DatasetSpec) -> dict[str, DatasetSpec]:
    """Return the child tables of a dataset as they are transformed, by the children's names.

    Their sources are the raw items. All have a column ``_position``, which decides between items of
    one key: the last of them counts. Where parents have versions, ``version_column`` has the cursor
    of the version that an item is of.
    """
    return {name: _child(spec, name, child) for name, child in spec.children.items()}


def child_tables(spec: DatasetSpec) -> dict[str, DatasetSpec]:
    """Return the child tables of a dataset as they are loaded: only with what the table has."""
    return {
        name: child.model_copy(
            update={
                "key": _table_key(spec, child),
                "cursor": version_column(spec) if isinstance(spec.load, Scd2Load) else None,
                "columns": {
                    column: kind
                    for column, kind in child.columns.items()
                    if column not in not_loaded(child)
                },
                "load": _load(spec.load, child.load.table),
            }
        )
        for name, child in child_datasets(spec).items()
    }


def not_loaded(child: DatasetSpec) -> frozenset[str]:
    """Return the columns of a child as it is transformed that its table has not."""
    return frozenset({POSITION, VERSION}.difference(child.key))


def parents_columns(child: DatasetSpec) -> dict[str, ColumnSpec]:
    """Return the columns of a child that are its parent's."""
    return {
        name: column
        for name, column in child.columns.items()
        if (column.source or "").startswith(PARENT)
    }


def carried_columns(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the columns of the parent that its raw items carry: key, and cursor of the version."""
    if version_column(spec) is None:
        return spec.key
    return (*spec.key, str(spec.cursor))


def version_column(spec: DatasetSpec) -> str | None:
    """Return the name of the column with the parent's cursor, None if rows have no versions."""
    if spec.cursor is None or spec.cursor in spec.key:
        return None
    if isinstance(spec.load, Scd2Load):
        return spec.load.valid_from
    return VERSION if isinstance(spec.load, MergeLoad | ReplaceLoad) else None


def quarantined(spec: DatasetSpec, child: str | None) -> DatasetSpec:
    """Return the dataset whose refused rows are meant: itself, or the items of a child."""
    return spec if child is None else child_datasets(spec)[child]


def _child(spec: DatasetSpec, name: str, child: ChildTable) -> DatasetSpec:
    links = {
        mine: linked_column(theirs, spec.columns[theirs])
        for mine, theirs in child.links(spec.key).items()
    }
    own_key = child.key or (POSITION,)
    key = (*links, *own_key)
    if version := version_column(spec):
        of_version = linked_column(str(spec.cursor), spec.columns[str(spec.cursor)])
        in_key = isinstance(spec.load, Scd2Load)
        links[version] = of_version.model_copy(update={"nullable": not in_key})
        key = (*links, *own_key) if in_key else key
    position = {POSITION: ColumnSpec(type="int64", nullable=False)}
    emptied = spec.keys_only()
    return emptied.model_copy(
        update={
            "name": f"{spec.name}.{name}",
            "description": child.description or f"{name} of {spec.name}, one row per item",
            "columns": {**links, **position, **child.columns},
            "key": key,
            "cursor": POSITION if child.key else None,
            "contract": child.contract or spec.contract,
            "rules": child.rules,
            "quality": Quality(),
            "load": _transformed_for(spec.load, child.table),
        }
    )


def _table_key(spec: DatasetSpec, child: DatasetSpec) -> tuple[str, ...]:
    """Return what tells items apart at any one moment."""
    if not isinstance(spec.load, Scd2Load):
        return child.key
    return tuple(name for name in child.key if name != version_column(spec))


def _transformed_for(parent: LoadSpec, table: str) -> LoadSpec:
    """Return a mode by which items are judged as they must be for the table's key."""
    if isinstance(parent, AppendLoad):
        return AppendLoad(table=table, mode="append")
    return MergeLoad(table=table, mode="merge", delete=None)


def _load(parent: LoadSpec, table: str) -> LoadSpec:
    """Return the mode in which the table of a child is made, from that of its parents."""
    match parent:
        case AppendLoad():
            return AppendLoad(table=table, mode="append")
        case InsertOnlyLoad():
            return InsertOnlyLoad(table=table, mode="insert_only")
        case ReplaceLoad() | ReplacePartitionLoad():
            return MergeLoad(table=table, mode="merge", delete=None)
        case MergeLoad():
            soft = parent.delete is not None and parent.delete.kind == "soft"
            return MergeLoad(table=table, mode="merge", delete=parent.delete if soft else None)
        case Scd2Load():
            own = dict(
                zip(("valid_from", "valid_to", "is_current"), parent.own_columns, strict=True)
            )
            return Scd2Load(table=table, mode="scd2", **own)
        case _:
            assert_never(parent)


def linked_column(name: str, column: ColumnSpec) -> ColumnSpec:
    """Return a column with what the parent's table has in one of its columns."""
    kept = {option: getattr(column, option) for option in _KEPT_OF_KEY}
    return ColumnSpec(source=f"{PARENT}{name}", nullable=False, **kept)
