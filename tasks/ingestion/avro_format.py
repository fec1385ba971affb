"""Avro, read block by block; values keep their types and every digit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
from fastavro import parse_schema, schemaless_reader

from tasks.ingestion.avro_container import AvroBlock, AvroContainer
from tasks.ingestion.avro_types import AvroColumn, columns_of, plain_schema
from tasks.ingestion.compression import AGAIN
from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.provenance import RAW_SHOWN, check_names, long_values, with_origin
from tasks.ingestion.streams import decompressed
from tasks.model.errors import SourceRejected

BATCH_ROWS = 20_000
UNREADABLE = (pa.ArrowException, ValueError, ArithmeticError, KeyError, IndexError, TypeError)
"""What a value can raise that its declared type cannot hold."""


def read_avro(raw: BinaryIO, uri: str, limits: PlanLimits) -> Iterator[RawBatch]:
    """Stream an Avro container file.

    Args:
        raw: Its bytes.
        uri: Its name.
        limits: Bounds of batches and values.

    Raises:
        SourceRejected: It is not Avro, truncated, damaged, or a bomb.
        ContractBroken: Its values are no rows.
    """
    stream: Any = decompressed(raw, uri, limits)
    container = AvroContainer(stream, uri, limits)
    columns = columns_of(container.schema, uri)
    check_names([column.name for column in columns], uri)
    schema = parse_schema(plain_schema(container.schema), _force=True)
    rows = _Rows(uri, columns, limits)
    pending: list[Any] = []
    for block in container.blocks():
        start = block.content.tell()
        for record in _records(block, schema, uri):
            pending.append(record)
            if len(pending) >= BATCH_ROWS or block.content.tell() - start > limits.batch_bytes:
                start = block.content.tell()
                yield rows.convert(pending)
                pending = []
    if pending:
        yield rows.convert(pending)


def _records(block: AvroBlock, schema: Any, uri: str) -> Iterator[Any]:
    size = block.content.getbuffer().nbytes
    try:
        for _ in range(block.records):
            yield schemaless_reader(block.content, schema, None)
    except (EOFError, ValueError, OverflowError, IndexError, MemoryError, RecursionError):
        raise SourceRejected(
            f"{uri}: a record of the block at byte {block.position} cannot be decoded", AGAIN
        ) from None
    if block.content.tell() != size:
        raise SourceRejected(f"{uri}: damaged Avro in the block at byte {block.position}", AGAIN)


class _Rows:
    """Numbers the records, and refuses those with a value that its type cannot hold."""

    def __init__(self, uri: str, columns: Sequence[AvroColumn], limits: PlanLimits) -> None:
        self._uri = uri
        self._columns = columns
        self._most = limits.max_value_bytes
        self._last = 0

    def convert(self, records: Sequence[Any]) -> RawBatch:
        """Make a batch of decoded records."""
        refused: dict[int, tuple[str, str]] = {}
        arrays = []
        for column in self._columns:
            values = [record[column.name] for record in records]
            array = _converted(column, values, refused)
            if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
                for row in long_values(array, self._most):
                    message = f"{column.name} is longer than {self._most} bytes"
                    refused.setdefault(row, ("value_too_long", message))
            arrays.append(array)
        numbers = range(self._last + 1, self._last + len(records) + 1)
        self._last += len(records)
        made = with_origin([column.name for column in self._columns], arrays, self._uri, numbers)
        if not refused:
            return RawBatch(made)
        rejects = tuple(
            Reject(self._uri, numbers[row], rule, message, repr(records[row])[:RAW_SHOWN])
            for row, (rule, message) in sorted(refused.items())
        )
        return RawBatch(
            made.filter(pa.array([row not in refused for row in range(len(records))])), rejects
        )


def _converted(
    column: AvroColumn, values: list[Any], refused: dict[int, tuple[str, str]]
) -> pa.Array:
    try:
        return column.convert(values)
    except UNREADABLE:
        for row, value in enumerate(values):
            try:
                column.convert([value])
            except UNREADABLE:
                message = f"{column.name} is no value of its Avro type"
                refused.setdefault(row, ("value", message))
                values[row] = None
        return column.convert(values)
