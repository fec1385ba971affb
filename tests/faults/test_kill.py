"""Kill a load at every step: run again, and the table is as if nothing had happened."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import STEPS
from tests.faults.campaign import CONFLICT, check_exact, load_all, start_victim
from tests.faults.soak import KILLED_AT, start
from tests.histories import MODES, WHOLE, History
from tests.histories import STEPS as STEPS_OF_HISTORY
from tests.integration.loading.support import World, make_spec

SECONDS = 30
FEW = 4


def _history(mode: str, by: str | None = None) -> History:
    """Return a history whose last step has rows, changes the table, and is of two objects if it can be."""
    for seed in itertools.count():
        history = History(seed, mode, by)
        last = history.steps()[-1]
        if (
            len(last) == 1 + (mode in WHOLE)
            and all(len(one.rows) > FEW for one in last)
            and history.truth() != history.truth(STEPS_OF_HISTORY - 1)
        ):
            return history
    raise AssertionError("there is one")


@pytest.mark.parametrize(
    "history",
    [
        *map(_history, MODES),
        _history("merge", "day"),
        _history("replace_by_key", "day"),
        _history("scd2", "valid_from"),
    ],
    ids=str,
)
def test_killed_at_every_step_loses_and_doubles_nothing(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path, history: History
) -> None:
    """A load is killed at its first step, the next one at its second, and so on to the last of all.

    What a mode does beside is in the same transaction: rows deleted, tombstones, marks, partitions.
    """
    *before, last = history.prepared(world)
    for loads in before:
        history.publish(world, loads)
    old = history.rows(world)
    killed_at: list[str] = []
    while True:
        process = start(warehouse, tmp_path, history, [last], fatal=len(killed_at) + 1)
        process.join(SECONDS)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed_at.append((tmp_path / KILLED_AT).read_text())
        expected = history.truth() if killed_at[-1] == "committed" else old
        assert history.rows(world) == expected, killed_at
    staged, rest = list(STEPS[1:4]), list(STEPS[4:9])
    written, end = list(STEPS[9:11]), list(STEPS[11:])
    assert killed_at == ["begun", *staged * len(last), *rest, *written * len(last), *end]
    for loads in (*before, last):
        history.publish(world, loads)
    history.check(world)


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
