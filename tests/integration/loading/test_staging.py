"""Arrow → staging → target: every value arrives as it was, and nothing ends a COPY early."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from psycopg2 import sql

from tasks.loading import staging
from tasks.loading.session import session
from tasks.loading.staging import analyze_staging, copy_into_staging, create_staging
from tasks.model.errors import ContractBroken, ErrorKind, PipelineError
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

UTC = dt.UTC
UUID = "00000000-0000-4000-8000-0000000000ff"
BIG = Decimal("9" * 28 + "." + "9" * 10)
# Each row: declared column, its type in clean files, values with their extremes.
TYPES: dict[str, tuple[dict[str, Any], pa.DataType, list[Any]]] = {
    "boolean": ({"type": "boolean"}, pa.bool_(), [True, False]),
    "int16": ({"type": "int16"}, pa.int16(), [-(2**15), 2**15 - 1, 0]),
    "int32": ({"type": "int32"}, pa.int32(), [-(2**31), 2**31 - 1, 0]),
    "int64": ({"type": "int64"}, pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1]),
    "float": (
        {"type": "float"},
        pa.float64(),
        [1.7976931348623157e308, 5e-324, 0.1, -1e-7, float("inf"), float("-inf")],
    ),
    "decimal": (
        {"type": "decimal(38,10)"},
        pa.decimal128(38, 10),
        [BIG, BIG.copy_negate(), Decimal("0.0000000001")],
    ),
    "integer_decimal": (
        {"type": "decimal(38,0)"},
        pa.decimal128(38, 0),
        [Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal(0)],
    ),
    "string": (
        {"type": "string"},
        pa.string(),
        ["", " ", "NULL", "\\N", "\\.", "a\r\nb\tc", "Zażółć 😀 \u2028", "x" * 100_000],
    ),
    "bytes": ({"type": "bytes"}, pa.binary(), [b"", b"\x00\xff", bytes(range(256))]),
    "date": ({"type": "date"}, pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    "time": (
        {"type": "time"},
        pa.time64("us"),
        [dt.time(0), dt.time(23, 59, 59, 999_999), dt.time(12, 30, 0, 1)],
    ),
    "timestamp": (
        {"type": "timestamp"},
        pa.timestamp("us"),
        [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)],
    ),
    "instant": (
        {"type": "timestamp", "timezone": "Europe/Berlin"},
        pa.timestamp("us", tz="UTC"),
        [dt.datetime(1, 1, 2, tzinfo=UTC), dt.datetime(2026, 3, 29, 1, 30, tzinfo=UTC)],
    ),
    "uuid": ({"type": "uuid"}, pa.string(), [UUID]),
    "json": (
        {"type": "json"},
        pa.string(),
        ["null", '"text"', '{"a": [1, {"b": 12345678901234567890.10}]}', "{}"],
    ),
}
READ_AS_TEXT = ("uuid", "json")


@pytest.mark.parametrize("kind", TYPES)
def test_type_arrives_exactly(world: World, kind: str) -> None:
    """Every value of a type, its extremes and NULL included, is in the table as it was."""
    declared, arrow, values = TYPES[kind]
    spec = make_spec({"id": {"type": "int64"}, "value": declared}, cursor=None)
    schema = pa.schema([("id", pa.int64()), ("value", arrow)])
    rows = list(enumerate([*values, None]))
    world.publish(world.prepared(spec, make_partition("a"), rows_table(rows, schema)))
    found = [value for (value,) in world.sql("SELECT value FROM analytics.things ORDER BY id")]
    if kind in READ_AS_TEXT:
        found = [t for (t,) in world.sql("SELECT value::text FROM analytics.things ORDER BY id")]
    assert [bytes(v) if isinstance(v, memoryview) else v for v in found] == [*values, None]
    assert world.broken(spec) == set()


def test_not_a_number_arrives(world: World) -> None:
    """NaN stays NaN: it is not NULL."""
    spec = make_spec({"id": {"type": "int64"}, "value": {"type": "float"}}, cursor=None)
    schema = pa.schema([("id", pa.int64()), ("value", pa.float64())])
    world.publish(
        world.prepared(spec, make_partition("a"), rows_table([(1, float("nan"))], schema))
    )
    assert world.sql("SELECT value::text FROM analytics.things") == [("NaN",)]


# Types of Arrow that other writers of Parquet use: declared type, column, what the table then has.
FOREIGN: list[tuple[str, pa.Array, list[Any]]] = [
    ("decimal(20,0)", pa.array([2**64 - 1], pa.uint64()), [Decimal(2**64 - 1)]),
    ("int64", pa.array([2**32 - 1], pa.uint32()), [2**32 - 1]),
    ("int16", pa.array([-128, 127], pa.int8()), [-128, 127]),
    ("float", pa.array([0.5], pa.float32()), [0.5]),
    ("string", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    ("string", pa.array(["ä"], pa.large_string()), ["ä"]),
    ("string", pa.array([None], pa.null()), [None]),
    ("timestamp", pa.array([1_000], pa.timestamp("ns")), [dt.datetime(1970, 1, 1, 0, 0, 0, 1)]),
    ("timestamp", pa.array([1], pa.timestamp("ms")), [dt.datetime(1970, 1, 1, 0, 0, 0, 1000)]),
    ("date", pa.array([86_400_000], pa.date64()), [dt.date(1970, 1, 2)]),
    ("time", pa.array([1000], pa.time64("ns")), [dt.time(0, 0, 0, 1)]),
    ("decimal(38,2)", pa.array([Decimal("1.25")], pa.decimal256(50, 2)), [Decimal("1.25")]),
]


@pytest.mark.parametrize(("declared", "column", "expected"), FOREIGN, ids=lambda v: str(v)[:20])
def test_foreign_arrow_type_arrives_exactly(
    world: World, declared: str, column: pa.Array, expected: list[Any]
) -> None:
    """Arrow types that the encoder lacks, or writes otherwise, are cast without a change."""
    spec = make_spec({"id": {"type": "int64"}, "value": {"type": declared}}, cursor=None)
    table = pa.table({"id": pa.array(range(len(column)), pa.int64()), "value": column})
    world.publish(world.prepared(spec, make_partition("a"), table))
    found = [value for (value,) in world.sql("SELECT value FROM analytics.things ORDER BY id")]
    assert found == expected


# Types that cannot arrive without a change.
REFUSED = [
    pa.array([1], pa.timestamp("ns")),
    pa.array([{"a": 1}]),
    pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
    pa.array([Decimal("9" * 50)], pa.decimal256(50, 0)),
]


@pytest.mark.parametrize("column", REFUSED, ids=lambda column: str(column.type)[:20])
def test_type_that_would_change_is_refused(world: World, column: pa.Array) -> None:
    """A column that cannot be staged without a change is refused by name."""
    spec = make_spec({"id": {"type": "int64"}, "value": {"type": "string"}}, cursor=None)
    table = pa.table({"id": pa.array([1], pa.int64()), "value": column})
    with pytest.raises(ContractBroken, match="value"):
        world.publish(world.prepared(spec, make_partition("a"), table))


# Arrow type and declared type: binary COPY into the declared one would write garbage without an error,
# since the widths are equal. What is expected is None where SQL has no cast from one to the other.
DAY = dt.date(2026, 1, 1)
MOMENT = dt.datetime(2026, 1, 1)
EQUAL_WIDTHS: list[tuple[pa.Array, str, Any]] = [
    (pa.array([1], pa.int64()), "float", 1.0),
    (pa.array([7], pa.int64()), "decimal(10,0)", Decimal(7)),
    (pa.array([1], pa.int64()), "timestamp", None),
    (pa.array([1], pa.int64()), "time", None),
    (pa.array([1.0], pa.float64()), "int64", 1),
    (pa.array([MOMENT], pa.timestamp("us")), "int64", None),
    (pa.array([MOMENT], pa.timestamp("us")), "float", None),
    (pa.array([MOMENT], pa.timestamp("us")), "string", "2026-01-01 00:00:00"),
    (pa.array([dt.time(1)], pa.time64("us")), "int64", None),
    (pa.array([1], pa.int32()), "date", None),
    (pa.array([1], pa.int32()), "float", 1.0),
    (pa.array([DAY]), "int32", None),
    (pa.array([DAY]), "string", "2026-01-01"),
    (pa.array(["12345678"]), "int64", 12345678),
    (pa.array(["20260101"]), "timestamp", MOMENT),
    (pa.array(["1234"]), "int32", 1234),
    (pa.array(["2026-01-01"]), "date", DAY),
    (pa.array([True]), "string", "true"),
]


def test_staging_has_the_types_of_the_file_not_of_the_target(world: World) -> None:
    """Where file and target differ in type, the value is cast in SQL: no bytes are reinterpreted."""
    for number, (column, declared, expected) in enumerate(EQUAL_WIDTHS):
        columns = {"id": {"type": "int64"}, "value": {"type": declared}}
        spec = make_spec(columns, name=f"things_{number}", cursor=None)
        table = pa.table({"id": pa.array([1], pa.int64()), "value": column})
        load = world.prepared(spec, make_partition("a", spec.name), table)
        what = f"{column.type} as {declared}"
        try:
            world.publish(load)
        except PipelineError:
            assert expected is None, what
            continue
        found = world.sql(f"SELECT value FROM {spec.load.table}")
        assert found == [(expected,)], what


def test_columns_may_come_in_any_order(world: World) -> None:
    """The second file has its columns in another order; values go to the columns of their names."""
    spec = make_spec(cursor=None)
    first = rows_table([(1, "one", 10)])
    second = rows_table([(2, "two", 20)]).select(["seen", "name", "id"])
    world.publish(world.prepared(spec, make_partition("a"), first, second))
    assert world.rows(spec) == [(1, "one", 10), (2, "two", 20)]


def test_files_of_different_types_are_refused(world: World) -> None:
    """A second file whose column has another type would be encoded as garbage: it is refused."""
    spec = make_spec(cursor=None)
    first = rows_table([(1, "one", 10)])
    second = first.set_column(2, "seen", pa.array([1.0]))
    with pytest.raises(ContractBroken, match="seen"):
        world.publish(world.prepared(spec, make_partition("a"), first, second))


def test_file_without_a_declared_column_is_refused(world: World) -> None:
    """A clean file must have exactly the columns that are published."""
    spec = make_spec(cursor=None)
    with pytest.raises(ContractBroken, match="seen"):
        world.publish(
            world.prepared(spec, make_partition("a"), rows_table([(1, "a", 1)]).drop(["seen"]))
        )


def test_file_with_an_unknown_column_is_refused(world: World) -> None:
    """A column that nobody publishes would vanish: it is refused."""
    spec = make_spec(cursor=None)
    table = rows_table([(1, "a", 1)]).append_column("extra", pa.array(["x"]))
    with pytest.raises(ContractBroken, match="extra"):
        world.publish(world.prepared(spec, make_partition("a"), table))


def test_provenance_is_not_staged(world: World) -> None:
    """Columns with a leading underscore stay in the lake."""
    spec = make_spec(cursor=None)
    table = rows_table([(1, "a", 1)]).append_column("_source_row", pa.array([1]))
    world.publish(world.prepared(spec, make_partition("a"), table))
    assert world.rows(spec) == [(1, "a", 1)]


def test_many_row_groups_arrive(world: World) -> None:
    """More chunks than the queue holds, in several files, arrive in full."""
    spec = make_spec(cursor=None)
    rows = [(number, f"name {number}", number) for number in range(20_000)]
    tables = (rows_table(rows[:9_000]), rows_table(rows[9_000:]))
    world.publish(world.prepared(spec, make_partition("a"), *tables, row_group=500))
    assert world.rows(spec) == rows


SCHEMA = pa.schema([("id", pa.int64())])


def _batches(count: int, then: Exception | None = None) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        yield pa.record_batch([pa.array(range(number * 10, number * 10 + 10))], schema=SCHEMA)
    if then is not None:
        raise then


def _copy(world: World, batches: Iterator[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> int:
    with session(world.engine) as connection, connection.cursor() as cursor:
        create_staging(cursor, schema)
        return copy_into_staging(cursor, schema, batches, lambda: None)


@pytest.mark.parametrize("before", [0, 1, 50])  # before, in, and after the first chunks
def test_error_of_the_reader_ends_the_copy(world: World, before: int) -> None:
    """What ends the thread that reads is raised as what it is, and its text goes nowhere else."""
    with pytest.raises(PipelineError) as raised:
        _copy(world, _batches(before, ValueError("secret value")))
    assert isinstance(raised.value, ContractBroken)
    assert raised.value.kind is not ErrorKind.TRANSIENT
    assert "secret" not in str(raised.value)
    assert not _encoder_threads()


def test_error_of_the_server_stops_the_reader(world: World) -> None:
    """When the server refuses the data, the thread that reads ends too."""
    schema = pa.schema([("name", pa.string())])

    def endless() -> Iterator[pa.RecordBatch]:
        while True:
            yield pa.record_batch([pa.array(["a\0b"] * 1000)], schema=schema)

    with pytest.raises(ContractBroken):
        _copy(world, endless(), schema)
    assert not _encoder_threads()


def _encoder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "copy-encoder"]


def test_empty_chunks_do_not_end_the_copy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder may give empty bytes at any time; to COPY these would be the end of the data."""
    real = staging.pgpq.ArrowToPostgresBinaryEncoder

    class Sputtering:
        def __init__(self, schema: pa.Schema) -> None:
            self._real = real(schema)
            self._held = b""

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def write_batch(self, batch: pa.RecordBatch) -> bytes:
            held, self._held = self._held, self._real.write_batch(batch)
            return held

        def finish(self) -> bytes:
            return self._held + self._real.finish()

    monkeypatch.setattr(staging.pgpq, "ArrowToPostgresBinaryEncoder", Sputtering)
    assert _copy(world, _batches(5)) == 50


