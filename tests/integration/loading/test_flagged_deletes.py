"""Rows that say of themselves that theirs is deleted: removed or marked, and never brought back."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.model.dataset import DatasetSpec
from tasks.model.report import LoadReceipt
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

COLUMNS = {
    "id": {"type": "int64", "nullable": False},
    "name": {"type": "string"},
    "op": {"type": "string"},
    "seen": {"type": "int64"},
}
ARROW = pa.schema(
    [("id", pa.int64()), ("name", pa.string()), ("op", pa.string()), ("seen", pa.int64())]
)
Row = tuple[int, str | None, str | None, int | None]


def spec_of(kind: str, **more: Any) -> DatasetSpec:
    """Return a dataset whose rows with op D are deletions."""
    delete = {"column": "op", "values": ["D", "X"], "kind": kind}
    return make_spec(COLUMNS, options={"delete": delete}, **more)


def load(world: World, spec: DatasetSpec, rows: list[Row]) -> LoadReceipt:
    """Load rows as a partition of their own."""
    partition = make_partition(str(uuid.uuid4()))
    return world.publish(world.prepared(spec, partition, rows_table(rows, ARROW)))


def counts(receipt: LoadReceipt) -> tuple[int, int, int, int]:
    """Return (inserted, updated, unchanged, deleted)."""
    made = receipt.counts
    return (made.inserted, made.updated, made.unchanged, made.deleted)


def test_hard_delete_removes_the_row(world: World) -> None:
    """A flagged row counts as unchanged, and the row that it removed as deleted."""
    spec = spec_of("hard")
    load(world, spec, [(1, "one", "I", 1), (2, "two", None, 1), (3, "three", "I", 1)])
    receipt = load(world, spec, [(1, None, "D", 2), (2, "zwei", "U", 2), (9, None, "X", 2)])
    assert counts(receipt) == (0, 1, 2, 1)
    assert world.rows(spec) == [(2, "zwei", 2), (3, "three", 1)]
    assert world.broken(spec) == set()


# The rows of a key, in the order of their loads, and what is left of them.
HISTORIES: list[tuple[str, list[Row], list[tuple[int, str, int]]]] = [
    ("older comes late", [(1, "a", "I", 1), (1, None, "D", 3), (1, "b", "U", 2)], []),
    ("never seen before", [(1, None, "D", 3), (1, "b", "U", 2)], []),
    ("without a cursor", [(1, "a", "I", 1), (1, None, "D", 3), (1, "b", "U", None)], []),
    ("newer comes back", [(1, None, "D", 3), (1, "b", "I", 4)], [(1, "b", 4)]),
    ("deleted too late", [(1, "b", "I", 4), (1, None, "D", 3)], [(1, "b", 4)]),
    ("same moment", [(1, None, "D", 3), (1, "b", "I", 3)], [(1, "b", 3)]),
    ("back and gone again", [(1, None, "D", 3), (1, "b", "I", 4), (1, None, "D", 5)], []),
    ("older deletion last", [(1, None, "D", 5), (1, None, "D", 3), (1, "b", "U", 4)], []),
    ("back, then an old one", [(1, None, "D", 3), (1, "b", "I", 4), (1, "c", "U", 2)], [(1, "b", 4)]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "rows", "left"), HISTORIES, ids=[case[0] for case in HISTORIES])
def test_deleted_row_is_as_old_as_its_cursor(
    world: World, what: str, rows: list[Row], left: list[tuple[int, str, int]]
) -> None:
    """Of the rows of a key and its deletion the newest wins, whichever was loaded first."""
    spec = spec_of("hard")
    for row in rows:
        load(world, spec, [row])
    assert world.rows(spec) == left, what
    assert world.broken(spec) == set()


def test_without_cursor_what_comes_later_is_newer(world: World) -> None:
    """Nothing is remembered of a deletion then."""
    spec = spec_of("hard", cursor=None)
    load(world, spec, [(1, "one", "I", 1)])
    assert load(world, spec, [(1, None, "D", 2)]).counts.deleted == 1
    load(world, spec, [(1, "eins", "I", 0)])
    assert world.rows(spec) == [(1, "eins", 0)]
    assert world.sql("SELECT to_regclass('etl.tombstones_things')") == [(None,)]


def test_row_that_somebody_brings_back_is_found(world: World) -> None:
    """Reconcile compares the table with what it remembers of deletions."""
    spec = spec_of("hard")
    receipt = load(world, spec, [(1, None, "D", 3)])
    world.sql(f"INSERT INTO analytics.things VALUES (1, 'b', 'U', 2, {receipt.load_id})")
    assert "I8" in world.broken(spec)


def test_tombstones_are_of_their_table(world: World) -> None:
    """When the table was dropped and made anew, nothing was ever deleted from it."""
    spec = spec_of("hard")
    load(world, spec, [(1, None, "D", 3)])
    world.sql("DROP TABLE analytics.things")
    load(world, spec, [(1, "b", "U", 2)])
    assert world.rows(spec) == [(1, "b", 2)]


def test_tombstones_follow_when_the_cursor_is_widened(world: World) -> None:
    """A deletion is remembered in the types of the table, whatever these become."""
    delete = {"column": "op", "values": ["D"]}
    narrow = make_spec({**COLUMNS, "seen": {"type": "int32"}}, options={"delete": delete})
    spec = spec_of("hard", contract="evolve")
    load(world, narrow, [(1, None, "D", 3)])
    load(world, spec, [(2, None, "D", 2**40)])
    load(world, spec, [(1, "old", "U", 2), (2, "old", "U", 2**40 - 1)])
    assert world.rows(spec) == []


SOFT = "id, name, op, seen, _deleted_at IS NOT NULL"


def test_soft_delete_keeps_the_row(world: World) -> None:
    """It keeps its values, since what a source says of a deleted row is often its key alone."""
    spec = spec_of("soft")
    load(world, spec, [(1, "one", "I", 1), (2, "two", "I", 1)])
    receipt = load(world, spec, [(1, None, "D", 2), (3, None, "D", 2)])
    assert counts(receipt) == (1, 1, 0, 0)
    assert world.rows(spec, SOFT) == [
        (1, "one", "D", 2, True),
        (2, "two", "I", 1, False),
        (3, None, "D", 2, True),
    ]
    late = load(world, spec, [(1, "late", "U", 1), (3, "late", "U", 1)])
    again = load(world, spec, [(1, None, "D", 2)])
    assert counts(late) == (0, 0, 2, 0) and counts(again) == (0, 0, 1, 0)
    load(world, spec, [(1, "back", "U", 3)])
    assert world.rows(spec, SOFT)[0] == (1, "back", "U", 3, False)
    assert world.broken(spec) == set()


def test_soft_delete_remembers_when_it_was_first_loaded(world: World) -> None:
    """A later deletion of the same row moves its cursor, not the time of its deletion."""
    spec = spec_of("soft")
    load(world, spec, [(1, None, "D", 2)])
    before = world.sql("SELECT _deleted_at FROM analytics.things")
    assert load(world, spec, [(1, None, "D", 4)]).counts.updated == 1
    assert world.sql("SELECT _deleted_at FROM analytics.things") == before


ROWS = st.dictionaries(
    st.integers(1, 4),
    st.tuples(st.sampled_from("ab"), st.sampled_from(["I", "D", None]), st.none() | st.integers(0, 4)),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(partitions=st.lists(ROWS, min_size=1, max_size=5), kind=st.sampled_from(["hard", "soft"]))
def test_table_equals_the_model(
    world: World, partitions: list[dict[int, tuple[str, str | None, int | None]]], kind: str
) -> None:
    """After any sequence of partitions the rows that are not deleted are those of a model."""
    spec = spec_of(kind)
    world.sql("DROP SCHEMA IF EXISTS analytics CASCADE")
    world.sql("DROP SCHEMA IF EXISTS etl CASCADE")
    model: dict[int, tuple[str | None, int | None, bool]] = {}
    for rows in partitions:
        for key, (name, op, seen) in rows.items():
            there = model.get(key)
            if there and there[1] is not None and (seen is None or seen < there[1]):
                continue
            if op == "D" and kind == "hard" and seen is None:
                model.pop(key, None)  # a deletion older than every cursor is no news to any row
            else:
                model[key] = (name, seen, op == "D")
        load(world, spec, [(key, *row) for key, row in rows.items()])
    where = " WHERE _deleted_at IS NULL" if kind == "soft" else ""
    alive = sorted((key, row[0], row[1]) for key, row in model.items() if not row[2])
    assert world.sql(f"SELECT id, name, seen FROM analytics.things{where} ORDER BY 1") == alive
    assert world.broken(spec) == set()
