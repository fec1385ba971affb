"""Repair brings back exactly what a table must hold, and leaves every other row as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasks.loading.repair import repair
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, LoadConflict
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

ALL = "SELECT id, name, seen, _load_id FROM analytics.things ORDER BY 1, 2, 3"
DAMAGES = {
    "nothing": "SELECT 1",
    "a value changed": "UPDATE analytics.things SET name = 'x' WHERE id = 1",
    "rows deleted": "DELETE FROM analytics.things WHERE id IN (1, 2)",
    "a row put in": "INSERT INTO analytics.things VALUES (99, 'x', 1, 2)",
    "a row of nobody's load": "INSERT INTO analytics.things VALUES (99, 'x', 1, 77)",
    "an older version": "UPDATE analytics.things SET seen = 0, name = 'two' WHERE id = 2",
    "rows under another load": "UPDATE analytics.things SET _load_id = 1 WHERE id IN (2, 3)",
    "emptied": "TRUNCATE analytics.things",
}


def _loaded(world: World, spec: DatasetSpec) -> None:
    world.load(spec, "a", [(1, "one", 1), (2, "two", 1)])
    world.load(spec, "b", [(2, "zwei", 2), (3, "three", 1)])
    world.load(spec, "c", [(10, "ten", 1), (11, "eleven", None)])


def _repair(world: World, spec: DatasetSpec, **more: Callable[[str], None]) -> tuple[int, int]:
    done = repair(world.engine, world.lake, spec, 10_000, actor="me", **more)
    return done.deleted, done.inserted


@pytest.mark.parametrize("mode", ["merge", "append"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_repair_brings_the_table_back(world: World, damage: str, mode: str) -> None:
    """The exact rows are there again, and rows of other loads were not rewritten."""
    key = ("id",) if mode == "merge" else ()
    spec = make_spec(mode=mode, key=key, cursor="seen" if key else None)
    _loaded(world, spec)
    before = world.sql(ALL)
    untouched = "SELECT xmin::text, ctid::text FROM analytics.things WHERE id >= 10 ORDER BY id"
    kept = world.sql(untouched)
    world.sql(DAMAGES[damage])
    assert bool(world.broken(spec)) == (damage != "nothing")
    deleted, inserted = _repair(world, spec)
    assert world.sql(ALL) == before
    assert world.broken(spec) == set()
    if damage != "emptied":
        assert (
            world.sql(
                "SELECT xmin::text, ctid::text FROM analytics.things WHERE id IN (10, 11) "
                "ORDER BY id"
            )
            == kept
        )
    recorded = world.sql(
        "SELECT actor, action, details -> 'deleted', details -> 'inserted' FROM etl.audit"
    )
    assert recorded == ([] if damage == "nothing" else [("me", "repair", deleted, inserted)])
    assert _repair(world, spec) == (0, 0)


def test_rows_of_a_lost_ledger_row_go_and_are_loaded_again(world: World) -> None:
    """Without its ledger row a partition was never loaded: the version before comes back."""
    spec = make_spec()
    _loaded(world, spec)
    before = world.rows(spec)
    world.sql(
        "DELETE FROM etl.source_items WHERE load_id = 2; DELETE FROM etl.loads WHERE load_id = 2"
    )
    assert world.broken(spec) == {"I6", "I7", "I11"}
    assert _repair(world, spec) == (2, 1)
    assert world.rows(spec)[:3] == [(1, "one", 1), (2, "two", 1), (10, "ten", 1)]
    assert world.broken(spec) == set()
    world.load(spec, "b", [(2, "zwei", 2), (3, "three", 1)])
    assert world.rows(spec) == before
    assert world.broken(spec) == set()


def test_repair_without_the_lake_is_refused(world: World) -> None:
    """A damaged file proves nothing: the table stays as it is, and the message names the load."""
    spec = make_spec()
    _loaded(world, spec)
    world.sql("DELETE FROM analytics.things WHERE id = 1")
    next(iter(sorted((world.root / "lake" / "clean").rglob("*.parquet")))).unlink()
    with pytest.raises(ContractBroken, match="files of load"):
        _repair(world, spec)
    assert len(world.rows(spec)) == 4


def test_run_under_way_is_fenced_off_and_a_load_in_between_stops_the_repair(world: World) -> None:
    """A load that was prepared before the repair publishes nothing after it."""
    spec = make_spec()
    _loaded(world, spec)
    world.sql("DELETE FROM analytics.things WHERE id = 1")
    late = world.prepared(spec, make_partition("d"), rows_table([(20, "x", 1)]))
    _repair(world, spec)
    with pytest.raises(LoadConflict, match="repair by me"):
        world.publish(late)
    world.sql("DELETE FROM analytics.things WHERE id = 1")

    def load_in_between(step: str) -> None:
        if step == "expected":
            world.load(spec, "e", [(21, "y", 1)])

    with pytest.raises(LoadConflict, match="meanwhile"):
        _repair(world, spec, on_step=load_in_between)
    assert world.broken(spec) == {"I6", "I11"}
