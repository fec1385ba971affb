"""Compares the table of a dataset with its file before anything runs, and writes the DDL down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.difference import NOTHING, Difference
from tasks.loading.differences import compare
from tasks.loading.index import search_statements
from tasks.loading.indexes import declared_indexes
from tasks.loading.ledger import ledger_comment, ledger_is_current
from tasks.loading.modes.prepare import mode_statements
from tasks.loading.own_columns import own_columns
from tasks.loading.partitions import (
    current_time,
    default_statements,
    partition_name,
    partition_statements,
    partitions_of,
)
from tasks.loading.queries import ledger_schema, query
from tasks.loading.ranges import missing_ranges
from tasks.loading.schema import (
    LOAD_ID,
    TargetColumn,
    column_definition,
    comment_on_search,
    create_schema,
    create_table,
    schema_exists,
    target_columns,
)
from tasks.loading.search_sql import SEARCH
from tasks.loading.session import session
from tasks.loading.state import TableState, roles_without_schema, table_state, unknown_roles
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError

TRIAL = "dpp_check"


@dataclass(frozen=True, slots=True)
class Ddl:
    """A statement.

    Attributes:
        text: The statement, without a semicolon.
        when: Who runs it: ``load``, ``after`` (the run, after its loads) or ``hand`` (a person).
        why: Why it is left to a person.
        refused: Is a load refused until somebody ran it?
    """

    text: str
    when: str
    why: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class TableReport:
    """What is to be said of a dataset's table.

    Attributes:
        exists: Is it there?
        differences: How it differs from the dataset file; none of a table that is not there.
        ddl: What would make it as it should be, in the order in which it is run.
    """

    exists: bool
    differences: tuple[Difference, ...]
    ddl: tuple[Ddl, ...]


def table_report(engine: Engine, spec: DatasetSpec, lookups: Mapping[str, LookedUp]) -> TableReport:
    """Compare a dataset's table with its file, column by column; nothing is changed."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        columns = target_columns(spec, lookups, ())
        columns += own_columns(spec, columns)
        state = table_state(cursor, spec)
        made: list[sql.Composed] = []
        if state is None:
            made = list(_new_table(cursor, spec, columns))
            differences = compare(spec, columns, _as_made(cursor, spec, columns))
        else:
            cursor.execute(query("columns_added"), {"dataset": spec.name})
            added = [str(row[0]) for row in cursor.fetchall()]
            differences = compare(spec, columns, state, added)
        if spec.load.partition_by and (state is None or state.partitioned_by):
            differences += _missing_partitions(cursor, spec)
        texts = [Ddl(statement.as_string(connection), "load") for statement in made]
        texts += [
            Ddl(one.ddl.as_string(connection), one.when, one.why, one.refusal is not None)
            for one in sorted(differences, key=_in_order)
            if one.ddl
        ]
        partitioned = bool(state.partitioned_by if state else spec.load.partition_by)
        texts += [
            Ddl(statement.as_string(connection), "after")
            for statement in search_statements(connection, cursor, spec, partitioned=partitioned)
        ]
    shown = () if state is None else tuple(differences)
    return TableReport(state is not None, shown, tuple(texts))


def _in_order(one: Difference) -> int:
    return ("load", "after", "hand").index(one.when)


def _new_table(
    cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]
) -> Iterator[sql.Composed]:
    if not schema_exists(cursor, spec.schema_name):
        yield create_schema(spec)
    yield create_table(spec, columns)
    for index in declared_indexes(spec):
        yield index.create((spec.schema_name, spec.table_name))
    yield from mode_statements(cursor, spec, columns)
    if spec.load.index:
        yield comment_on_search(spec, spec.load.index)


def _as_made(cursor: Cursor, spec: DatasetSpec, columns: Sequence[TargetColumn]) -> TableState:
    """Return what a table is that a load has just made."""
    unknown = unknown_roles(cursor, spec)
    there = {
        column.name: TargetColumn(column.name, column.type, column.required) for column in columns
    }
    there |= {name: TargetColumn(name, "") for name in (LOAD_ID, SEARCH)}
    return TableState(
        columns=there,
        comment=None,
        owner="",
        role="",
        owned=True,
        schema_owned=True,
        partitioned_by=f"RANGE ({by.column})" if (by := spec.load.partition_by) else None,
        key=spec.table_key,
        indexes={index.name: True for index in declared_indexes(spec)},
        grants=frozenset(),
        rights=frozenset(["select", "insert", "update", "delete"]),
        unknown_roles=unknown,
        roles_without_schema=roles_without_schema(cursor, spec, unknown),
    )


def _missing_partitions(cursor: Cursor, spec: DatasetSpec) -> list[Difference]:
    by = spec.load.partition_by
    assert by is not None
    there = partitions_of(cursor, spec)
    found = []
    if by.outside == "default" and all(one.range for one in there):
        found += [
            Difference("default partition", NOTHING, "default", ddl=statement)
            for statement in default_statements(spec)
        ]
    ranges = [one.range for one in there if one.range is not None]
    for one in missing_ranges(by, (), current_time(cursor, spec), ranges):
        about = f"partition {partition_name(spec, one)}"
        found += [
            Difference(about, NOTHING, f"{one.lower} to {one.upper}", ddl=statement)
            for statement in partition_statements(spec, one)
        ]
    return found


def check_table(engine: Engine, spec: DatasetSpec, lookups: Mapping[str, LookedUp]) -> None:
    """Refuse what the warehouse would refuse of the table: roles that are not there, indexes.

    The indexes are tried on an empty table that nobody else sees, and that is gone at the end.

    Raises:
        ConfigError: Says what, and what the warehouse says of it.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        if unknown := unknown_roles(cursor, spec):
            raise ConfigError(
                f"{spec.name}: load.grants: no role {', '.join(unknown)} in the warehouse",
                "create it there, or take it from the dataset file",
            )
        indexes = declared_indexes(spec)
        if not indexes:
            return
        definitions = map(column_definition, target_columns(spec, lookups, ()))
        cursor.execute(
            sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(
                sql.Identifier(TRIAL), sql.SQL(", ").join(definitions)
            )
        )
        for position, index in enumerate(indexes):
            try:
                cursor.execute(index.create(("pg_temp", TRIAL)))
            except Exception as error:
                raise ConfigError(
                    f"{spec.name}: load.indexes.{position}: {classify(error).message}",
                    "see CREATE INDEX in the documentation of PostgreSQL",
                ) from None
        connection.rollback()


def ddl_script(engine: Engine, specs: Sequence[tuple[DatasetSpec, Mapping[str, LookedUp]]]) -> str:
    """Return the DDL of some datasets as a script for psql; what a person must decide is commented."""
    lines = ["SET search_path = pg_catalog;", "SET TimeZone = 'UTC';", *_ledger_lines(engine)]
    for spec, lookups in specs:
        report = table_report(engine, spec, lookups)
        lines += ["", f"-- {spec.name}: {spec.load.table}"]
        if not report.ddl:
            lines.append("-- is as the dataset file says")
        for one in report.ddl:
            if one.when == "hand":
                commented = one.text.replace("\n", "\n-- ")
                lines += [f"-- by hand: {one.why}", f"-- {commented};"]
            else:
                lines.append(f"{one.text};")
        lines += [f"-- refused: {one.refusal}" for one in report.differences if one.refusal]
    return "\n".join(lines) + "\n"


def _ledger_lines(engine: Engine) -> list[str]:
    if ledger_is_current(engine):
        return []
    return ["", "-- the ledger", ledger_schema().rstrip(), f"{ledger_comment()};"]
