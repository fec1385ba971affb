"""Large partitions are copied over several connections; the rest of the load does not notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from tasks.loading import parallel, staging
from tasks.model.errors import ContractBroken, GateFailed
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

ROWS = [(number, f"name {number}", 1) for number in range(3000)]
LEFT = "SELECT count(*) FROM pg_class WHERE relname ~ '^staging_'"


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition of a thousand rows is large, on a machine with several cores."""
    monkeypatch.setattr(parallel, "PARALLEL_ROWS", 1000)
    monkeypatch.setattr("os.cpu_count", lambda: 4)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows that each connection copied."""
    counts: list[int] = []
    copy_rows = staging.copy_rows

    def counting(*arguments: object) -> int:
        counts.append(copy_rows(*arguments))  # type: ignore[arg-type]
        return counts[-1]

    monkeypatch.setattr(parallel, "copy_rows", counting)
    yield counts


def test_rows_are_the_same_over_several_connections(world: World, copied: list[int]) -> None:
    """Each row group is copied once; nothing is left behind, and a repeated load does nothing."""
    spec = make_spec()
    load = world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100)
    world.publish(load)
    assert len(copied) == 4
    assert sum(copied) == len(ROWS)
    assert world.rows(spec) == ROWS
    assert world.sql(LEFT) == [(0,)]
    assert world.publish(load).status.value == "already loaded"
    world.load(
        spec, "b", [(1, "one", 2)]
    )  # small: the session has a staging table of its own again
    assert world.rows(spec)[1] == (1, "one", 2)
    assert world.broken(spec) == set()


def test_only_connections_that_are_free_are_used(world: World, copied: list[int]) -> None:
    """A pool that is in use is not waited for: two loads that waited for each other would hang."""
    spec = make_spec()
    held = [world.engine.connect() for _ in range(4)]  # of six, and one is that of the load
    try:
        world.publish(world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100))
    finally:
        for connection in held:
            connection.close()
    assert len(copied) == 2
    assert world.rows(spec) == ROWS


def test_gate_is_checked_on_all_of_the_rows(world: World) -> None:
    """A failed gate publishes nothing, and leaves no table."""
    spec = make_spec(quality={"gates": [{"rows_between": [1, 2999]}]})
    with pytest.raises(GateFailed, match="3000 rows, allowed 1 to 2999"):
        world.publish(world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100))
    assert world.sql(LEFT) == [(0,)]
    assert world.sql("SELECT count(*) FROM etl.loads") == [(0,)]


def test_failure_of_one_connection_is_that_of_the_load(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another connection could not copy is missing: nothing is published."""
    spec = make_spec()
    batches_of = staging.batches_of

    def broken(group: staging.RowGroup, schema: object) -> object:
        if group.number == 17:
            raise ContractBroken("row group 17 cannot be read")
        return batches_of(group, schema)

    monkeypatch.setattr(parallel, "batches_of", broken)
    load = world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100)
    with pytest.raises(ContractBroken, match="row group 17"):
        world.publish(load)
    assert world.sql("SELECT count(*) FROM etl.loads") == [(0,)]
    assert world.sql(LEFT) == [(0,)]
    monkeypatch.setattr(parallel, "batches_of", batches_of)
    world.publish(load)
    assert world.rows(spec) == ROWS


def test_table_of_a_load_that_was_killed_is_dropped_by_the_next(
    world: World, copied: list[int]
) -> None:
    """A table that somebody needs stays; one of a dead transaction goes."""
    spec = make_spec()
    world.open(spec)
    dead, alive = "staging_00000000000000aa", "staging_00000000000000bb"
    for name in (dead, alive):
        world.sql(f"CREATE UNLOGGED TABLE etl.{name} (id int)")
    other = create_engine(world.engine.url)
    with other.connect() as connection:
        connection.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock(hashtextextended('etl.{alive}', 0))"
        )
        world.publish(world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100))
        assert world.sql("SELECT relname::text FROM pg_class WHERE relname ~ '^staging_'") == [
            (alive,)
        ]
    other.dispose()
    assert world.rows(spec) == ROWS


def test_role_that_may_create_nothing_copies_over_one_connection(
    world: World, copied: list[int]
) -> None:
    """Without CREATE on the schema etl the load goes on as that of a small partition."""
    spec = make_spec()
    world.load(spec, "first", [(9999, "first", 1)])
    world.sql("DROP ROLE IF EXISTS loader")
    world.sql("CREATE ROLE loader LOGIN PASSWORD 'x'")
    try:
        world.sql("GRANT USAGE ON SCHEMA etl, analytics TO loader")
        world.sql("GRANT ALL ON ALL TABLES IN SCHEMA etl, analytics TO loader")
        world.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA etl TO loader")
        load = world.prepared(spec, make_partition("a"), rows_table(ROWS), row_group=100)
        engine = create_engine(
            world.engine.url.set(username="loader", password="x"), pool_size=4, max_overflow=0,
            connect_args={"options": "-c search_path=pg_catalog"},
        )  # fmt: skip
        World(engine, world.lake, world.root).publish(load)
        engine.dispose()
    finally:
        world.sql("DROP OWNED BY loader")
        world.sql("DROP ROLE loader")
    assert copied == []
    assert world.rows(spec)[:3000] == ROWS
