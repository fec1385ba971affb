"""Every load mode on a partitioned table leaves what a naive model says, after each load."""

from __future__ import annotations

import pytest

from tasks.loading.table_check import ddl_script
from tests.histories import MODES, History
from tests.integration.loading.support import World

LAYOUTS = [*((mode, "day") for mode in MODES), ("scd2", "id"), ("scd2", "valid_from")]


@pytest.mark.parametrize(("mode", "by"), LAYOUTS)
def test_partitioned_table_equals_the_model(world: World, mode: str, by: str) -> None:
    history = History(2, mode, by)
    for done, loads in enumerate(history.prepared(world), 1):
        history.publish(world, loads)
        assert history.rows(world) == history.truth(done), (history, done)
    history.check(world)
    filled = world.sql(f"SELECT count(DISTINCT tableoid) FROM {history.spec.load.table}")
    assert filled[0][0] > 1, history


def test_second_current_version_of_another_writer_is_found_and_ended(world: World) -> None:
    """No index of PostgreSQL can keep it out there; reconcile counts it, a load of the key ends it."""
    history = History(1, "scd2", "valid_from")
    loads = history.prepared(world)
    for step in loads[:3]:
        history.publish(world, step)
    table = history.spec.load.table
    world.sql(
        f"INSERT INTO {table} SELECT id, day, 'foreign', v, v, NULL, true, _load_id "
        f"FROM {table}, LATERAL (SELECT (valid_from + 3) % 6) AS of_another_partition (v) "
        "WHERE is_current ON CONFLICT DO NOTHING"
    )
    assert "I8" in world.broken(history.spec)
    history.publish(world, loads[3])
    keys = [row[:2] for one in history.steps()[3] for row in one.rows]
    twice = world.sql(
        f"SELECT id, day FROM {table} WHERE is_current GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert keys and twice and not set(twice) & set(keys)


@pytest.mark.parametrize(("mode", "by"), [("scd2", "valid_from"), ("scd2", None), ("hard", None)])
def test_ddl_by_hand_makes_what_a_load_makes(world: World, mode: str, by: str | None) -> None:
    """The index of current versions, and the table of what is remembered of keys, too."""
    history = History(1, mode, by)
    world.sql("DROP SCHEMA etl CASCADE")
    script = ddl_script(world.engine, [(history.spec, {})])
    loads = history.prepared(world)
    history.publish(world, loads[0])
    made = _made(world)
    world.sql("DROP SCHEMA analytics, etl CASCADE")
    world.sql(script)
    assert _made(world) >= made - {row for row in made if "_p" in row[0]}
    for step in history.prepared(world):
        history.publish(world, step)
    history.check(world)


def _made(world: World) -> set[tuple[str, ...]]:
    return set(
        world.sql(
            "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i "
            "JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace::regnamespace::text "
            "IN ('analytics', 'etl')"
        )
    )
