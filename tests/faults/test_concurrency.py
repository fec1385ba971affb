"""Eight loads at once, of one table and of eight: copies overlap, publishing takes turns per table."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.model.dataset import DatasetSpec
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)

LOADERS = 8
ROUNDS = 3
KEYS = 200
SECONDS = 60
Row = tuple[int, str, int]


@pytest.fixture
def crowded(warehouse: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    """A world with a connection for each loader."""
    engine = warehouse.model_copy(update={"pool_size": LOADERS, "lock_timeout": 60}).get_engine(
        "crowd"
    )
    yield World(engine, make_lake(tmp_path / "lake"), tmp_path)
    engine.dispose()


def at_once(world: World, work: Callable[[int, World], None]) -> None:
    """Do work in eight threads, each with a scratch folder of its own; all must end well."""
    errors: list[BaseException] = []

    def run(loader: int) -> None:
        root = world.root / f"loader-{loader}"
        root.mkdir(exist_ok=True)
        try:
            work(loader, World(world.engine, world.lake, root))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(loader,)) for loader in range(LOADERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert world.sql(deadlocks) == [(0,)]


def rows_of(loader: int, turn: int) -> list[Row]:
    """Return rows for half of all keys, in an order of their own; no cursor is there twice."""
    chance = random.Random(loader * 100 + turn)
    keys = chance.sample(range(KEYS), KEYS // 2)
    return [
        (key, f"{loader}/{turn}", chance.randrange(10**6) * 100 + loader * 10 + turn)
        for key in keys
    ]


def test_eight_loaders_of_one_table(crowded: World) -> None:
    """Same keys in all orders: of each the newest is there, whoever came first; every load counts once."""
    spec = make_spec()
    fence = crowded.open(spec, "run")
    copying = threading.Barrier(LOADERS)
    publishing = 0
    most = 0
    lock = threading.Lock()

    def load(loader: int, mine: World) -> None:
        nonlocal publishing, most
        for turn in range(ROUNDS):

            def on_step(step: str) -> None:
                nonlocal publishing, most
                if step == "copying":
                    copying.wait(SECONDS)  # passed only if all eight are here at once
                if step in ("locked", "committing"):
                    with lock:
                        publishing += 1 if step == "locked" else -1
                        most = max(most, publishing)

            partition = make_partition(f"{loader}-{turn}")
            ready = mine.prepared(spec, partition, rows_table(rows_of(loader, turn)), fence=fence)
            assert mine.publish(ready, on_step).counts.balanced

    at_once(crowded, load)
    assert most == 1
    everything = [
        row for loader in range(LOADERS) for turn in range(ROUNDS) for row in rows_of(loader, turn)
    ]
    newest = {row[0]: row for row in sorted(everything, key=lambda row: row[2])}
    assert crowded.rows(spec) == sorted(newest.values())
    assert crowded.sql("SELECT count(*), sum(rows_inserted)::int FROM etl.loads") == [
        (LOADERS * ROUNDS, len(newest))
    ]
    assert crowded.broken(spec) == set()


def test_the_same_partition_eight_times_at_once(crowded: World) -> None:
    """One of them loads it; the others find it in the ledger when it is their turn."""
    spec = make_spec()
    fence = crowded.open(spec, "run")
    rows = [(key, "x", 1) for key in range(50)]
    statuses: list[str] = []
    together = threading.Barrier(LOADERS)

    def load(_loader: int, mine: World) -> None:
        ready = mine.prepared(spec, make_partition("same"), rows_table(rows), fence=fence)
        receipt = mine.publish(ready, lambda step: step == "begun" and together.wait(SECONDS))
        statuses.append(str(receipt.status))

    at_once(crowded, load)
    assert sorted(statuses) == ["already loaded"] * (LOADERS - 1) + ["loaded"]
    assert crowded.rows(spec) == rows


def test_eight_tables_are_published_side_by_side(crowded: World) -> None:
    """Nobody waits for another table: all eight are between lock and commit at once."""
    specs: list[DatasetSpec] = [make_spec(name=f"things_{loader}") for loader in range(LOADERS)]
    locked = threading.Barrier(LOADERS)

    def load(loader: int, mine: World) -> None:
        spec = specs[loader]
        fence = mine.open(spec, "run")
        for turn in range(ROUNDS):
            partition = make_partition(f"{turn}", spec.name)
            ready = mine.prepared(spec, partition, rows_table(rows_of(loader, turn)), fence=fence)
            mine.publish(ready, lambda step: step == "merged" and locked.wait(SECONDS))

    at_once(crowded, load)
    for loader, spec in enumerate(specs):
        everything = [row for turn in range(ROUNDS) for row in rows_of(loader, turn)]
        newest = {row[0]: row for row in sorted(everything, key=lambda row: row[2])}
        assert crowded.rows(spec) == sorted(newest.values())
