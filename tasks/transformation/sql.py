"""Quoting and types of the SQL that the compiler writes for DuckDB."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from tasks.model.column_types import decimal_digits, list_element
from tasks.model.columns import ColumnSpec

TEXT = "VARCHAR"
_DUCKDB_TYPES = {
    "boolean": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "DOUBLE",
    "string": TEXT,
    "enum": TEXT,
    "bytes": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "duration": TEXT,
    "uuid": "UUID",
    "json": TEXT,
}
_ARROW_TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float": pa.float64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "duration": pa.string(),
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
    if list_element(column.type):  # a list travels as JSON
        return TEXT
    return _DUCKDB_TYPES[column.type]


def arrow_type(column: ColumnSpec) -> pa.DataType:
    """Return the Arrow type of a column in clean files; uuid and json travel as text."""
    if digits := decimal_digits(column.type):
        return pa.decimal128(*digits)
    if column.timezone:
        return pa.timestamp("us", tz="UTC")
    if list_element(column.type):
        return pa.string()
    return _ARROW_TYPES[column.type]
