"""Child tables, from the file to the warehouse: one transaction, one account each, no orphan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.ledger import session
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tasks.model.run import LoadReceipt
from tests.pipeline import Pipeline

ITEMS: dict[str, Any] = {
    "table": "analytics.order_items",
    "columns": {
        "sku": {"type": "string", "nullable": False},
        "price": {"type": "decimal(38,4)", "checks": {"between": [0, 1e20]}},
        "colour": {"type": "string", "path": "options.colour"},
    },
}


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "project"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def spec_of(items: Mapping[str, Any] = ITEMS, mode: str = "merge", **more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "orders", "description": "Orders",
            "source": {"kind": "files", "path": "*.jsonl", "format": {"kind": "jsonl"}},
            "key": ["id"], "cursor": "v",
            "columns": {"id": {"type": "int64"}, "v": {"type": "int32"}},
            "children": {"items": items},
            "load": {"table": "analytics.orders", "mode": mode},
            **more,
        }
    )  # fmt: skip


def write(pipeline: Pipeline, name: str, *rows: Any) -> None:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (pipeline.base / f"{name}.jsonl").write_text("\n".join(texts) + "\n")


def load(pipeline: Pipeline, spec: DatasetSpec, name: str, *rows: Any) -> LoadReceipt:
    write(pipeline, name, *rows)
    (receipt,) = pipeline.run(spec)
    sound(pipeline, spec)
    assert all(counts.balanced for counts in receipt.children.values())
    return receipt


def sound(pipeline: Pipeline, spec: DatasetSpec) -> None:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []


def query(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def items(pipeline: Pipeline, columns: str = "id, _position, sku, price") -> list[tuple[Any, ...]]:
    return query(pipeline, f"SELECT {columns} FROM analytics.order_items ORDER BY 1, 2, 3")


def item(sku: str, price: Any = 1, **more: Any) -> dict[str, Any]:
    return {"sku": sku, "price": price, **more}


def test_items_become_rows_with_the_key_of_their_parent(pipeline: Pipeline) -> None:
    """Digits stay; a missing list, NULL and an empty one are no items."""
    receipt = load(
        pipeline, spec_of(), "a",
        '{"id": 1, "v": 1, "items": [{"sku": "a", "price": 9007199254740993.1000}, '
        '{"sku": "b", "options": {"colour": "red"}}]}',
        {"id": 2, "v": 1, "items": []},
        {"id": 3, "v": 1, "items": None},
        {"id": 4, "v": 1},
    )  # fmt: skip
    assert items(pipeline, "id, _position, sku, price, colour") == [
        (1, 1, "a", Decimal("9007199254740993.1000"), None),
        (1, 2, "b", None, "red"),
    ]
    counts = receipt.children["items"]
    assert (counts.read, counts.inserted, receipt.counts.inserted) == (2, 2, 4)


@pytest.mark.parametrize("wrong", [5, "text", {"sku": "a"}, '[{"sku": '])
def test_something_else_than_a_list_refuses_the_parent(pipeline: Pipeline, wrong: Any) -> None:
    receipt = load(
        pipeline, spec_of(), "a",
        {"id": 1, "v": 1, "items": wrong}, {"id": 2, "v": 1, "items": [item("a")]},
    )  # fmt: skip
    assert [(r.rule, r.column, r.message) for r in receipt.reasons] == [
        ("list", "items", "has no list at items")
    ]
    assert [row[0] for row in items(pipeline)] == [2]
