"""Makes the table of a dataset take the rows of a load, as far as the contract lets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.difference import Difference
from tasks.loading.differences import compare
from tasks.loading.indexes import declared_indexes
from tasks.loading.own_columns import own_columns
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, comment_on_search, create_table, existing_columns
from tasks.loading.state import table_state, unknown_roles
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken
from tasks.model.report import SchemaChange

MAX_COLUMNS = 1600


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
    state = table_state(cursor, spec)
    wanted = [*columns, *own_columns(spec, columns)]
    if state is None:
        _create(cursor, spec, wanted)
        return Prepared(list(columns), is_new=True)
    differences = compare(spec, wanted, state)
    refusals = [difference.refusal for difference in differences if difference.refusal]
    if refusals:
        raise ContractBroken(
            f"{spec.load.table} is not as the dataset file says: {'; '.join(refusals)}",
            "alter the table or the dataset file, dpp check prints the statements; contract: evolve "
            "adds nullable columns and widens types by itself",
        )
    mine = [difference for difference in differences if difference.when == "load"]
    changes = tuple(difference.change for difference in mine if difference.change)
    _check_slots(cursor, spec, changes)
    _alter(cursor, spec, mine)
    now = existing_columns(cursor, spec) if changes else state.columns
    filled = [replace(column, type=now[column.name].type) for column in columns]
    return Prepared([*filled, *_left_out(cursor, spec, wanted, now)], changes)


def _create(cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]) -> None:
    if unknown := unknown_roles(cursor, spec):
        raise ConfigError(
            f"{spec.name}: load.grants: no role {', '.join(unknown)} in the warehouse",
            "create it there, or take it from the dataset file",
        )
    cursor.execute(create_table(spec, columns))
    for index in declared_indexes(spec):
        cursor.execute(index.create((spec.schema_name, spec.table_name)))
    if spec.load.index:
        cursor.execute(comment_on_search(spec, spec.load.index))
    state = table_state(cursor, spec)
    assert state is not None, "it was just made"
    _alter(cursor, spec, [one for one in compare(spec, columns, state) if one.when == "load"])


def _alter(cursor: Cursor, spec: DatasetSpec, differences: Sequence[Difference]) -> None:
    if any(one.column.startswith("schema ") for one in differences):
        # Two sessions that grant on one schema at once would fail.
        cursor.execute(query("lock_schema"), {"schema": f"etl:schema:{spec.schema_name}"})
    for difference in differences:
        if difference.ddl:
            cursor.execute(difference.ddl)


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
