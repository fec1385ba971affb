"""Rows that are looked up, as one Parquet file in the order of their key, which must be unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import store_file
from tasks.model.errors import ContractBroken
from tasks.model.manifest import LakeFile


def store_sorted(
    lake: Lake,
    lookup: str,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    key: Sequence[str],
    path: Path,
) -> LakeFile:
    """Write rows that come in the order of their key, and store the file in the lake.

    Args:
        lake: Where the file goes.
        lookup: Name of the lookup.
        batches: The rows.
        schema: Columns of the file.
        key: Columns that tell rows apart.
        path: Where the file is written first.

    Raises:
        ContractBroken: Two rows have one key, so a row that looks it up would become two.
    """
    rows = 0
    last: pa.RecordBatch | None = None
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            if batch.num_rows:
                _refuse_repeated(lookup, key, batch, last)
                writer.write_batch(batch)
                rows += batch.num_rows
                last = batch.slice(batch.num_rows - 1)
    return store_file(lake, "lookups", lookup, path, rows)


def _refuse_repeated(
    lookup: str, key: Sequence[str], batch: pa.RecordBatch, last: pa.RecordBatch | None
) -> None:
    same: pa.Array | None = None
    for name in key:
        column = batch.column(name)
        if last is not None:
            column = pa.concat_arrays([last.column(name), column])
        equal = pc.equal(column[1:], column[:-1])
        same = equal if same is None else pc.and_(same, equal)
    if same is None or not pc.any(same).as_py():
        return
    raise ContractBroken(
        f"lookup {lookup}: several rows have the same {', '.join(key)}, so it cannot be told which "
        "one is meant",
        "look up by columns that tell its rows apart, or remove rows from it",
    )
