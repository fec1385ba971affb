"""Retention: whole partitions are dropped, and the account of every row still holds."""

from __future__ import annotations

import threading
from datetime import date, timedelta

import pytest

from tasks.loading import retention
from tasks.loading.maintenance import maintain
from tasks.loading.retention import drop_old
from tasks.model.errors import ConfigError, WarehouseUnavailable
from tests.integration.loading.support import World
from tests.integration.loading.test_partitions import THIS_MONTH, load, partitions, spec_of

KEPT = "12 months"
OLD = date(2020, 1, 15)


def loaded(world: World, mode: str = "merge", **by: str) -> None:
    spec = spec_of(mode, retention=KEPT, **by)
    load(world, spec, "a", [(n, OLD, "x", 1) for n in range(3)] + [(9, THIS_MONTH, "x", 1)])
    load(world, spec, "b", [(0, OLD, "y", 2), (4, OLD, "y", 2), (5, OLD + timedelta(40), "z", 1)])


@pytest.mark.parametrize("mode", ["merge", "append"])
def test_old_partitions_are_dropped_and_accounted_for(world: World, mode: str) -> None:
    spec = spec_of(mode, retention=KEPT)
    loaded(world, mode)
    before = set(partitions(world))
    done = maintain(world.engine, spec, "tidy")
    rows = 4 if mode == "merge" else 5
    assert [(one.partition, one.rows) for one in done.dropped] == [
        ("things_p2020_01", rows), ("things_p2020_02", 1),
    ]  # fmt: skip
    assert before - set(partitions(world)) == {"things_p2020_01", "things_p2020_02"}
    assert world.rows(spec, "id") == [(9,)]
    assert world.sql(
        "SELECT partition_name, range_from, range_to, rows, run FROM etl.retention ORDER BY 1"
    ) == [
        ("things_p2020_01", "2020-01-01 00:00:00", "2020-02-01 00:00:00", rows, "tidy"),
        ("things_p2020_02", "2020-02-01 00:00:00", "2020-03-01 00:00:00", 1, "tidy"),
    ]
    assert world.sql(
        "SELECT actor, action, details ->> 'partition', (details -> 'rows')::int FROM etl.audit "
        "WHERE dataset = 'things' ORDER BY audit_id"
    ) == [
        ("tidy", "drop partition", "things_p2020_01", rows),
        ("tidy", "drop partition", "things_p2020_02", 1),
    ]
    assert world.broken(spec) == set()
    assert maintain(world.engine, spec, "again").dropped == ()
    world.sql("DELETE FROM analytics.things")  # by hand: that is no retention
    assert "I6" in world.broken(spec)


def test_nothing_is_dropped_without_a_retention(world: World) -> None:
    loaded(world)
    before = set(partitions(world))
    assert maintain(world.engine, spec_of(), "tidy").dropped == ()
    assert set(partitions(world)) == before


def test_old_rows_of_the_default_partition_go_too(world: World) -> None:
    spec = spec_of(retention=KEPT, outside="default")
    loaded(world, outside="default")
    done = maintain(world.engine, spec, "tidy")
    assert [(one.partition, one.rows, one.whole) for one in done.dropped] == [
        ("things_pdefault", 5, False)
    ]
    assert world.sql("SELECT action, (details -> 'rows')::int FROM etl.audit") == [
        ("delete old rows", 5)
    ]
    assert world.rows(spec, "id") == [(9,)]
    assert world.broken(spec) == set()


@pytest.mark.parametrize("at", ["counted", "dropped"])
def test_crash_leaves_the_partition_or_its_record(world: World, at: str) -> None:
    """Both commit together."""
    spec = spec_of(retention=KEPT)
    loaded(world)

    class Killed(BaseException):
        pass

    def on_step(step: str) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        drop_old(world.engine, spec, "tidy", on_step=on_step)
    assert "things_p2020_01" in partitions(world)
    assert world.sql("SELECT count(*) FROM etl.retention") == [(0,)]
    assert world.broken(spec) == set()
    drop_old(world.engine, spec, "tidy")
    assert world.broken(spec) == set()


def test_retention_waits_for_loads_and_gives_way_to_readers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is dropped while a load publishes; a query that goes on keeps its partition."""
    spec = spec_of(retention=KEPT)
    loaded(world)
    publishing = threading.Event()
    go_on = threading.Event()

    def slow(step: str) -> None:
        if step == "merged":
            publishing.set()
            assert go_on.wait(20)

    from tests.integration.loading.support import make_partition, rows_table
    from tests.integration.loading.test_partitions import ARROW

    rows = rows_table([(0, OLD, "late", 3)], ARROW)
    job = world.prepared(spec, make_partition("c"), rows)
    writer = threading.Thread(target=world.publish, args=(job, slow))
    writer.start()
    assert publishing.wait(20)
    done: list[object] = []
    tidy = threading.Thread(target=lambda: done.append(drop_old(world.engine, spec, "tidy")))
    tidy.start()
    tidy.join(0.5)
    assert tidy.is_alive() and not done
    go_on.set()
    writer.join()
    tidy.join()
    assert done
    assert world.broken(spec) == set()

    monkeypatch.setattr(retention, "ATTEMPTS", 1)
    monkeypatch.setattr("tasks.loading.search_column.LOCK_SECONDS", 1)
    load(world, spec, "d", [(1, OLD, "x", 1)])
    reader = world.engine.raw_connection()
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM analytics.things_p2020_01")
        with pytest.raises(WarehouseUnavailable, match="55P03"):
            drop_old(world.engine, spec, "tidy")
    reader.close()
    assert world.broken(spec) == set()
    assert [one.rows for one in drop_old(world.engine, spec, "tidy")] == [1]


def test_what_depends_on_a_partition_is_an_error_that_names_it(world: World) -> None:
    spec = spec_of(retention=KEPT)
    loaded(world)
    world.sql("CREATE VIEW analytics.v AS SELECT * FROM analytics.things_p2020_01")
    with pytest.raises(ConfigError, match="partition things_p2020_01 is too old, and a view"):
        drop_old(world.engine, spec, "tidy")
    assert world.broken(spec) == set()
