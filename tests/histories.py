"""Random histories of loads in every mode, and a naive model of what their tables hold after each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from tasks.loading.publish import Load
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec
from tasks.model.partition import Partition, SourceItem
from tests.integration.loading.support import World, make_spec, rows_table

STEPS = 6
IDS = 12
DAYS = 6
"""Of three months, two each."""
MOMENTS = 8
DELETED = "deleted"
VERSION = ("valid_from", "valid_to", "is_current")
WHOLE = ("replace", "replace_by_key")
"""Modes in which all partitions of a run are published at once."""
MODES = (
    "append",
    "insert_only",
    "merge",
    "hard",
    "soft",
    *WHOLE,
    "replace_partition",
    "scd2",
)
"""Load modes; hard and soft are merges with deletions that the source marks."""

COLUMNS = {
    "id": {"type": "int64"},
    "day": {"type": "date", "nullable": False},
    "name": {"type": "string"},
    "seen": {"type": "int64"},
}
ARROW = pa.schema(
    [("id", pa.int64()), ("day", pa.date32()), ("name", pa.string()), ("seen", pa.int64())]
)
Row = tuple[int, date, str, int]


@dataclass(frozen=True)
class Delivery:
    """An object of the source in a version: the rows of one partition."""

    uri: str
    version: int
    rows: list[Row]


Step = list[Delivery]
"""What one run delivers; with a mode of ``WHOLE`` it may be several objects, else it is one."""


def _day(number: int) -> date:
    return date(2020, 1 + number // 2, 1) + timedelta(days=number % 2 * 20)


@dataclass(frozen=True)
class History:
    """Some runs of a dataset, made of a seed: the same in every process.

    Attributes:
        seed: What it is made of.
        mode: One of ``MODES``.
        by: The column by which the table is partitioned; None if it is not.
        names: Other names of the columns.
    """

    seed: int
    mode: str
    by: str | None = None
    names: tuple[str, str, str, str] = ("id", "day", "name", "seen")

    def __str__(self) -> str:
        return f"{self.mode}{f'-by_{self.by}' if self.by else ''}"

    @property
    def spec(self) -> DatasetSpec:
        name = f"{self.mode}_{self.by or 'plain'}_{self.seed}"
        identity, day, named, seen = self.names
        load: dict[str, Any] = {"table": f"analytics.{name}", "mode": self.mode}
        flag = {"column": named, "values": [DELETED]}
        if self.mode in ("hard", "soft"):
            load |= {"mode": "merge", "delete": {**flag, "kind": self.mode}}
        if self.mode in WHOLE:
            load |= {"mode": "replace", "allow_empty": True}
        if self.mode == "scd2":
            load["delete"] = flag
        if self.mode == "replace_partition":
            load["by"] = day
        if self.by:
            every = "month" if self.by == day else 3
            load["partition_by"] = {"column": self.by, "every": every, "ahead": 0}
        keyed = self.mode not in ("append", "replace", "replace_partition")
        cursor = seen if keyed and self.mode != "insert_only" else None
        key = (identity, day) if keyed else ()
        columns = dict(zip(self.names, COLUMNS.values(), strict=True))
        return make_spec(columns, name=name, key=key, cursor=cursor, load=load)

    def steps(self) -> list[Step]:
        chance = random.Random(self.seed)
        return [self._step(chance, number) for number in range(STEPS)]

    def _step(self, chance: random.Random, number: int) -> Step:
        if self.mode in WHOLE:
            objects = range(chance.randint(1, 3))
            return [Delivery(f"o{one}", number, self._rows(chance, range(DAYS))) for one in objects]
        if self.mode == "replace_partition":
            half = chance.randrange(2)  # no two objects have rows of one day
            return [Delivery(f"o{half}", number, self._rows(chance, range(half, DAYS, 2)))]
        return [Delivery(f"o{number}", number, self._rows(chance, range(DAYS)))]

    def _rows(self, chance: random.Random, days: Sequence[int]) -> list[Row]:
        """Return rows of which no two are one to the mode; some say what others said before."""
        rows: dict[Any, Row] = {}
        deleted = 0.3 if self.mode in ("hard", "soft", "scd2") else 0
        for number in range(chance.randint(0, 30)):
            name = DELETED if chance.random() < deleted else chance.choice("ab")
            seen = chance.randrange(MOMENTS)
            row = (chance.randrange(IDS), _day(chance.choice(days)), name, seen)
            one: Any = row[:2]
            if self.mode == "scd2":
                one = (*row[:2], seen)
            if self.spec.key == ():
                one = number
            rows[one] = row
        return list(rows.values())

    def truth(self, done: int = STEPS) -> list[tuple[Any, ...]]:
        """Return the rows that are there after so many steps, each of them done once."""
        steps = self.steps()[:done]
        deliveries = [delivery for step in steps for delivery in step]
        if self.mode in WHOLE:
            deliveries = steps[-1] if steps else []
        model: Callable[[list[Delivery]], list[tuple[Any, ...]]] = {
            "append": _all,
            "replace": _all,
            "insert_only": _first,
            "replace_partition": _last_of_each_day,
            "scd2": _versions,
        }.get(self.mode, _newest)
        return sorted(model(deliveries), key=repr)

    def prepared(self, world: World) -> list[list[Load]]:
        """Return the loads of each step, made once for all the runs that are killed."""
        spec = self.spec
        fence = world.open(spec)
        return [
            [
                world.prepared(
                    spec,
                    Partition(
                        dataset=spec.name,
                        label=one.uri,
                        items=(SourceItem(uri=one.uri, version=str(one.version)),),
                        refresh=str(one.version) if self.mode in WHOLE else None,
                    ),
                    rows_table(one.rows, ARROW).rename_columns(list(self.names)),
                    fence=fence,
                    bad={"range": 1} if one.version % 2 else {},
                )
                for one in step
            ]
            for step in self.steps()
        ]

    def publish(
        self,
        world: World,
        loads: list[Load],
        on_step: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """Publish a step."""
        if self.mode in WHOLE:
            load_whole(world.engine, world.lake, world.scratch, loads, on_step=on_step)
            return
        for load in loads:
            world.publish(load, on_step)

    def rows(self, world: World) -> list[tuple[Any, ...]]:
        """Return the rows of the table that are not deleted; none if it is not there."""
        spec = self.spec
        (there,) = world.sql("SELECT to_regclass(%s) IS NOT NULL", spec.load.table)[0]
        columns = [*self.names, *(VERSION if self.mode == "scd2" else ())]
        found = world.rows(spec, ", ".join(f'"{name}"' for name in columns)) if there else []
        return sorted((row for row in found if row[2] != DELETED), key=repr)

    def check(self, world: World) -> None:
        """Compare table and ledger with the truth when all is done."""
        spec = self.spec
        assert self.rows(world) == self.truth(), self
        read = [len(one.rows) + one.version % 2 for step in self.steps() for one in step]
        assert world.sql(
            "SELECT rows_read FROM etl.loads WHERE dataset = %s ORDER BY load_id", spec.name
        ) == [(rows,) for rows in read], self
        assert world.broken(spec) == set(), self


def _all(deliveries: list[Delivery]) -> list[tuple[Any, ...]]:
    return [row for one in deliveries for row in one.rows]


def _first(deliveries: list[Delivery]) -> list[tuple[Any, ...]]:
    table: dict[Any, Row] = {}
    for row in _all(deliveries):
        table.setdefault(row[:2], row)  # type: ignore[arg-type]
    return list(table.values())


def _newest(deliveries: list[Delivery]) -> list[tuple[Any, ...]]:
    """Of two rows with a key the one with the larger cursor is there, of equal ones the later.

    A deletion is a version like others, and shows no row.
    """
    table: dict[Any, tuple[Any, ...]] = {}
    for row in _all(deliveries):
        there = table.get(row[:2])
        if there is None or row[3] >= there[3]:
            table[row[:2]] = row
    return [row for row in table.values() if row[2] != DELETED]


def _last_of_each_day(deliveries: list[Delivery]) -> list[tuple[Any, ...]]:
    table: dict[date, list[Row]] = {}
    for one in deliveries:
        table |= {row[1]: [] for row in one.rows}
        for row in one.rows:
            table[row[1]].append(row)
    return [row for rows in table.values() for row in rows]


def _versions(deliveries: list[Delivery]) -> list[tuple[Any, ...]]:
    """A row opens a version unless it says what the one before said; the last of a moment counts."""
    moments: dict[Any, dict[int, Row]] = {}
    for row in _all(deliveries):
        moments.setdefault(row[:2], {})[row[3]] = row  # type: ignore[assignment]
    made: list[tuple[Any, ...]] = []
    for of_key in moments.values():
        changes: list[Row] = []
        for _, row in sorted(of_key.items()):
            if not changes or changes[-1][2] != row[2]:
                changes.append(row)
        ends = [*(row[3] for row in changes[1:]), None]
        made += [
            (*row, row[3], end, end is None)
            for row, end in zip(changes, ends, strict=True)
            if row[2] != DELETED
        ]
    return made
