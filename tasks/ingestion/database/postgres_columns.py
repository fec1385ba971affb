"""Columns of PostgreSQL, of tables and of queries alike: from what the server says of a result."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from tasks.ingestion.database.columns import Column
from tasks.model.column_types import MAX_DECIMAL_PRECISION

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
"""Decide how values are written as text; the first three otherwise depend on the role."""

NUMERIC, BYTEA = 1700, 17
_TEXTS = frozenset({19, 25, 1042, 1043})  # name, text, char, varchar
_BY_OID: dict[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int64(),
    23: pa.int64(),
    26: pa.int64(),  # oid
    700: pa.float64(),
    701: pa.float64(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}


def result_columns(
    connection: sa.Connection, relation: sa.FromClause | sa.TextClause
) -> list[Column]:
    """Return the columns of a table or query.

    Args:
        connection: An open connection.
        relation: The table or the query.
    """
    result = connection.execute(sa.select(sa.text("*")).select_from(relation).limit(0))
    assert result.cursor is not None  # a SELECT has one
    description: Any = result.cursor.description
    described = [(d[0], int(d[1]), d[4], d[5]) for d in description]
    result.close()
    unknown = sorted({oid for _, oid, _, _ in described if oid not in _BY_OID})
    structured = _structured(connection, unknown)
    return [
        _column(name, oid, precision, scale, structured=oid in structured)
        for name, oid, precision, scale in described
    ]


def _structured(connection: sa.Connection, oids: list[int]) -> set[int]:
    """Return which types are arrays or composites."""
    pg_type = sa.table("pg_type", sa.column("oid"), sa.column("typcategory"), schema="pg_catalog")
    found = connection.execute(
        sa.select(pg_type.c.oid).where(
            pg_type.c.oid.in_(oids), sa.cast(pg_type.c.typcategory, sa.Text).in_(("A", "C"))
        )
    )
    return {int(row[0]) for row in found}


def _column(
    name: str, oid: int, precision: int | None, scale: int | None, *, structured: bool
) -> Column:
    raw: sa.ColumnElement[Any] = sa.column(name)
    if oid in _BY_OID:
        return Column(name, _BY_OID[oid], raw)
    if oid == BYTEA:
        return Column(name, pa.binary(), sa.func.encode(raw, "hex"), in_hex=True)
    if oid == NUMERIC and precision and 1 <= precision <= MAX_DECIMAL_PRECISION:
        if 0 <= (scale or 0) <= precision:
            return Column(name, pa.decimal128(precision, scale or 0), raw)
        return Column(name, pa.string(), raw)
    if structured:
        return Column(name, pa.string(), sa.cast(sa.func.to_json(raw), sa.Text))
    if oid in _TEXTS:
        return Column(name, pa.string(), raw)  # as text a char(5) would lose its blanks
    return Column(name, pa.string(), sa.cast(raw, sa.Text))
