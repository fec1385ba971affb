"""A load taken back: the table is as if it had never been, and so is the ledger."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasks.loading.ledger_state import source_state
from tasks.loading.unload import Unloaded, unload
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken, LoadConflict
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

COUNTS = "SELECT load_id, rows_inserted, rows_updated, rows_unchanged FROM etl.loads ORDER BY 1"


def _unload(world: World, spec: DatasetSpec, load_id: int, **more: Any) -> Unloaded:
    options = {"actor": "me", "reason": "wrong file", **more}
    return unload(world.engine, world.lake, spec, load_id, **options)


def _history(chance: random.Random) -> list[list[tuple[int, str | None, int | None]]]:
    return [
        [
            (key, chance.choice(["a", "b", None]), chance.choice([None, 1, 2, 3]))
            for key in chance.sample(range(20), 8)
        ]
        for _ in range(6)
    ]


@pytest.mark.parametrize(
    ("mode", "cursor"),
    [("merge", "seen"), ("merge", None), ("insert_only", None), ("append", None)],
)
def test_table_and_ledger_are_as_if_the_load_had_never_been(
    world: World, mode: str, cursor: str | None
) -> None:
    """Random loads, one of them taken back, compared with a table that never had it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    history = _history(chance)
    gone = chance.randrange(len(history))
    key = () if mode == "append" else ("id",)
    spec = make_spec(mode=mode, key=key, cursor=cursor)
    other = make_spec(mode=mode, key=key, cursor=cursor, name="others")
    ids = [world.load(spec, f"p{n}", rows).load_id for n, rows in enumerate(history)]
    twins = {
        world.load(other, f"p{n}", rows).load_id: ids[n]
        for n, rows in enumerate(history)
        if n != gone
    }
    _unload(world, spec, ids[gone])
    columns = "id, name, seen, _load_id"
    expected = [(*row[:3], twins[row[3]]) for row in world.rows(other, columns)]
    assert sorted(world.rows(spec, columns), key=str) == sorted(expected, key=str)
    counts = {row[0]: row[1:] for row in world.sql(COUNTS)}
    assert {load: counts[load] for load in twins.values()} == {
        twins[load]: counts[load] for load in twins
    }
    assert world.broken(spec) == set()


def test_ledger_row_moves_and_the_source_is_read_again_unless_excluded(world: World) -> None:
    """What is taken back is planned again; with --exclude it is not, and the audit says why."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 1)], bad={"range": 2})
    world.load(spec, "b", [(1, "eins", 2)], bad={"range": 1})
    done = _unload(world, spec, 2)
    assert (done.rows_deleted, done.rows_restored, done.already) == (1, 1, False)
    assert world.rows(spec) == [(1, "one", 1)]
    assert len(source_state(world.engine, "things").items) == 1
    again = _unload(world, spec, 2)
    assert (again.already, again.unloaded_by, again.rows_restored) == (True, "me", 1)
    assert world.load(spec, "b", [(1, "eins", 2)], bad={"range": 1}).counts.updated == 1
    _unload(world, spec, 3, exclude=True)
    state = source_state(world.engine, "things")
    assert ("file:///b.csv", "sha-b") in state.items
    assert make_partition("b").fingerprint in state.fingerprints
    assert world.sql(
        "SELECT load_id, excluded, load ->> 'label', quarantine -> 0 ->> 'rule' FROM etl.unloads ORDER BY 1"
    ) == [(2, False, "b", "range"), (3, True, "b", "range")]
    assert world.sql("SELECT action, load_id, actor, reason FROM etl.audit ORDER BY audit_id") == [
        ("unload", 2, "me", "wrong file"), ("unload", 3, "me", "wrong file"),
    ]  # fmt: skip
    assert world.broken(spec) == set()


def test_what_cannot_be_undone_exactly_is_refused(world: World) -> None:
    """The version before is gone from the lake: nothing is changed, and the message says why."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 1)])
    for path in (world.root / "lake" / "clean").rglob("*.parquet"):
        path.unlink()
    world.load(spec, "b", [(1, "eins", 2)])
    world.load(spec, "c", [(2, "two", 2)])
    with pytest.raises(ContractBroken, match="may be of load 1, whose files are gone"):
        _unload(world, spec, 2)
    with pytest.raises(ContractBroken, match="its clean files are gone"):
        _unload(world, spec, 1)
    with pytest.raises(ConfigError, match="no load 9"):
        _unload(world, spec, 9)
    with pytest.raises(ConfigError, match="needs a reason"):
        _unload(world, spec, 3, reason=" ")
    assert world.rows(spec) == [(1, "eins", 2), (2, "two", 2)]
    assert _unload(world, spec, 3).rows_deleted == 1  # it only inserted: nothing is to be restored
    assert world.rows(spec) == [(1, "eins", 2)]


def test_run_under_way_is_fenced_off(world: World) -> None:
    """A load that was prepared before publishes nothing afterwards."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 1)])
    late = world.prepared(spec, make_partition("d"), rows_table([(20, "x", 1)]))
    _unload(world, spec, 1)
    with pytest.raises(LoadConflict, match="unload by me"):
        world.publish(late)
