"""The table compared with the lake: every type, every order of loads, and rows that are named."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tasks.loading.checks import Check
from tasks.model.dataset import DatasetSpec
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

TYPES: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "truth": ("boolean", pa.bool_(), [True, False]),
    "small": ("int8", pa.int8(), [-128, 0]),
    "whole": ("int64", pa.int64(), [2**53 + 1, -(2**63)]),
    "large": ("uint64", pa.uint64(), [2**64 - 1, 0]),
    "price": ("decimal(12,2)", pa.decimal128(12, 2), [Decimal("1.50"), Decimal("-0.10")]),
    "zeros": ("decimal(38,0)", pa.decimal128(38, 0), [Decimal(10) ** 37, Decimal(100)]),
    "ratio": ("float", pa.float64(), [0.1, -0.0, 1e300, 5e-324, math.nan, math.inf, 1e22]),
    "words": ("string", pa.string(), ["", "-", "a|b", "5:x", "né\x01\n", "🤦🏼‍♂️", "x" * 5000]),
    "octets": ("bytes", pa.binary(), [b"", b"\x00\xff|"]),
    "day": ("date", pa.date32(), [date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)]),
    "clock": ("time", pa.time64("us"), [time(0, 0), time(23, 59, 59, 999_999)]),
    "local": (
        "timestamp",
        pa.timestamp("us"),
        [datetime(1, 1, 1), datetime(2013, 1, 1, 5, 0, 0, 1)],
    ),
    "moment": (
        "timestamp",
        pa.timestamp("us", tz="UTC"),
        [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    ),
    "ident": ("uuid", pa.string(), ["6f1c1b52-8a1e-4f5b-9f0e-0123456789ab"]),
}
BY_POSTGRES: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "document": ("json", pa.string(), ['{"b": 1.0, "a": [1e2, "x|y"]}', "null", '"é"']),
    "tags": ("list(string)", pa.string(), ['["a|b", null, "c,\\"d"]', "[]"]),
    "lasts": ("duration", pa.string(), ["24:00:00", "P1M-1D", "-00:00:01.5"]),
}


def _world_of(types: dict[str, tuple[str, pa.DataType, list[Any]]]) -> tuple[DatasetSpec, pa.Table]:
    chance = random.Random(7)
    rows = 40
    columns: dict[str, Any] = {"id": {"type": "int64", "nullable": False}}
    arrays, fields = [pa.array(range(rows))], [pa.field("id", pa.int64())]
    for name, (kind, arrow, values) in types.items():
        columns[name] = {"type": kind}
        if name == "moment":
            columns[name]["timezone"] = "UTC"
        picked = [*values, None, *(chance.choice([*values, None]) for _ in range(rows))][:rows]
        arrays.append(pa.array(picked, arrow))
        fields.append(pa.field(name, arrow))
    spec = make_spec(columns, cursor=None)
    return spec, pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _content(world: World, spec: DatasetSpec) -> Check:
    return next(found for found in world.reconcile(spec) if found.invariant == "I11")


@pytest.mark.parametrize("types", [TYPES, TYPES | BY_POSTGRES], ids=["duckdb", "postgres"])
def test_every_type_reads_the_same_in_lake_and_table(
    world: World, types: dict[str, tuple[str, pa.DataType, list[Any]]]
) -> None:
    """Nothing differs after a load; NULL instead of a value does, in whichever column."""
    spec, table = _world_of(types)
    world.publish(world.prepared(spec, make_partition("all"), table))
    assert _content(world, spec).found == "as the lake says"
    for number, name in enumerate(types):
        held = [value is not None for value in table.column(name).to_pylist()]
        row = held.index(True, number)
        before = world.sql(f"SELECT {name}::text FROM analytics.things WHERE id = {row}")
        world.sql(f"UPDATE analytics.things SET {name} = NULL WHERE id = {row}")
        found = _content(world, spec)
        assert found.found == "1 changed (loads 1)", name
        assert found.differences[1:] == (f"changed: id={row} (load 1)",)
        kind = world.sql(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = %s "
            "AND attrelid = 'analytics.things'::regclass",
            name,
        )[0][0]
        world.sql(
            f"UPDATE analytics.things SET {name} = %s::text::{kind} WHERE id = {row}", before[0][0]
        )
    assert _content(world, spec).holds


def test_equal_values_that_look_different_are_no_difference(world: World) -> None:
    """What PostgreSQL holds for equal is not rewritten by a load, and is no difference here."""
    columns = {"id": {"type": "int64"}, "x": {"type": "float"}, "d": {"type": "decimal(9,2)"}}
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("d", pa.decimal128(9, 2))])
    spec = make_spec(columns, cursor=None)
    for label, x in (("a", 0.0), ("b", -0.0)):
        table = rows_table([(1, x, Decimal("1.50"))], schema)
        receipt = world.publish(world.prepared(spec, make_partition(label), table))
    assert receipt.counts.unchanged == 1
    world.sql("ALTER TABLE analytics.things ALTER d TYPE numeric")
    assert _content(world, spec).found == "as the lake says"


@pytest.mark.parametrize("cursor", ["seen", None])
def test_random_history_is_made_again_from_the_lake(world: World, cursor: str | None) -> None:
    """Newer and older rows, repeated rows, NULL cursors: the lake says what the table has."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    spec = make_spec(cursor=cursor)
    for number in range(12):
        keys = chance.sample(range(30), 12)
        rows = [
            (key, chance.choice(["a", "b", None]), chance.choice([None, 1, 2, 3])) for key in keys
        ]
        world.load(spec, f"p{number}", rows)
    assert world.broken(spec) == set()
    world.sql(
        "UPDATE analytics.things SET name = 'z' WHERE id = (SELECT min(id) FROM analytics.things)"
    )
    assert world.broken(spec) == {"I11"}


