"""Columns of any database but PostgreSQL: from its catalog, or nothing but names for a query.

Values are taken as the driver gives them. SQLAlchemy's own conversions are left out: they go through
floats (SQLite's decimals, JSON), fail whole fetches (SQLite's dates, MySQL's enums) or lose order
(MySQL's sets).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from tasks.ingestion.database.columns import Column, Convert
from tasks.ingestion.database.values import clock_text, shown, strict
from tasks.model.column_types import MAX_DECIMAL_PRECISION
from tasks.model.errors import SourceRejected

Kind = tuple[pa.DataType, Convert]
MYSQL = ("mysql", "mariadb")


def table_columns(connection: sa.Connection, schema: str | None, table: str) -> list[Column]:
    """Return the columns of a table or view, from the catalog.

    Raises:
        SourceRejected: There is no such table.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # types that SQLAlchemy does not know
        try:
            found = sa.inspect(connection).get_columns(table, schema=schema)
        except sa.exc.NoSuchTableError:
            found = []
    if not found:
        name = f"{schema}.{table}" if schema else table
        raise SourceRejected(
            f"database {connection.engine.url.database!r}: there is no table {name}, "
            "or the role may not see it",
            "correct source.table, or grant SELECT",
        )
    return [
        _column(each["name"], each["type"], connection.dialect.name, nullable=each["nullable"])
        for each in found
    ]


def query_columns(connection: sa.Connection, query: sa.TextClause) -> list[Column]:
    """Return the columns of a query: their values become text, because nothing says their types."""
    names = connection.execute(sa.select(sa.text("*")).select_from(query).limit(0)).keys()
    return [Column(name, pa.string(), _raw(name), shown) for name in names]


def _raw(name: str) -> sa.ColumnElement[Any]:
    """Select a column without any conversion by SQLAlchemy."""
    return sa.column(name, sa.types.NullType())


def _column(name: str, kind: sa.types.TypeEngine[Any], dialect: str, *, nullable: bool) -> Column:
    expression = _raw(name)
    if dialect in MYSQL and isinstance(kind, mysql.FLOAT):
        # As text MySQL gives six digits of a float; as a double all of them.
        expression = sa.type_coerce(sa.cast(expression, mysql.DOUBLE()), sa.types.NullType()).label(
            name
        )
    arrow, convert = _kind(kind, dialect)
    return Column(name, arrow, expression, convert, nullable)


def _kind(kind: sa.types.TypeEngine[Any], dialect: str) -> Kind:
    if dialect in MYSQL and (special := _mysql_kind(kind)):
        return special
    if dialect == "sqlite" and isinstance(kind, sa.DateTime | sa.Date | sa.Time):
        return pa.string(), shown  # SQLite has no such types: the text, or number, as it is stored
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        return _decimal_kind(kind)
    if isinstance(kind, sa.DateTime):
        return _timestamp_kind(zoned=bool(kind.timezone))
    for known, made in _KINDS:
        if isinstance(kind, known):
            return made
    return pa.string(), shown


def _decimal_kind(kind: sa.Numeric[Any]) -> Kind:
    precision, scale = kind.precision or 0, kind.scale or 0
    if 1 <= precision <= MAX_DECIMAL_PRECISION and 0 <= scale <= precision:
        return pa.decimal128(precision, scale), _decimal
    return pa.string(), lambda value: format(_decimal(value), "f")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        return Decimal(repr(value))  # SQLite keeps decimals as floats: the digits that it shows
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return Decimal(value)
    raise TypeError(type(value).__name__)


def _timestamp_kind(*, zoned: bool) -> Kind:
    def convert(value: Any) -> Any:
        if not isinstance(value, datetime) or (value.tzinfo is not None and not zoned):
            raise TypeError(type(value).__name__)
        return value

    return pa.timestamp("us", tz="UTC" if zoned else None), convert


def _mysql_kind(kind: sa.types.TypeEngine[Any]) -> Kind | None:
    if isinstance(kind, mysql.TIMESTAMP):
        return _timestamp_kind_of_utc()
    if isinstance(kind, sa.Time):
        return pa.string(), _clock
    if isinstance(kind, mysql.BIT):
        return pa.uint64(), lambda value: int.from_bytes(value, "big")
    if isinstance(kind, sa.BigInteger | sa.Integer) and getattr(kind, "unsigned", False):
        return pa.uint64(), strict(int)
    return None


def _timestamp_kind_of_utc() -> Kind:
    # The session's zone is UTC, so that a TIMESTAMP is the instant it stands for.
    return pa.timestamp("us", tz="UTC"), _timestamp_kind(zoned=False)[1]


def _clock(value: Any) -> str:
    if not isinstance(value, timedelta):
        raise TypeError(type(value).__name__)
    return clock_text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes")
    return shown(value)


def _boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def _only_date(value: Any) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise TypeError(type(value).__name__)
    return value


_binary: Callable[[Any], Any] = strict((bytes, bytearray, memoryview))

_KINDS: tuple[tuple[Any, Kind], ...] = (
    (sa.Boolean, (pa.bool_(), _boolean)),
    (mysql.YEAR, (pa.int64(), strict(int))),
    (sa.Integer, (pa.int64(), strict(int))),
    (sa.Float, (pa.float64(), strict((int, float, Decimal)))),
    (sa.Date, (pa.date32(), _only_date)),
    (sa.Time, (pa.time64("us"), strict(time))),
    (sa.LargeBinary, (pa.binary(), _binary)),
    (mysql.BINARY, (pa.binary(), _binary)),
    (sa.BINARY, (pa.binary(), _binary)),
    (sa.VARBINARY, (pa.binary(), _binary)),
    (sa.String, (pa.string(), _text)),
)
