"""Words for rows that differ: their key where they have one, else where they are from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.canonical import duckdb_hash, duckdb_row, quoted
from tasks.loading.content import RowDifference, table_values
from tasks.loading.expected import Expected, LoadFiles
from tasks.loading.schema import LOAD_ID, target
from tasks.model.dataset import DatasetSpec
from tasks.protection import MASK, pii_columns

UNNAMED = "a row"


def named_rows(
    cursor: Cursor,
    spec: DatasetSpec,
    expected: Expected,
    loads: Sequence[LoadFiles],
    rows: Sequence[RowDifference],
    beside: tuple[Cursor, DatasetSpec] | None = None,
) -> list[str]:
    """Return a line for each row that differs; values of columns marked ``pii`` are masked.

    Args:
        cursor: In the snapshot in which they were found.
        spec: The dataset.
        expected: What its table must hold.
        loads: The loads, to find rows in the lake that are not in the table.
        rows: The rows.
        beside: Where there is a table with what must be there, for rows that are missing.
    """
    there = [row for row in rows if row.found_load is not None]
    names = _of_table(cursor, spec, spec, expected, there) if expected.layout.key else {}
    missing = [row for row in rows if row.found_load is None]
    if beside and expected.layout.key:
        names |= _of_table(beside[0], spec, beside[1], expected, missing)
    else:
        names |= _of_lake(spec, expected, loads, missing)
    return [f"{row.what}: {names.get(_id(row), UNNAMED)}{_where(row)}" for row in rows]


def _id(row: RowDifference) -> str:
    return row.k or str(row.h)


def _where(row: RowDifference) -> str:
    if row.expected_load is None:
        return f" (load {row.found_load})"
    if row.found_load in (None, row.expected_load):
        return f" (load {row.expected_load})"
    return f" (load {row.expected_load}, found under load {row.found_load})"


def _of_table(
    cursor: Cursor,
    spec: DatasetSpec,
    table: DatasetSpec,
    expected: Expected,
    rows: Sequence[RowDifference],
) -> dict[str, str]:
    if not rows:
        return {}
    key = [column.name for column in expected.layout.key]
    values = table_values(key)
    cursor.execute(
        sql.SQL(
            "SELECT {hash}::uuid::text, {key} FROM {target} t "
            "WHERE t.{load} = ANY(%s) AND ({hash})::uuid = ANY(%s::uuid[])"
        ).format(
            hash=expected.layout.key_hash(values),
            key=sql.SQL(", ").join(sql.SQL("{}::text").format(values[name]) for name in key),
            target=target(table),
            load=sql.Identifier(LOAD_ID),
        ),
        (
            sorted({row.found_load or row.expected_load or 0 for row in rows}),
            [row.k for row in rows],
        ),
    )
    return {row[0]: _words(spec, key, row[1:]) for row in cursor.fetchall()}


def _of_lake(
    spec: DatasetSpec,
    expected: Expected,
    loads: Sequence[LoadFiles],
    rows: Sequence[RowDifference],
) -> dict[str, str]:
    names: dict[str, str] = {}
    for load in loads:
        wanted = [row for row in rows if row.expected_load == load.load_id]
        for file in load.files if wanted else ():
            path = expected.lake.local_path(file.key, expected.scratch)
            names |= _of_file(spec, expected, path, [_id(row) for row in wanted])
    return names


def _of_file(
    spec: DatasetSpec, expected: Expected, path: Path, wanted: Sequence[str]
) -> dict[str, str]:
    held = expected.types_of(path)
    layout = expected.layout
    columns = layout.key or layout.columns
    text = duckdb_row(columns, [held.get(column.name) for column in columns])
    if text is None:  # only PostgreSQL can say which row it is
        return {}
    names = [column.name for column in layout.key] or ["_source_uri", "_source_row"]
    if any(name not in held for name in names):
        return {}
    identity = f"md5({text})::UUID::VARCHAR" if layout.key else f"{duckdb_hash(text)}::VARCHAR"
    found = expected.connection.execute(
        f"SELECT {identity}, {', '.join(f'{quoted(name)}::VARCHAR' for name in names)} "
        f"FROM read_parquet(?) WHERE {identity} IN (SELECT unnest(?::VARCHAR[]))",
        [str(path), list(wanted)],
    ).fetchall()
    if layout.key:
        return {row[0]: _words(spec, names, row[1:]) for row in found}
    return {row[0]: f"{row[1]} row {row[2]}" for row in found}


def _words(spec: DatasetSpec, names: Sequence[str], values: Sequence[Any]) -> str:
    protected = pii_columns(spec)
    return ",".join(
        f"{name}={MASK if name in protected else value}"
        for name, value in zip(names, values, strict=True)
    )
