"""Kill an unload, a repair and a rebuild at every step: done again, it is as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.loading import rebuild as rebuilding
from tasks.loading import repair as repairing
from tasks.loading import unload as unloading
from tasks.loading.copies import copy_ledger
from tasks.model.dataset import DatasetSpec
from tests.faults.campaign import FORKSERVER, connection_document
from tests.integration.loading.support import World, make_lake, make_spec

SECONDS = 60
LOADS = [
    [(1, "one", 1), (2, "two", 1)],
    [(1, "eins", 2), (2, "gone", 3), (3, "drei", 2)],
    [(3, "late", 1), (4, "vier", 2)],
]
OnStep = Callable[[str], None]


def spec_of(mode: str) -> DatasetSpec:
    """Return a dataset whose loads are folded, or applied again in the warehouse."""
    if mode == "merge":
        return make_spec()
    return make_spec(mode=mode, options={"delete": {"column": "name", "values": ["gone"]}})


def work(world: World, action: str, mode: str, on_step: OnStep = lambda _step: None) -> None:
    """Do what is to be killed."""
    spec, options = spec_of(mode), {"actor": "me", "on_step": on_step}
    if action == "unload":
        unloading.unload(world.engine, world.lake, spec, 2, reason="wrong", **options)  # type: ignore[arg-type]
    elif action == "repair":
        repairing.repair(world.engine, world.lake, spec, 10_000, **options)  # type: ignore[arg-type]
    else:
        rebuilding.rebuild(world.engine, world.lake, spec, **options)  # type: ignore[arg-type]


def victim(document: dict[str, Any], root: str, action: str, mode: str, step: str) -> None:
    """Do it in this process, which kills itself at a step."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("victim"), make_lake(Path(root) / "lake"), Path(root))

    def on_step(at: str) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    work(world, action, mode, on_step)


def killed(warehouse: WarehouseCredentials, root: Path, action: str, mode: str, step: str) -> None:
    """Have a process killed at a step of what it does."""
    arguments = (connection_document(warehouse), str(root), action, mode, step)
    process = FORKSERVER.Process(target=victim, args=arguments)
    process.start()
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL, step


def loaded(world: World, mode: str) -> list[tuple[Any, ...]]:
    """Load three partitions; return the rows of the table."""
    for number, rows in enumerate(LOADS):
        world.load(spec_of(mode), f"p{number}", rows)
    return rows_of(world)


def rows_of(world: World) -> list[tuple[Any, ...]]:
    """Return all of every row, in an order."""
    return world.sql("SELECT t.* FROM analytics.things t ORDER BY t.id, t.seen")


@pytest.mark.parametrize("mode", ["merge", "scd2"])
def test_killed_unload(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str
) -> None:
    """Until it is committed nothing is changed; then it is all done, and said so."""
    before = loaded(world, mode)
    for step in unloading.STEPS:
        killed(warehouse, tmp_path, "unload", mode, step)
        is_done = step == "committed"
        assert world.sql("SELECT count(*) FROM etl.unloads") == [(int(is_done),)]
        assert (rows_of(world) == before) is not is_done
        assert world.broken(spec_of(mode)) == set()
    work(world, "unload", mode)
    assert world.sql("SELECT count(*) FROM etl.audit") == [(1,)]
    assert [row[1] for row in rows_of(world)] == ["one", "two", "late", "vier"]
    assert world.broken(spec_of(mode)) == set()


@pytest.mark.parametrize("mode", ["merge", "scd2"])
def test_killed_repair(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str
) -> None:
    """Until it is committed the table stays as it was found."""
    before = loaded(world, mode)
    world.sql("DELETE FROM analytics.things WHERE id = 1")
    damaged = rows_of(world)
    for step in repairing.STEPS:
        killed(warehouse, tmp_path, "repair", mode, step)
        assert rows_of(world) == (before if step == "committed" else damaged)
    work(world, "repair", mode)
    assert rows_of(world) == before
    assert world.sql("SELECT count(*) FROM etl.audit") == [(1,)]
    assert world.broken(spec_of(mode)) == set()


@pytest.mark.parametrize("mode", ["scd2"])
def test_killed_rebuild(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str
) -> None:
    """It goes on where it was, load by load."""
    before = loaded(world, mode)
    ledger = world.sql("SELECT * FROM etl.loads ORDER BY load_id")
    copy_ledger(world.engine, world.lake, wait=True)
    world.sql("DROP SCHEMA analytics CASCADE; DROP SCHEMA etl CASCADE")
    there = []
    for step in rebuilding.STEPS:
        killed(warehouse, tmp_path, "rebuild", mode, step)
        there.append(world.sql("SELECT count(*) FROM etl.loads")[0][0])
        copy_ledger(world.engine, world.lake, wait=True)  # nothing may be lost from the copy
    assert there == [0, 0, 0, 1, 3, 3]
    work(world, "rebuild", mode)
    assert rows_of(world) == before
    assert world.sql("SELECT * FROM etl.loads ORDER BY load_id") == ledger
    assert world.broken(spec_of(mode)) == set()
