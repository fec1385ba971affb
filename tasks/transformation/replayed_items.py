"""Items that are replayed: as their keys say, or taken apart again where they were refused whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.model.child_dataset import PARENT
from tasks.model.children import POSITION, ChildTable
from tasks.model.json_path import ITEM
from tasks.quarantine import RefusedRow
from tasks.transformation.columns import PROVENANCE
from tasks.transformation.items import ItemWriter

BATCH_ROWS = 1000


def write_replayed(
    child: ChildTable, paths: Sequence[Path], stem: Path, refuse: Callable[[list[RefusedRow]], None]
) -> ItemWriter:
    """Write the items of a replay as raw items.

    Args:
        child: The child that they are of.
        paths: Files with the items, all values as texts.
        stem: Path of the files that are written, without what tells them apart.
        refuse: Is given the items that cannot be taken apart.
    """
    with ItemWriter(stem, keys=child.needs_keys, whole=child.needs_item, refuse=refuse) as writer:
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
                whole = _only_whole(child, batch)
                _append(writer, child, batch.filter(pc.invert(whole)))
                _take_apart(writer, batch.filter(whole))
    return writer


def _only_whole(child: ChildTable, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Tell which items are there as a text only, though they should have keys."""
    nothing = pa.array([False] * batch.num_rows)
    if ITEM not in batch.schema.names or not child.needs_keys:
        return nothing
    only: pa.BooleanArray = pc.is_valid(batch.column(ITEM))
    for name in batch.schema.names:
        if not _is_ours(name):
            only = pc.and_(only, pc.is_null(batch.column(name)))
    return only


def _is_ours(name: str) -> bool:
    return name in (*PROVENANCE, POSITION, ITEM) or name.startswith(PARENT)


def _append(writer: ItemWriter, child: ChildTable, batch: pa.RecordBatch) -> None:
    if not batch.num_rows:
        return
    columns = {
        name: column.cast(pa.int64()) if name == POSITION else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if name != ITEM or child.needs_item
    }
    writer.append(pa.record_batch(columns))


def _take_apart(writer: ItemWriter, batch: pa.RecordBatch) -> None:
    if not batch.num_rows:
        return
    carried = [name for name in batch.schema.names if name in PROVENANCE or name.startswith(PARENT)]
    writer.add_items(
        batch.select(carried),
        [text.encode() for text in batch.column(ITEM).to_pylist()],
        list(range(batch.num_rows)),
        batch.column(POSITION).cast(pa.int64()).to_pylist(),
    )
