"""Lists taken apart: what a preview shows of them, and origins that do not tell rows apart."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.model.errors import ContractBroken
from tasks.quarantine import RefusedRow
from tasks.transformation.children import kept_items, preview_items
from tasks.transformation.session import Session
from tests.child_models import spec_of


def raw_rows(*lists: str | None) -> pa.RecordBatch:
    rows = len(lists)
    return pa.record_batch(
        {
            "id": pa.array(range(rows), pa.int64()),
            "items": pa.array(lists, pa.string()),
            "_source_uri": ["a"] * rows,
            "_source_row": pa.array([1] * rows, pa.int64()),
        }
    )


def test_preview_has_the_first_items_that_can_be_taken_apart() -> None:
    """Keys as they are; what is no object as it is written; no list, no items."""
    batch = raw_rows(None, "5", '[{"sku": "a", "price": 1.50}, 7]', '[{"sku": "b"}, {}]')
    assert preview_items(spec_of("merge"), "items", batch, 3) == [
        {"_position": "1", "sku": "a", "price": "1.50"},
        {"_position": "2", "$": "7"},
        {"_position": "1", "sku": "b"},
    ]
    without = batch.select(["id"])
    assert preview_items(spec_of("merge"), "items", without, 3) == []


def test_rows_of_one_origin_are_refused_rather_than_mixed_up(tmp_path: Path) -> None:
    raw, clean = tmp_path / "raw.parquet", tmp_path / "clean.parquet"
    some = json.dumps([{"sku": "a"}])
    pq.write_table(pa.Table.from_batches([raw_rows(some, some)]), raw)
    kept = raw_rows(some, some).append_column("v", pa.array([1, 1]))
    pq.write_table(pa.Table.from_batches([kept]), clean)
    refused: list[RefusedRow] = []
    with pytest.raises(ContractBroken, match="two rows of the source have the same origin"):
        kept_items(
            spec_of("merge"),
            "items",
            [str(raw)],
            clean,
            Session(tmp_path, 64 << 20, None),
            refused.extend,
        )
