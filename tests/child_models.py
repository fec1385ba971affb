"""What child tables must have in every load mode: models in Python, and random documents for them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.model.dataset import DatasetSpec

Doc = dict[str, Any]
Files = Mapping[str, Sequence[Doc]]
Items = dict[str, int]
DELETE: dict[str, Any] = {"column": "op", "values": ["D"]}
MODES: dict[str, dict[str, Any]] = {
    "append": {"mode": "append"},
    "insert_only": {"mode": "insert_only"},
    "merge": {"mode": "merge"},
    "hard": {"mode": "merge", "delete": {**DELETE, "kind": "hard"}},
    "soft": {"mode": "merge", "delete": {**DELETE, "kind": "soft"}},
    "replace": {"mode": "replace"},
    "replace_partition": {"mode": "replace_partition", "by": "day"},
    "scd2": {"mode": "scd2", "delete": DELETE},
}


def spec_of(mode: str, **more: Any) -> DatasetSpec:
    """Return orders with items that are told apart by ``sku``."""
    by_day = {"day": {"type": "int32"}} if mode == "replace_partition" else {}
    return DatasetSpec.model_validate(
        {
            "name": "orders", "description": "Orders",
            "source": {"kind": "files", "path": "*.jsonl", "format": {"kind": "jsonl"}},
            "key": ["id", *by_day], "cursor": "v", "contract": "ignore",
            "columns": {
                "id": {"type": "int64"}, "v": {"type": "int32"}, "op": {"type": "string"}, **by_day,
            },
            "children": {
                "items": {
                    "table": "analytics.order_items", "key": ["sku"], "contract": "ignore",
                    "columns": {
                        "sku": {"type": "string"},
                        "price": {"type": "int32", "checks": {"between": [0, 99]}},
                    },
                }
            },
            "load": {"table": "analytics.orders", **MODES[mode]},
            **more,
        }
    )  # fmt: skip


def write(base: Path, files: Files) -> None:
    """Write documents as files of JSON lines."""
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (base / f"{name}.jsonl").write_text(text)


def good(doc: Doc) -> Items:
    """Return the items that are kept of a document: of one key the last, without bad ones."""
    return {one["sku"]: one["price"] for one in doc["items"] if one["price"] >= 0}


def best(rows: Sequence[Doc], *key: str) -> dict[tuple[Any, ...], Doc]:
    """Return the newest row of each key; of equal ones the last that was read."""
    found: dict[tuple[Any, ...], Doc] = {}
    for row in rows:
        of_key = tuple(row[name] for name in key)
        if of_key not in found or row["v"] >= found[of_key]["v"]:
            found[of_key] = row
    return found


class Model:
    """What the tables must have: rows (id, sku, price, …)."""

    columns = "id, sku, price"

    def __init__(self) -> None:
        self.table: dict[Any, tuple[int, Items]] = {}

    def run(self, files: Files) -> None:
        for name in sorted(files):
            self.load(files[name])

    def load(self, rows: Sequence[Doc]) -> None:
        for key, row in best(rows, "id").items():
            self.put(key[0], row)

    def put(self, key: Any, row: Doc) -> None:
        if key not in self.table or row["v"] >= self.table[key][0]:
            self.table[key] = (row["v"], good(row))

    def rows(self) -> list[tuple[Any, ...]]:
        return sorted((k, s, p) for k, (_, items) in self.table.items() for s, p in items.items())


class InsertOnly(Model):
    def put(self, key: Any, row: Doc) -> None:
        self.table.setdefault(key, (row["v"], good(row)))


class Append(Model):
    def __init__(self) -> None:
        super().__init__()
        self.added: list[tuple[Any, ...]] = []

    def put(self, key: Any, row: Doc) -> None:
        self.added += [(key, sku, price) for sku, price in good(row).items()]

    def rows(self) -> list[tuple[Any, ...]]:
        return sorted(self.added)


class Hard(Model):
    def __init__(self) -> None:
        super().__init__()
        self.buried: dict[Any, int] = {}

    def put(self, key: Any, row: Doc) -> None:
        if row["op"] == "D":
            if key in self.table and row["v"] >= self.table[key][0]:
                del self.table[key]
            if key not in self.table:
                self.buried[key] = max(row["v"], self.buried.get(key, row["v"]))
        elif row["v"] >= self.buried.get(key, row["v"]):
            self.buried.pop(key, None)
            super().put(key, row)


class Soft(Model):
    columns = "id, sku, price, _deleted_at IS NOT NULL"

    def __init__(self) -> None:
        super().__init__()
        self.deleted: set[Any] = set()

    def put(self, key: Any, row: Doc) -> None:
        version, items = self.table.get(key, (-1, {}))
        if row["v"] < version:
            return
        self.table[key] = (row["v"], items if row["op"] == "D" else good(row))
        (self.deleted.add if row["op"] == "D" else self.deleted.discard)(key)

    def rows(self) -> list[tuple[Any, ...]]:
        return [(*row, row[0] in self.deleted) for row in super().rows()]


class Replace(Model):
    def run(self, files: Files) -> None:
        self.table = {}
        super().run(files)


class ReplacePartition(Model):
    columns = "id, sku, price, day"

    def load(self, rows: Sequence[Doc]) -> None:
        days = {row["day"] for row in rows}
        self.table = {key: kept for key, kept in self.table.items() if key[1] not in days}
        for key, row in best(rows, "id", "day").items():
            self.table[key] = (row["v"], good(row))

    def rows(self) -> list[tuple[Any, ...]]:
        return sorted((k[0], s, p, k[1]) for (k, s, p) in super().rows())


class Scd2(Model):
    """Every document says what there is from its ``v`` on, until that of the next."""

    columns = "id, sku, price, valid_from, valid_to, is_current"

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[Any, dict[int, Items]] = {}

    def load(self, rows: Sequence[Doc]) -> None:
        for (key, version), row in best(rows, "id", "v").items():
            items = {} if row["op"] == "D" else good(row)
            self.events.setdefault(key, {})[version] = items

    def rows(self) -> list[tuple[Any, ...]]:
        found: list[list[Any]] = []
        for key, events in self.events.items():
            for sku in {sku for items in events.values() for sku in items}:
                before = None
                for version in sorted(events):
                    price = events[version].get(sku)
                    if price != before and before is not None:
                        found[-1][4:] = [version, False]
                    if price != before and price is not None:
                        found.append([key, sku, price, version, None, True])
                    before = price
        return sorted((tuple(row) for row in found), key=lambda row: (row[0], row[1], row[3]))


MODELS: dict[str, Callable[[], Model]] = {
    "append": Append,
    "insert_only": InsertOnly,
    "merge": Model,
    "hard": Hard,
    "soft": Soft,
    "replace": Replace,
    "replace_partition": ReplacePartition,
    "scd2": Scd2,
}


def in_order(mode: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows of the child table in the order of ``Model.rows``."""
    if mode == "scd2":  # without comparing when a version ends, which may be NULL
        return sorted(rows, key=lambda row: (row[0], row[1], row[3]))
    return sorted(rows)


def random_doc(rng: random.Random, day: int) -> Doc:
    """Return a version of one of a few orders: a newer or an older one, maybe its deletion."""
    items = [
        {"sku": rng.choice("abcd"), "price": rng.choice([-1, 1, 1, 2, 3])}
        for _ in range(rng.randint(0, 4))
    ]
    op = "D" if rng.random() < 0.25 else "U"
    return {"id": rng.randint(1, 12), "v": rng.randint(1, 9), "op": op, "day": day, "items": items}


def random_files(rng: random.Random, mode: str, number: int) -> Files:
    """Return what the source has at the ``number``-th run."""
    if mode == "replace_partition":
        days = rng.sample(["1", "2"], rng.randint(1, 2))
        return {f"day{day}": [random_doc(rng, int(day)) for _ in range(12)] for day in days}
    names = ["a", "b"] if mode == "replace" else [f"part{number}"]
    return {name: [random_doc(rng, 1) for _ in range(18)] for name in names}
