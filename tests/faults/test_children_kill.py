"""Kill loads with child tables: rows and their items are there together, once, or not at all."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.ingestion.connector import PlanLimits
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.publish import load_partition
from tasks.loading.whole import load_whole
from tasks.model.load import ReplaceLoad
from tests.child_models import MODELS, in_order, random_files, spec_of, write
from tests.faults.campaign import connection_document
from tests.integration.loading.support import World, make_lake
from tests.pipeline import Pipeline

SECONDS = 30
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.faults.campaign", "tests.pipeline"])


def run(world: World, mode: str, on_step: Callable[[str], None] = lambda _step: None) -> int:
    """Load what is new; return how many partitions that were."""
    spec = spec_of(mode)
    limits = PlanLimits(partition_bytes=1)
    pipeline = Pipeline(world.engine, world.lake, world.scratch, world.root, limits=limits)
    fence = open_dataset(world.engine, spec.name, "run", "run")
    loads = [pipeline.load_of(spec, one, "run", fence) for one in pipeline.plan(spec)]
    if isinstance(spec.load, ReplaceLoad):
        if loads:
            load_whole(world.engine, world.lake, world.scratch, loads, on_step=on_step)
        return len(loads)
    for load in loads:
        load_partition(world.engine, world.lake, world.scratch, load, on_step=on_step)
    return len(loads)


def victim(document: dict[str, Any], root: str, mode: str, step: str) -> None:
    """Load in this process, which kills itself at a step."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("victim"), make_lake(Path(root) / "lake"), Path(root))
    run(world, mode, lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == step else None)


# ``committing`` is after the accounts of the children were written.
KILLS = [
    ("insert_only", "merged"),
    ("hard", "committing"),
    ("soft", "merged"),
    ("replace", "committing"),
    ("replace_partition", "merged"),
    ("scd2", "committing"),
]


@pytest.mark.parametrize(("mode", "step"), KILLS)
def test_killed_load_of_rows_and_items_is_done_again_once(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str, step: str
) -> None:
    ensure_ledger(world.engine)
    rng = random.Random(f"killed {mode}")
    model = MODELS[mode]()

    def change_source(number: int) -> None:
        files = random_files(rng, mode, number)
        write(world.root, files)
        model.run(files)

    def found() -> list[tuple[Any, ...]]:
        return in_order(mode, world.sql(f"SELECT {model.columns} FROM analytics.order_items"))

    change_source(1)
    run(world, mode)
    before, loads = found(), world.sql("SELECT count(*) FROM etl.child_loads")
    assert before == model.rows()
    change_source(2)
    process = _FORKSERVER.Process(
        target=victim, args=(connection_document(warehouse), str(tmp_path), mode, step)
    )
    process.start()
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL
    assert (found(), world.sql("SELECT count(*) FROM etl.child_loads")) == (before, loads)
    assert run(world, mode) > 0
    assert found() == model.rows() != before
    assert run(world, mode) == 0
    assert world.broken(spec_of(mode)) == set()
