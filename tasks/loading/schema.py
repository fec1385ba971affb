"""The target table: the columns a dataset asks for, and whether the table there has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.listed import listed
from tasks.loading.queries import query
from tasks.loading.search_sql import SEARCH, column_signature, search_column
from tasks.loading.session import session
from tasks.model.column_types import decimal_digits, list_element
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.search import SearchIndex

LOAD_ID = "_load_id"
TEXT = ColumnSpec(type="string")
_TYPES = {
    "boolean": "boolean",
    "int8": "smallint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "uint8": "smallint",
    "uint16": "integer",
    "uint32": "bigint",
    "uint64": "numeric(20,0)",
    "float": "double precision",
    "string": "text",
    "enum": "text",
    "bytes": "bytea",
    "date": "date",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "duration": "interval",
    "uuid": "uuid",
    "json": "jsonb",
}


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of a target table.

    Attributes:
        name: Its name.
        type: Its type, as PostgreSQL writes it.
        required: Is it NOT NULL?
        description: Its comment.
        staged: Is it among the rows of this load? If not, its value is NULL.
    """

    name: str
    type: str
    required: bool = False
    description: str | None = None
    staged: bool = True


@dataclass(frozen=True, slots=True)
class TableIndex:
    """An index of a table.

    Attributes:
        name: Its name; it is in the schema of its table.
        definition: SQL from the method on: ``btree ("a", "b") WHERE …``.
        unique: Does it refuse a second row of one value?
    """

    name: str
    definition: sql.Composable
    unique: bool = False

    def named(self, name: str) -> TableIndex:
        """Return the same index under another name."""
        return replace(self, name=name)

    def create(
        self, table: tuple[str, str], *, concurrently: bool = False, only: bool = False
    ) -> sql.Composed:
        """Return its DDL.

        Args:
            table: Schema and name of its table.
            concurrently: Without locking the table; not within a transaction.
            only: Of a partitioned table, not of its partitions.
        """
        unique = "UNIQUE " if self.unique else ""
        beside = "CONCURRENTLY " if concurrently else ""
        return sql.SQL(
            f"CREATE {unique}INDEX {beside}{{}} ON {'ONLY ' if only else ''}{{}} USING {{}}"
        ).format(sql.Identifier(self.name), sql.Identifier(*table), self.definition)


def postgres_type(column: ColumnSpec) -> str:
    """Return the PostgreSQL type of a declared column."""
    if digits := decimal_digits(column.type):
        return f"numeric({digits[0]},{digits[1]})"
    if column.timezone:
        return "timestamp with time zone"
    if element := list_element(column.type):
        return f"{_TYPES[element]}[]"
    return _TYPES[column.type]


def staged_value(column: TargetColumn, *alias: str) -> sql.Composed:
    """Return SQL for a staged value in the type of its target column; lists are staged as JSON."""
    if not column.staged:
        return sql.SQL("NULL::{}").format(sql.SQL(column.type))
    value = sql.Identifier(*alias, column.name)
    if not column.type.endswith("[]"):
        return sql.SQL("{}::{}").format(value, sql.SQL(column.type))
    return sql.SQL(
        "CASE WHEN {value} IS NOT NULL THEN ARRAY(SELECT e.value::{element} "
        "FROM jsonb_array_elements_text({value}::jsonb) WITH ORDINALITY AS e (value, position) "
        "ORDER BY e.position) END"
    ).format(value=value, element=sql.SQL(column.type.removesuffix("[]")))


def same_values(columns: Sequence[TargetColumn]) -> sql.Composed:
    """Return SQL that is true where a staged row ``s`` has the values of a row ``t`` of the table."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = t.{}").format(staged_value(column, "s"), sql.Identifier(column.name))
        for column in columns
    )


def target_columns(
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    added: Sequence[str],
    types: Mapping[str, ColumnSpec] = MappingProxyType({}),
) -> list[TargetColumn]:
    """Return the columns of a dataset's table: declared, let in by its contract, looked up.

    Args:
        spec: The dataset.
        lookups: The datasets that it looks up.
        added: Columns that only the source knows.
        types: Their types, and those of declared columns that the data widened; text without one.
    """
    columns = [
        TargetColumn(
            name,
            postgres_type(types.get(name, column)),
            name in spec.required_columns,
            column.description,
        )
        for name, column in spec.columns.items()
    ]
    columns += [TargetColumn(name, postgres_type(types.get(name, TEXT))) for name in added]
    columns += [
        TargetColumn(name, postgres_type(column), not column.nullable, column.description)
        for name, column in spec.made_columns.items()
    ]
    for lookup in spec.enrich:
        columns += [
            TargetColumn(mine, postgres_type(lookups[lookup.lookup].columns[theirs]))
            for mine, theirs in lookup.take.items()
        ]
    return columns


def target(spec: DatasetSpec) -> sql.Identifier:
    """Return the quoted name of a dataset's table."""
    return sql.Identifier(spec.schema_name, spec.table_name)


