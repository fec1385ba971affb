"""Random histories of loads, what their tables must hold in the end, and a process to be killed in them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.loading.publish import Load
from tasks.model.dataset import DatasetSpec
from tests.faults.campaign import FORKSERVER, connection_document
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)

PARTITIONS = 6
KEYS = 60
MODES = ("merge", "append", "insert_only", "hard", "soft")
"""Load modes; the last two are ``merge`` with deletions that the source marks."""
DELETING = ("hard", "soft")
DELETED = "deleted"
Row = tuple[int, str, int]


@dataclass(frozen=True)
class History:
    """Some partitions of a dataset, made of a seed: the same in every process."""

    seed: int
    mode: str

    @property
    def spec(self) -> DatasetSpec:
        name = f"{self.mode}_{self.seed}"
        load: dict[str, Any] = {"table": f"analytics.{name}", "mode": self.mode}
        if self.mode in DELETING:
            load |= {
                "mode": "merge",
                "delete": {"column": "name", "values": [DELETED], "kind": self.mode},
            }
        cursor = "seen" if load["mode"] == "merge" else None
        return make_spec(name=name, mode=load["mode"], cursor=cursor, load=load)

    def partitions(self) -> list[list[Row]]:
        chance = random.Random(self.seed)
        made: list[list[Row]] = []
        for number in range(PARTITIONS):
            count = chance.randint(0, KEYS // 2)
            keys = chance.sample(range(KEYS), count)
            if self.mode == "append":
                keys = [number * KEYS + key for key in keys]
            deleted = 0.3 if self.mode in DELETING else 0
            made.append(
                [
                    (
                        key,
                        DELETED if chance.random() < deleted else f"{number}/{key}",
                        chance.randrange(8),
                    )
                    for key in keys
                ]
            )
        return made

    def truth(self) -> list[Row]:
        """Return the rows that are there once every partition was loaded, in order, once.

        Of two rows with a key the one with the larger cursor is there, of equal ones the later; with
        ``insert_only`` it is the first. A deletion is a version like others, and shows no row.
        """
        table: dict[int, Row] = {}
        for rows in self.partitions():
            for row in rows:
                there = table.get(row[0])
                if there is None or (self.mode != "insert_only" and row[2] >= there[2]):
                    table[row[0]] = row
        return sorted(row for row in table.values() if row[1] != DELETED)

    def prepared(self, world: World) -> list[Load]:
        """Return the loads of it, made once for all the runs that are killed."""
        spec = self.spec
        return [
            world.prepared(
                spec,
                make_partition(f"p{number}", spec.name),
                rows_table(rows),
                fence=0,
                bad={"range": 1} if number % 2 else {},
            )
            for number, rows in enumerate(self.partitions())
        ]

    def check(self, world: World) -> None:
        """Compare table and ledger with the truth."""
        spec = self.spec
        alive = [row for row in world.rows(spec) if row[1] != DELETED or self.mode != "soft"]
        assert alive == self.truth(), self
        read = [len(rows) + number % 2 for number, rows in enumerate(self.partitions())]
        assert world.sql(
            "SELECT rows_read FROM etl.loads WHERE dataset = %s ORDER BY load_id", spec.name
        ) == [(rows,) for rows in read], self
        assert world.broken(spec) == set(), self


def _run(document: dict[str, Any], root: str, loads: list[Load]) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("soak"), make_lake(Path(root) / "lake"), Path(root))
    run = f"run {os.getpid()}"
    fence = world.open(loads[0].spec, run)
    for load in loads:
        world.publish(replace(load, fence=fence, run=run))


def start(warehouse: WarehouseCredentials, root: Path, loads: list[Load]) -> BaseProcess:
    """Start a run of a history in a process of its own."""
    process = FORKSERVER.Process(
        target=_run, args=(connection_document(warehouse), str(root), loads)
    )
    process.start()
    return process
