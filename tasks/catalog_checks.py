"""Checks of datasets against each other: tables, lookups, gates, and circles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tasks.documents import Document, read_yaml
from tasks.model.column_types import decimal_digits, is_integer
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.gates import References
from tasks.model.lookup import Lookup


def mistakes_between(datasets: dict[str, DatasetSpec], paths: dict[str, Path]) -> Iterable[str]:
    """Yield what does not fit together between datasets, with file, line and key."""
    tables: dict[str, str] = {}
    for name, spec in datasets.items():
        document = read_yaml(paths[name])
        for place, table in _tables(spec):
            if other := tables.get(table):
                found = f"{'.'.join(place)}: {table} is filled by {other!r} too"
                yield f"{paths[name]}:{document.line(place)}: {found}"
            tables[table] = name
        if owner := _whose_name(spec, datasets.values()):
            line = document.line(("load", "table"))
            yield (
                f"{paths[name]}:{line}: load.table: {spec.load.table} is what an index or a partition "
                f"of {owner.load.table} is called, which {owner.name!r} fills; choose another"
            )
        for number, lookup in enumerate(spec.lookups):
            key, position = "enrich", number
            if number >= len(spec.enrich):
                key, position = "references", number - len(spec.enrich)
            where = f"{paths[name]}:{document.line((key, position))}: {key}"
            looked_up = datasets.get(lookup.lookup) if lookup.is_dataset else lookup
            if looked_up is not None:
                mistakes = _lookup_mistakes(spec, lookup, looked_up)
                yield from (f"{where}: {mistake}" for mistake in mistakes)
            else:
                known = ", ".join(sorted(datasets))
                yield f"{where}: no dataset {lookup.lookup!r}; declared are: {known}"
        yield from _gate_mistakes(spec, datasets, document)
        yield from _after_mistakes(spec, datasets, document)
    yield from _circles(datasets, paths)


def _circles(datasets: dict[str, DatasetSpec], paths: dict[str, Path]) -> Iterable[str]:
    looked_up = {name: spec.dependencies for name, spec in datasets.items()}
    run_after = {name: spec.after for name, spec in datasets.items()}
    if circle := _circle(looked_up):
        yield f"datasets look each other up in a circle: {' → '.join(circle)}"
    elif circle := _circle(run_after):
        line = read_yaml(paths[circle[0]]).line(("after",))
        # The sorter says who comes before whom; people read who runs after whom.
        yield (
            f"{paths[circle[0]]}:{line}: after: datasets run after each other in a circle: "
            f"{' after '.join(reversed(circle))}"
        )


def _circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _after_mistakes(
    spec: DatasetSpec, datasets: Mapping[str, DatasetSpec], document: Document
) -> Iterable[str]:
    for position, name in enumerate(spec.after):
        if name not in datasets:
            where = f"{document.path}:{document.line(('after', position))}: after"
            known = ", ".join(sorted(datasets))
            yield f"{where}: no dataset {name!r}; declared are: {known}"


def _tables(spec: DatasetSpec) -> Iterable[tuple[tuple[str, ...], str]]:
    yield ("load", "table"), spec.load.table
    for name, child in spec.children.items():
        yield ("children", name, "table"), child.table


def _gate_mistakes(
    spec: DatasetSpec, datasets: Mapping[str, DatasetSpec], document: Document
) -> Iterable[str]:
    for position, gate in enumerate(spec.quality.gates):
        if not isinstance(gate, References) or gate.references.dataset is None:
            continue
        line = document.line(("quality", "gates", position))
        where = f"{document.path}:{line}: quality.gates: references"
        other = datasets.get(gate.references.dataset)
        if other is None:
            known = ", ".join(sorted(datasets))
            yield f"{where}: no dataset {gate.references.dataset!r}; declared are: {known}"
            continue
        there = {*other.columns, *other.made_columns, *other.taken_columns}
        for column in gate.references.columns.values():
            if column not in there:
                yield f"{where}: {other.name} has no column {column!r}"


def _whose_name(spec: DatasetSpec, others: Iterable[DatasetSpec]) -> DatasetSpec | None:
    """Return the dataset that makes something with the name of this one's table, if one does.

    Tables, indexes and partitions of a schema share their names.
    """
    for other in others:
        made = [
            *(["pkey"] if other.table_key else []),
            *(["search", "trigram"] if other.load.index else []),
            *([r"p(default|min|m?\d)\w*"] if other.load.partition_by else []),
        ]
        pattern = rf"{re.escape(other.load.table)}_({'|'.join(made)})"
        if made and re.fullmatch(pattern, spec.load.table):
            return other
    return None


def _lookup_mistakes(spec: DatasetSpec, lookup: Lookup, target: LookedUp) -> Iterable[str]:
    name = lookup.lookup
    if set(lookup.matched.values()) != set(target.key):
        yield (
            f"by: found {sorted(lookup.matched.values())}, but rows of {name} are only told apart "
            f"by its whole key {list(target.key)}"
        )
    for column in lookup.take.values():
        if column not in target.columns:
            yield f"take: {name} has no column {column!r}"
    mine_of = {**spec.columns, **spec.derive}
    for mine, theirs in lookup.matched.items():
        if theirs in target.columns:
            here, there = _family(mine_of[mine]), _family(target.columns[theirs])
            if here != there:
                yield f"by: {mine} is {here}, {name}.{theirs} is {there}"
    for mine in lookup.as_of or {}:
        kind = _family(mine_of[mine])
        if kind not in _ORDERED:
            yield f"as_of: {mine} is {kind}; times and numbers have a before and an after"
        elif lookup.within and kind == "number":
            yield f"within: {mine} is a number; only times lie within a span of time"


_ORDERED = ("number", "date", "timestamp", "timestamp with a time zone")


def _family(column: ColumnSpec) -> str:
    if is_integer(column.type) or decimal_digits(column.type):
        return "number"
    if column.type == "enum":
        return "string"
    return "timestamp with a time zone" if column.timezone else column.type
