"""The one text of a value on which PostgreSQL and DuckDB agree, and the checksum made of it. Pure.

Two values that PostgreSQL holds for equal have the same text, whatever they looked like: ``1.50`` and
``1.5``, ``-0`` and ``0``, ``24:00:00`` and ``1 day``. Texts carry their length, so no two rows read
the same because a separator is in a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

NULL = "-"
HASH_DIGITS = 15
"""Hex digits of the MD5 of a row that are summed up: 60 bits, always a positive bigint."""
ARGUMENTS = 90
"""PostgreSQL takes at most 100 arguments."""

_INTEGERS = ("smallint", "integer", "bigint")
_DUCKDB_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
}
_NUMERIC = re.compile(r"numeric(\((\d+),(\d+)\))?")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_MICROSECONDS = "(extract(epoch FROM {0}) * 1000000)::bigint::text"
_POSTGRES = {
    "double precision": "CASE WHEN {0} = 0 THEN '0' WHEN {0} = 'NaN' THEN 'NaN' "
    "ELSE ('x' || encode(float8send({0}), 'hex'))::bit(64)::text END",
    "bytea": "encode({0}, 'hex')",
    "date": "CASE WHEN isfinite({0}) THEN ({0} - date '1970-01-01')::text ELSE {0}::text END",
    "time without time zone": _MICROSECONDS,
    "timestamp without time zone": f"CASE WHEN isfinite({{0}}) THEN {_MICROSECONDS} "
    "ELSE {0}::text END",
    "timestamp with time zone": f"CASE WHEN isfinite({{0}}) THEN {_MICROSECONDS} ELSE {{0}}::text END",
    "interval": "justify_interval({0})::text",
}
_DUCKDB = {
    ("boolean", "BOOLEAN"): "{0}::VARCHAR",
    ("double precision", "DOUBLE"): "CASE WHEN {0} = 0 THEN '0' WHEN isnan({0}) THEN 'NaN' "
    "ELSE {0}::BIT::VARCHAR END",
    ("bytea", "BLOB"): "lower(hex({0}))",
    ("date", "DATE"): "({0} - DATE '1970-01-01')::VARCHAR",
    ("time without time zone", "TIME"): "epoch_us({0})::VARCHAR",
    ("timestamp without time zone", "TIMESTAMP"): "epoch_us({0})::VARCHAR",
    ("timestamp with time zone", "TIMESTAMP WITH TIME ZONE"): "epoch_us({0})::VARCHAR",
    ("uuid", "UUID"): "{0}::VARCHAR",
    ("uuid", "VARCHAR"): "{0}::UUID::VARCHAR",
}
_ORDERED = {
    "boolean": "BOOLEAN",
    "double precision": "DOUBLE",
    "text": "VARCHAR",
    "bytea": "VARCHAR",
    "uuid": "VARCHAR",
    **dict.fromkeys(_INTEGERS, "HUGEINT"),
    **dict.fromkeys(("date", "time without time zone"), "BIGINT"),
    **dict.fromkeys(("timestamp without time zone", "timestamp with time zone"), "BIGINT"),
}


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """A column whose values are compared; ``type`` is the table's, as PostgreSQL writes it."""

    name: str
    type: str


def postgres_text(kind: str, value: sql.Composable) -> sql.Composed:
    """Return SQL of PostgreSQL for the text of a value; NULL for NULL."""
    if _NUMERIC.fullmatch(kind):
        return sql.SQL("trim_scale({})::text").format(value)
    return sql.SQL(_POSTGRES.get(kind, "{0}::text")).format(value)


