"""A load of any mode taken back, or its table repaired, compared with a model in Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tasks.loading.maintenance import maintain
from tasks.loading.repair import repair
from tasks.loading.unload import Unloaded, unload
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.partition import Partition, SourceItem
from tests.integration.loading import test_partitions as partitioned
from tests.integration.loading import test_retention as retention
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

Row = tuple[int, str, int]
Loads = Sequence[Sequence[Row]]
COUNTS = (
    "SELECT load_id, rows_inserted, rows_updated, rows_unchanged, rows_deleted, rows_restored "
    "FROM etl.loads WHERE dataset = %s ORDER BY 1"
)
FLAG = {"column": "name", "values": ["gone"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "merge": {"delete": FLAG},
    "soft": {"delete": {**FLAG, "kind": "soft"}},
    "scd2": {"delete": FLAG},
    "replace_partition": {"by": "id"},
}


def _merged(loads: Loads) -> list[Row]:
    """The newest of each key, unless it is a deletion; of two alike the later one."""
    newest: dict[int, Row] = {}
    for rows in loads:
        for row in rows:
            if row[0] not in newest or row[2] >= newest[row[0]][2]:
                newest[row[0]] = row
    return sorted(row for row in newest.values() if row[1] != "gone")


def _softly(loads: Loads) -> list[Row]:
    """As above, and a deletion stays, if there was a row before or not."""
    newest: dict[int, Row] = {}
    for rows in loads:
        for row in rows:
            if row[0] not in newest or row[2] >= newest[row[0]][2]:
                newest[row[0]] = row
    return sorted(newest.values())


def _versions(loads: Loads) -> list[Row]:
    """Each moment of a key once, the later load's; what repeats the value before is no version."""
    events: dict[tuple[int, int], str] = {}
    for rows in loads:
        events |= {(row[0], row[2]): row[1] for row in rows}
    found: list[Row] = []
    before: dict[int, str] = {}
    for (key, seen), name in sorted(events.items()):
        if before.get(key, "gone") != name and name != "gone":
            found.append((key, name, seen))
        before[key] = name
    return sorted(found)


def _replaced(loads: Loads) -> list[Row]:
    """What the last load said of each value."""
    content: dict[int, list[Row]] = {}
    for rows in loads:
        for value in {row[0] for row in rows}:
            content[value] = [row for row in rows if row[0] == value]
    return sorted(row for rows in content.values() for row in rows)


MODELS: dict[str, Callable[[Loads], list[Row]]] = {
    "merge": _merged,
    "soft": _softly,
    "scd2": _versions,
    "replace_partition": _replaced,
}


def _spec(mode: str, name: str) -> DatasetSpec:
    declared = "merge" if mode == "soft" else mode
    return make_spec(mode=declared, name=name, options=OPTIONS[mode])


def _load(world: World, spec: DatasetSpec, number: int, rows: Sequence[Row]) -> int:
    # One object in ever newer versions: others could not replace each other's rows.
    item = SourceItem(uri="a", version=str(number))
    partition = Partition(dataset=spec.name, label="a", items=(item,))
    return world.publish(world.prepared(spec, partition, rows_table(rows))).load_id


def _random_loads(chance: random.Random) -> list[list[Row]]:
    return [
        [
            (key, chance.choice(["a", "b", "gone"]), chance.randrange(1, 6))
            for key in chance.sample(range(8), 5)
        ]
        for _ in range(6)
    ]


def _unload(world: World, spec: DatasetSpec, load_id: int) -> Unloaded:
    return unload(world.engine, world.lake, spec, load_id, actor="me", reason="wrong file")


@pytest.mark.parametrize("mode", MODELS)
def test_tables_of_any_mode_are_repaired_and_loads_taken_back(world: World, mode: str) -> None:
    """Rows are those of the model; loads and counts those of a table that never had the load."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    loads = _random_loads(chance)
    gone = chance.randrange(len(loads))
    spec, other = _spec(mode, "things"), _spec(mode, "others")
    ids = [_load(world, spec, n, rows) for n, rows in enumerate(loads)]
    twins = {_load(world, other, n, rows): ids[n] for n, rows in enumerate(loads) if n != gone}
    assert world.rows(spec) == MODELS[mode](loads) or sorted(world.rows(spec)) == MODELS[mode](
        loads
    )
    assert world.broken(spec) == set()

    before = sorted(world.rows(spec, "*"), key=str)
    world.sql("DELETE FROM analytics.things WHERE id IN (1, 2)")
    world.sql("UPDATE analytics.things SET name = 'x' WHERE id IN (3, 4)")
    assert "I11" in world.broken(spec) or not {1, 2, 3, 4} & {row[0] for row in before}
    repair(world.engine, world.lake, spec, 10_000, actor="me")
    assert sorted(world.rows(spec, "*"), key=str) == before
    world.sql("DROP TABLE analytics.things")
    done = repair(world.engine, world.lake, spec, 10_000, actor="me")
    assert done.made == ("analytics.things",)
    assert sorted(world.rows(spec, "*"), key=str) == before
    assert world.broken(spec) == set()

    _unload(world, spec, ids[gone])
    rest = [rows for n, rows in enumerate(loads) if n != gone]
    assert sorted(world.rows(spec)) == MODELS[mode](rest)
    columns = "id, name, seen, _load_id"
    expected = [(*row[:3], twins[row[3]]) for row in world.rows(other, columns)]
    assert sorted(world.rows(spec, columns)) == sorted(expected)
    counts = {twins[row[0]]: row[1:] for row in world.sql(COUNTS, "others")}
    assert {row[0]: row[1:] for row in world.sql(COUNTS, "things")} == counts
    assert world.broken(spec) == set()
    # Loaded again it is the table of all loads; what a mode remembers of keys is right too.
    _load(world, spec, gone, loads[gone])
    assert sorted(world.rows(spec)) == MODELS[mode]([*rest, loads[gone]])
    assert world.broken(spec) == set()


def test_part_of_a_whole_is_not_taken_back(world: World) -> None:
    """Each run of mode replace replaces the table; the remedy is the source."""
    spec = make_spec(mode="replace")
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]))
    load_whole(world.engine, world.lake, world.scratch, [load])
    with pytest.raises(
        ContractBroken, match="in mode replace the table is the whole source"
    ) as error:
        _unload(world, spec, 1)
    assert error.value.remedy is not None
    assert "correct the source" in error.value.remedy


def test_tables_with_retention(world: World) -> None:
    """Rows that are kept are compared and repaired; a load that lost rows to retention stays."""
    spec = partitioned.spec_of("merge", retention=retention.KEPT)
    retention.loaded(world)
    maintain(world.engine, spec, "tidy")
    day = partitioned.THIS_MONTH
    partitioned.load(world, spec, "c", [(9, day, "newer", 2), (10, day, "new", 1)])
    assert world.broken(spec) == set()
    before = world.rows(spec, "*")
    world.sql("UPDATE analytics.things SET name = 'x' WHERE id = 9")
    assert world.broken(spec) == {"I11"}
    repair(world.engine, world.lake, spec, 10_000, actor="me")
    assert world.rows(spec, "*") == before
    with pytest.raises(ContractBroken, match="retention took 4 rows away"):
        _unload(world, spec, 1)
    done = _unload(world, spec, 3)
    assert (done.rows_deleted, done.rows_restored) == (2, 1)
    assert world.rows(spec, "id, name") == [(9, "x")]
    assert world.broken(spec) == set()
