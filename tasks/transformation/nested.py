"""Values inside of nested fields: SQL that takes them out, and the function in Python behind it.

DuckDB's own JSON functions read numbers as doubles, and of a key that is there twice take the first.
Here each value is left as it is written, by the rules by which ingestion reads records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from tasks.json_tokens import is_nested, items, members, token_text
from tasks.model.column_types import list_element
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.transformation.sql import TEXT, identifier
from tasks.transformation.validate import Rule

Kind = Literal["scalar", "json", "list"]
"""What is expected: no object and no list; anything; a list."""
_FLAW = "flaw of"
_NULL = b"null"
Found = tuple[str | None, bool]
"""A value as text, and whether there is something else than was expected."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One value inside of a column of the source."""

    name: str
    steps: tuple[str | int, ...]
    kind: Kind


@dataclass(slots=True)
class _Node:
    leaves: list[tuple[int, Kind]] = field(default_factory=list)
    below: dict[str | int, _Node] = field(default_factory=dict)

    def positions(self) -> Iterator[int]:
        """Yield the places of all values at this node and below it."""
        yield from (position for position, _ in self.leaves)
        for node in self.below.values():
            yield from node.positions()


class Opener:
    """Takes values out of nested texts; each object on the way is read once, for all of them."""

    def __init__(self, wanted: tuple[Wanted, ...]) -> None:
        self._count = len(wanted)
        self._top = _Node()
        for position, value in enumerate(wanted):
            node = self._top
            for step in value.steps:
                node = node.below.setdefault(step, _Node())
            node.leaves.append((position, value.kind))

    def open(self, token: bytes | None) -> list[Found]:
        """Return what is wanted, in its order; of a text that is no JSON nothing can be taken."""
        found: list[Found] = [(None, False)] * self._count
        if token is not None:
            self._walk(token.strip(), self._top, found)
        return found

    def _walk(self, token: bytes, node: _Node, found: list[Found]) -> None:
        if token == _NULL:
            return
        for position, kind in node.leaves:
            found[position] = _leaf(token, kind)
        if not node.below:
            return
        try:
            inner = _inner(token, node)
        except ValueError:  # RecursionError becomes one in there
            for below in node.below.values():
                for position in below.positions():
                    found[position] = (_shown(token), True)
            return
        for step, below in node.below.items():
            if step in inner:
                self._walk(inner[step], below, found)


def _inner(token: bytes, node: _Node) -> Mapping[str | int, bytes]:
    if any(isinstance(step, str) for step in node.below):
        if any(isinstance(step, int) for step in node.below):
            raise ValueError("it cannot be an object and a list")
        return dict(members(token).items())
    return dict(enumerate(items(token)))


def _leaf(token: bytes, kind: Kind) -> Found:
    try:
        nested = is_nested(token)
        if kind == "list":
            return (token.decode(), not (nested and items(token) is not None))
        if kind == "json" and not nested and token[:1] == b'"':
            return (token.decode(), token_text(token) is None)
        return (token_text(token), nested and kind == "scalar")
    except (ValueError, IndexError):
        return (_shown(token), True)


def _shown(token: bytes) -> str:
    """Return a text that stands for what was found; it is refused, and not NULL."""
    return token.decode(errors="replace")


def wanted_values(spec: DatasetSpec) -> dict[str, tuple[Wanted, ...]]:
    """Return what a dataset takes out of nested fields, by the source's column."""
    wanted: dict[str, list[Wanted]] = {}
    for name, column in spec.columns.items():
        if path := column.value_path:
            wanted.setdefault(path.column, []).append(Wanted(name, path.inner, _kind(column)))
    for name, child in spec.children.items():
        path = child.list_path(name)
        wanted.setdefault(path.column, []).append(Wanted(list_name(name), path.inner, "list"))
    return {column: tuple(values) for column, values in wanted.items()}


def _kind(column: ColumnSpec) -> Kind:
    return "json" if column.type == "json" or list_element(column.type) else "scalar"


def register_nested(connection: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Add the functions that take values out of nested fields to a session."""
    for column, wanted in wanted_values(spec).items():
        fields = {name: TEXT for value in wanted for name in (value.name, _flaw(value.name))}
        connection.create_function(
            _function(column),
            _of_arrays(wanted),
            [TEXT],
            duckdb.struct_type(fields),
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,
        )


def _of_arrays(wanted: tuple[Wanted, ...]) -> Callable[[pa.ChunkedArray], pa.Array]:
    opener = Opener(wanted)
    names = [name for value in wanted for name in (value.name, _flaw(value.name))]

    def function(texts: pa.ChunkedArray) -> pa.Array:
        whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        rows = [opener.open(token) for token in whole.cast(pa.binary()).to_pylist()]
        arrays = []
        for position in range(len(wanted)):
            column = [row[position] for row in rows]
            arrays.append(pa.array([text for text, _ in column], pa.string()))
            arrays.append(pa.array(["" if flawed else None for _, flawed in column], pa.string()))
        return pa.StructArray.from_arrays(arrays, names=names)

    return function


def nested_value(name: str, column: str) -> str:
    """Return SQL for a value inside of a column of the source.

    All values of one column come from one call: DuckDB makes equal expressions once.
    """
    return (
        f"{identifier(_function(column))}(CAST({identifier(column)} AS {TEXT})).{identifier(name)}"
    )


def list_name(child: str) -> str:
    """Return the name under which the list of a child is taken out; no column has it."""
    return f"list {child}"


def sound_list(child: str, column: str) -> str:
    """Return SQL for the list of a child, NULL where there is something else."""
    flaw = nested_value(_flaw(list_name(child)), column)
    return f"CASE WHEN {flaw} IS NULL THEN {nested_value(list_name(child), column)} END"


def broken_table(child: str) -> str:
    """Return the name of the table with the origins of rows that have a bad item."""
    return f"broken items of {child}"


def nested_flaws(spec: DatasetSpec, raw_types: Mapping[str, str]) -> Iterator[str]:
    """Yield SQL for the columns that tell where something else was found than is declared."""
    for column, wanted in wanted_values(spec).items():
        for value in wanted if column in raw_types else ():
            yield f"{nested_value(_flaw(value.name), column)} AS {identifier(_flaw(value.name))}"


def nested_rules(spec: DatasetSpec, raw_types: Mapping[str, str]) -> Iterator[Rule]:
    """Yield the rules that there is what is declared, or nothing."""
    for column, wanted in wanted_values(spec).items():
        for value in wanted if column in raw_types else ():
            violated = f"{identifier(_flaw(value.name))} IS NOT NULL"
            if value.kind == "list":
                yield Rule("list", column, f"has no list at {_way(column, value)}", violated)
                continue
            path = spec.columns[value.name].path
            what = "single value at" if value.kind == "scalar" else "objects on the way to"
            yield Rule("path", value.name, f"has no {what} {path}", violated)
    for name, child in spec.children.items():
        column = child.list_path(name).column
        if child.refuse == "parent" and column in raw_types:
            origins = f"SELECT uri, number FROM {identifier(broken_table(name))}"
            message = f"has an item of {name} that breaks a rule"
            yield Rule("item", column, message, f"(_source_uri, _source_row) IN ({origins})")


def _way(column: str, value: Wanted) -> str:
    return ".".join(map(str, (column, *value.steps)))


def _function(column: str) -> str:
    return f"open {column}"


def _flaw(name: str) -> str:
    return f"{_FLAW} {name}"
