"""Runs of random histories in processes of their own, which are killed, or kill themselves at a step."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import Load
from tests.faults.campaign import FORKSERVER, connection_document
from tests.histories import History
from tests.integration.loading.support import World, make_lake

KILLED_AT = "killed_at"
"""File in which a process leaves the name of the step at which it kills itself."""


def _run(
    document: dict[str, Any],
    root: Path,
    history: History,
    steps: list[list[Load]],
    fatal: int | None,
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("soak"), make_lake(root / "lake"), root)
    run = f"run {os.getpid()}"
    fence = world.open(history.spec, run)
    reached = 0

    def on_step(step: str) -> None:
        nonlocal reached
        reached += 1
        if reached == fatal:
            (root / KILLED_AT).write_text(step)
            os.kill(os.getpid(), signal.SIGKILL)

    for loads in steps:
        history.publish(world, [replace(load, fence=fence, run=run) for load in loads], on_step)


def start(
    warehouse: WarehouseCredentials,
    root: Path,
    history: History,
    steps: list[list[Load]],
    *,
    fatal: int | None = None,
) -> BaseProcess:
    """Start a run of a history in a process of its own.

    Args:
        warehouse: Where it loads into.
        root: Folder of its lake, and of its intermediate files.
        history: What is loaded.
        steps: The loads, made before.
        fatal: At which step of the load transactions, counted from 1, it kills itself; None if it does
            not.
    """
    process = FORKSERVER.Process(
        target=_run, args=(connection_document(warehouse), root, history, steps, fatal)
    )
    process.start()
    return process
