"""The whole dataset takes the place of what is there, at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from blocks.warehouse import WarehouseCredentials
from tasks.ingestion.connector import PlanLimits
from tasks.loading.job import Load
from tasks.loading.ledger import ensure_ledger
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken, GateFailed
from tasks.model.replay import ReplayRequest
from tasks.model.report import LoadReceipt
from tasks.model.request import RunRequest, Window
from tests.integration.loading.support import World, make_partition, make_spec, rows_table
from tests.pipeline import Pipeline

COLUMNS = {
    "id": {"type": "int64", "nullable": False},
    "name": {"type": "string"},
    "seen": {"type": "int64", "checks": {"between": [0, 100]}},
}


def spec_of(
    *, key: tuple[str, ...] = (), options: Mapping[str, Any] | None = None, **more: Any
) -> DatasetSpec:
    """Return a dataset that is replaced as a whole."""
    cursor = "seen" if key else None
    return make_spec(COLUMNS, mode="replace", key=key, cursor=cursor, options=options, **more)


@pytest.fixture
def pipeline(world: World) -> Pipeline:
    """The stages over files, each of them a partition."""
    ensure_ledger(world.engine)
    limits = PlanLimits(partition_items=1)
    return Pipeline(world.engine, world.lake, world.scratch, world.root, limits=limits)


def write(world: World, name: str, *rows: str) -> None:
    """Write a file of the source."""
    (world.root / f"{name}.csv").write_text("\n".join(["id,name,seen", *rows, ""]))


def sums(receipts: list[LoadReceipt]) -> tuple[int, int, int, int]:
    """Return (inserted, updated, unchanged, deleted) of a run."""
    counts = [receipt.counts for receipt in receipts]
    return (
        sum(count.inserted for count in counts),
        sum(count.updated for count in counts),
        sum(count.unchanged for count in counts),
        sum(count.deleted for count in counts),
    )


@pytest.mark.parametrize("key", [(), ("id",)])
def test_table_is_what_the_source_is(
    world: World, pipeline: Pipeline, key: tuple[str, ...]
) -> None:
    """Rows and files that are gone from the source are gone; a content that comes back comes back."""
    spec = spec_of(key=key)
    write(world, "a", "1,one,1", "2,two,1")
    write(world, "b", "3,three,1", "2,zwei,2")
    pipeline.run(spec, "first")
    two = [(2, "zwei", 2)] if key else [(2, "two", 1), (2, "zwei", 2)]
    assert world.sql("SELECT * FROM (SELECT id, name, seen FROM analytics.things) t ORDER BY 1, 2") == [
        (1, "one", 1), *two, (3, "three", 1)
    ]  # fmt: skip
    assert pipeline.run(spec, "nothing new") == []
    first = (world.root / "b.csv").read_text()
    write(world, "b", "4,four,1")
    (world.root / "a.csv").unlink()
    assert sums(pipeline.run(spec, "second")) == (1, 0, 0, 3 if key else 4)
    assert world.rows(spec) == [(4, "four", 1)]
    (world.root / "b.csv").write_text(first)
    write(world, "a", "1,one,1", "2,two,1")
    pipeline.run(spec, "as at first")
    assert [row[0] for row in world.rows(spec)] == ([1, 2, 3] if key else [1, 2, 2, 3])
    assert world.broken(spec) == set()


def test_with_a_key_only_differences_are_written(world: World, pipeline: Pipeline) -> None:
    """A row that is as it was keeps its version; an older cursor is no reason to keep the old row."""
    spec = spec_of(key=("id",))
    write(world, "a", "1,one,5", "2,two,5", "3,three,5")
    pipeline.run(spec, "first")
    before = world.sql("SELECT xmin::text, ctid::text FROM analytics.things WHERE id = 1")
    write(world, "a", "1,one,5", "2,two,4", "9,nine,9")
    assert sums(pipeline.run(spec, "second")) == (1, 1, 1, 1)
    assert world.sql("SELECT xmin::text, ctid::text FROM analytics.things WHERE id = 1") == before
    assert world.rows(spec) == [(1, "one", 5), (2, "two", 4), (9, "nine", 9)]
    assert world.broken(spec) == set()


def test_refresh_replaces_the_same_content(world: World, pipeline: Pipeline) -> None:
    """It is a replacement like any other, and leaves no row twice."""
    spec = spec_of()
    write(world, "a", "1,one,1")
    pipeline.run(spec, "first")
    assert sums(pipeline.run(spec, "again", RunRequest(refresh=True))) == (1, 0, 0, 1)
    assert world.rows(spec) == [(1, "one", 1)]
    assert world.broken(spec) == set()


def test_empty_source_does_not_empty_the_table(world: World, pipeline: Pipeline) -> None:
    """An export without rows is refused, unless the dataset file says that it may be."""
    write(world, "a", "1,one,1", "x,two,2")
    pipeline.run(spec_of(), "first")
    for rows in ([], ["x,two,2"]):
        write(world, "a", *rows)
        with pytest.raises(GateFailed, match="the source has no row for"):
            pipeline.run(spec_of(), "empty")
    assert world.rows(spec_of()) == [(1, "one", 1)]
    allowed = spec_of(options={"allow_empty": True})
    assert sums(pipeline.run(allowed, "allowed")) == (0, 0, 0, 1)
    assert world.rows(allowed) == []
    assert world.broken(allowed) == set()


def test_one_bad_partition_publishes_nothing(world: World, pipeline: Pipeline) -> None:
    """A gate of one partition keeps all of them out."""
    spec = spec_of(quality={"gates": [{"quarantine_rate": 0.1}]})
    write(world, "a", "1,one,1")
    pipeline.run(spec, "first")
    write(world, "a", "1,eins,1")
    write(world, "b", "2,two,1", "3,three,999")
    with pytest.raises(GateFailed, match="quarantine_rate"):
        pipeline.run(spec, "second")
    assert world.rows(spec) == [(1, "one", 1)]
    assert world.sql("SELECT count(*) FROM etl.loads") == [(1,)]


def test_unique_holds_in_the_whole_table(world: World, pipeline: Pipeline) -> None:
    """A value that two partitions have is in the table twice."""
    spec = spec_of(unique=[["name"]])
    write(world, "a", "1,one,1")
    write(world, "b", "2,one,1")
    with pytest.raises(GateFailed, match="unique"):
        pipeline.run(spec)
    assert world.sql("SELECT count(*) FROM etl.loads") == [(0,)]


@contextmanager
def reader(warehouse: WarehouseCredentials, isolation: str) -> Iterator[Cursor]:
    """Another session with a transaction of its own."""
    connection = psycopg2.connect(
        host=warehouse.host,
        port=warehouse.port,
        dbname=warehouse.database,
        user=warehouse.username,
        password=warehouse.password.get_secret_value(),
    )
    connection.set_session(isolation_level=isolation)
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


def loads_of(world: World, spec: DatasetSpec, generation: str, count: int) -> list[Load]:
    """Return prepared loads of a run: a hundred rows in each partition."""
    fence = world.open(spec, generation)
    return [
        world.prepared(
            spec,
            make_partition(f"p{number}", refresh=generation),
            rows_table([(number * 100 + row, generation, number) for row in range(100)]),
            fence=fence,
            run=generation,
        )
        for number in range(count)
    ]


BY_ID = {"partition_by": {"column": "id", "every": 150, "ahead": 0}}


@pytest.mark.parametrize(
    ("key", "isolation", "options"),
    [
        ((), "READ COMMITTED", {}),
        ((), "REPEATABLE READ", BY_ID),
        (("id",), "READ COMMITTED", BY_ID),
        (("id",), "REPEATABLE READ", {}),
    ],
)
def test_readers_see_all_of_the_old_or_all_of_the_new(
    world: World,
    warehouse: WarehouseCredentials,
    key: tuple[str, ...],
    isolation: str,
    options: dict[str, Any],
) -> None:
    """At every step, nobody waits, and a snapshot that is older sees the old rows after the end too."""
    spec = spec_of(key=key, options=options)
    load_whole(world.engine, world.lake, world.scratch, loads_of(world, spec, "old", 2))
    world.sql(
        "CREATE VIEW analytics.names AS SELECT name, count(*) FROM analytics.things GROUP BY 1"
    )
    world.sql("CREATE INDEX things_name ON analytics.things (name)")
    world.sql("GRANT SELECT ON analytics.things TO PUBLIC")
    seen: dict[str, list[tuple[Any, ...]]] = {}
    with reader(warehouse, isolation) as looking:
        looking.execute("SET lock_timeout = '1s'; SELECT 1")  # its snapshot is older than all

        def on_step(step: str) -> None:
            looking.execute("SELECT * FROM analytics.names")
            seen[step] = looking.fetchall()

        new = loads_of(world, spec, "new", 3)
        load_whole(world.engine, world.lake, world.scratch, new, on_step=on_step)
    after = seen.pop("committed")
    assert after == [("new", 300)] if isolation == "READ COMMITTED" else [("old", 200)]
    assert set(map(tuple, seen.values())) == {(("old", 200),)}
    assert world.sql("SELECT * FROM analytics.names") == [("new", 300)]
    assert world.sql(
        "SELECT relacl::text LIKE '%=r/%', "
        "(SELECT count(*) FROM pg_indexes WHERE indexname = 'things_name') "
        "FROM pg_class WHERE oid = 'analytics.things'::regclass"
    ) == [(True, 1)]
    assert world.broken(spec) == set()


def test_partitions_with_other_columns_are_put_together(world: World) -> None:
    """Columns that only some partitions have are NULL in the rows of the others."""
    import pyarrow as pa

    spec = spec_of(contract="evolve")
    fence = world.open(spec)
    extra = pa.table({"id": [2], "name": ["two"], "seen": [2], "more": ["text"]})
    first = make_partition("a", refresh="g")
    second = make_partition("b", refresh="g")
    loads = [
        world.prepared(spec, first, rows_table([(1, "one", 1)]), fence=fence),
        world.prepared(spec, second, extra, fence=fence, columns_added=("more",)),
    ]
    load_whole(world.engine, world.lake, world.scratch, loads)
    assert world.rows(spec, "id, more") == [(1, None), (2, "text")]
    assert world.broken(spec) == set()


def test_replayed_rows_join_the_content_they_are_of(world: World, pipeline: Pipeline) -> None:
    """Rows that were refused can be replayed until the table is replaced."""
    loose = make_spec({**COLUMNS, "seen": {"type": "int64"}}, mode="replace", key=(), cursor=None)
    write(world, "a", "1,one,1", "2,two,999")
    pipeline.run(spec_of(), "first")
    (receipt,) = pipeline.replay(loose, ReplayRequest())
    assert (receipt.counts.inserted, receipt.counts.deleted) == (1, 0)
    assert world.rows(loose) == [(1, "one", 1), (2, "two", 999)]
    write(world, "a", "3,three,999", "4,four,4")
    pipeline.run(spec_of(), "second")
    write(world, "a", "5,five,5")
    pipeline.run(spec_of(), "third")
    with pytest.raises(ContractBroken, match="was replaced since load"):
        pipeline.replay(loose, ReplayRequest())
    assert world.rows(loose) == [(5, "five", 5)]
    assert world.broken(loose) == set()


def test_span_of_time_is_no_whole(world: World, pipeline: Pipeline) -> None:
    """A backfill would replace everything with a part."""
    window = Window.model_validate({"start": "2026-01-01T00:00Z", "end": "2026-01-02T00:00Z"})
    with pytest.raises(ConfigError, match="loads the whole source"):
        pipeline.plan(spec_of(), RunRequest(window=window))
