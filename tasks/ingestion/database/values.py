"""Values of a driver as Arrow columns; a value that is not of its column's type marks its row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, RawBatch, Reject
from tasks.ingestion.database.columns import Column, Convert
from tasks.ingestion.typed import json_text, out_of_range

_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)
RAW_CHARACTERS = 100_000
"""A refused row is kept with at most this much text of each of its values."""


def value_columns(
    columns: Sequence[Column], values: Sequence[Sequence[Any]]
) -> tuple[list[pa.Array], dict[int, str]]:
    """Build the columns of a batch.

    Args:
        columns: The columns.
        values: Their values, column by column, as the driver gave them.

    Returns:
        The arrays, NULL where a value does not fit; and by row what is wrong with it.
    """
    flaws: dict[int, str] = {}
    arrays = [
        _array(column, list(part), flaws) for column, part in zip(columns, values, strict=True)
    ]
    return arrays, flaws


def _array(column: Column, values: list[Any], flaws: dict[int, str]) -> pa.Array:
    try:
        made = pa.array(
            [None if value is None else column.convert(value) for value in values], column.arrow
        )
    except _MISFITS:
        made = _fitting(column, values, flaws)
    for row, words in out_of_range(made).items():
        flaws.setdefault(row, f"{column.name}: {words}")
    return made


def _fitting(column: Column, values: list[Any], flaws: dict[int, str]) -> pa.Array:
    kept: list[Any] = []
    for row, value in enumerate(values):
        try:
            converted = None if value is None else column.convert(value)
            pa.array([converted], column.arrow)
            kept.append(converted)
        except _MISFITS:
            kept.append(None)
            flaws.setdefault(
                row, f"{column.name}: the database holds a value that is no {column.arrow}"
            )
    return pa.array(kept, column.arrow)


def too_long(names: Sequence[str], arrays: Sequence[pa.Array], most: int) -> dict[int, str]:
    """Return by row which text or binary value is longer than allowed."""
    flaws: dict[int, str] = {}
    for name, array in zip(names, arrays, strict=True):
        if not (pa.types.is_string(array.type) or pa.types.is_binary(array.type)):
            continue
        if array.nbytes <= most:
            continue
        for row in pc.indices_nonzero(pc.greater(pc.binary_length(array), most)).to_pylist():
            flaws.setdefault(row, f"{name} is longer than {most} bytes")
    return flaws


def batch_of(
    names: Sequence[str],
    arrays: Sequence[pa.Array],
    uri: str,
    first: int,
    refused: Mapping[str, Mapping[int, str]],
    raw: Sequence[Sequence[Any]],
) -> RawBatch:
    """Return the rows that fit as a batch, and the others as rejects.

    Args:
        names: Names of the columns.
        arrays: Their values.
        uri: Where the rows come from.
        first: Number of the first row.
        refused: By rule, what is wrong with which row.
        raw: Values as the source gave them, column by column; for the rejects.
    """
    rows = len(arrays[0])
    numbers = pa.array(np.arange(first, first + rows, dtype=np.int64))
    batch = pa.record_batch(
        [*arrays, pa.repeat(uri, rows), numbers], names=[*names, SOURCE_URI, SOURCE_ROW]
    )
    reasons: dict[int, tuple[str, str]] = {}
    for rule, flaws in refused.items():
        for row, words in flaws.items():
            reasons.setdefault(row, (rule, words))
    if not reasons:
        return RawBatch(batch)
    rejects = tuple(
        Reject(uri, first + row, *reasons[row], raw_row(names, [part[row] for part in raw]))
        for row in sorted(reasons)
    )
    keep = np.ones(rows, dtype=bool)
    keep[list(reasons)] = False
    return RawBatch(batch.filter(pa.array(keep)), rejects)


def all_refused(read: RawBatch, rule: str, message: str) -> RawBatch:
    """Turn every row of a batch into a reject."""
    assert read.batch is not None
    names = read.batch.schema.names[:-2]
    columns = read.batch.to_pydict()
    rejects = [
        Reject(uri, row, rule, message, raw_row(names, [columns[name][place] for name in names]))
        for place, (uri, row) in enumerate(
            zip(columns[SOURCE_URI], columns[SOURCE_ROW], strict=True)
        )
    ]
    return RawBatch(None, (*read.rejects, *rejects))


def raw_row(names: Sequence[str], values: Sequence[Any]) -> str:
    """Write a row as JSON of texts, NULL as null, for the quarantine."""
    row = {
        name: None if value is None else shown(value)[:RAW_CHARACTERS]
        for name, value in zip(names, values, strict=True)
    }
    return json.dumps(row, ensure_ascii=False)


def shown(value: Any) -> str:
    """Write any value of a driver as text, exactly; bytes in hexadecimal digits."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return clock_text(value)
    if isinstance(value, dict | list):
        return json_text(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def clock_text(span: timedelta) -> str:
    """Write MySQL's TIME, which is a span of up to 838 hours: ``-12:30:00.5``."""
    seconds, sign = abs(span), "-" if span < timedelta() else ""
    minutes, rest = divmod(seconds, timedelta(minutes=1))
    hours, minutes = divmod(minutes, 60)
    text = f"{sign}{hours:02}:{minutes:02}:{rest.seconds:02}"
    return f"{text}.{rest.microseconds:06}" if rest.microseconds else text


def unhexed(digits: pa.Array) -> pa.Array:
    """Turn hexadecimal digits into bytes, all values at once."""
    if digits.offset:
        digits = pa.concat_arrays([digits])
    ends = np.frombuffer(digits.buffers()[1], dtype=np.int32, count=len(digits) + 1)
    text = np.frombuffer(digits.buffers()[2] or b"", dtype=np.uint8)[ends[0] : ends[-1]]
    nibbles = _NIBBLES[text]
    data = (nibbles[0::2] << 4) | nibbles[1::2]
    offsets = ((ends - ends[0]) // 2).astype(np.int32)
    valid = digits.buffers()[0]
    return pa.Array.from_buffers(
        pa.binary(),
        len(digits),
        [valid, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())],
    )


_NIBBLES = np.zeros(256, dtype=np.uint8)
for _digit, _character in enumerate(b"0123456789abcdef"):
    _NIBBLES[_character] = _digit


def strict(kind: type | tuple[type, ...]) -> Convert:
    """Return a conversion that only takes values of some Python types."""

    def convert(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise TypeError(type(value).__name__)
        return value

    return convert
