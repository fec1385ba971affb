"""Reads one object in the format that the dataset declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tasks.ingestion.archives import EMPTY_ZIP, ZIP_MAGIC, members
from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.csv_format import read_csv
from tasks.ingestion.fixed_format import read_fixed_width
from tasks.ingestion.json_array import read_json_document
from tasks.ingestion.json_lines import read_json_lines
from tasks.ingestion.parquet_format import read_parquet
from tasks.model.formats import (
    AvroFormat,
    CsvFormat,
    ExcelFormat,
    FixedWidthFormat,
    Format,
    JsonArrayFormat,
    JsonLinesFormat,
    ParquetFormat,
)
from tasks.model.partition import Part


def read_object(
    declared: Format,
    uri: str,
    limits: PlanLimits,
    expected_columns: int,
    *,
    open_binary: Callable[[], BinaryIO],
    local_path: Callable[[], Path],
    part: Part | None = None,
    header: bytes = b"",
) -> Iterator[RawBatch]:
    """Stream the rows of one object, or of a part of a text.

    Args:
        declared: Its format.
        uri: Its name.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.
        open_binary: Opens its bytes, or those of the part, for one pass.
        local_path: Gives a local file of it, for formats that are not read in one pass.
        part: The part of a text that is read, None for all of it.
        header: The beginning of a delimited text, where the part is not the first one.
    """
    if isinstance(declared, ParquetFormat):
        yield from read_parquet(local_path(), uri, limits)
        return
    if isinstance(declared, ExcelFormat):
        from tasks.ingestion.excel_format import read_excel  # its library takes 20 MB

        yield from read_excel(local_path(), uri, declared, limits)
        return
    if part is not None:
        with open_binary() as raw:
            if isinstance(declared, CsvFormat):
                yield from read_csv(
                    raw, uri, declared, limits, expected_columns, part=part, header=header
                )
            elif isinstance(declared, JsonLinesFormat):
                yield from read_json_lines(raw, uri, limits, declared, part)
        return
    with open_binary() as raw:
        begin = raw.read(len(ZIP_MAGIC))
        if begin not in (ZIP_MAGIC, EMPTY_ZIP):
            whole = cast(BinaryIO, _Joined(begin, raw))
            yield from _read_stream(declared, uri, limits, expected_columns, whole)
            return
    for name, member in members(local_path(), uri, declared.member, limits):
        yield from _read_stream(declared, name, limits, expected_columns, member)


Streamed = CsvFormat | AvroFormat | FixedWidthFormat | JsonArrayFormat | JsonLinesFormat
"""Formats that are read in one pass."""


def _read_stream(
    declared: Streamed, uri: str, limits: PlanLimits, expected_columns: int, raw: BinaryIO
) -> Iterator[RawBatch]:
    if isinstance(declared, CsvFormat):
        yield from read_csv(raw, uri, declared, limits, expected_columns)
    elif isinstance(declared, AvroFormat):
        from tasks.ingestion.avro_format import read_avro

        yield from read_avro(raw, uri, limits)
    elif isinstance(declared, FixedWidthFormat):
        yield from read_fixed_width(raw, uri, declared, limits)
    elif isinstance(declared, JsonArrayFormat):
        yield from read_json_document(raw, uri, limits, declared)
    else:
        yield from read_json_lines(raw, uri, limits, declared)


class _Joined:
    """Bytes that were read already, and those after them."""

    def __init__(self, begin: bytes, rest: BinaryIO) -> None:
        self._begin = begin
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._begin:
            return self._rest.read(size)
        piece, self._begin = self._begin, b""
        return piece + self._rest.read(size - len(piece) if size >= 0 else -1)

    def readinto(self, buffer: memoryview) -> int:
        into = getattr(self._rest, "readinto", None)
        if into is not None and not self._begin:
            return int(into(buffer) or 0)
        piece = self._begin[: len(buffer)] or self._rest.read(len(buffer))
        self._begin = self._begin[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
