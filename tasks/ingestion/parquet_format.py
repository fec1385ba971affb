"""Parquet, read row group by row group; types stay those of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.provenance import check_names, long_values, shown, with_origin
from tasks.ingestion.typed import plain_column
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.partition import Part

BATCH_ROWS = 50_000
MAGIC, ENCRYPTED = b"PAR1", b"PARE"
AGAIN = "deliver the object again; nothing of it was loaded"


def read_parquet(
    given: Path | BinaryIO, uri: str, limits: PlanLimits, part: Part | None = None
) -> Iterator[RawBatch]:
    """Stream a Parquet file, or some of its row groups.

    Args:
        given: The file; a small one may be in memory.
        uri: Its name, for provenance and messages.
        limits: Bounds of batches and values.
        part: Its row groups that are read, None for all of them.

    Raises:
        SourceRejected: It is not Parquet, encrypted, or damaged.
        ContractBroken: Its columns cannot be told apart.
    """
    content = None if isinstance(given, Path) else pa.py_buffer(given.read())

    def opened() -> pa.NativeFile:
        return pa.OSFile(str(given)) if content is None else pa.BufferReader(content)

    with opened() as file:
        _check_ends(file, uri)
    try:
        yield from _read(opened, uri, limits, part)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise SourceRejected(f"{uri}: cannot be read as Parquet: {reason}", AGAIN) from None


def _check_ends(file: pa.NativeFile, uri: str) -> None:
    size = file.size()
    begin = file.read(4)
    file.seek(max(size - 4, 0))
    end = file.read(4)
    if ENCRYPTED in (begin, end):
        raise SourceRejected(f"{uri}: is encrypted Parquet", "deliver it without encryption")
    if begin == MAGIC and end != MAGIC:
        raise SourceRejected(
            f"{uri}: Parquet ends too early, or something follows its end; its last bytes, before "
            f"byte {size}, are not Parquet's",
            AGAIN,
        )
    if begin != MAGIC:
        raise SourceRejected(f"{uri}: is not a Parquet file; it has not Parquet's first bytes")


def _read(
    opened: Callable[[], pa.NativeFile], uri: str, limits: PlanLimits, part: Part | None
) -> Iterator[RawBatch]:
    # Timestamps of 96 bits read as nanoseconds would silently wrap beyond the year 2262.
    file = pq.ParquetFile(opened(), coerce_int96_timestamp_unit="us", buffer_size=1 << 20)
    names = file.schema_arrow.names
    _check_columns(names, uri)
    wide = [
        column.name
        for column in map(file.schema.column, range(len(file.schema)))
        if column.physical_type == "INT96" and column.path == column.name
    ]
    nanoseconds = pq.ParquetFile(opened(), buffer_size=1 << 20) if wide else None
    rows = _Rows(uri, limits, (part and part.first_row) or 1)
    for group in range(part.start, part.end) if part else range(file.num_row_groups):
        size = _batch_rows(file.metadata.row_group(group), limits)
        # All groups in one call would buffer the whole file.
        batches = file.iter_batches(batch_size=size, row_groups=[group])
        if nanoseconds is None:
            for batch in batches:
                yield rows.convert(batch)
            continue
        exact = nanoseconds.iter_batches(batch_size=size, row_groups=[group], columns=wide)
        for batch, digits in zip(batches, exact, strict=True):
            yield rows.convert(batch, _lost_digits(batch, digits))


def _check_columns(names: list[str], uri: str) -> None:
    check_names(names, uri)
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise ContractBroken(f"{uri}: column names that are not different: {', '.join(twice)}")


def _batch_rows(group: pq.RowGroupMetaData, limits: PlanLimits) -> int:
    """Return how many rows of a group are about four blocks of text in memory."""
    width = max(group.total_byte_size // max(group.num_rows, 1), 1)
    return int(max(1, min(BATCH_ROWS, 4 * limits.batch_bytes // width)))


def _lost_digits(batch: pa.RecordBatch, nanoseconds: pa.RecordBatch) -> dict[int, str]:
    """Return the rows whose 96-bit timestamp has digits below the microsecond."""
    lost: dict[int, str] = {}
    for name in nanoseconds.schema.names:
        exact = nanoseconds.column(name).view(pa.int64())
        micros = batch.column(name).view(pa.int64())
        rest = pc.subtract(exact, pc.multiply(pc.divide(exact, 1000), 1000))
        # Of a year that nanoseconds cannot count, the rest says nothing; and nobody means it.
        near = pc.less_equal(pc.abs(pc.subtract(pc.divide(exact, 1000), micros)), 1)
        for row in pc.indices_nonzero(pc.and_(pc.not_equal(rest, 0), near)).to_pylist():
            lost[row] = f"{name} has digits below the microsecond, which would be lost"
    return lost


class _Rows:
    """Numbers the rows of a file, and refuses those with a value that cannot be kept."""

    def __init__(self, uri: str, limits: PlanLimits, first: int) -> None:
        self._uri = uri
        self._most = limits.max_value_bytes
        self._last = first - 1

    def convert(self, batch: pa.RecordBatch, flaws: dict[int, str] | None = None) -> RawBatch:
        """Make a raw batch of the next rows.

        Args:
            batch: The rows.
            flaws: What is known to be wrong with some of them.
        """
        refused = {row: ("value", flaw) for row, flaw in (flaws or {}).items()}
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            plain, found = plain_column(column)
            for row, flaw in found.items():
                refused.setdefault(row, ("value", f"{name} {flaw}"))
            if pa.types.is_string(plain.type) or pa.types.is_binary(plain.type):
                for row in long_values(plain, self._most):
                    message = f"{name} is longer than {self._most} bytes"
                    refused.setdefault(row, ("value_too_long", message))
            columns.append(plain)
        numbers = range(self._last + 1, self._last + batch.num_rows + 1)
        self._last += batch.num_rows
        made = with_origin(batch.schema.names, columns, self._uri, numbers)
        if not refused:
            return RawBatch(made)
        printable = pa.record_batch([_counts(column) for column in columns], batch.schema.names)
        rejects = tuple(
            Reject(self._uri, numbers[row], rule, message, shown(printable, row))
            for row, (rule, message) in sorted(refused.items())
        )
        kept = pa.array([row not in refused for row in range(batch.num_rows)])
        return RawBatch(made.filter(kept), rejects)


def _counts(column: pa.Array) -> pa.Array:
    """Return a column that Python can print: moments beyond its years as the numbers they are."""
    if pa.types.is_date32(column.type):
        return column.view(pa.int32())
    if pa.types.is_timestamp(column.type) or pa.types.is_date64(column.type):
        return column.view(pa.int64())
    return column
