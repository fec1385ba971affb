"""Lose the connection in the middle of a load, or in the middle of its COMMIT."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import STEPS
from tasks.model.errors import ErrorKind, LoadConflict, WarehouseUnavailable
from tasks.model.report import LoadStatus
from tests.faults.campaign import check_exact, load_all, prepared
from tests.faults.proxy import Fault, LossyProxy
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name LIKE 'etl/%'"
)


@pytest.fixture
def proxy(warehouse: WarehouseCredentials) -> Iterator[LossyProxy]:
    """A proxy in front of the warehouse."""
    lossy = LossyProxy(warehouse.port)
    yield lossy
    lossy.close()


@pytest.fixture
def remote(warehouse: WarehouseCredentials, proxy: LossyProxy, tmp_path: Path) -> Iterator[World]:
    """The world as seen through the proxy."""
    block = warehouse.model_copy(update={"port": proxy.port, "idle_in_transaction_timeout": 1})
    engine = block.get_engine("remote")
    yield World(engine, make_lake(tmp_path / "lake"), tmp_path)
    engine.dispose()


@pytest.mark.parametrize("step", [step for step in STEPS if step != "committed"])
def test_terminated_session_can_be_tried_again(world: World, step: str) -> None:
    """The server ends the session at a step: the error is transient, and nothing was published."""
    spec = make_spec()
    fence = world.open(spec, "first")
    world.publish(prepared(world, spec, 0, fence, "first"))

    def on_step(at: str) -> None:
        if at == step:
            world.sql(OTHERS)

    with pytest.raises(WarehouseUnavailable) as raised:
        world.publish(prepared(world, spec, 1, fence, "first"), on_step)
    assert raised.value.kind is ErrorKind.TRANSIENT
    assert world.sql("SELECT count(*) FROM etl.loads") == [(1,)]
    load_all(world, "second")
    check_exact(world)


def _lose_commit(remote: World, proxy: LossyProxy, fault: Fault, number: int) -> LoadStatus | None:
    """Load a partition whose COMMIT is lost; None if the load said that it may be tried again."""
    spec = make_spec()
    load = prepared(remote, spec, number, remote.open(spec, "remote"), "remote")

    def on_step(step: str) -> None:
        if step == "committing":
            proxy.fault = fault

    try:
        return remote.publish(load, on_step).status
    except WarehouseUnavailable:
        return None


# What is lost, and what the load then says.
LOST: list[tuple[Fault, LoadStatus | None]] = [
    ("reply", LoadStatus.LOADED),
    ("request_late", LoadStatus.LOADED),
    ("request", None),
    ("request_half_open", None),
]


@pytest.mark.parametrize(("fault", "status"), LOST)
def test_lost_commit_is_looked_up_in_the_ledger(
    world: World, remote: World, proxy: LossyProxy, fault: Fault, status: LoadStatus | None
) -> None:
    """Whether the request of a COMMIT or its reply is lost, the ledger says what became of it."""
    for number in range(3):
        assert _lose_commit(remote, proxy, fault, number) is status
        if status is None:
            assert _lose_commit(remote, proxy, "none", number) is LoadStatus.LOADED
    assert proxy.lost == 3
    check_exact(world)


def test_connection_is_cut_in_the_middle_of_copy(
    world: World, remote: World, proxy: LossyProxy
) -> None:
    """Half of what was sent arrives: the server forgets it, and the load may be tried again."""
    spec = make_spec()
    fence = remote.open(spec, "remote")

    def on_step(step: str) -> None:
        if step == "copying":
            proxy.fault = "cut"

    for number in range(3):
        load = prepared(remote, spec, number, fence, "remote")
        with pytest.raises(WarehouseUnavailable):
            remote.publish(load, on_step)
        assert remote.publish(load).status is LoadStatus.LOADED
    assert proxy.lost == 3
    check_exact(world)


@pytest.mark.parametrize("step", ["copying", "gated", "committing"])
def test_server_that_never_answers_is_given_up(
    world: World, warehouse: WarehouseCredentials, proxy: LossyProxy, tmp_path: Path, step: str
) -> None:
    """The connection stays open and everything sent is taken: the time limit of answers ends it."""
    limits = {"idle_in_transaction_timeout": 1, "statement_timeout": 2, "connect_timeout": 2}
    block = warehouse.model_copy(update={"port": proxy.port, **limits})
    engine = block.get_engine("remote")
    remote = World(engine, make_lake(tmp_path / "lake"), tmp_path)
    spec = make_spec()
    load = prepared(remote, spec, 0, remote.open(spec, "remote"), "remote")

    def on_step(at: str) -> None:
        if at == step:
            proxy.fault = "deaf"

    began = time.monotonic()
    with pytest.raises(WarehouseUnavailable) as raised:
        remote.publish(load, on_step)
    # One answer that does not come, and of a COMMIT the turn after the silent session has ended.
    assert block.answer_seconds <= time.monotonic() - began < 3 * block.answer_seconds
    if step != "committing":
        assert "timeout expired: the server did not answer within 4 s" in raised.value.message
    load_all(world, "second")
    check_exact(world)
    proxy.deaf_to_all = True
    began = time.monotonic()
    with pytest.raises(WarehouseUnavailable):
        remote.sql("SELECT 1")
    assert time.monotonic() - began < 3 * block.answer_seconds
    engine.dispose()


def test_overlapping_loads_in_opposite_order_do_not_deadlock(world: World) -> None:
    """Two loads at once, the same keys in opposite order: no deadlock, no row is lost."""
    spec = make_spec()
    fence = world.open(spec)
    rounds = 5
    errors: list[BaseException] = []

    def load(side: int, number: int, barrier: threading.Barrier) -> None:
        rows = [(key, f"{side}/{number}", number) for key in range(300)]
        rows += [(1000 + side * 1000 + number, "own", 0)]
        mine = World(world.engine, world.lake, world.root / f"{side}")
        try:
            partition = make_partition(f"{side}-{number}")
            ready = mine.prepared(spec, partition, rows_table(rows[:: 1 - 2 * side]), fence=fence)
            mine.publish(ready, lambda step: step == "gated" and barrier.wait(20))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    for side in (0, 1):
        (world.root / f"{side}").mkdir()
    for number in range(rounds):
        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=load, args=(side, number, barrier)) for side in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    found = world.rows(spec)
    assert [row[0] for row in found[:300]] == list(range(300))
    assert {row[2] for row in found[:300]} == {rounds - 1}
    assert len({row[1] for row in found[:300]}) == 1  # all of one load, none of the other
    assert len(found) == 300 + 2 * rounds
    assert world.broken(spec) == set()


def test_opening_waits_for_a_publishing_run(world: World) -> None:
    """A newer run cannot take over between an older one's fence check and its COMMIT."""
    spec = make_spec()
    fence = world.open(spec, "older")
    opened: list[int] = []
    opener = threading.Thread(target=lambda: opened.append(world.open(spec, "newer")))

    def on_step(step: str) -> None:
        if step == "checked":
            opener.start()
            opener.join(0.5)
            assert opened == []

    world.publish(prepared(world, spec, 0, fence, "older"), on_step)
    opener.join()
    with pytest.raises(LoadConflict, match="newer"):
        world.publish(prepared(world, spec, 1, fence, "older"))
