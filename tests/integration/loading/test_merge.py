"""What becomes of a row whose key is there already."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.model.errors import ContractBroken
from tests.integration.loading.support import (
    World,
    make_partition,
    make_spec,
    rows_table,
)

# Cursor in the table, cursor staged, is the staged row the newer one? NULL is older than any.
CURSORS = [
    (1, 2, True),
    (2, 1, False),  # an older row never overwrites a newer one
    (2, 2, True),  # of the same cursor the row that came last counts
    (None, 1, True),
    (1, None, False),
    (None, None, True),
]


@pytest.mark.parametrize(("there", "staged", "wins"), CURSORS)
def test_newest_wins_against_the_table(
    world: World, there: int | None, staged: int | None, wins: bool
) -> None:
    """The row with the greatest cursor stays, whichever was loaded first."""
    spec = make_spec()
    world.load(spec, "a", [(1, "there", there)])
    receipt = world.load(spec, "b", [(1, "staged", staged)])
    assert world.rows(spec) == [(1, "staged", staged) if wins else (1, "there", there)]
    assert (receipt.counts.updated, receipt.counts.unchanged) == ((1, 0) if wins else (0, 1))


def test_unchanged_rows_are_not_rewritten(world: World) -> None:
    """A row that is as it was keeps its version and its load: NULLs are equal to NULLs."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 1), (2, None, None)])
    before = world.sql("SELECT id, xmin::text, ctid::text, _load_id FROM analytics.things")
    receipt = world.load(spec, "b", [(1, "one", 1), (2, None, None)])
    assert receipt.counts.unchanged == 2
    assert world.sql("SELECT id, xmin::text, ctid::text, _load_id FROM analytics.things") == before


def test_changed_rows_carry_their_load(world: World) -> None:
    """From a row one gets to the load that wrote it last."""
    spec = make_spec()
    first = world.load(spec, "a", [(1, "one", 1), (2, "two", 1)])
    second = world.load(spec, "b", [(2, "zwei", 2)])
    assert world.rows(spec, "id, _load_id") == [(1, first.load_id), (2, second.load_id)]


def test_null_becomes_a_value_and_a_value_null(world: World) -> None:
    """Changes from and to NULL are changes."""
    spec = make_spec(cursor=None)
    world.load(spec, "a", [(1, None, 1), (2, "two", 1)])
    assert world.load(spec, "b", [(1, "one", 1), (2, None, 1)]).counts.updated == 2
    assert world.rows(spec) == [(1, "one", 1), (2, None, 1)]


def test_table_of_keys_only(world: World) -> None:
    """A dataset whose columns all belong to the key has nothing to update."""
    spec = make_spec(key=("id", "name", "seen"))
    world.load(spec, "a", [(1, "one", 1)])
    receipt = world.load(spec, "b", [(1, "one", 1), (2, "two", 1)])
    assert (receipt.counts.inserted, receipt.counts.unchanged) == (1, 1)


def test_cursor_may_be_part_of_the_key(world: World) -> None:
    """Then every version is a row of its own."""
    spec = make_spec(key=("id", "seen"))
    world.load(spec, "a", [(1, "one", 1)])
    world.load(spec, "b", [(1, "eins", 1), (1, "uno", 2)])
    assert world.rows(spec) == [(1, "eins", 1), (1, "uno", 2)]


def test_one_key_twice_in_a_partition_is_refused(world: World) -> None:
    """The stage before removes duplicates; should it fail to, nothing is published."""
    spec = make_spec()
    with pytest.raises(ContractBroken):
        world.load(spec, "a", [(1, "one", 1), (1, "eins", 1)])


def test_append_keeps_equal_rows(world: World) -> None:
    """Append adds every row, equal ones too."""
    spec = make_spec(mode="append", key=(), cursor=None)
    world.load(spec, "a", [(1, "one", 1), (1, "one", 1)])
    assert world.load(spec, "b", [(1, "one", 1)]).counts.inserted == 1
    assert world.rows(spec) == [(1, "one", 1)] * 3
    assert world.broken(spec) == set()


def test_uuid_and_json_are_compared_by_value(world: World) -> None:
    """A UUID in capitals and JSON with other spaces are no changes."""
    import pyarrow as pa

    spec = make_spec({"id": {"type": "uuid"}, "doc": {"type": "json"}}, cursor=None)
    schema = pa.schema([("id", pa.string()), ("doc", pa.string())])
    low, high = "aaaaaaaa-0000-4000-8000-000000000001", "AAAAAAAA-0000-4000-8000-000000000001"
    for label, row in (("a", (low, '{"a":1,"b":2}')), ("b", (high, '{"b": 2, "a": 1}'))):
        receipt = world.publish(
            world.prepared(spec, make_partition(label), rows_table([row], schema))
        )
    assert (receipt.counts.inserted, receipt.counts.unchanged) == (0, 1)


ROWS = st.dictionaries(
    st.integers(1, 6),
    st.tuples(st.none() | st.text("ab", max_size=1), st.none() | st.integers(0, 3)),
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(partitions=st.lists(ROWS, min_size=1, max_size=4))
def test_table_equals_the_model(
    world: World, partitions: list[dict[int, tuple[str | None, int | None]]]
) -> None:
    """After any sequence of partitions, table and counts are those of a model in Python."""
    spec = make_spec()
    world.sql("DROP SCHEMA IF EXISTS analytics CASCADE")
    world.sql("DROP SCHEMA IF EXISTS etl CASCADE")
    model: dict[int, tuple[str | None, int | None]] = {}
    for number, rows in enumerate(partitions):
        expected = [0, 0, 0]
        for key, value in rows.items():
            there = model.get(key)
            newer = (
                there is None or there[1] is None or (value[1] is not None and value[1] >= there[1])
            )
            changed = newer and there != value
            expected[0 if there is None else 1 if changed else 2] += 1
            if changed:
                model[key] = value
        label = f"{uuid.uuid4()}-{number}"  # the lake is not emptied between examples
        receipt = world.load(spec, label, [(key, *value) for key, value in rows.items()])
        counts = receipt.counts
        assert [counts.inserted, counts.updated, counts.unchanged] == expected
    assert world.rows(spec) == [(key, *value) for key, value in sorted(model.items())]
    assert world.broken(spec) == set()


def test_insert_only_leaves_what_is_there(world: World) -> None:
    """A newer row of a key that is there changes nothing, not even the row's load."""
    spec = make_spec(mode="insert_only")
    first = world.load(spec, "a", [(1, "one", 1), (2, "two", 2)])
    receipt = world.load(spec, "b", [(2, "zwei", 3), (3, "drei", 3)])
    assert (receipt.counts.inserted, receipt.counts.updated, receipt.counts.unchanged) == (1, 0, 1)
    assert world.rows(spec, "id, name, _load_id") == [
        (1, "one", first.load_id),
        (2, "two", first.load_id),
        (3, "drei", receipt.load_id),
    ]
    assert world.broken(spec) == set()
