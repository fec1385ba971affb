"""Quoting and types of the SQL that the compiler writes for DuckDB."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from tasks.model.columns import ColumnSpec, decimal_digits

TEXT = "VARCHAR"
_DUCKDB_TYPES = {
    "boolean": "BOOLEAN",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "DOUBLE",
    "string": TEXT,
    "bytes": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "uuid": "UUID",
    "json": TEXT,
}
_ARROW_TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "uuid": pa.string(),
    "json": pa.string(),
}


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Quote a list of texts, separated by commas."""
    return ", ".join(literal(text) for text in texts)


def duckdb_type(column: ColumnSpec) -> str:
    """Return the DuckDB type that a column's values are cast to."""
    if digits := decimal_digits(column.type):
        return f"DECIMAL({digits[0]},{digits[1]})"
    if column.timezone:
        return "TIMESTAMPTZ"
    return _DUCKDB_TYPES[column.type]


def arrow_type(column: ColumnSpec) -> pa.DataType:
    """Return the Arrow type of a column in clean files; uuid and json travel as text."""
    if digits := decimal_digits(column.type):
        return pa.decimal128(*digits)
    if column.timezone:
        return pa.timestamp("us", tz="UTC")
    return _ARROW_TYPES[column.type]