def create_table(spec: DatasetSpec, columns: Sequence[TargetColumn]) -> sql.Composed:
    """Return the DDL of a table that is not there yet, without what is added to it."""
    definitions: list[sql.Composable] = [column_definition(column) for column in columns]
    definitions.append(sql.SQL("{} bigint NOT NULL").format(sql.Identifier(LOAD_ID)))
    if spec.load.index:
        definitions.append(search_column(spec.load.index))
    if spec.table_key:
        keys = listed(spec.table_key)
        definitions.append(sql.SQL("PRIMARY KEY ({})").format(keys))
    return sql.SQL("CREATE TABLE {} ({}){}").format(
        target(spec), sql.SQL(", ").join(definitions), _partitioning(spec)
    )


def _partitioning(spec: DatasetSpec) -> sql.Composable:
    if spec.load.partition_by is None:
        return sql.SQL("")
    return sql.SQL(" PARTITION BY RANGE ({})").format(sql.Identifier(spec.load.partition_by.column))


def comment_on_table(spec: DatasetSpec) -> sql.Composed:
    """Return the DDL of the table's comment."""
    return sql.SQL("COMMENT ON TABLE {} IS {}").format(target(spec), sql.Literal(spec.description))


def comment_on_column(spec: DatasetSpec, column: TargetColumn) -> sql.Composed:
    """Return the DDL of a column's comment."""
    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(spec.schema_name, spec.table_name, column.name),
        sql.Literal(column.description),
    )


def comment_on_search(spec: DatasetSpec, index: SearchIndex) -> sql.Composed:
    """Return the DDL of the comment that tells how the column of the search is made."""
    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(spec.schema_name, spec.table_name, SEARCH),
        sql.Literal(column_signature(index)),
    )


def column_definition(column: TargetColumn) -> sql.Composed:
    """Return a column as CREATE TABLE and ADD COLUMN have it."""
    required = sql.SQL(" NOT NULL") if column.required else sql.SQL("")
    return sql.SQL("{} {}{}").format(sql.Identifier(column.name), sql.SQL(column.type), required)


def existing_columns(cursor: Cursor, spec: DatasetSpec) -> dict[str, TargetColumn]:
    """Return the columns of the dataset's table; none if there is no table."""
    cursor.execute(query("existing_columns"), {"table": spec.load.table})
    return {row[0]: TargetColumn(*row) for row in cursor.fetchall()}


def ensure_schema(engine: Engine, spec: DatasetSpec) -> None:
    """Create the schema of the dataset's table, unless it is there.

    In a transaction of its own: several tables of a new schema may be loaded for the first time at
    once, and ``IF NOT EXISTS`` alone is no protection against that.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        if schema_exists(cursor, spec.schema_name):
            return
        cursor.execute(query("lock_schema"), {"schema": f"etl:schema:{spec.schema_name}"})
        # Asking again makes the session take notice of what was committed meanwhile: from its cache
        # alone, CREATE SCHEMA IF NOT EXISTS would still believe that there is none, and fail.
        if schema_exists(cursor, spec.schema_name):
            return
        cursor.execute(create_schema(spec))


def create_schema(spec: DatasetSpec) -> sql.Composed:
    """Return the DDL of the schema of a dataset's table."""
    return sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(spec.schema_name))


def schema_exists(cursor: Cursor, schema: str) -> bool:
    """Tell whether a schema is there."""
    cursor.execute(query("schema_exists"), {"schema": schema})
    row = cursor.fetchone()
    return bool(row and row[0])
