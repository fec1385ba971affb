"""Partitioned tables: partitions for the rows of a load and ahead of the next; retention."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tasks.loading.ranges import periods_ahead
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

COLUMNS = {
    "id": {"type": "int64"},
    "day": {"type": "date", "nullable": False},
    "name": {"type": "string"},
    "seen": {"type": "int64"},
}
ARROW = pa.schema(
    [("id", pa.int64()), ("day", pa.date32()), ("name", pa.string()), ("seen", pa.int64())]
)
NOW = datetime.now(UTC).replace(tzinfo=None)
THIS_MONTH = NOW.date().replace(day=1)


def spec_of(mode: str = "merge", name: str = "things", **by: Any) -> DatasetSpec:
    partition_by = {"column": "day", "every": "month", "ahead": 2, **by}
    return make_spec(
        COLUMNS,
        name=name,
        key=("id", "day"),
        load={"table": f"analytics.{name}", "mode": mode, "partition_by": partition_by},
    )


def load(world: World, spec: DatasetSpec, label: str, rows: Iterable[tuple[Any, ...]]) -> Any:
    partition = make_partition(label, spec.name)
    return world.publish(world.prepared(spec, partition, rows_table(rows, ARROW)))


def partitions(world: World, table: str = "things") -> dict[str, str]:
    return dict(
        world.sql(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i "
            "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(%s) ORDER BY 1",
            f"analytics.{table}",
        )
    )


def ahead(count: int) -> set[str]:
    return {f"things_p{one.lower:%Y_%m}" for one in periods_ahead(NOW, "month", count) if one.lower}


def test_partitions_are_made_for_rows_and_ahead(world: World) -> None:
    """Each row is in the partition of its month; those ahead are there before their rows."""
    spec = spec_of()
    receipt = load(
        world, spec, "a", [(1, date(2020, 1, 31), "x", 1), (2, date(2020, 2, 1), "y", 1)]
    )
    assert receipt.counts.inserted == 2
    made = partitions(world)
    assert set(made) == {"things_p2020_01", "things_p2020_02"} | ahead(2)
    assert made["things_p2020_01"] == "FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')"
    found = world.sql("SELECT id, tableoid::regclass::text FROM analytics.things ORDER BY 1")
    assert found == [(1, "analytics.things_p2020_01"), (2, "analytics.things_p2020_02")]
    assert world.broken(spec) == set()


def test_merge_counts_what_it_did(world: World) -> None:
    """Inserted, updated and unchanged are told apart, which xmax cannot do here."""
    spec = spec_of()
    day = date(2024, 5, 1)
    load(world, spec, "a", [(n, day, "old", 1) for n in range(5)])
    rows = [(0, day, "new", 2), (1, day, "new", 2), (2, day, "old", 1), (3, day, "older", 0)]
    rows += [(9, day, "x", 1), (0, date(2024, 6, 1), "x", 1)]
    counts = load(world, spec, "b", rows).counts
    assert (counts.inserted, counts.updated, counts.unchanged) == (2, 2, 2)
    assert [row[2] for row in world.rows(spec, "id, day, name") if row[1] == day] == [
        "new", "new", "old", "old", "old", "x",
    ]  # fmt: skip
    assert world.broken(spec) == set()


def test_append_needs_no_key(world: World) -> None:
    """Rows may repeat; the account holds."""
    spec = spec_of("append")
    load(world, spec, "a", [(1, date(2024, 5, 1), "x", 1)] * 2)
    load(world, spec, "b", [(1, date(2024, 5, 1), "x", 1)])
    assert world.sql("SELECT count(*) FROM analytics.things") == [(3,)]
    assert world.broken(spec) == set()


# Type of the column, size of a partition, values, names and bounds of the partitions for them.
KINDS = [
    (
        {"type": "timestamp", "timezone": "Europe/Berlin"},
        "day",
        pa.array(
            [datetime(2024, 3, 30, 23, 30, tzinfo=UTC), datetime(2024, 3, 31, 0, tzinfo=UTC)],
            pa.timestamp("us", "UTC"),
        ),
        {
            "things_p2024_03_30": "('2024-03-30 00:00:00+00') TO ('2024-03-31 00:00:00+00')",
            "things_p2024_03_31": "('2024-03-31 00:00:00+00') TO ('2024-04-01 00:00:00+00')",
        },
    ),
    (
        {"type": "date"},
        "week",
        pa.array([date(2024, 12, 30), date(2025, 1, 5)]),
        {"things_p2025w01": "('2024-12-30') TO ('2025-01-06')"},
    ),
    (
        {"type": "date"},
        "year",
        pa.array([date(1, 1, 1), date(9999, 12, 31)]),
        {
            "things_p0001": "(MINVALUE) TO ('0002-01-01')",
            "things_p9999": "('9999-01-01') TO (MAXVALUE)",
        },
    ),
    (
        {"type": "int64"},
        100,
        pa.array([-1, 250]),
        {
            "things_pm100": "('-100') TO ('0')",
            "things_p200": "('200') TO ('300')",
            "things_p300": "('300') TO ('400')",
        },
    ),
    (
        {"type": "uint64"},
        2**63,
        pa.array([2**64 - 1], pa.decimal128(20, 0)),
        {
            f"things_p{2**63}": f"('{2**63}') TO ('{2**64}')",
            f"things_p{2**64}": f"('{2**64}') TO ('{3 * 2**63}')",
        },
    ),
]


@pytest.mark.parametrize(("column", "every", "values", "expected"), KINDS)
def test_ranges_of_every_kind(
    world: World, column: Any, every: Any, values: pa.Array, expected: dict[str, str]
) -> None:
    columns = {"part": {**column, "nullable": False}}
    by = {"column": "part", "every": every, "ahead": 1}
    spec = make_spec(
        columns, key=(), cursor=None,
        load={"table": "analytics.things", "mode": "append", "partition_by": by},
    )  # fmt: skip
    for label in "ab":  # the second time they are there
        world.publish(world.prepared(spec, make_partition(label), pa.table({"part": values})))
    made = {
        name: bounds.removeprefix("FOR VALUES FROM ") for name, bounds in partitions(world).items()
    }
    coming = set() if isinstance(every, int) else set(made) - set(expected)
    assert {name: made[name] for name in made if name not in coming} == expected
    assert len(coming) == (0 if isinstance(every, int) else 2)


def test_partitions_by_a_computed_column(world: World) -> None:
    """A day that the source does not have, but its time."""
    spec = make_spec(
        key=(),
        cursor=None,
        derive={"day": {"sql": "DATE '2020-01-31'", "type": "date", "nullable": False}},
        load={
            "table": "analytics.things",
            "mode": "append",
            "partition_by": {"column": "day", "every": "month", "ahead": 0},
        },
    )
    load(world, spec, "a", [(1, date(2020, 1, 31), "x", 1)])
    assert "things_p2020_01" in partitions(world)
    assert world.sql("SELECT id, day FROM analytics.things") == [(1, date(2020, 1, 31))]
    nullable = {"day": {"sql": "NULL", "type": "date"}}
    with pytest.raises(ValidationError, match="declare the column with nullable: false"):
        make_spec(key=(), cursor=None, derive=nullable, load=spec.load.model_dump())


def test_new_size_of_partitions_fills_the_gaps(world: World) -> None:
    """Partitions that are there stay; others are made around them."""
    load(world, spec_of(every="week"), "a", [(1, date(2024, 5, 8), "x", 1)])
    load(world, spec_of(), "b", [(2, date(2024, 5, 1), "x", 1), (3, date(2024, 5, 31), "x", 1)])
    assert {name for name in partitions(world) if "2024" in name} == {
        "things_p2024w19",
        "things_p2024_05_01_to_2024_05_06",
        "things_p2024_05_13_to_2024_06_01",
    }
    assert world.sql("SELECT count(*) FROM analytics.things") == [(3,)]


def test_rows_outside_are_refused_or_go_to_the_default(world: World) -> None:
    """What is too old or too far ahead is let in as declared; the rest gets its partition."""
    far = THIS_MONTH + timedelta(days=400)
    rows = [(1, date(2020, 1, 1), "old", 1), (2, THIS_MONTH, "now", 1), (3, far, "far", 1)]
    refusing = spec_of(outside="refuse", retention="12 months")
    with pytest.raises(GateFailed, match=r"rows of 2 periods .* first from 2020-01-01, "):
        load(world, refusing, "a", rows)
    spec = spec_of(outside="default", retention="12 months")
    load(world, spec, "a", rows)
    assert set(partitions(world)) == {"things_pdefault"} | ahead(2)
    assert world.sql("SELECT name FROM analytics.things_pdefault ORDER BY 1") == [
        ("far",),
        ("old",),
    ]
    # Its time comes nearer: the row moves into the partition of its month, and stays one row.
    load(world, spec_of(outside="default", ahead=15), "b", [(3, far, "far", 1)])
    assert world.sql("SELECT name FROM analytics.things_pdefault") == [("old",)]
    assert world.sql("SELECT id, name FROM analytics.things ORDER BY 1") == [
        (1, "old"), (2, "now"), (3, "far"),
    ]  # fmt: skip
    assert world.broken(spec) == set()


def test_values_all_over_the_calendar_make_no_thousands_of_partitions(world: World) -> None:
    spec = spec_of(every="day")
    rows = [(n, date(2000, 1, 1) + timedelta(days=n), "x", 1) for n in range(501)]
    with pytest.raises(ContractBroken, match=r"50\d partitions would be made at once.*2000-01-01"):
        load(world, spec, "a", rows)


def test_name_that_is_taken_is_told(world: World) -> None:
    world.sql("CREATE SCHEMA analytics; CREATE TABLE analytics.things_p2020_01 ()")
    with pytest.raises(ContractBroken, match="things_p2020_01, and analytics has something"):
        load(world, spec_of(), "a", [(1, date(2020, 1, 1), "x", 1)])


def test_table_that_is_not_partitioned_is_refused(world: World) -> None:
    rows = [(1, date(2020, 1, 1), "x", 1)]
    load(world, make_spec(COLUMNS, key=("id", "day")), "a", rows)
    with pytest.raises(ContractBroken, match="not partitioned, the dataset says RANGE \\(day\\)"):
        load(world, spec_of(), "b", rows)


def test_loaders_that_need_the_same_new_partition(world: World) -> None:
    """Six loads make the table and its partitions at once, while somebody reads."""
    spec = spec_of()
    loads = [
        world.prepared(
            spec, make_partition(f"p{n}"), rows_table([(n, date(2024, 1 + n % 2, 1), "x", 1)], ARROW),
            fence=world.open(spec) if n == 0 else 1,
        )
        for n in range(6)
    ]  # fmt: skip
    errors: list[BaseException] = []

    def run(one: Any) -> None:
        try:
            world.publish(one)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in loads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert world.sql("SELECT count(*) FROM analytics.things") == [(6,)]
    assert world.broken(spec) == set()


def test_new_partition_does_not_wait_for_readers(world: World) -> None:
    """A long query does not hold up a load that makes partitions, nor the load the query."""
    spec = spec_of()
    load(world, spec, "a", [(1, date(2024, 1, 1), "x", 1)])
    reader = world.engine.raw_connection()
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM analytics.things")
        load(world, spec, "b", [(2, date(2024, 2, 1), "x", 1)])
        cursor.execute("SELECT count(*) FROM analytics.things")
        assert cursor.fetchall() == [(2,)]
    reader.close()


def test_foreign_row_without_a_partition_is_an_error_of_theirs(world: World) -> None:
    """There is no default partition unless it is declared."""
    load(world, spec_of(), "a", [(1, date(2024, 1, 1), "x", 1)])
    with session(world.engine) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.CheckViolation):
            cursor.execute("INSERT INTO analytics.things VALUES (9, '1999-01-01', 'x', 1, 1)")
        connection.rollback()
