"""Loads of the modes that do more than add rows: killed, two at once, and when an answer is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import WarehouseUnavailable
from tasks.model.partition import Partition, SourceItem
from tasks.model.report import LoadReceipt
from tests.faults.every_step import check_every_step
from tests.faults.proxy import LossyProxy
from tests.histories import MODES
from tests.integration.loading.support import World, make_lake, make_spec, rows_table

OPTIONS: dict[str, dict[str, Any]] = {
    "merge": {"delete": {"column": "name", "values": ["gone"]}},
    "scd2": {"delete": {"column": "name", "values": ["gone"]}},
    "replace": {},
    "replace_partition": {"by": "id"},
}
# Version 1 of two files, then version 2: a row changes, one is new, one is deleted, one comes late.
ROWS: dict[tuple[int, str], list[tuple[int, str, int]]] = {
    (1, "a"): [(1, "one", 1), (2, "two", 1)],
    (1, "b"): [(3, "three", 5)],
    (2, "a"): [(1, "eins", 2), (2, "gone", 2), (4, "vier", 2)],
    (2, "b"): [(3, "late", 3)],
}
TRUTH: dict[str, list[tuple[Any, ...]]] = {
    "merge": [(1, "eins", 2), (3, "three", 5), (4, "vier", 2)],
    "scd2": [(1, "eins", 2), (1, "one", 1), (2, "two", 1), (3, "late", 3), (3, "three", 5), (4, "vier", 2)],
    "replace": [(1, "eins", 2), (2, "gone", 2), (3, "late", 3), (4, "vier", 2)],
    "replace_partition": [(1, "eins", 2), (2, "gone", 2), (3, "late", 3), (4, "vier", 2)],
}  # fmt: skip


def spec_of(mode: str) -> DatasetSpec:
    """Return a dataset of a mode."""
    return make_spec(mode=mode, options=OPTIONS[mode])


def run(
    world: World, mode: str, version: int, on_step: Any = lambda _step: None
) -> list[LoadReceipt]:
    """Do a run over both files in a version of theirs."""
    spec = spec_of(mode)
    fence = world.open(spec, "run")
    loads = []
    for uri in ("a", "b"):
        item = SourceItem(uri=uri, version=str(version))
        partition = Partition(
            dataset="things",
            label=uri,
            items=(item,),
            refresh=str(version) if mode == "replace" else None,
        )
        table = rows_table(ROWS[version, uri])
        loads.append(world.prepared(spec, partition, table, fence=fence, run="run"))
    if mode == "replace":
        return load_whole(world.engine, world.lake, world.scratch, loads, on_step=on_step)
    return [world.publish(load, on_step) for load in loads]  # fmt: skip


def check_exact(world: World, mode: str) -> None:
    """Compare table and ledger with the truth."""
    assert world.sql("SELECT id, name, seen FROM analytics.things ORDER BY 1, 2") == TRUTH[mode]
    assert world.sql("SELECT count(*) FROM etl.loads") == [(4,)]
    assert world.broken(spec_of(mode)) == set()


@pytest.mark.parametrize(
    ("mode", "by"),
    [
        *((mode, None) for mode in MODES if mode not in ("append", "merge", "replace")),
        ("scd2", "valid_from"),
    ],
)
def test_load_of_any_mode_killed_at_every_step_is_done_again_once(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str, by: str | None
) -> None:
    """Also what the mode does beside: rows deleted, tombstones, marks, partitions."""
    check_every_step(world, warehouse, tmp_path, mode, by)


@pytest.mark.parametrize("fault", ["reply", "request"])
def test_lost_commit_of_a_whole_is_looked_up(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, fault: Any
) -> None:
    """One load of the run tells of all of them."""
    run(world, "replace", 1)
    proxy = LossyProxy(warehouse.port)
    block = warehouse.model_copy(update={"port": proxy.port, "idle_in_transaction_timeout": 1})
    engine = block.get_engine("remote")
    remote = World(engine, make_lake(tmp_path / "lake"), tmp_path)

    def on_step(step: str) -> None:
        if step == "committing":
            proxy.fault = fault

    try:
        receipts = run(remote, "replace", 2, on_step)
        assert fault == "reply"
        assert [receipt.status for receipt in receipts] == ["loaded", "loaded"]
    except WarehouseUnavailable:
        assert fault == "request"
        run(remote, "replace", 2)
    engine.dispose()
    proxy.close()
    check_exact(world, "replace")


@pytest.mark.parametrize("mode", ["scd2", "merge", "replace_partition"])
def test_two_loaders_at_once(world: World, mode: str) -> None:
    """Loads of one table wait for each other at the right place: nothing is lost, nothing doubled."""
    run(world, mode, 1)
    spec = spec_of(mode)
    fence = world.open(spec, "both")
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def load(uri: str) -> None:
        (world.root / uri).mkdir()
        mine = World(world.engine, world.lake, world.root / uri)
        item = SourceItem(uri=uri, version="2")
        partition = Partition(dataset="things", label=uri, items=(item,))
        table = rows_table(ROWS[2, uri])
        try:
            ready = mine.prepared(spec, partition, table, fence=fence, run="both")
            mine.publish(ready, lambda step: step == "gated" and barrier.wait(20))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=load, args=(uri,)) for uri in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_exact(world, mode)
