"""A table and its dataset compared, and what is to be done about each difference. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from psycopg2 import sql

from tasks.loading.difference import NOTHING, Difference
from tasks.loading.schema import (
    LOAD_ID,
    TargetColumn,
    column_definition,
    target,
)
from tasks.loading.search_sql import NEXT, SEARCH
from tasks.loading.state import TableState
from tasks.loading.table_differences import of_comments, of_grants, of_indexes, of_rights
from tasks.loading.widening import wider
from tasks.model.dataset import DatasetSpec
from tasks.model.report import SchemaChange


def compare(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    state: TableState,
    added: Collection[str] = (),
) -> list[Difference]:
    """Return how a table differs from what is wanted of it.

    Args:
        spec: The dataset.
        columns: What it fills.
        state: The table.
        added: Columns that the contract let in once, beside those that are filled.
    """
    differences = [
        *_of_columns(spec, columns, state),
        *_of_nullability(spec, columns, state),
        *_not_alterable(spec, columns, state),
        *_extra(spec, columns, state, added),
        *of_rights(spec, state),
        *of_comments(spec, columns, state),
        *of_indexes(spec, state),
        *of_grants(spec, state),
    ]
    return [_by_whom(spec, state, one) for one in differences]


def _by_whom(spec: DatasetSpec, state: TableState, one: Difference) -> Difference:
    """Leave to a person what only somebody else's role may do."""
    if one.when == "hand" or one.ddl is None or state.owned:
        return one
    why = f"role {state.role} does not own {spec.load.table}, {state.owner} does"
    refusal = one.refusal
    if one.change:
        refusal = refusal or f"column {one.column} is to be altered, and {why}"
    return replace(one, when="hand", why=why, refusal=refusal)


def _of_columns(
    spec: DatasetSpec, columns: Sequence[TargetColumn], state: TableState
) -> Iterator[Difference]:
    for column in columns:
        if column.name not in state.columns:
            yield _missing(spec, column)
        elif state.columns[column.name].type != column.type:
            yield from _other_type(spec, column, state.columns[column.name].type)


def _missing(spec: DatasetSpec, column: TargetColumn) -> Difference:
    if column.required:
        return Difference(
            column.name,
            NOTHING,
            f"{column.type} NOT NULL",
            f"column {column.name} is missing, and rows that are there would have no value in it",
        )
    change = SchemaChange(
        column=column.name, from_type=None, to_type=column.type, kind="column added"
    )
    found = Difference(
        column.name, NOTHING, column.type, None, change, ddl=alteration(spec, change)
    )
    if spec.contract.unknown == "evolve":
        return found
    return replace(
        found,
        refusal=f"column {column.name} is missing",
        when="hand",
        why="contract: unknown is not evolve",
    )


def _other_type(spec: DatasetSpec, column: TargetColumn, there: str) -> Iterator[Difference]:
    declared = column.name in spec.columns
    if not declared and there == "text":
        return  # the table has held the column as text so far, and a text holds every value
    word = "changed" if declared else "unknown"
    evolves = getattr(spec.contract, word) == "evolve"
    wide = wider(there, column.type) if declared or column.type != "text" else None
    refusal = f"column {column.name} is {there}, the dataset says {column.type}"
    refused = Difference(column.name, there, column.type, refusal)
    if wide == there:
        if not evolves:
            yield refused
        return  # it holds more than is asked of it, and is never narrowed
    by = spec.load.partition_by
    if wide is None or (by and by.column == column.name):
        # PostgreSQL alters no column by which a table is partitioned.
        yield refused
        return
    change = SchemaChange(column=column.name, from_type=there, to_type=wide, kind="type widened")
    found = replace(refused, change=change, ddl=alteration(spec, change))
    why = f"contract: {word} is not evolve"
    yield replace(found, refusal=None) if evolves else replace(found, when="hand", why=why)


def _of_nullability(
    spec: DatasetSpec, columns: Sequence[TargetColumn], state: TableState
) -> Iterator[Difference]:
    for column in columns:
        there = state.columns.get(column.name)
        if there is None or there.required == column.required or column.name in state.key:
            continue
        has, says = _nullable(there), _nullable(column)
        if column.required:
            yield Difference(
                column.name,
                has,
                says,
                ddl=_alter_column(spec, column.name, "SET NOT NULL"),
                when="hand",
                why="PostgreSQL reads the whole table under a lock, and refuses if it has a NULL",
            )
            continue
        change = SchemaChange(
            column=column.name, from_type=has, to_type=there.type, kind="null allowed"
        )
        found = Difference(column.name, has, says, None, change, ddl=alteration(spec, change))
        if spec.contract.changed != "evolve":
            why = "contract: changed is not evolve; until then the table refuses rows with NULL"
            found = replace(found, when="hand", why=why)
        yield found


def _nullable(column: TargetColumn) -> str:
    return f"{column.type} NOT NULL" if column.required else column.type


def _not_alterable(
    spec: DatasetSpec, columns: Sequence[TargetColumn], state: TableState
) -> Iterator[Difference]:
    if LOAD_ID not in state.columns:
        text = f"column {LOAD_ID} is missing: the table was not made by this product"
        yield Difference(LOAD_ID, NOTHING, "bigint", text)
    wanted = {column.name for column in columns}
    for name, column in state.columns.items():
        if column.required and name not in wanted and name != LOAD_ID:
            text = f"column {name} is NOT NULL, and the dataset does not fill it"
            yield Difference(name, _nullable(column), NOTHING, text)
    if spec.table_key and sorted(state.key) != sorted(spec.table_key):
        has, says = f"({', '.join(state.key)})", f"({', '.join(spec.table_key)})"
        text = f"primary key is {has}, the dataset's key is {says}"
        yield Difference("primary key", has, says, text)
    if by := spec.load.partition_by:
        says, has = f"RANGE ({by.column})", (state.partitioned_by or "").replace('"', "")
        if has != says:
            text = (
                f"the table is {f'partitioned by {has}' if has else 'not partitioned'}, the dataset "
                f"says {says}; PostgreSQL cannot change that of a table"
            )
            yield Difference("partitions", has or NOTHING, says, text)


def _extra(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    state: TableState,
    added: Collection[str],
) -> Iterator[Difference]:
    known = {*(column.name for column in columns), *added, LOAD_ID, SEARCH, NEXT}
    for name, column in state.columns.items():
        if name not in known and not column.required:
            yield Difference(
                name,
                column.type,
                NOTHING,
                ddl=sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    target(spec), sql.Identifier(name)
                ),
                when="hand",
                why="its values would be lost; loads leave it as it is, NULL in new rows",
            )


def alteration(spec: DatasetSpec, change: SchemaChange) -> sql.Composed:
    """Return the DDL of a change of the columns."""
    if change.kind == "column added":
        column = TargetColumn(change.column, change.to_type)
        return sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
            target(spec), column_definition(column)
        )
    if change.kind == "null allowed":
        return _alter_column(spec, change.column, "DROP NOT NULL")
    return _alter_column(spec, change.column, f"TYPE {change.to_type}")


def _alter_column(spec: DatasetSpec, name: str, what: str) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(
        target(spec), sql.Identifier(name), sql.SQL(what)
    )
