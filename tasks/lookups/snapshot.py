"""Takes the columns that rows look up out of a table of the warehouse, as one Parquet file.

A snapshot is named after its content. So all partitions of a run see the same lookup rows, and a
transformation is repeated when, and only when, what it looks up has changed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lookups.sorted_file import store_sorted
from tasks.model.classify import classify
from tasks.model.column_types import SIGNED, UNSIGNED, decimal_digits, list_element
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError, ContractBroken
from tasks.model.manifest import LakeFile
from tasks.transformation.sql import arrow_type

FETCH_ROWS = 20_000
_INTEGERS = (20, 21, 23)
_TYPE_CODES: dict[str, tuple[int, ...]] = {
    "boolean": (16,),
    **dict.fromkeys((*SIGNED, *UNSIGNED), _INTEGERS),
    "float": (700, 701),
    "bytes": (17,),
    "date": (1082,),
    "time": (1083,),
}
_DECIMALS = (1700, *_INTEGERS)
_TEXTS = (25, 1042, 1043)
_LOCAL_TIMES, _INSTANTS = (1114,), (1184,)
"""Type codes of PostgreSQL (``pg_type.oid``) whose values arrive unchanged."""


def snapshot_table(
    engine: Engine,
    lake: Lake,
    scratch: Path,
    name: str,
    looked_up: LookedUp,
    columns: Sequence[str],
) -> LakeFile:
    """Write the given columns of a table into the lake, in the order of its key.

    Args:
        engine: The warehouse.
        lake: Where the file goes.
        scratch: Folder for the unfinished file.
        name: Name of the lookup.
        looked_up: A dataset, or a lookup with a table.
        columns: Which of its columns.

    Raises:
        ConfigError: The table or one of its columns is not there.
        ContractBroken: Values are not of the declared type, or rows have one key.
    """
    declared = looked_up.columns
    schema = pa.schema([(column, arrow_type(declared[column])) for column in columns])
    is_dataset = isinstance(looked_up, DatasetSpec)
    table = looked_up.load.table if isinstance(looked_up, DatasetSpec) else looked_up.table
    assert table is not None
    query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        sql.SQL(", ").join(
            _selected(column, declared[column], renamed=not is_dataset) for column in columns
        ),
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, looked_up.key)),
    )
    try:
        pooled = engine.raw_connection()
        connection: Connection = pooled.dbapi_connection  # type: ignore[assignment]
        try:
            _check_table(connection, name, table, is_dataset=is_dataset)
            kinds = {column: declared[column] for column in columns}
            batches = _batches(connection, query, schema, name, kinds)
            path = scratch / f"lookup-{name}.parquet"
            with closing(batches):
                return store_sorted(lake, name, batches, schema, looked_up.key, path)
        finally:
            pooled.rollback()
            pooled.close()
    except Exception as error:
        raise classify(error) from None


def _check_table(connection: Connection, name: str, table: str, *, is_dataset: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
        found = cursor.fetchone()
    if found is None or not found[0]:
        raise ConfigError(
            f"lookup {name}: table {table} is not there yet",
            f"run dataset {name} first" if is_dataset else "create it, or correct 'table'",
        )


def _batches(
    connection: Connection,
    query: sql.Composable,
    schema: pa.Schema,
    name: str,
    kinds: Mapping[str, ColumnSpec],
) -> Generator[pa.RecordBatch, None, None]:
    with connection.cursor(name="lookup_snapshot") as cursor:
        cursor.execute(query)
        while fetched := cursor.fetchmany(FETCH_ROWS):
            for (taken, kind), found in zip(kinds.items(), cursor.description or (), strict=True):
                if found.type_code not in _type_codes(kind):
                    raise _other_type(name, taken, kind)
            values = list(zip(*fetched, strict=True))
            arrays = []
            for column, field in zip(values, schema, strict=True):
                try:
                    arrays.append(pa.array(column, type=field.type))
                except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                    raise _other_type(name, field.name, kinds[field.name]) from None
            yield pa.record_batch(arrays, schema=schema)


def _type_codes(column: ColumnSpec) -> tuple[int, ...]:
    if decimal_digits(column.type):
        return _DECIMALS
    if column.type == "timestamp":
        return _INSTANTS if column.timezone else _LOCAL_TIMES
    return _TYPE_CODES.get(column.type, _TEXTS)


def _other_type(name: str, column: str, kind: ColumnSpec) -> ContractBroken:
    zone = " with a time zone" if kind.timezone else ""
    return ContractBroken(
        f"lookup {name}: the table's {column} is not of the declared type {kind.type}{zone}",
        "declare the type that the column has in the table",
    )


def _selected(name: str, column: ColumnSpec, *, renamed: bool) -> sql.Composable:
    """Select a column; what travels as text in the lake is read as text."""
    there = column.source if renamed and column.source else name
    selected: sql.Composable = sql.Identifier(there)
    if column.type in ("uuid", "json", "duration"):
        selected = sql.SQL("{}::text").format(selected)
    if list_element(column.type):
        selected = sql.SQL("to_jsonb({})::text").format(selected)
    return sql.SQL("{} AS {}").format(selected, sql.Identifier(name))
