"""Takes the columns that other datasets look up out of the warehouse, as one Parquet file.

A snapshot is named after its content. So all partitions of a run see the same lookup rows, and a
transformation is repeated when, and only when, what it looks up has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import store_file
from tasks.model.classify import classify
from tasks.model.column_types import list_element
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.run import LakeFile
from tasks.transformation.sql import arrow_type

FETCH_ROWS = 20_000


def lookup_columns(lookup: DatasetSpec, users: Sequence[DatasetSpec]) -> list[str]:
    """Return the columns that some datasets take from one, its key first."""
    taken = {
        column
        for user in users
        for declared in user.lookups
        if declared.lookup == lookup.name
        for column in declared.take.values()
    }
    return [*lookup.key, *sorted(taken - set(lookup.key))]


def snapshot_lookup(
    engine: Engine, lake: Lake, scratch: Path, lookup: DatasetSpec, columns: Sequence[str]
) -> LakeFile:
    """Write the given columns of a dataset's table into the lake, in the order of its key.

    Raises:
        ConfigError: The table is not there yet: the dataset was never loaded.
    """
    schema = pa.schema([(name, arrow_type(lookup.columns[name])) for name in columns])
    query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        sql.SQL(", ").join(_selected(name, lookup.columns[name]) for name in columns),
        sql.Identifier(lookup.schema_name, lookup.table_name),
        sql.SQL(", ").join(map(sql.Identifier, lookup.key)),
    )
    path = scratch / f"lookup-{lookup.name}.parquet"
    rows = 0
    try:
        pooled = engine.raw_connection()
        connection: Connection = pooled.dbapi_connection  # type: ignore[assignment]
        try:
            with connection.cursor() as plain:
                plain.execute("SELECT to_regclass(%s) IS NOT NULL", (lookup.load.table,))
                found = plain.fetchone()
                if found is None or not found[0]:
                    raise ConfigError(
                        f"lookup {lookup.name}: table {lookup.load.table} is not there yet",
                        f"run dataset {lookup.name} first",
                    )
            with (
                connection.cursor(name="lookup_snapshot") as cursor,
                pq.ParquetWriter(path, schema, compression="zstd") as writer,
            ):
                cursor.execute(query)
                while fetched := cursor.fetchmany(FETCH_ROWS):
                    values = list(zip(*fetched, strict=True))
                    arrays = [
                        pa.array(column, type=field.type)
                        for column, field in zip(values, schema, strict=True)
                    ]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))
                    rows += len(fetched)
        finally:
            pooled.rollback()
            pooled.close()
    except Exception as error:
        raise classify(error) from None
    return store_file(lake, "lookups", lookup.name, path, rows)


def _selected(name: str, column: ColumnSpec) -> sql.Composable:
    """Select a column; what travels as text in the lake is read as text."""
    selected: sql.Composable = sql.Identifier(name)
    if column.type in ("uuid", "json", "duration"):
        selected = sql.SQL("{}::text").format(selected)
    if list_element(column.type):
        selected = sql.SQL("to_jsonb({})::text").format(selected)
    return selected
