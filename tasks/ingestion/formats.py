"""Reads one object in the format that the dataset declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.csv_format import read_csv
from tasks.ingestion.json_array import read_json_document
from tasks.ingestion.json_lines import read_json_lines
from tasks.ingestion.parquet_format import read_parquet
from tasks.model.source import CsvFormat, Format, JsonArrayFormat, JsonLinesFormat


def read_object(
    declared: Format,
    uri: str,
    limits: PlanLimits,
    expected_columns: int,
    *,
    open_binary: Callable[[], BinaryIO],
    local_path: Callable[[], Path],
) -> Iterator[RawBatch]:
    """Stream the rows of one object.

    Args:
        declared: Its format.
        uri: Its name.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.
        open_binary: Opens its bytes for one pass.
        local_path: Gives a local file of it, for formats that are not read in one pass.
    """
    if isinstance(declared, CsvFormat):
        with open_binary() as raw:
            yield from read_csv(raw, uri, declared, limits, expected_columns)
    elif isinstance(declared, JsonLinesFormat):
        with open_binary() as raw:
            yield from read_json_lines(raw, uri, limits, declared)
    elif isinstance(declared, JsonArrayFormat):
        with open_binary() as raw:
            yield from read_json_document(raw, uri, limits, declared)
    else:
        yield from read_parquet(local_path(), uri)
