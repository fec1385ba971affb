"""Reads one item of a partition: an object, or a part of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.connector import SOURCE_URI, PlanLimits, RawBatch
from tasks.ingestion.formats import read_object
from tasks.ingestion.parquet_format import read_parquet
from tasks.ingestion.record_ends import OpenRange
from tasks.model.errors import SourceRejected
from tasks.model.formats import CsvFormat, Format, ParquetFormat
from tasks.model.partition import SourceItem


def read_item(
    declared: Format,
    item: SourceItem,
    limits: PlanLimits,
    expected_columns: int,
    *,
    open_range: OpenRange,
    local_path: Callable[[], Path],
    parquet: Callable[[], Path | BinaryIO],
) -> Iterator[RawBatch]:
    """Stream the rows of an item.

    Args:
        declared: Its format.
        item: What to read.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.
        open_range: Opens the bytes from one position up to another of the object.
        local_path: Gives a local file of it, for formats that are not read in one pass.
        parquet: Gives a Parquet file of it, in memory if it is small.

    Raises:
        SourceRejected: A value has a line end, though the dataset file says that none has.
    """
    part = item.part
    if isinstance(declared, ParquetFormat):
        yield from read_parquet(parquet(), item.origin, limits, part)
        return
    start, end, header = 0, item.bytes, b""
    if part and part.unit == "bytes":
        start, end = part.start, part.end
        if start and part.header:
            with open_range(0, part.header) as raw:
                header = raw.read(part.header)
    batches = read_object(
        declared,
        item.origin,
        limits,
        expected_columns,
        open_binary=lambda: open_range(start, end),
        local_path=local_path,
        part=part,
        header=header,
    )
    if part and isinstance(declared, CsvFormat) and not declared.newlines_in_values:
        batches = map(_without_line_ends, batches)
    yield from batches


def _without_line_ends(raw: RawBatch) -> RawBatch:
    """Refuse values that a cut behind a line feed could have torn apart."""
    if raw.batch is None:
        return raw
    for name, column in zip(raw.batch.schema.names, raw.batch.columns, strict=True):
        if name == SOURCE_URI or not pa.types.is_string(column.type):
            continue
        if pc.any(pc.match_substring(column, "\n")).as_py():
            uri = raw.batch[SOURCE_URI][0].as_py()
            raise SourceRejected(
                f"{uri}: a value of column {name} has a line end, though the dataset file says "
                "newlines_in_values: false",
                "remove newlines_in_values from the format, and take back what was loaded of it",
            )
    return raw
