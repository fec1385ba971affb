"""A table and its dataset compared column by column, and what the contract lets be done about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg2.extras
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.ledger import session
from tasks.loading.own_columns import own_columns
from tasks.loading.queries import query
from tasks.loading.schema import (
    LOAD_ID,
    TargetColumn,
    column_definition,
    create_statements,
    existing_columns,
    target,
    target_columns,
)
from tasks.loading.widening import wider
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ContractBroken
from tasks.model.run import SchemaChange

MAX_COLUMNS = 1600


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a table is not as its dataset says.

    Attributes:
        column: The column, or the primary key.
        there: What the table has.
        wanted: What the dataset file says.
        refusal: Why a load is refused; None if the contract lets the table be altered.
        change: What is altered, if something is; also where it would be under another contract.
    """

    column: str
    there: str
    wanted: str
    refusal: str | None = None
    change: SchemaChange | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A table that takes the rows of a load.

    Attributes:
        columns: What is to be filled, in the types that the table has now.
        changes: What was altered.
        is_new: Was the table made just now?
    """

    columns: list[TargetColumn]
    changes: tuple[SchemaChange, ...] = ()
    is_new: bool = False


def prepare_target(cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]) -> Prepared:
    """Create the table, or make the one that is there take these columns, as the contract says.

    Raises:
        ContractBroken: The table is another than the dataset file says; every difference is named.
    """
    there = existing_columns(cursor, spec)
    wanted = [*columns, *own_columns(spec, columns)]
    if not there:
        for statement in create_statements(spec, wanted):
            cursor.execute(statement)
        return Prepared(list(columns), is_new=True)
    differences = compare(spec, wanted, there, _primary_key(cursor, spec))
    refusals = [difference.refusal for difference in differences if difference.refusal]
    if refusals:
        raise ContractBroken(
            f"{spec.load.table} is not as the dataset file says: {'; '.join(refusals)}",
            "alter the table or the dataset file, dpp check prints the statements; contract: evolve "
            "adds nullable columns and widens types by itself",
        )
    changes = tuple(difference.change for difference in differences if difference.change)
    _check_slots(cursor, spec, changes)
    for change in changes:
        cursor.execute(alteration(spec, change))
    now = existing_columns(cursor, spec) if changes else there
    filled = [replace(column, type=now[column.name].type) for column in columns]
    return Prepared([*filled, *_left_out(cursor, spec, wanted, now)], changes)


def compare(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    there: Mapping[str, TargetColumn],
    key: Sequence[str],
) -> list[Difference]:
    """Return how a table differs from what is wanted of it.

    Args:
        spec: The dataset.
        columns: What it fills.
        there: What the table has.
        key: Columns of the table's primary key.
    """
    differences: list[Difference] = []
    for column in columns:
        if column.name not in there:
            differences.append(_missing(spec, column))
        elif there[column.name].type != column.type:
            differences += _other_type(spec, column, there[column.name].type)
    return [*differences, *_not_alterable(spec, columns, there, key)]


def _missing(spec: DatasetSpec, column: TargetColumn) -> Difference:
    refusal = None
    if spec.contract.unknown != "evolve" or column.required:
        refusal = f"column {column.name} is missing"
    if column.required:
        refusal = f"{refusal}, and rows that are there would have no value in it"
    change = SchemaChange(
        column=column.name, from_type=None, to_type=column.type, kind="column added"
    )
    return Difference(column.name, "–", column.type, refusal, None if column.required else change)


def _other_type(spec: DatasetSpec, column: TargetColumn, there: str) -> Iterator[Difference]:
    declared = column.name in spec.columns
    wide = wider(there, column.type) if declared or column.type != "text" else None
    if not declared and there == "text":
        return  # the table has held the column as text so far, and a text holds every value
    change = None
    if wide is not None:
        change = SchemaChange(
            column=column.name, from_type=there, to_type=wide, kind="type widened"
        )
    evolves = (spec.contract.changed if declared else spec.contract.unknown) == "evolve"
    refusal = None
    if wide is None or not evolves:
        refusal = f"column {column.name} is {there}, the dataset says {column.type}"
    elif wide == there:
        return  # it holds more than is asked of it, and is never narrowed
    yield Difference(column.name, there, column.type, refusal, change if wide != there else None)


def _not_alterable(
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    there: Mapping[str, TargetColumn],
    key: Sequence[str],
) -> Iterator[Difference]:
    if LOAD_ID not in there:
        text = f"column {LOAD_ID} is missing: the table was not made by this product"
        yield Difference(LOAD_ID, "–", "bigint", text)
    wanted = {column.name for column in columns}
    for name, column in there.items():
        if column.required and name not in wanted and name != LOAD_ID:
            text = f"column {name} is NOT NULL, and the dataset does not fill it"
            yield Difference(name, f"{column.type} NOT NULL", "–", text)
    if spec.table_key and sorted(key) != sorted(spec.table_key):
        has, says = f"({', '.join(key)})", f"({', '.join(spec.table_key)})"
        text = f"primary key is {has}, the dataset's key is {says}"
        yield Difference("primary key", has, says, text)


def alteration(spec: DatasetSpec, change: SchemaChange) -> sql.Composed:
    """Return the DDL of a change."""
    if change.kind == "column added":
        column = TargetColumn(change.column, change.to_type)
        return sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
            target(spec), column_definition(column)
        )
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
        target(spec), sql.Identifier(change.column), sql.SQL(change.to_type)
    )


def _check_slots(cursor: Cursor, spec: DatasetSpec, changes: Sequence[SchemaChange]) -> None:
    """Refuse to add columns to a table that can take no more: those dropped count for ever."""
    added = sum(change.kind == "column added" for change in changes)
    if not added:
        return
    cursor.execute(query("column_slots"), {"table": spec.load.table})
    used = int((cursor.fetchone() or (0,))[0])
    if used + added > MAX_COLUMNS:
        raise ContractBroken(
            f"{spec.load.table}: {added} columns are to be added, and {used} of the {MAX_COLUMNS} "
            "that a table of PostgreSQL can ever have are used, dropped ones included",
            "copy the table into a new one, which forgets the dropped columns, or leave columns out",
        )


def _left_out(
    cursor: Cursor,
    spec: DatasetSpec,
    columns: Sequence[TargetColumn],
    there: Mapping[str, TargetColumn],
) -> list[TargetColumn]:
    """Return columns that the source once had and now lacks: their value is NULL, not the old one."""
    if spec.contract.unknown != "evolve":
        return []
    filled = {column.name for column in columns}
    cursor.execute(query("columns_added"), {"dataset": spec.name})
    names = [str(row[0]) for row in cursor.fetchall()]
    return [
        TargetColumn(name, there[name].type, staged=False)
        for name in names
        if name in there and name not in filled
    ]


def record_changes(
    cursor: Cursor, spec: DatasetSpec, load_id: int, changes: Sequence[SchemaChange]
) -> None:
    """Write what was altered; it commits with the rows for which it was."""
    if changes:
        rows = [
            (load_id, spec.name, change.column, change.from_type, change.to_type, change.kind)
            for change in changes
        ]
        psycopg2.extras.execute_values(cursor, query("insert_schema_changes"), rows)


def table_differences(
    engine: Engine, spec: DatasetSpec, lookups: Mapping[str, LookedUp]
) -> list[tuple[Difference, str]]:
    """Return how the dataset's table differs from its file, each with the DDL; none without a table."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        there = existing_columns(cursor, spec)
        if not there:
            return []
        columns = target_columns(spec, lookups, ())
        columns += own_columns(spec, columns)
        differences = compare(spec, columns, there, _primary_key(cursor, spec))
        return [
            (found, alteration(spec, found.change).as_string(connection) if found.change else "")
            for found in differences
        ]


def _primary_key(cursor: Cursor, spec: DatasetSpec) -> list[str]:
    """Return the columns of the table's primary key; without it a merge would be refused."""
    cursor.execute(query("primary_key"), {"table": spec.load.table})
    return [str(row[0]) for row in cursor.fetchall()]