def test_rows_are_named_and_personal_keys_are_masked(world: World) -> None:
    """Each row that differs is named by its key; without a key, by where it is from."""
    columns = {
        "id": {"type": "int64", "pii": "mask"},
        "part": {"type": "string"},
        "seen": {"type": "int64"},
    }
    schema = pa.schema([("id", pa.int64()), ("part", pa.string()), ("seen", pa.int64())])
    spec = make_spec(columns, key=("id", "part"))
    table = rows_table([(4711, "a", 1), (4712, "b", 1), (4713, "c", 1)], schema)
    world.publish(world.prepared(spec, make_partition("p"), table))
    world.sql(
        "DELETE FROM analytics.things WHERE part = 'a'; "
        "UPDATE analytics.things SET seen = 0 WHERE part = 'b'; "
        "INSERT INTO analytics.things VALUES (4714, 'd', 1, 1)"
    )
    found = _content(world, spec)
    assert found.found == "1 missing, 1 not of the lake, 1 older (loads 1)"
    assert found.differences[1:] == (
        "missing: id=***,part=a (load 1)",
        "not of the lake: id=***,part=d (load 1)",
        "older: id=***,part=b (load 1)",
    )
    assert "471" not in "".join(found.differences[1:])

    spec = make_spec(name="lines", mode="append", key=(), cursor=None)
    schema = pa.schema(
        [
            *(
                pa.field(name, pa.int64() if name != "name" else pa.string())
                for name in spec.columns
            ),
            pa.field("_source_uri", pa.string()),
            pa.field("_source_row", pa.int64()),
        ]
    )
    rows = [(1, "x", 1, "s3://b/k", 7), (1, "x", 1, "s3://b/k", 8), (2, "y", 1, "s3://b/k", 9)]
    world.publish(world.prepared(spec, make_partition("l", "lines"), rows_table(rows, schema)))
    world.sql(
        "DELETE FROM analytics.lines WHERE id = 2; INSERT INTO analytics.lines VALUES (1, 'x', 1, 2)"
    )
    found = _content(world, spec)
    assert found.found == "1 missing, 1 not of the lake (loads 2)"
    assert found.differences[1:] == (
        "missing: s3://b/k row 9 (load 2)",
        "not of the lake: a row (load 2)",
    )


def test_rows_of_loads_past_their_retention_are_left_out(world: World) -> None:
    """The lake has lost the first of three loads: what it left in the table is not judged."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 5), (2, "two", 1), (3, "three", 1)])
    world.sql("UPDATE etl.loads SET loaded_at = now() - interval '20000 days'")
    for path in (world.root / "lake" / "clean").rglob("*.parquet"):
        path.unlink()
    world.load(spec, "b", [(1, "older", 4), (2, "newer", 2), (4, "four", 1)])
    world.load(spec, "c", [(2, "newer", 2), (4, "vier", 2)])
    assert world.broken(spec) == set()
    world.sql("UPDATE analytics.things SET name = 'x' WHERE id = 3")
    assert world.broken(spec) == set()
    world.sql("UPDATE analytics.things SET name = 'x' WHERE id = 2")
    assert world.broken(spec) == {"I11"}


def test_deleted_rows_stay_deleted(world: World) -> None:
    """Keys gone from the source were deleted by a load between others: the lake says the same."""
    source = {"kind": "database", "block": "b", "table": "things", "deletes": {"detect": "keys"}}
    source["deletes"]["max_share"] = 1
    spec = make_spec(source=source)
    world.load(spec, "a", [(1, "one", 1), (2, "two", 1), (3, "three", 1)])
    keys = make_partition("keys", deletes_up_to=1)
    table = rows_table([(1,), (9,)], pa.schema([("id", pa.int64())]))
    world.load(spec, "b", [(3, "drei", 2), (4, "four", 1)])
    receipt = world.publish(world.prepared(spec, keys, table))
    assert receipt.counts.deleted == 1
    world.load(spec, "c", [(2, "two", 1)])
    assert [row[0] for row in world.rows(spec)] == [1, 2, 3, 4]
    assert world.broken(spec) == set()
    world.sql("UPDATE etl.loads SET deletes_up_to = NULL")
    content = _content(world, spec)
    assert content.statement == "not compared: the ledger does not say which rows load 3 deleted"