def test_batches_of_wide_rows_are_small(tmp_path: Path) -> None:
    """A batch is bounded in bytes: a hundred rows of a megabyte do not come in one."""
    import pyarrow.parquet as pq

    from tasks.loading.staging import BATCH_BYTES, clean_batches

    path = tmp_path / "wide.parquet"
    wide = [json.dumps({"n": n, "x": chr(97 + n % 26) * 1_000_000}) for n in range(100)]
    pq.write_table(pa.table({"value": wide}), path, row_group_size=100)
    schema = pa.schema([("value", pa.string())])
    batches = list(clean_batches([path], schema))
    assert sum(batch.num_rows for batch in batches) == 100
    assert max(batch.nbytes for batch in batches) <= 2 * BATCH_BYTES


def test_planner_knows_staged_rows_and_others_are_sampled_as_before(world: World) -> None:
    """A small sample is enough for rows and values of a key; the setting is not left behind."""
    schema = pa.schema([("id", pa.int64()), ("kind", pa.string())])
    batch = pa.record_batch([pa.array(range(9000)), pa.array(["a", "b", "c"] * 3000)], schema)
    with session(world.engine) as connection, connection.cursor() as cursor:
        create_staging(cursor, schema)
        copy_into_staging(cursor, schema, iter([batch]), lambda: None)
        cursor.execute("SHOW default_statistics_target")
        before = cursor.fetchone()
        analyze_staging(cursor, sql.Identifier("pg_temp", staging.STAGING))
        cursor.execute("SHOW default_statistics_target")
        assert cursor.fetchone() == before
        cursor.execute(
            "SELECT attname::text, n_distinct FROM pg_stats WHERE tablename = %s ORDER BY 1",
            (staging.STAGING,),
        )
        assert cursor.fetchall() == [("id", -1.0), ("kind", 3.0)]
        cursor.execute("SELECT reltuples FROM pg_class WHERE relname = %s", (staging.STAGING,))
        assert cursor.fetchone() == (9000.0,)


def test_staging_is_gone_after_the_transaction(world: World) -> None:
    """A connection that goes back to the pool holds no staged rows."""
    for _ in range(3):
        assert _copy(world, _batches(1)) == 10
    assert world.sql("SELECT count(*) FROM pg_class WHERE relname = 'etl_staging'") == [(0,)]
