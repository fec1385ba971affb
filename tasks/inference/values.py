"""The type of a column, guessed from a sample of its values; doubts are said, never decided."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_LEADING_ZERO = re.compile(r"0\d+", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_FLOAT = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"-?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_CLOCK = re.compile(r"[0-2]\d:[0-5]\d(?::[0-5]\d)?", re.ASCII)
_DAY_FIRST = re.compile(r"(\d\d?)([./-])(\d\d?)\2(\d{4})", re.ASCII)
NULL_WORDS = frozenset(
    {"NA", "N/A", "n/a", "NULL", "null", "None", "nan", "NaN", "-", "\\N", "#N/A"}
)
MOST_INT64_DIGITS = 18
MOST_SCALE = 12
SPARE_DIGITS = 4
"""A decimal gets this many more digits before the point than the sample needs."""


@dataclass
class Guess:
    """What a column seems to be.

    Attributes:
        type: Type for the dataset file.
        options: Other keys of the column.
        doubts: What is unsure, for comments.
    """

    type: str
    options: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def guess_column(values: pa.ChunkedArray) -> Guess:
    """Guess a column from a sample.

    Args:
        values: The sample, as the connector gives it: text, or typed.
    """
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return guess_text([value for value in values.to_pylist() if value is not None])
    if pa.types.is_null(kind):
        return Guess("string", doubts=["no value in the sample"])
    if pa.types.is_uint64(kind):
        return Guess("decimal(20,0)")
    if pa.types.is_decimal(kind):
        return Guess(f"decimal({min(kind.precision, 38)},{kind.scale})")
    if pa.types.is_timestamp(kind):
        return Guess("timestamp", {"timezone": "UTC"} if kind.tz else {})
    for fits, name in (
        (pa.types.is_boolean, "boolean"), (pa.types.is_int8, "int16"), (pa.types.is_uint8, "int16"),
        (pa.types.is_int16, "int16"), (pa.types.is_uint16, "int32"), (pa.types.is_int32, "int32"),
        (pa.types.is_integer, "int64"), (pa.types.is_floating, "float"), (pa.types.is_date, "date"),
        (pa.types.is_time, "time"), (pa.types.is_binary, "bytes"), (pa.types.is_large_binary, "bytes"),
    ):  # fmt: skip
        if fits(kind):
            return Guess(name)
    return Guess("string", doubts=[f"{kind} in the source"])


def guess_text(values: Sequence[str]) -> Guess:
    """Guess a column from its texts.

    Args:
        values: They, without NULL; empty texts included.
    """
    present = [value for value in values if value]
    if not present:
        return Guess("string", doubts=["no value in the sample"])
    words = sorted(NULL_WORDS.intersection(present))
    plain = [value for value in present if value not in NULL_WORDS]
    if words and plain:
        without = _typed(plain)
        if without.type != "string":
            without.options["null_values"] = words
            without.doubts.append(f"{', '.join(map(repr, words))} taken for NULL")
            return without
    return _typed(present)


def _typed(values: Sequence[str]) -> Guess:
    for attempt in (_boolean, _number, _moment, _other):
        if guess := attempt(values):
            return guess
    doubts = []
    numbers = sum(bool(_DECIMAL.fullmatch(value)) for value in values)
    nested = sum(value[:1] in ("{", "[") and _is_json(value) for value in values)
    for count, kind in ((numbers, "numbers"), (nested, "objects or lists")):
        if count > len(values) // 2:
            doubts.append(f"mixed: {count} of {len(values)} values are {kind}, the others are not")
    return Guess("string", doubts=doubts)


def _boolean(values: Sequence[str]) -> Guess | None:
    return Guess("boolean") if {value.lower() for value in values} <= {"true", "false"} else None


def _number(values: Sequence[str]) -> Guess | None:
    if any(_LEADING_ZERO.fullmatch(value) for value in values):
        if all(value.isascii() and value.isdigit() for value in values):
            return Guess("string", doubts=["digits with leading zeros; a number would lose them"])
        return None
    if all(map(_INTEGER.fullmatch, values)):
        digits = max(len(value.lstrip("-")) for value in values)
        if digits > MOST_INT64_DIGITS:
            return Guess("decimal(38,0)", doubts=["more digits than int64 is sure to hold"])
        return Guess("int64")
    if all(map(_DECIMAL.fullmatch, values)):
        return _decimal(values, ".")
    return _punctuated(values)


def _punctuated(values: Sequence[str]) -> Guess | None:
    """Guess numbers with separators or exponents."""
    if all(map(_COMMA.fullmatch, values)) and any("," in value for value in values):
        if all(re.fullmatch(r"-?\d{1,3}(,\d{3})+", value) for value in values if "," in value):
            return Guess(
                "string", doubts=["1,234 is 1234 or 1.234: declare a number with a format"]
            )
        guess = _decimal([value.replace(".", "") for value in values], ",")
        guess.options["format"] = {"decimal": ",", "thousands": "."}
        return guess
    if all(map(_THOUSANDS.fullmatch, values)):
        guess = _decimal([value.replace(",", "") for value in values], ".")
        guess.options["format"] = {"thousands": ","}
        if not any("." in value for value in values):
            guess.type = "int64"
        return guess
    if all(map(_FLOAT.fullmatch, values)):
        return Guess("float", doubts=["written with exponents; use decimal(p,s) if digits matter"])
    return None


def _decimal(values: Sequence[str], point: str) -> Guess:
    parts = [value.lstrip("-").partition(point) for value in values]
    scale = max(len(decimals) for _, _, decimals in parts)
    whole = max(len(integer) for integer, _, _ in parts)
    if scale > MOST_SCALE:
        return Guess("float", doubts=[f"up to {scale} decimals; use decimal(p,s) if digits matter"])
    precision = min(38, whole + SPARE_DIGITS + scale)
    return Guess(
        f"decimal({precision},{scale})", doubts=[f"at most {scale} decimals in the sample"]
    )


def _moment(values: Sequence[str]) -> Guess | None:
    if all(map(_DATE.fullmatch, values)) and all(_is(value, "%Y-%m-%d") for value in values):
        return Guess("date")
    found = [_MOMENT.fullmatch(value) for value in values]
    if all(found):
        zoned = [match[1] is not None for match in found if match]
        if all(zoned):
            return Guess("timestamp", {"timezone": "UTC"})
        if not any(zoned):
            return Guess(
                "timestamp", doubts=["no offset; declare timezone if these are local times"]
            )
        return Guess("string", doubts=["some times have an offset, some have none"])
    if all(map(_CLOCK.fullmatch, values)) and all(_is(value[:5], "%H:%M") for value in values):
        return Guess("time")
    return _written_date(values)


def _written_date(values: Sequence[str]) -> Guess | None:
    found = [_DAY_FIRST.fullmatch(value) for value in values]
    marks = {match[2] for match in found if match}
    if not all(found) or len(marks) != 1:
        return None
    mark = marks.pop()
    parts = [part for match in found if match for part in (match[1], match[3])]
    if all(len(part) > 1 for part in parts):
        day, month = "%d", "%m"
    elif not any(part.startswith("0") for part in parts):
        day, month = "%-d", "%-m"
    else:
        return None
    day_first, month_first = f"{day}{mark}{month}{mark}%Y", f"{month}{mark}{day}{mark}%Y"
    reads_day = all(_is(value, day_first) for value in values)
    reads_month = all(_is(value, month_first) for value in values)
    if reads_day and (not reads_month or mark == "."):
        return Guess("date", {"format": day_first})
    if reads_month and not reads_day:
        return Guess("date", {"format": month_first})
    if reads_day and reads_month:
        doubt = f'day or month first? {{type: date, format: "{day_first}"}} or "{month_first}"'
        return Guess("string", doubts=[doubt])
    return None


def _is(value: str, text_format: str) -> bool:
    try:
        datetime.strptime(value, text_format.replace("%-", "%"))
    except ValueError:
        return False
    return True


def _other(values: Sequence[str]) -> Guess | None:
    if all(map(_UUID.fullmatch, values)):
        return Guess("uuid")
    if all(value[:1] in ("{", "[") for value in values) and all(map(_is_json, values)):
        return Guess("json")
    return None


def _is_json(value: str) -> bool:
    try:
        json.loads(value, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return False
    return True


def _no_number(_word: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")
