"""Rows of an object take the place of those with the same day, and of no other object's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.loading.ledger import ensure_ledger
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.partition import Partition, SourceItem
from tasks.model.replay import ReplayRequest
from tasks.model.report import LoadReceipt
from tasks.model.request import RunRequest
from tests.integration.loading.support import World, make_spec, rows_table
from tests.pipeline import Pipeline

COLUMNS = {"day": {"type": "date"}, "amount": {"type": "int64", "checks": {"between": [0, 100]}}}
ARROW = pa.schema([("day", pa.date32()), ("amount", pa.int64())])
FIRST, SECOND, THIRD = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)


ANY_AMOUNT = {**COLUMNS, "amount": {"type": "int64"}}


def spec_of(columns: Mapping[str, Any] = COLUMNS) -> DatasetSpec:
    """Return a dataset whose days are replaced."""
    return make_spec(columns, mode="replace_partition", options={"by": "day"}, key=(), cursor=None)


def load(
    world: World, uri: str, version: str, rows: list[tuple[date, int]], **more: Any
) -> LoadReceipt:
    """Load an object in a version."""
    item = SourceItem(uri=uri, version=version)
    partition = Partition(dataset="things", label=uri, items=(item,), **more)
    return world.publish(world.prepared(spec_of(), partition, rows_table(rows, ARROW)))


def rows_of(world: World) -> list[tuple[Any, ...]]:
    """Return the rows of the table."""
    return world.sql("SELECT day, amount FROM analytics.things ORDER BY 1, 2")


def test_newer_version_replaces_its_days_only(world: World) -> None:
    """All rows of the days that it has go, also those that it lacks; other days stay."""
    load(world, "a", "1", [(FIRST, 1), (FIRST, 2), (SECOND, 3)])
    load(world, "b", "1", [(THIRD, 4), (THIRD, 4)])
    receipt = load(world, "a", "2", [(FIRST, 5)])
    assert (receipt.counts.inserted, receipt.counts.deleted) == (1, 2)
    assert rows_of(world) == [(FIRST, 5), (SECOND, 3), (THIRD, 4), (THIRD, 4)]
    assert load(world, "a", "2", [(FIRST, 5)]).status == "already loaded"
    assert world.broken(spec_of()) == set()


def test_two_objects_of_one_day_are_refused(world: World) -> None:
    """The second would wipe the first; it is named, and stays refused when it is tried again."""
    load(world, "a", "1", [(FIRST, 1)])
    for _ in range(2):
        with pytest.raises(ContractBroken, match="b has rows of a day that a has rows of too"):
            load(world, "b", "1", [(SECOND, 2), (FIRST, 2)])
    assert rows_of(world) == [(FIRST, 1)]
    load(world, "a", "2", [(THIRD, 1)])  # the first day's rows are still those of its version 1
    with pytest.raises(ContractBroken):
        load(world, "b", "1", [(SECOND, 2), (FIRST, 2)])


def test_object_that_was_loaded_again_is_itself(world: World) -> None:
    """A refresh replaces its own rows; rows that only an earlier load of it had stay its own."""
    load(world, "a", "1", [(FIRST, 1), (SECOND, 2)])
    load(world, "a", "1", [(FIRST, 10)], refresh="again")
    load(world, "a", "2", [(SECOND, 20)])
    assert rows_of(world) == [(FIRST, 10), (SECOND, 20)]
    assert world.broken(spec_of()) == set()


def test_readers_see_a_day_before_or_after(world: World) -> None:
    """Until the load commits another session sees the old rows, all of them."""
    load(world, "a", "1", [(FIRST, 1), (FIRST, 2)])
    item = SourceItem(uri="a", version="2")
    partition = Partition(dataset="things", label="a", items=(item,))
    ready = world.prepared(spec_of(), partition, rows_table([(FIRST, 3)], ARROW))
    seen = {}
    world.publish(ready, lambda step: seen.update({step: rows_of(world)}))
    before = [(FIRST, 1), (FIRST, 2)]
    assert {tuple(rows) for step, rows in seen.items() if step != "committed"} == {tuple(before)}
    assert seen["committed"] == [(FIRST, 3)]


@pytest.fixture
def pipeline(world: World) -> Pipeline:
    """The stages over files."""
    ensure_ledger(world.engine)
    return Pipeline(world.engine, world.lake, world.scratch, world.root)


def write(root: Path, name: str, *rows: str) -> None:
    """Write a file of the source."""
    (root / f"{name}.csv").write_text("\n".join(["day,amount", *rows, ""]))


def test_files_are_partitions_each(world: World, pipeline: Pipeline) -> None:
    """Small files are not packed together: else a corrected one would take the others' days along."""
    for number in (1, 2, 3):
        write(world.root, f"d{number}", f"2026-01-0{number},{number}", ",5")
    receipts = pipeline.run(spec_of())
    assert [receipt.counts.quarantined for receipt in receipts] == [1, 1, 1]  # no day
    write(world.root, "d2", "2026-01-02,20", "2026-01-02,21")
    (receipt,) = pipeline.run(spec_of())
    assert (receipt.counts.inserted, receipt.counts.deleted) == (2, 1)
    assert [row["amount"] for row in pipeline.rows(spec_of())] == [1, 20, 21, 3]
    pipeline.run(spec_of(), "again", RunRequest(refresh=True))
    assert [row["amount"] for row in pipeline.rows(spec_of())] == [1, 20, 21, 3]
    assert world.broken(spec_of()) == set()


def test_replayed_rows_join_their_day(world: World, pipeline: Pipeline) -> None:
    """A refused row that is replayed is added to what its object has of the day."""
    write(world.root, "a", "2026-01-01,1", "2026-01-01,700")
    pipeline.run(spec_of())
    (receipt,) = pipeline.replay(spec_of(ANY_AMOUNT), ReplayRequest())
    assert (receipt.counts.inserted, receipt.counts.deleted) == (1, 0)
    assert rows_of(world) == [(FIRST, 1), (FIRST, 700)]
    write(world.root, "a", "2026-01-01,2")
    pipeline.run(spec_of())  # the replayed row is the object's own, too
    assert rows_of(world) == [(FIRST, 2)]
    assert world.broken(spec_of()) == set()


def test_rows_are_not_replayed_into_a_newer_day(world: World, pipeline: Pipeline) -> None:
    """The day was replaced since they were refused: they are of a version that is gone."""
    write(world.root, "a", "2026-01-01,1", "2026-01-01,700")
    pipeline.run(spec_of())
    write(world.root, "a", "2026-01-01,2")
    pipeline.run(spec_of())
    with pytest.raises(ContractBroken, match="replaced since load 1 refused"):
        pipeline.replay(spec_of(ANY_AMOUNT), ReplayRequest())
    assert rows_of(world) == [(FIRST, 2)]
