"""Checks of one dataset by itself: the columns that its parts name are there, and the parts fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.model.anomaly import Anomaly
from tasks.model.children import child_mistakes
from tasks.model.columns import SYSTEM_COLUMNS, ColumnSpec, check_identifier
from tasks.model.database_source import DatabaseSource
from tasks.model.gates import check_column, gate_columns
from tasks.model.json_path import ITEM, parse_value_path
from tasks.model.load import MergeLoad, ReplacePartitionLoad, Scd2Load
from tasks.model.rest_source import RestSource
from tasks.model.rules import ordered_column
from tasks.model.search import SearchIndex
from tasks.model.table import check_indexes, check_partitions, check_version_partitions

if TYPE_CHECKING:
    from tasks.model.dataset import DatasetSpec

RESERVED_PREFIX = "_"
TEXTS = frozenset(("string", "enum"))
"""Types of columns whose words can be found."""
TYPED_WHOLE = TEXTS | {
    "uuid",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
"""Types of columns that can be found by a whole value: as PostgreSQL writes them, so people do."""


def check_parts(spec: DatasetSpec) -> None:
    """Check that the parts of a dataset fit together.

    Raises:
        ValueError: What does not, beginning with its key in the file.
    """
    _check_names(spec)
    _check_after(spec)
    _check_columns(spec)
    _require_columns(spec, "key", spec.key)
    if spec.cursor:
        _require_columns(spec, "cursor", (spec.cursor,))
    _check_load(spec)
    if isinstance(spec.source, RestSource):
        _check_repeats(spec, spec.source)
    if isinstance(spec.source, DatabaseSource) and spec.source.deletes:
        _check_deletes(spec)
    taken = [*_check_lookups(spec), *_check_made(spec, "derive", spec.derive)]
    _check_rules(spec, taken)
    taken += _check_made(spec, "custom.columns", spec.custom_columns)
    for gate in spec.quality.gates:
        _require_columns(spec, f"quality.gates: {gate.label}", gate_columns(gate), also=taken)
        check_column(gate, {**spec.columns, **spec.made_columns})
    _check_anomaly(spec, spec.quality.anomaly)
    _check_table(spec, taken)


def _check_after(spec: DatasetSpec) -> None:
    if spec.after and spec.schedule != "manual":
        raise ValueError(
            f"after: a dataset that runs after others has no schedule, found {spec.schedule!r}: "
            "two runs at a time would take it from each other"
        )
    if len(set(spec.after)) < len(spec.after):
        raise ValueError("after: a dataset is there twice")


def _check_names(spec: DatasetSpec) -> None:
    for name in spec.all_columns:
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(f"column {name!r}: names with a leading '_' belong to the product")
        if name in SYSTEM_COLUMNS:
            raise ValueError(f"column {name!r}: every table of PostgreSQL has a hidden {name}")


def _check_table(spec: DatasetSpec, taken: list[str]) -> None:
    if spec.load.index:
        _check_search(spec, spec.load.index, taken)
    check_indexes(spec.load.indexes, spec.all_columns)
    if by := spec.load.partition_by:
        if isinstance(spec.load, Scd2Load):
            check_version_partitions(by, spec.load.valid_from, spec.cursor)
        made = spec.made_columns.get(spec.partition_source)
        needed = spec.partition_source in spec.required_columns
        check_partitions(
            by,
            spec.partition_column,
            required=needed if made is None else not made.nullable,
            table_key=spec.table_key,
            columns=[*spec.columns, *spec.made_columns],
            indexes=spec.load.indexes,
        )


def _check_columns(spec: DatasetSpec) -> None:
    for name, column in spec.columns.items():
        if column.path is not None and parse_value_path(column.path).column == ITEM:
            raise ValueError(f"columns.{name}.path: begins with no name of the source")
    for mistake in child_mistakes(spec.children, spec.key, spec.load):
        raise ValueError(mistake)


def _check_repeats(spec: DatasetSpec, source: RestSource) -> None:
    why = source.repeats_records
    if why and not (spec.key and spec.load.takes_repeats):
        raise ValueError(
            f"source.{why}: records come more than once; it needs a 'key' and load mode 'merge'"
        )


def _check_load(spec: DatasetSpec) -> None:
    load = spec.load
    if load.needs_key and not spec.key:
        raise ValueError(f"load mode '{load.mode}' needs a 'key'")
    if isinstance(load, Scd2Load):
        _check_versions(spec, load)
    if isinstance(load, MergeLoad | Scd2Load) and load.delete:
        load.delete.check_column(spec.columns.get(load.delete.column))
        if load.delete.column in spec.key:
            raise ValueError(f"load.delete: column {load.delete.column!r} is part of the key")
    if isinstance(load, ReplacePartitionLoad):
        column = spec.columns.get(load.by) or spec.made_columns.get(load.by)
        load.check_column(column, declared=load.by in spec.columns)


def _check_versions(spec: DatasetSpec, load: Scd2Load) -> None:
    if spec.cursor is None or spec.cursor in spec.key:
        raise ValueError(
            "load mode 'scd2' needs a 'cursor' beside the key: it says from when a version holds"
        )
    if spec.unique:
        raise ValueError("unique: versions of a key have values alike; not with load mode 'scd2'")
    there = [*spec.columns, *spec.made_columns, *spec.taken_columns, *load.own_columns]
    for name in load.own_columns:
        if there.count(name) > 1:
            raise ValueError(f"load: column {name!r} is there twice; choose another name")


def _check_deletes(spec: DatasetSpec) -> None:
    if not (spec.key and spec.load.mode == "merge"):
        raise ValueError("source.deletes compares keys; it needs a 'key' and load mode 'merge'")
    for name in spec.key:
        if spec.columns[name].default is not None:
            raise ValueError(
                f"source.deletes: key column {name!r} has a default, so several rows of the "
                "source may be one of the table"
            )


def _check_lookups(spec: DatasetSpec) -> list[str]:
    taken = [column for lookup in spec.enrich for column in lookup.take]
    for column in taken:
        check_identifier(column)
        if column in spec.columns or taken.count(column) > 1:
            raise ValueError(f"enrich: column {column!r} is there twice; rename it under take")
    own = [lookup.lookup for lookup in spec.enrich if not lookup.is_dataset]
    for lookup in spec.enrich:
        where = f"enrich {lookup.lookup}"
        _require_columns(spec, f"{where}: by", tuple(lookup.matched), also=[*spec.derive])
        if own.count(lookup.lookup) + lookup.is_dataset > 1:
            raise ValueError(f"{where}: the name is there twice; choose another")
    return taken


def _check_anomaly(spec: DatasetSpec, anomaly: Anomaly | None) -> None:
    where = "quality.anomaly.time"
    if anomaly is None or anomaly.time is None:
        return
    _require_columns(spec, where, (anomaly.time,))
    column = spec.columns[anomaly.time]
    if column.type not in ("date", "timestamp"):
        raise ValueError(f"{where}: column {anomaly.time!r} is {column.type}, not a time")
    if getattr(column, "pii", None) not in (None, "none"):
        raise ValueError(f"{where}: the values of column {anomaly.time!r} must not be shown")


def _check_rules(spec: DatasetSpec, taken: list[str]) -> None:
    ordered = tuple(ordered_column(order)[0] for order in spec.tie_break)
    _require_columns(spec, "tie_break", ordered, also=taken)
    for names in spec.unique:
        _require_columns(spec, "unique", names, also=taken)
    for reference in spec.references:
        names = tuple(reference.columns)
        _require_columns(spec, f"references {reference.dataset}", names, also=[*spec.derive])


def _check_made(spec: DatasetSpec, where: str, made: Mapping[str, ColumnSpec]) -> list[str]:
    there = {*spec.columns, *spec.taken_columns}
    if where != "derive":
        there.update(spec.derive)
    for name in made:
        if name in there:
            raise ValueError(f"{where}: column {name!r} is there already")
    return list(made)


def _check_search(spec: DatasetSpec, index: SearchIndex, taken: list[str]) -> None:
    texts = {*index.search, *index.fuzzy_columns}
    for name in index.columns:
        where = f"load.index.{'search' if name in texts else 'exact'}"
        _require_columns(spec, where, (name,), also=taken)
        column = spec.columns.get(name) or spec.made_columns.get(name)
        if column is None:
            continue
        allowed = TEXTS if name in texts else TYPED_WHOLE
        if column.type not in allowed:
            raise ValueError(
                f"{where}: column {name!r} is {column.type}; allowed: {', '.join(sorted(allowed))}"
            )


def _require_columns(
    spec: DatasetSpec, where: str, names: tuple[str, ...], also: list[str] | None = None
) -> None:
    known = [*spec.columns, *(also or [])]
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no column {name!r}; declared are {', '.join(known)}")
