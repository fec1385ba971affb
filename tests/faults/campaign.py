"""A small history of loads with a known end, and the process that is killed while it makes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import Load
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import LoadConflict
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)

PARTITIONS = 3
ROWS = 400
OVERLAP = 100
DUPLICATES = 2
BAD = {"range": 3, "pattern": 1}
CONFLICT = 7
"""Exit status of a process whose run was taken over."""


def rows_of(number: int) -> list[tuple[int, str, int]]:
    """Return the clean rows of a partition; each overlaps the one before in a hundred keys."""
    first = number * (ROWS - OVERLAP)
    return [(key, f"{number}/{key}", number) for key in range(first, first + ROWS)]


def truth() -> list[tuple[int, str, int]]:
    """Return the rows of the table after every partition was loaded once, in order."""
    return sorted({row[0]: row for number in range(PARTITIONS) for row in rows_of(number)}.values())


def prepared(world: World, spec: DatasetSpec, number: int, fence: int, run: str) -> Load:
    """Return the load of a partition."""
    return world.prepared(
        spec,
        make_partition(f"p{number}"),
        rows_table(rows_of(number)),
        fence=fence,
        run=run,
        duplicates=DUPLICATES,
        bad=BAD,
        row_group=50,
    )


def load_all(
    world: World, run: str, on_step: Callable[[int, str], None] = lambda _number, _step: None
) -> None:
    """Do a whole run: open the dataset, load every partition."""
    spec = make_spec()
    fence = world.open(spec, run)
    for number in range(PARTITIONS):
        load = prepared(world, spec, number, fence, run)
        world.publish(load, lambda step, number=number: on_step(number, step))


def check_exact(world: World) -> None:
    """Compare table, ledger and quarantine with the truth: nothing lost, nothing doubled."""
    spec = make_spec()
    expected = truth()
    assert world.rows(spec) == expected
    bad = sum(BAD.values())
    assert world.sql(
        "SELECT rows_read, rows_inserted, rows_updated, rows_unchanged, rows_deduplicated, "
        "rows_quarantined FROM etl.loads ORDER BY load_id"
    ) == [
        (ROWS + DUPLICATES + bad, ROWS - changed, changed, 0, DUPLICATES, bad)
        for changed in (0, OVERLAP, OVERLAP)
    ]
    assert world.sql("SELECT rule, sum(rows)::int FROM etl.quarantine GROUP BY 1 ORDER BY 1") == [
        (rule, count * PARTITIONS) for rule, count in sorted(BAD.items())
    ]
    assert world.sql("SELECT count(*), count(DISTINCT uri) FROM etl.source_items") == [
        (PARTITIONS, PARTITIONS)
    ]
    assert world.broken(spec) == set()


def connection_document(warehouse: WarehouseCredentials) -> dict[str, Any]:
    """Return what another process needs to connect."""
    names = (
        "host",
        "port",
        "database",
        "username",
        "sslmode",
        "lock_timeout",
        "idle_in_transaction_timeout",
        "statement_timeout",
    )
    document: dict[str, Any] = {name: getattr(warehouse, name) for name in names}
    return {**document, "password": warehouse.password.get_secret_value()}


def victim(document: dict[str, Any], root: str, number: int, step: str, signal_number: int) -> None:
    """Do a whole run in this process, which sends itself a signal at a step of a partition."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("victim"), make_lake(Path(root) / "lake"), Path(root))

    def on_step(at_number: int, at_step: str) -> None:
        if (at_number, at_step) == (number, step):
            os.kill(os.getpid(), signal_number)

    try:
        load_all(world, "victim", on_step)
    except LoadConflict:
        os._exit(CONFLICT)


FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.faults.preloaded", "tests.faults.test_recovery_kill"])


def start_victim(
    warehouse: WarehouseCredentials,
    root: Path,
    number: int,
    step: str,
    signal_number: int = signal.SIGKILL,
) -> BaseProcess:
    """Start a run in a process of its own."""
    process = FORKSERVER.Process(
        target=victim,
        args=(connection_document(warehouse), str(root), number, step, int(signal_number)),
    )
    process.start()
    return process
