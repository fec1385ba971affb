"""The types that a column can be declared with."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
SIMPLE_TYPES = (
    "boolean",
    *SIGNED,
    *UNSIGNED,
    "float",
    "string",
    "enum",
    "bytes",
    "date",
    "time",
    "timestamp",
    "duration",
    "uuid",
    "json",
)
LIST_ELEMENTS = ("boolean", *SIGNED, "float", "string", "date", "timestamp", "uuid")
MAX_DECIMAL_PRECISION = 38
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")
_LIST = re.compile(r"list\((\w+)\)")


def decimal_digits(type_name: str) -> tuple[int, int] | None:
    """Return (precision, scale) of ``decimal(p,s)``, or None for any other type."""
    match = _DECIMAL.fullmatch(type_name)
    return (int(match[1]), int(match[2])) if match else None


def list_element(type_name: str) -> str | None:
    """Return ``t`` of ``list(t)``, or None for any other type."""
    match = _LIST.fullmatch(type_name)
    return match[1] if match else None


def is_integer(type_name: str) -> bool:
    """Tell whether a type is one of whole numbers."""
    return type_name in (*SIGNED, *UNSIGNED)


def is_numeric(type_name: str) -> bool:
    """Tell whether a type is one of numbers."""
    return is_integer(type_name) or type_name == "float" or decimal_digits(type_name) is not None


def _column_type(name: str) -> str:
    digits = decimal_digits(name)
    if digits and 1 <= digits[0] <= MAX_DECIMAL_PRECISION and digits[1] <= digits[0]:
        return f"decimal({digits[0]},{digits[1]})"
    if name not in SIMPLE_TYPES and list_element(name) not in LIST_ELEMENTS:
        raise ValueError(
            f"{name!r} is not a column type; allowed: {', '.join(SIMPLE_TYPES)}, "
            f"decimal(p,s) with s <= p <= {MAX_DECIMAL_PRECISION}, "
            f"list(t) of {', '.join(LIST_ELEMENTS)}"
        )
    return name


ColumnType = Annotated[str, AfterValidator(_column_type)]
