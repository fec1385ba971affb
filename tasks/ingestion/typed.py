"""Values of typed files as columns of the raw zone: exact, or named as what cannot be kept."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_EPOCH = date(1970, 1, 1)
_FIRST_DAY, _LAST_DAY = (date.min - _EPOCH).days, (date.max - _EPOCH).days
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}


def json_text(value: Any) -> str:
    """Write a nested value as JSON: decimals by their digits, bytes as base64, times as ISO 8601.

    Raises:
        ValueError: It has a NaN or an infinity, which JSON does not have.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(k)}: {json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):  # a map, as Arrow gives it
            return "{" + ", ".join(f"{_quoted(k)}: {json_text(v)}" for k, v in value) + "}"
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return json.dumps(base64.b64encode(value).decode())
    if isinstance(value, datetime | date | time):
        return json.dumps(value.isoformat())
    if isinstance(value, timedelta | uuid.UUID):
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _quoted(key: object) -> str:
    return json.dumps(key if isinstance(key, str) else str(key), ensure_ascii=False)


def plain_column(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Return a column in a type that the raw zone has, and by row what cannot be kept.

    Nested values become JSON, dictionaries their values, decimals of more than 38 digits text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column)
    if pa.types.is_nested(kind):
        return _nested(column)
    if pa.types.is_decimal256(kind):
        digits = [None if value is None else format(value, "f") for value in column.to_pylist()]
        return pa.array(digits, pa.string()), {}
    if pa.types.is_duration(kind):
        return _durations(column)
    for matches, target in _SAME_VALUES:
        if matches(kind):
            return column.cast(target), {}
    return column, out_of_range(column)


def _is_other_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_other_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


_SAME_VALUES = (
    (pa.types.is_null, pa.string()),
    (_is_other_text, pa.string()),
    (_is_other_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
    (pa.types.is_float16, pa.float32()),
)


_PER_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def _durations(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Write durations as ISO 8601 in seconds, with all their digits."""
    scale = _PER_SECOND[column.type.unit]
    texts = [
        None if count is None else f"PT{Decimal(count).scaleb(-scale).normalize():f}S"
        for count in column.view(pa.int64()).to_pylist()
    ]
    return pa.array(texts, pa.string()), {}


def _extension(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    if column.type.extension_name == "arrow.uuid":
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string()), {}
    return plain_column(column.storage)


def _nested(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    texts: list[str | None] = []
    flaws: dict[int, str] = {}
    for row, value in enumerate(column.to_pylist()):
        try:
            texts.append(None if value is None else json_text(value))
        except ValueError:
            flaws[row] = "has a NaN or an infinity, which JSON does not have"
            texts.append(None)
    return pa.array(texts, pa.string()), flaws


def out_of_range(column: pa.Array) -> dict[int, str]:
    """Return the rows whose date or timestamp is not of the years 1 to 9999."""
    kind = column.type
    if pa.types.is_date32(kind):
        first, last = _FIRST_DAY, _LAST_DAY + 1
        counts = column.view(pa.int32())
    elif pa.types.is_timestamp(kind) and kind.unit in _PER_DAY:
        per_day = _PER_DAY[kind.unit]
        first, last = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day
        counts = column.view(pa.int64())
    elif pa.types.is_date64(kind):
        per_day = _PER_DAY["ms"]
        first, last = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day
        counts = column.view(pa.int64())
    else:
        return {}
    bounds = pc.min_max(counts).as_py()
    if bounds["min"] is None or (bounds["min"] >= first and bounds["max"] < last):
        return {}
    outside = pc.or_(pc.less(counts, first), pc.greater_equal(counts, last))
    return dict.fromkeys(pc.indices_nonzero(outside).to_pylist(), "is not of the years 1 to 9999")
