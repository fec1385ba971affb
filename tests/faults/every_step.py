"""Kills a load at every step of its transaction, one step after the other, in any mode."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import STEPS
from tests.faults.soak import KILLED_AT, start
from tests.histories import STEPS as STEPS_OF_HISTORY
from tests.histories import WHOLE, History
from tests.integration.loading.support import World

SECONDS = 30
FEW = 4


def history_of(mode: str, by: str | None = None) -> History:
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


def check_every_step(
    world: World,
    warehouse: WarehouseCredentials,
    root: Path,
    mode: str,
    by: str | None = None,
) -> None:
    """Kill a load at its first step, the next one at its second, and so on to the last of all.

    After each kill the table is as before, after the last one as a model says. What a mode does beside
    is in the same transaction: rows deleted, tombstones, marks, partitions.
    """
    history = history_of(mode, by)
    *before, last = history.prepared(world)
    for loads in before:
        history.publish(world, loads)
    old = history.rows(world)
    killed_at: list[str] = []
    while True:
        process = start(warehouse, root, history, [last], fatal=len(killed_at) + 1)
        process.join(SECONDS)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed_at.append((root / KILLED_AT).read_text())
        expected = history.truth() if killed_at[-1] == "committed" else old
        assert history.rows(world) == expected, killed_at
    staged, rest = list(STEPS[1:4]), list(STEPS[4:9])
    written, end = list(STEPS[9:11]), list(STEPS[11:])
    assert killed_at == ["begun", *staged * len(last), *rest, *written * len(last), *end]
    for loads in (*before, last):
        history.publish(world, loads)
    history.check(world)
