"""A table and its dataset compared, and what is to be done about each difference. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from psycopg2 import sql

from tasks.loading.grants import grant, grant_schema, needed_rights, revoke, wanted_grants
from tasks.loading.indexes import declared_indexes, was_declared
from tasks.loading.schema import (
    LOAD_ID,
    TargetColumn,
    column_definition,
    comment_on_column,
    comment_on_table,
    target,
)
from tasks.loading.search_sql import NEXT, SEARCH
from tasks.loading.state import TableState
from tasks.loading.widening import wider
from tasks.model.dataset import DatasetSpec
from tasks.model.run import SchemaChange

When = Literal["load", "after", "hand"]
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a table is not as its dataset says.

    Attributes:
        column: The column, or what else it is about.
        there: What the table has.
        wanted: What the dataset file says.
        refusal: Why a load is refused; None if it goes on.
        change: What is altered of the columns, if something is; also where it would be under another
            contract.
        ddl: What would make the table as it should be.
        when: Who runs that: the load in its transaction, the run after it, or a person by hand.
        why: Why it is left to a person.
    """

    column: str
    there: str
    wanted: str
    refusal: str | None = None
    change: SchemaChange | None = None
    ddl: sql.Composed | None = None
    when: When = "load"
    why: str | None = None


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
        *_of_rights(spec, state),
        *_of_comments(spec, columns, state),
        *_of_indexes(spec, state),
        *_of_grants(spec, state),
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


def _of_rights(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    for right in needed_rights(spec):
        if right not in state.rights:
            yield Difference(
                f"right to {right}",
                NOTHING,
                state.role,
                f"role {state.role} may not {right} in the table",
                ddl=grant(spec, state.role, right),
                when="hand",
                why=f"only the table's owner {state.owner} may grant it",
            )


def _of_comments(
    spec: DatasetSpec, columns: Sequence[TargetColumn], state: TableState
) -> Iterator[Difference]:
    if state.comment != spec.description:
        yield Difference(
            "comment", state.comment or NOTHING, spec.description, ddl=comment_on_table(spec)
        )
    for column in columns:
        there = state.columns.get(column.name)
        if column.description and (there is None or there.description != column.description):
            has = (there and there.description) or NOTHING
            about = f"comment of {column.name}"
            yield Difference(about, has, column.description, ddl=comment_on_column(spec, column))


def _of_indexes(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    table = (spec.schema_name, spec.table_name)
    partitioned = state.partitioned_by is not None
    wanted = declared_indexes(spec)
    for index in wanted:
        if not state.indexes.get(index.name, False):
            has = "unfinished" if index.name in state.indexes else NOTHING
            yield Difference(
                f"index {index.name}",
                has,
                "unique" if index.unique else "index",
                # Of a partitioned table it is built partition by partition, which is as gentle.
                ddl=index.create(table, concurrently=not partitioned),
                when="after",
            )
    names = {index.name for index in wanted}
    for name in state.indexes:
        if name not in names and was_declared(name):
            gently = "" if partitioned else "CONCURRENTLY "
            yield Difference(
                f"index {name}",
                "index",
                NOTHING,
                ddl=sql.SQL(f"DROP INDEX {gently}{{}}").format(
                    sql.Identifier(spec.schema_name, name)
                ),
                when="hand",
                why="it is not declared any more, and nothing is dropped by itself",
            )


def _of_grants(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    if spec.load.grants is None:
        return  # others look after them
    for role in state.unknown_roles:
        text = f"role {role} of load.grants is not there"
        yield Difference(f"role {role}", NOTHING, "role", text)
    for role in state.roles_without_schema:
        found = Difference(
            f"schema {spec.schema_name}", NOTHING, f"usage: {role}", ddl=grant_schema(spec, role)
        )
        why = f"role {state.role} does not own the schema"
        yield found if state.schema_owned else replace(found, when="hand", why=why)
    wanted = wanted_grants(spec)
    for role, privilege in wanted:
        if role not in state.unknown_roles and (role, privilege) not in state.grants:
            about, ddl = f"grant to {role}", grant(spec, role, privilege)
            yield Difference(about, NOTHING, privilege, ddl=ddl)
    for role, privilege in sorted(state.grants - set(wanted)):
        yield Difference(
            f"grant to {role}",
            privilege,
            NOTHING,
            ddl=revoke(spec, role, privilege),
            when="hand",
            why="it is not declared, and nothing is taken away by itself",
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
