"""Kill a load at every step: run again, and the table is as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tests.faults.campaign import CONFLICT, check_exact, load_all, start_victim
from tests.faults.every_step import check_every_step
from tests.integration.loading.support import World, make_spec

SECONDS = 30


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_killed_at_every_step_loses_and_doubles_nothing(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, mode: str
) -> None:
    """A load that is killed at any of its steps is done again, once."""
    check_every_step(world, warehouse, tmp_path, mode)


@pytest.mark.parametrize("step", ["begun", "copied", "gated"])
def test_stopped_run_that_wakes_up_late_is_fenced_off(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, step: str
) -> None:
    """An older run, asleep while a newer one opens the dataset, must not publish when it wakes."""
    process = start_victim(warehouse, tmp_path, 1, step, signal.SIGSTOP)
    assert process.pid is not None
    _wait_until_stopped(process.pid)
    load_all(world, "newer")
    os.kill(process.pid, signal.SIGCONT)
    process.join(SECONDS)
    # It finds its partition in the ledger, goes on to the next, and so on: nothing is left to do.
    # Had the newer run loaded less, it would meet the fence.
    assert process.exitcode in (0, CONFLICT)
    check_exact(world)


def test_stopped_run_meets_the_fence(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path
) -> None:
    """The newer run has opened the dataset and loaded nothing yet: here the fence alone decides."""
    process = start_victim(warehouse, tmp_path, 1, "copied", signal.SIGSTOP)
    assert process.pid is not None
    _wait_until_stopped(process.pid)
    world.open(make_spec(), "newer")
    os.kill(process.pid, signal.SIGCONT)
    process.join(SECONDS)
    assert process.exitcode == CONFLICT
    assert world.sql("SELECT count(*) FROM etl.loads") == [(1,)]
    load_all(world, "newest")
    check_exact(world)


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
            return
        time.sleep(0.01)
    raise TimeoutError("the process did not stop")
