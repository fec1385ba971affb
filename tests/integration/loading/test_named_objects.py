"""Runs for some objects only: beside all other runs, and never over something newer."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.ledger import open_dataset
from tasks.loading.ledger_state import source_state
from tasks.loading.publish import Load, load_partition
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, LoadConflict, PlanOutdated
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import RunRequest
from tests.integration.loading.support import World, make_spec, rows_table
from tests.pipeline import Pipeline


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "inbox"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def write(pipeline: Pipeline, name: str, *rows: str) -> None:
    (pipeline.base / name).write_text("\n".join(["id,name,seen", *rows, ""]))


def objects(*names: str) -> RunRequest:
    return RunRequest(objects=names)


def test_only_the_named_objects_are_planned_and_what_is_loaded_or_gone_is_not(
    pipeline: Pipeline,
) -> None:
    spec = make_spec()
    for name in ("a", "b", "c"):
        write(pipeline, f"{name}.csv", f"{ord(name)},{name},1")
    (planned,) = pipeline.plan(spec, objects("c.csv", "a.csv", "c.csv", "gone.csv"))
    assert sorted(item.uri for item in planned.items) == ["a.csv", "c.csv"]
    (receipt,) = pipeline.run(spec, request=objects("c.csv", "a.csv"))
    assert receipt.counts.inserted == 2
    assert pipeline.plan(spec, objects("a.csv", "gone.csv")) == []
    (rest,) = pipeline.plan(spec)
    assert [item.uri for item in rest.items] == ["b.csv"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (make_spec(mode="replace", key=(), cursor=None), "'replace' loads the whole source"),
        (
            make_spec(source={"kind": "rest", "block": "x", "path": "/y"}),
            "kind 'rest' has no objects",
        ),
        (make_spec(), "file a.txt is none of source.path"),
    ],
)
def test_objects_that_cannot_be_named_are_refused(
    pipeline: Pipeline, spec: DatasetSpec, said: str
) -> None:
    from tasks.ingestion.planning import check_request

    with pytest.raises(ConfigError, match=said):
        check_request(spec, objects("a.txt"))
        pipeline.plan(spec, objects("a.txt"))


@pytest.fixture
def world(engine: Engine, lake: Lake, tmp_path: Path) -> World:
    return World(engine, lake, tmp_path)


def item(name: str, version: str = "v1") -> SourceItem:
    return SourceItem(uri=name, version=version, bytes=10)


def planned(world: World, spec: DatasetSpec, *items: SourceItem) -> Partition:
    last = source_state(world.engine, spec.name).last_load or 0
    return Partition(dataset=spec.name, label=items[0].uri, items=items, planned_after=last)


def ready(world: World, spec: DatasetSpec, run: str, partition: Partition, *names: str) -> Load:
    """Return a load of a run for objects; its rows say which run it was."""
    fence = open_dataset(world.engine, spec.name, run, "objects")
    rows = [(number, run, 1) for number, _ in enumerate(names)]
    load = world.prepared(spec, partition, rows_table(rows), fence=fence, run=run)
    return Load(**{**vars(load), "purpose": "objects"})


def test_runs_for_objects_and_live_runs_do_not_take_the_dataset_from_each_other(
    world: World,
) -> None:
    spec = make_spec(mode="append", key=(), cursor=None)
    one = ready(world, spec, "one", planned(world, spec, item("a")), "x")
    two = ready(world, spec, "two", planned(world, spec, item("b")), "x")
    live = world.prepared(spec, planned(world, spec, item("c")), rows_table([(9, "live", 1)]))
    for load in (two, live, one):
        assert load_partition(world.engine, world.lake, world.scratch, load).counts.inserted == 1
    world.sql("UPDATE etl.datasets SET fence = fence + 1")  # what dpp unload does
    late = ready(world, spec, "late", planned(world, spec, item("d")), "x")
    world.sql("UPDATE etl.datasets SET fence = fence + 1")
    with pytest.raises(LoadConflict, match="took the dataset over"):
        world.publish(late)


def test_older_version_of_an_object_never_overwrites_the_newer_one(world: World) -> None:
    """Notifications out of order, or a run that was slow: what was loaded later stays."""
    spec = make_spec(cursor=None)
    slow = ready(world, spec, "slow", planned(world, spec, item("a", "v1")), "x")
    quick = ready(world, spec, "quick", planned(world, spec, item("a", "v2")), "x")
    world.publish(quick)
    with pytest.raises(PlanOutdated, match="a was loaded by another run meanwhile"):
        world.publish(slow)
    assert world.rows(spec) == [(0, "quick", 1)]
    again = planned(world, spec, item("a", "v1"))  # it is there again after v2: now it is newer
    world.publish(ready(world, spec, "again", again, "x"))
    assert world.rows(spec) == [
        (0, "slow", 1)
    ]  # the rows of that version, as they were read before


def test_object_in_two_partitions_is_loaded_once(world: World) -> None:
    spec = make_spec(mode="append", key=(), cursor=None)
    both = ready(world, spec, "both", planned(world, spec, item("a"), item("b")), "x", "y")
    world.publish(ready(world, spec, "one", planned(world, spec, item("a")), "x"))
    with pytest.raises(PlanOutdated):
        world.publish(both)
    assert world.rows(spec) == [(0, "one", 1)]