def duckdb_text(kind: str, held: str, value: str) -> str | None:
    """Return SQL of DuckDB for the same text, None where only PostgreSQL knows it.

    Args:
        kind: Type of the table's column.
        held: DuckDB type of the value in the lake.
        value: SQL of the value.
    """
    if expression := _DUCKDB.get((kind, held)):
        return expression.format(value)
    if held == "VARCHAR" and _is_text(kind):
        return value
    whole = held in _DUCKDB_INTEGERS
    if whole and (kind in _INTEGERS or _NUMERIC.fullmatch(kind)):
        return f"{value}::VARCHAR"
    if whole and kind == "double precision":
        return _DUCKDB[kind, "DOUBLE"].format(f"({value}::DOUBLE)")
    decimal = _DECIMAL.fullmatch(held)
    if decimal and _NUMERIC.fullmatch(kind):
        text = f"{value}::VARCHAR"
        return f"rtrim(rtrim({text}, '0'), '.')" if int(decimal[2]) else text
    return None


def _is_text(kind: str) -> bool:
    return kind == "text" or kind.startswith("character varying")


def postgres_row(
    columns: Sequence[ComparedColumn], values: Sequence[sql.Composable]
) -> sql.Composed:
    """Return SQL of PostgreSQL for the text of a row."""
    parts = [
        sql.SQL("coalesce({}, '-')").format(
            _counted(column.type, postgres_text(column.type, value))
        )
        for column, value in zip(columns, values, strict=True)
    ]
    chunks = [
        sql.SQL("concat_ws('|', {})").format(sql.SQL(", ").join(parts[start : start + ARGUMENTS]))
        for start in range(0, len(parts), ARGUMENTS)
    ]
    if len(chunks) == 1:
        return chunks[0]
    return sql.SQL("concat_ws('|', {})").format(sql.SQL(", ").join(chunks))


def _counted(kind: str, text: sql.Composed) -> sql.Composed:
    if not is_counted(kind):
        return text
    return sql.SQL("octet_length({0})::text || ':' || {0}").format(text)


def is_counted(kind: str) -> bool:
    """Tell whether a value's text can hold the separator; numbers and times cannot."""
    return kind == "text" or (kind not in _ORDERED and not _NUMERIC.fullmatch(kind))


def duckdb_row(columns: Sequence[ComparedColumn], held: Sequence[str | None]) -> str | None:
    """Return SQL of DuckDB for the text of a row, None where only PostgreSQL knows it.

    Args:
        columns: The columns.
        held: Their DuckDB types in a file; None for one that the file has not.
    """
    parts = []
    for column, type_held in zip(columns, held, strict=True):
        if type_held is None:
            parts.append(f"'{NULL}'")
            continue
        text = duckdb_text(column.type, type_held, quoted(column.name))
        if text is None:
            return None
        if is_counted(column.type):
            text = f"strlen({text})::VARCHAR || ':' || {text}"
        parts.append(f"coalesce({text}, '{NULL}')")
    return f"concat_ws('|', {', '.join(parts)})"


def quoted(name: str) -> str:
    """Quote a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def postgres_hash(row: sql.Composable) -> sql.Composed:
    """Return SQL of PostgreSQL for the number that a row's text adds to a checksum."""
    return sql.SQL("('x0' || left(md5({}), {}))::bit(64)::bigint").format(
        row, sql.Literal(HASH_DIGITS)
    )


def duckdb_hash(row: str) -> str:
    """Return SQL of DuckDB for the same number."""
    return f"('0x' || left(md5({row}), {HASH_DIGITS}))::BIGINT"


def ordered_type(kind: str) -> str | None:
    """Return the DuckDB type whose order is that of a PostgreSQL type; None if there is none."""
    if numeric := _NUMERIC.fullmatch(kind):
        return f"DECIMAL(38,{numeric[3]})" if numeric[3] else None
    return _ORDERED.get(kind)


def postgres_order(kind: str, value: sql.Composable) -> sql.Composed:
    """Return SQL of PostgreSQL for a text that ``ordered_type`` reads."""
    if kind == "double precision":
        return sql.SQL("{}::text").format(value)
    return postgres_text(kind, value)


def duckdb_order(kind: str, held: str, value: str) -> str | None:
    """Return SQL of DuckDB for a value whose order is that of PostgreSQL's."""
    text = f"{value}::VARCHAR" if kind == "double precision" else duckdb_text(kind, held, value)
    ordered = ordered_type(kind)
    return f"({text})::{ordered}" if text and ordered else None
