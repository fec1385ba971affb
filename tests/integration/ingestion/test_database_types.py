"""Types of databases: each value arrives as it is, or its row is refused with the reason.

Rows of the catalogue of bad inputs: 10 (NaN), 30 and B28 (infinity, zero dates, unsigned, bit, set).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from blocks.warehouse import WarehouseCredentials
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.model.request import SourceState
from tests.integration.ingestion.database_support import (
    Ledger,
    connector,
    dispose_readers,
    read,
    statements,
)


@pytest.fixture(autouse=True)
def _readers() -> Iterator[None]:
    yield
    dispose_readers()


@pytest.fixture
def postgres(warehouse: WarehouseCredentials) -> Iterator[sa.Engine]:
    made = sa.create_engine(warehouse.url())
    yield made
    made.dispose()


@pytest.fixture
def mysql(mariadb: sa.URL) -> Iterator[sa.Engine]:
    made = sa.create_engine(mariadb.update_query_dict({"init_command": "SET sql_mode=''"}))
    yield made
    made.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sa.Engine]:
    made = sa.create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=sa.NullPool)
    yield made
    made.dispose()


def column(
    engine: sa.Engine, kind: str, *values: str
) -> tuple[pa.DataType, list[Any], list[Reject]]:
    """Store values in a column, and read them: its type, the values, what was refused."""
    rows = ", ".join(f"({number}, {value})" for number, value in enumerate(values))
    statements(
        engine,
        f"CREATE TABLE things (id integer PRIMARY KEY, x {kind})",
        f"INSERT INTO things VALUES {rows}",
    )
    made = connector(engine)
    batches, rejects = [], []
    for partition in made.plan(SourceState()):
        for raw in made.read(partition):
            batches += [raw.batch] if raw.batch is not None else []
            rejects += raw.rejects
    table = pa.Table.from_batches(batches).sort_by("id")
    return table.schema.field("x").type, table.column("x").to_pylist(), rejects


def kept(
    engine: sa.Engine, cases: list[tuple[str, str, pa.DataType, Any]]
) -> list[tuple[str, pa.DataType, Any]]:
    """Store one value of each type in a row, and read it: the types, and the values."""
    kinds = ", ".join(f"c{number} {kind}" for number, (kind, *_) in enumerate(cases))
    values = ", ".join(written for _, written, *_ in cases)
    statements(engine, f"CREATE TABLE things ({kinds})", f"INSERT INTO things VALUES ({values})")
    made = connector(engine)
    (partition,) = made.plan(SourceState())
    (raw,) = made.read(partition)
    assert raw.batch is not None
    assert raw.rejects == ()
    return [
        (kind, raw.batch.schema.field(f"c{number}").type, raw.batch.column(number)[0].as_py())
        for number, (kind, *_) in enumerate(cases)
    ]


INSTANT = pa.timestamp("us", tz="UTC")


POSTGRESQL: list[tuple[str, str, pa.DataType, Any]] = [
    ("bigint", "9223372036854775807", pa.int64(), 2**63 - 1),
    ("numeric(38,10)", "1234567890123456789012345678.0123456789", pa.decimal128(38, 10),
     Decimal("1234567890123456789012345678.0123456789")),
    ("numeric", "12345678901234567890123456789012345678901.50", pa.string(),
     "12345678901234567890123456789012345678901.50"),
    ("numeric", "'NaN'", pa.string(), "NaN"),
    ("numeric(5,-2)", "12345", pa.string(), "12300"),
    ("double precision", "0.1", pa.float64(), 0.1),
    ("real", "0.1", pa.float64(), 0.1),
    ("double precision", "'-Infinity'", pa.float64(), float("-inf")),
    ("boolean", "true", pa.bool_(), True),
    ("timestamptz", "'2013-01-01 12:00:00.000001+02'", INSTANT,
     datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC)),
    ("timestamp", "'0001-01-01 00:00:00'", pa.timestamp("us"), datetime(1, 1, 1)),
    ("date", "'9999-12-31'", pa.date32(), date(9999, 12, 31)),
    ("time", "'24:00:00'", pa.string(), "24:00:00"),
    ("timetz", "'12:00:00.5+02'", pa.string(), "12:00:00.5+02"),
    ("interval", "'1 month 2 days 03:00:00.5'", pa.string(), "P1M2DT3H0.5S"),
    ("money", "1234.50", pa.string(), "$1,234.50"),
    ("uuid", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'", pa.string(), "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    ("json", "'{\"b\":1.10, \"a\":12345678901234567890}'", pa.string(), '{"b":1.10, "a":12345678901234567890}'),
    ("jsonb", "'[1.10, null]'", pa.string(), "[1.10, null]"),
    ("bytea", r"'\x00ff0a22'", pa.binary(), b"\x00\xff\n\""),
    ("bytea", "''", pa.binary(), b""),
    ("integer[]", "'{1,null,3}'", pa.string(), "[1,null,3]"),
    ("text[]", "ARRAY['a,\"b', '', null]", pa.string(), r'["a,\"b","",null]'),
    ("numeric[]", "ARRAY[1.10, 'NaN']::numeric[]", pa.string(), '[1.10,"NaN"]'),
    ("bit(5)", "B'00101'", pa.string(), "00101"),
    ("inet", "'10.0.0.1/8'", pa.string(), "10.0.0.1/8"),
    ("int4range", "'[1,5)'", pa.string(), "[1,5)"),
    ("text", r"E'a\n\"b\",\\.\t\\N'", pa.string(), 'a\n"b",\\.\t\\N'),
    ("text", r"'\.'", pa.string(), r"\."),
    ("char(5)", "'ab'", pa.string(), "ab   "),
    ("oid", "4294967295", pa.int64(), 2**32 - 1),
    ("integer", "NULL", pa.int64(), None),
    ("bytea", "NULL", pa.binary(), None),
]  # fmt: skip


def test_values_of_postgresql_are_kept(postgres: sa.Engine) -> None:
    assert kept(postgres, POSTGRESQL) == [
        (kind, arrow, value) for kind, _, arrow, value in POSTGRESQL
    ]


def test_enum_domain_and_composite_of_postgresql(postgres: sa.Engine) -> None:
    statements(
        postgres,
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN amount AS numeric(10,2)",
        "CREATE TYPE pair AS (a integer, b text)",
        "CREATE TABLE things (m mood, d amount, p pair)",
        "INSERT INTO things VALUES ('ok', 1.5, ROW(1, 'x'))",
    )
    made = connector(postgres)
    ((row,), _) = read(made, *made.plan(SourceState()))
    assert (row["m"], row["d"], row["p"]) == ("ok", Decimal("1.50"), '{"a":1,"b":"x"}')


@pytest.mark.parametrize(
    ("kind", "bad", "words"),
    [
        ("timestamptz", "'infinity'", "infinity is no value that can be kept"),
        ("timestamp", "'-infinity'", "-infinity is no value that can be kept"),
        ("date", "'infinity'", "infinity is no value that can be kept"),
        ("date", "'0044-03-15 BC'", "is not of the years 1 to 9999"),
        ("timestamptz", "'12022-01-01'", "is not of the years 1 to 9999"),
        ("numeric(10,2)", "'NaN'", "NaN is no value that can be kept"),
    ],
)
def test_value_of_postgresql_that_cannot_be_kept_refuses_its_row(
    postgres: sa.Engine, kind: str, bad: str, words: str
) -> None:
    """30, B28: one such row is refused, not the partition with it."""
    good = "7" if kind.startswith("numeric") else "'2013-01-01'"
    _, values, (reject,) = column(postgres, kind, good, bad, "NULL")
    assert [value is None for value in values] == [False, True]
    assert (reject.rule, reject.message, reject.source_row) == ("type", f"x: {words}", 2)
    assert json.loads(reject.raw)["id"] == "1"
    assert json.loads(reject.raw)["x"] == bad.strip("'").replace(
        "01-01", "01-01 00:00:00+00" if kind == "timestamptz" else "01-01"
    )


def test_bytes_beside_a_refused_row_are_kept(postgres: sa.Engine) -> None:
    statements(
        postgres,
        "CREATE TABLE things (b bytea, d date, f boolean, n numeric(6,2))",
        r"INSERT INTO things VALUES ('\x01', '2013-01-01', true, 1.5), ('\x02', 'infinity', false, 2), (NULL, NULL, NULL, NULL)",
    )
    made = connector(postgres)
    rows, (reject,) = read(made, *made.plan(SourceState()))
    assert [(r["b"], r["d"], r["f"], r["n"]) for r in rows] == [
        (b"\x01", date(2013, 1, 1), True, Decimal("1.50")),
        (None, None, None, None),
    ]
    assert reject.source_row == 2


def test_text_without_encoding_refuses_its_row(postgres: sa.Engine) -> None:
    """A database of encoding SQL_ASCII holds any bytes."""
    name = f"{postgres.url.database}_ascii"
    admin = postgres.execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    other = sa.create_engine(postgres.url.set(database=name))
    try:
        statements(
            other,
            "CREATE TABLE things (id integer, x text)",
            r"INSERT INTO things VALUES (1, 'a'), (2, E'\xff\xfe'), (3, 'c')",
        )
        made = connector(other)
        rows, (reject,) = read(made, *made.plan(SourceState()))
        assert [(row["id"], row["_source_row"]) for row in rows] == [(1, 1), (3, 3)]
        assert (reject.rule, reject.source_row) == ("encoding", 2)
        assert reject.raw == "2,\\xff\\xfe\n"
    finally:
        dispose_readers()
        other.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_settings_of_the_role_do_not_change_values(postgres: sa.Engine) -> None:
    with postgres.connect() as connection:
        user = connection.scalar(sa.text("SELECT current_user"))
    database = postgres.url.database
    changed = (
        "DateStyle = 'German'",
        "IntervalStyle = 'postgres'",
        "TimeZone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
    )
    statements(
        postgres, *(f"ALTER ROLE {user} IN DATABASE {database} SET {each}" for each in changed)
    )
    postgres.dispose()
    try:
        assert column(postgres, "timestamptz", "'2013-01-01 12:00+00'")[1] == [
            datetime(2013, 1, 1, 12, tzinfo=UTC)
        ]
    finally:
        statements(postgres, f"ALTER ROLE {user} IN DATABASE {database} RESET ALL")


MYSQL: list[tuple[str, str, pa.DataType, Any]] = [
    ("bigint unsigned", "18446744073709551615", pa.uint64(), 2**64 - 1),
    ("tinyint(1)", "7", pa.int64(), 7),
    ("decimal(38,10)", "1234567890123456789012345678.0123456789", pa.decimal128(38, 10),
     Decimal("1234567890123456789012345678.0123456789")),
    ("decimal(65,2)", "12345678901234567890123456789012345678901.50", pa.string(),
     "12345678901234567890123456789012345678901.50"),
    ("double", "0.1", pa.float64(), 0.1),
    ("float", "16777217", pa.float64(), 16777216.0),
    ("float", "3.1415927", pa.float64(), 3.1415927410125732),
    ("datetime(6)", "'2013-01-01 12:00:00.000001'", pa.timestamp("us"), datetime(2013, 1, 1, 12, 0, 0, 1)),
    ("date", "'9999-12-31'", pa.date32(), date(9999, 12, 31)),
    ("time(1)", "'-838:59:58.5'", pa.string(), "-838:59:58.500000"),
    ("time", "'12:00:00'", pa.string(), "12:00:00"),
    ("year", "2013", pa.int64(), 2013),
    ("bit(10)", "b'1000000001'", pa.uint64(), 513),
    ("bit(64)", "~0", pa.uint64(), 2**64 - 1),
    ("enum('a','b')", "'b'", pa.string(), "b"),
    ("enum('a','b')", "'no such'", pa.string(), ""),
    ("set('a','b','c')", "'c,a'", pa.string(), "a,c"),
    ("json", "'{\"a\": 1.10}'", pa.string(), '{"a": 1.10}'),
    ("varbinary(9)", "x'00ff'", pa.binary(), b"\x00\xff"),
    ("binary(3)", "x'01'", pa.binary(), b"\x01\x00\x00"),
    ("blob", "x'00ff'", pa.binary(), b"\x00\xff"),
    ("text", "'é😀'", pa.string(), "é😀"),
    ("varchar(9)", "''", pa.string(), ""),
    ("varchar(9)", "NULL", pa.string(), None),
]  # fmt: skip


def test_values_of_mysql_are_kept(mysql: sa.Engine) -> None:
    assert kept(mysql, MYSQL) == [(kind, arrow, value) for kind, _, arrow, value in MYSQL]


def test_timestamp_of_mysql_is_an_instant(mysql: sa.Engine) -> None:
    """The session's zone decides how it is shown, so the reader's is UTC."""
    statements(
        mysql,
        "CREATE TABLE things (x timestamp)",
        "SET time_zone = '+05:00'",
        "INSERT INTO things VALUES ('2013-01-01 12:00:00')",
        "SET time_zone = '+00:00'",
    )
    made = connector(mysql)
    ((row,), _) = read(made, *made.plan(SourceState()))
    assert row["x"] == datetime(2013, 1, 1, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "zero"),
    [("date", "0000-00-00"), ("datetime", "0000-00-00 00:00:00"), ("date", "2013-02-00")],
)
def test_zero_date_of_mysql_refuses_its_row(mysql: sa.Engine, kind: str, zero: str) -> None:
    """B28: never NULL by accident."""
    _, values, (reject,) = column(mysql, kind, "'2013-01-01'", f"'{zero}'", "NULL")
    assert [value is None for value in values] == [False, True]
    assert (reject.rule, reject.source_row) == ("type", 2)
    assert json.loads(reject.raw)["x"] == zero


def test_query_of_mysql_gives_exact_text(mysql: sa.Engine) -> None:
    made = connector(
        mysql, table=None,
        query="SELECT 18446744073709551615 AS u, 1.10 AS d, x'00ff' AS b, CAST('12:30' AS time) AS t, NULL AS n",
    )  # fmt: skip
    ((row,), _) = read(made, *made.plan(SourceState()))
    assert [row[name] for name in "udbtn"] == [
        "18446744073709551615",
        "1.10",
        "00ff",
        "12:30:00",
        None,
    ]


SQLITE: list[tuple[str, str, pa.DataType, Any]] = [
    ("integer", "9223372036854775807", pa.int64(), 2**63 - 1),
    ("decimal(10,2)", "1.5", pa.decimal128(10, 2), Decimal("1.50")),
    ("decimal(10,2)", "3", pa.decimal128(10, 2), Decimal("3.00")),
    ("real", "0.1", pa.float64(), 0.1),
    ("boolean", "1", pa.bool_(), True),
    ("datetime", "'2013-01-01 12:00:00'", pa.string(), "2013-01-01 12:00:00"),
    ("datetime", "1357041600", pa.string(), "1357041600"),
    ("date", "'yesterday'", pa.string(), "yesterday"),
    ("blob", "x'00ff'", pa.binary(), b"\x00\xff"),
    ("text", "''", pa.string(), ""),
    ("json", "'{\"a\": 1.10}'", pa.string(), '{"a": 1.10}'),
    ("", "1.5", pa.string(), "1.5"),
]


def test_values_of_sqlite_are_kept(sqlite: sa.Engine) -> None:
    assert kept(sqlite, SQLITE) == [(kind, arrow, value) for kind, _, arrow, value in SQLITE]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "raw"),
    [
        ("integer", "7", "'seven'", "seven"),
        ("integer", "7", "7.5", "7.5"),
        ("decimal(10,2)", "7", "1.555", "1.555"),
        ("decimal(10,2)", "7", "'much'", "much"),
        ("real", "7.0", "'x'", "x"),
        ("boolean", "1", "2", "2"),
        ("text", "'a'", "x'00ff'", "00ff"),
        ("blob", "x'00'", "'text'", "text"),
    ],
)
def test_sqlite_value_of_another_type_refuses_its_row(
    sqlite: sa.Engine, kind: str, good: str, bad: str, raw: str
) -> None:
    """A column of SQLite holds values of any type."""
    _, values, (reject,) = column(sqlite, kind, good, bad, "NULL")
    assert len(values) == 2
    assert values[1] is None
    assert (reject.rule, reject.source_row) == ("type", 2)
    assert reject.message.startswith("x: the database holds a value that is no ")
    assert json.loads(reject.raw) == {"id": "1", "x": raw}


# --- cursors and keys of odd types, names of odd characters ----------------------------------------


def test_infinity_in_the_cursor_is_quarantined(postgres: sa.Engine) -> None:
    """30, 62: it is later than now, and does not become the mark."""
    statements(
        postgres,
        "CREATE TABLE things (id integer, at timestamptz)",
        "INSERT INTO things VALUES (1, '2013-01-01'), (2, 'infinity'), (3, '-infinity'), (4, '2013-01-02')",
    )
    rows, rejects = Ledger().run(connector(postgres, cursor="at"))
    assert sorted(row["id"] for row in rows) == [1, 4]
    assert sorted((reject.rule, json.loads(reject.raw)["id"]) for reject in rejects) == [
        ("type", "2"),
        ("type", "3"),
    ]


@pytest.mark.parametrize("kind", ["uuid", "text", "numeric(20,0)", "date"])
def test_keys_of_other_types_cut_a_table(postgres: sa.Engine, kind: str) -> None:
    value = {
        "uuid": "md5(i::text)::uuid",
        "text": "'k' || i",
        "numeric(20,0)": "i",
        "date": "date '1990-01-01' + i",
    }[kind]
    statements(
        postgres,
        f"CREATE TABLE things (id {kind} PRIMARY KEY, name text)",
        f"INSERT INTO things SELECT {value}, repeat('x', 30) FROM generate_series(1, 3000) i",
        "ANALYZE things",
    )
    made = connector(postgres, limits=PlanLimits(partition_bytes=20_000))
    planned = made.plan(SourceState())
    assert len(planned) > 2 or kind == "uuid"
    ids = [row["id"] for row in read(made, *planned)[0]]
    assert len(ids) == len(set(ids)) == 3000


@pytest.mark.parametrize("kind", ["uuid", "text", "numeric(20,0)", "date", "bigint", "timestamp"])
def test_cursors_of_other_types(postgres: sa.Engine, kind: str) -> None:
    value = {
        "uuid": "md5(i::text)::uuid",
        "timestamp": "timestamp '1990-01-01' + i * interval '1 microsecond'",
        "date": "date '1990-01-01' + i",
    }.get(kind, f"i::{kind}")
    statements(
        postgres,
        f"CREATE TABLE things (id integer, c {kind})",
        f"INSERT INTO things SELECT i, {value} FROM generate_series(1, 20) i",
    )
    made, ledger = connector(postgres, cursor="c"), Ledger()
    assert ledger.ids(made) == list(range(1, 21))
    assert made.plan(ledger.state) == []


def test_partitioned_table_and_view(postgres: sa.Engine) -> None:
    statements(
        postgres,
        "CREATE TABLE parent (id integer PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE a PARTITION OF parent FOR VALUES FROM (0) TO (1500)",
        "CREATE TABLE b PARTITION OF parent FOR VALUES FROM (1500) TO (9999)",
        "INSERT INTO parent SELECT i, repeat('x', 30) FROM generate_series(1, 3000) i",
        "ANALYZE parent",
        "CREATE VIEW things AS SELECT * FROM parent",
    )
    for table, more in (("public.parent", 2), ("things", 0)):
        made = connector(postgres, table=table, limits=PlanLimits(partition_bytes=20_000))
        planned = made.plan(SourceState())
        assert len(planned) > more
        assert len(read(made, *planned)[0]) == 3000


@pytest.mark.parametrize("dialect", ["postgres", "mysql", "sqlite"])
def test_names_of_odd_characters(dialect: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(dialect)
    names = ["Order", "a%s", "b:c", "dpp rows", "d'e", "ümlaut"]
    table = sa.Table(
        "My Things",
        sa.MetaData(),
        *(sa.Column(name, sa.Integer, primary_key=name == "Order") for name in names),
    )
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{name: i for i, name in enumerate(names, 1)}])
    made = connector(engine, table="My Things", cursor="a%s")
    ((row,), _) = read(made, *made.plan(SourceState()))
    assert [row[name] for name in names] == [1, 2, 3, 4, 5, 6]
