"""The server goes down as by a power cut, at every step and at random: it recovers, and so do loads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import STEPS
from tasks.model.errors import ErrorKind, WarehouseUnavailable
from tasks.model.report import LoadStatus
from tests.faults.campaign import check_exact, load_all, prepared
from tests.integration.loading.support import World, make_lake, make_spec
from tests.server import FragileServer, new_database

CRASHES = 6
SECONDS = 60


@pytest.fixture(scope="module")
def block(fragile: FragileServer) -> Iterator[WarehouseCredentials]:
    """A database for all tests: where everything goes to the disk, making one takes its time."""
    with new_database(fragile.port) as made:
        yield made


@pytest.fixture
def world(block: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    """A warehouse on the server that crashes, empty."""
    engine = block.get_engine("test")
    made = World(engine, make_lake(tmp_path / "lake"), tmp_path)
    made.sql("DROP SCHEMA IF EXISTS analytics, etl CASCADE")
    yield made
    engine.dispose()


@pytest.mark.parametrize("step", STEPS)
def test_crash_at_a_step_loses_and_doubles_nothing(
    world: World, fragile: FragileServer, step: str
) -> None:
    """What was not committed is gone, what was is there; the same process goes on with the same pool."""
    spec = make_spec()
    fence = world.open(spec, "first")
    load = prepared(world, spec, 0, fence, "first")

    def on_step(at: str) -> None:
        if at == step:
            fragile.crash()

    if step == "committed":
        assert world.publish(load, on_step).status is LoadStatus.LOADED
    else:
        with pytest.raises(WarehouseUnavailable) as raised:
            world.publish(load, on_step)
        assert raised.value.kind is ErrorKind.TRANSIENT
    assert world.sql("SELECT count(*) FROM etl.loads") == [(int(step == "committed"),)]
    load_all(world, "second")
    check_exact(world)


def test_crashes_at_random(world: World, fragile: FragileServer) -> None:
    """A run that is tried again after each crash ends with the truth."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    done = threading.Event()

    def crash() -> None:
        for _ in range(CRASHES):
            time.sleep(chance.uniform(0.01, 0.3))
            fragile.crash()
        done.set()

    crasher = threading.Thread(target=crash)
    crasher.start()
    failed = 0
    began = time.monotonic()
    while True:
        last = done.is_set()
        try:
            load_all(world, f"try {failed}")
        except WarehouseUnavailable:
            failed += 1
            assert time.monotonic() - began < SECONDS
            time.sleep(0.02)  # it may be starting
            continue
        if last:
            break
    crasher.join()
    check_exact(world)
