"""Parquet, read row group by row group; types stay those of the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, RawBatch
from tasks.model.errors import SourceRejected
from tasks.model.run import Part

BATCH_ROWS = 50_000


def read_parquet(path: Path | BinaryIO, uri: str, part: Part | None = None) -> Iterator[RawBatch]:
    """Stream a Parquet file, or the row groups of a part of it.

    Raises:
        SourceRejected: It is not Parquet, encrypted, or damaged.
    """
    number = (part and part.first_row) or 1
    try:
        file = pq.ParquetFile(path)
        groups = range(part.start, part.end) if part else range(file.num_row_groups)
        for group in groups:
            # All groups in one call would buffer the whole file.
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                yield RawBatch(_with_provenance(batch, uri, number))
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise SourceRejected(f"{uri}: cannot be read as Parquet: {reason}") from None


def _with_provenance(batch: pa.RecordBatch, uri: str, first: int) -> pa.RecordBatch:
    return pa.record_batch(
        [
            *(_plain(column) for column in batch.columns),
            pa.repeat(uri, batch.num_rows),
            pa.array(range(first, first + batch.num_rows), pa.int64()),
        ],
        names=[*batch.schema.names, SOURCE_URI, SOURCE_ROW],
    )


def _plain(column: pa.Array) -> pa.Array:
    """Turn nested values into JSON text, and dictionaries into their values."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode()
    if pa.types.is_nested(kind):
        texts = [
            None if value is None else json.dumps(value, default=str, ensure_ascii=False)
            for value in column.to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    return column
