"""Versions of keys: they depend on the rows only, not on the order in which these came."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.loading.ledger import ensure_ledger
from tasks.model.dataset import DatasetSpec
from tasks.model.report import LoadReceipt
from tests.integration.loading.support import World, make_partition, make_spec, rows_table
from tests.pipeline import Pipeline

COLUMNS = {
    "id": {"type": "int64"},
    "name": {"type": "string"},
    "op": {"type": "string"},
    "seen": {"type": "int64"},
}
ARROW = pa.schema(
    [("id", pa.int64()), ("name", pa.string()), ("op", pa.string()), ("seen", pa.int64())]
)
Row = tuple[int, str | None, str, int]
Version = tuple[int, str | None, int, int | None, bool]


def spec_of(**more: Any) -> DatasetSpec:
    """Return a dataset of versions; op D ends one."""
    options = {"delete": {"column": "op", "values": ["D"]}}
    return make_spec(COLUMNS, mode="scd2", options=options, **more)


def load(world: World, rows: list[Row]) -> LoadReceipt:
    """Load rows as a partition of their own."""
    partition = make_partition(str(uuid.uuid4()))
    return world.publish(world.prepared(spec_of(), partition, rows_table(rows, ARROW)))


def versions(world: World) -> list[Version]:
    """Return the versions in the table."""
    return world.sql(  # type: ignore[return-value]
        "SELECT id, name, valid_from, valid_to, is_current FROM analytics.things ORDER BY 1, 3"
    )


def model(rows: list[Row]) -> list[Version]:
    """Return what the versions of some rows are, of which no two have the same key and moment."""
    made: list[Version] = []
    for key, events in itertools.groupby(
        sorted(rows, key=lambda row: (row[0], row[3])), lambda row: row[0]
    ):
        changes: list[Row] = []
        for row in events:
            gone = row[2] == "D"
            if changes and (changes[-1][2] == "D") == gone and (gone or changes[-1][1] == row[1]):
                continue
            changes.append(row)
        ends = [*(row[3] for row in changes[1:]), None]
        made += [
            (key, row[1], row[3], end, end is None)
            for row, end in zip(changes, ends, strict=True)
            if row[2] != "D"
        ]
    return made  # fmt: skip


def counts(receipt: LoadReceipt) -> tuple[int, int, int, int, int]:
    """Return (inserted, updated, unchanged, deleted, restored)."""
    made = receipt.counts
    return (made.inserted, made.updated, made.unchanged, made.deleted, made.restored)


def test_changed_row_opens_a_version(world: World) -> None:
    """A row that says what is known opens none; one that goes back to an old value does."""
    first = load(world, [(1, "a", "U", 10), (2, "x", "U", 10)])
    receipt = load(world, [(1, "b", "U", 20), (2, "x", "U", 20), (1, "a", "U", 30)])
    assert counts(receipt) == (2, 0, 1, 0, 0)
    assert versions(world) == [
        (1, "a", 10, 20, False),
        (1, "b", 20, 30, False),
        (1, "a", 30, None, True),
        (2, "x", 10, None, True),
    ]
    # Whoever only ended a version did not write it.
    assert world.sql("SELECT _load_id FROM analytics.things WHERE valid_to = 20") == [
        (first.load_id,)
    ]
    assert world.broken(spec_of()) == set()


# What is there, what comes late, what is there then, and (inserted, updated, unchanged, deleted,
# restored) of the late load.
LATE: list[tuple[str, list[Row], list[Row], list[Version], tuple[int, ...]]] = [
    ("between two versions", [(1, "a", "U", 10), (1, "b", "U", 30)], [(1, "c", "U", 20)],
     [(1, "a", 10, 20, False), (1, "c", 20, 30, False), (1, "b", 30, None, True)], (1, 0, 0, 0, 0)),
    ("into a confirmed version", [(1, "a", "U", 10), (1, "a", "U", 30)], [(1, "c", "U", 20)],
     [(1, "a", 10, 20, False), (1, "c", 20, 30, False), (1, "a", 30, None, True)], (1, 0, 0, 0, 1)),
    ("before, saying the same", [(1, "a", "U", 30)], [(1, "a", "U", 10)],
     [(1, "a", 10, None, True)], (1, 0, 0, 1, 0)),
    ("after a deletion", [(1, "a", "U", 10), (1, None, "D", 30)], [(1, "b", "U", 20)],
     [(1, "a", 10, 20, False), (1, "b", 20, 30, False)], (1, 0, 0, 0, 0)),
    ("deletion of what was not there yet", [(1, None, "D", 30)], [(1, "a", "U", 10)],
     [(1, "a", 10, 30, False)], (1, 0, 0, 0, 0)),
    ("deletion into a confirmed version", [(1, "a", "U", 10), (1, "a", "U", 30)], [(1, None, "D", 20)],
     [(1, "a", 10, 20, False), (1, "a", 30, None, True)], (0, 0, 1, 0, 1)),
    ("correction", [(1, "a", "U", 10), (1, "b", "U", 30)], [(1, "c", "U", 30)],
     [(1, "a", 10, 30, False), (1, "c", 30, None, True)], (0, 1, 0, 0, 0)),
    ("correction that closes a gap", [(1, "a", "U", 10), (1, "b", "U", 30)], [(1, "a", "U", 30)],
     [(1, "a", 10, None, True)], (0, 0, 1, 1, 0)),
    ("deletion at the moment of a version", [(1, "a", "U", 10)], [(1, None, "D", 10)],
     [], (0, 0, 1, 1, 0)),
    ("the same again", [(1, "a", "U", 10), (1, "a", "U", 30)], [(1, "a", "U", 30), (1, "a", "U", 10)],
     [(1, "a", 10, None, True)], (0, 0, 2, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "there", "late", "then", "counted"), LATE, ids=[case[0] for case in LATE]
)
def test_late_rows_slot_into_their_place(
    world: World,
    what: str,
    there: list[Row],
    late: list[Row],
    then: list[Version],
    counted: tuple[int, ...],
) -> None:
    """The versions are what they would be, had the rows come in order; every row is counted."""
    load(world, there)
    receipt = load(world, late)
    assert versions(world) == then, what
    assert counts(receipt) == counted
    assert world.broken(spec_of()) == set()


EVENTS = st.dictionaries(
    st.tuples(st.integers(1, 2), st.integers(1, 8)),
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from("UUD")),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS, data=st.data())
def test_any_order_of_partitions_gives_the_same_table(
    world: World, events: dict[tuple[int, int], tuple[str | None, str]], data: st.DataObject
) -> None:
    """However rows are spread over partitions, and in whichever order these come."""
    world.sql("DROP SCHEMA IF EXISTS analytics CASCADE")
    world.sql("DROP SCHEMA IF EXISTS etl CASCADE")
    rows: list[Row] = [
        (key, None if op == "D" else name, op, seen) for (key, seen), (name, op) in events.items()
    ]
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=4)) | {0, len(rows)})
    for start, end in itertools.pairwise(cuts):
        load(world, shuffled[start:end])
    load(world, data.draw(st.permutations(rows))[: len(rows) // 2])  # some of them once more
    assert versions(world) == model(rows)
    assert world.broken(spec_of()) == set()


def test_overlapping_versions_are_found(world: World) -> None:
    """Reconcile sees a version that somebody made longer, and the table refuses a second current one."""
    load(world, [(1, "a", "U", 10), (1, "b", "U", 20)])
    world.sql("UPDATE analytics.things SET valid_to = 25 WHERE valid_from = 10")
    assert world.broken(spec_of()) == {"I8", "I11"}
    with pytest.raises(Exception, match="23505"):
        world.sql("UPDATE analytics.things SET valid_to = NULL, is_current = true")


def test_versions_of_one_partition_are_all_kept(world: World) -> None:
    """Of rows with one key and one moment the last is taken; a row without a moment is refused."""
    ensure_ledger(world.engine)
    lines = ["1,a,U,10", "1,b,U,20", "1,c,U,20", "1,a,U,30", "1,z,U,"]
    Path(world.root / "a.csv").write_text("\n".join(["id,name,op,seen", *lines, ""]))
    pipeline = Pipeline(world.engine, world.lake, world.scratch, world.root)
    (receipt,) = pipeline.run(spec_of())
    assert receipt.counts.deduplicated == 1 and receipt.counts.quarantined == 1
    assert versions(world) == [
        (1, "a", 10, 20, False),
        (1, "c", 20, 30, False),
        (1, "a", 30, None, True),
    ]
    assert world.broken(spec_of()) == set()


def test_columns_may_be_called_otherwise(world: World) -> None:
    """The names of the three columns are declared, and may not be those of others."""
    options = {"valid_from": "since", "valid_to": "until", "is_current": "now"}
    spec = make_spec(mode="scd2", options=options)
    world.load(spec, "a", [(1, "one", 1)])
    assert world.sql('SELECT since, until, "now" FROM analytics.things') == [(1, None, True)]
    with pytest.raises(ValidationError, match="'name' is there twice"):
        make_spec(mode="scd2", options={"valid_to": "name"})
    with pytest.raises(ValidationError, match="needs a 'cursor' beside the key"):
        make_spec(mode="scd2", cursor=None)
