"""Which PostgreSQL type holds all values of two others. Pure; never narrower than either."""

from __future__ import annotations

import re

_INTEGERS = {"smallint": 5, "integer": 10, "bigint": 19}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_VARCHAR = re.compile(r"character varying\((\d+)\)")
MAX_DIGITS = 38


def wider(there: str, wanted: str) -> str | None:
    """Return the narrowest type that holds every value of both, None if there is none.

    Args:
        there: Type of a column of a table, as PostgreSQL writes it.
        wanted: Type that the dataset file asks for.
    """
    if there == wanted:
        return there
    if {there, wanted} <= _INTEGERS.keys():
        return max(there, wanted, key=_INTEGERS.__getitem__)
    if {there, wanted} == {"real", "double precision"}:
        return "double precision"
    if {there, wanted} in ({"smallint", "double precision"}, {"integer", "double precision"}):
        return "double precision"  # its 53 bits hold them exactly, which is not true of a bigint
    if wanted == "text":
        # Any value can be written as a text. Only a dataset file asks for that, never the data.
        return "text" if there not in ("bytea", "jsonb") else None
    if _is_varchar(there) and _is_varchar(wanted):
        return max(there, wanted, key=_length)
    return _numeric(there, wanted)


def _numeric(there: str, wanted: str) -> str | None:
    if "numeric" in (there, wanted) and (_digits(there) or _digits(wanted)):
        return "numeric"
    first, second = _digits(there), _digits(wanted)
    if first is None or second is None:
        return None
    whole, scale = max(first[0], second[0]), max(first[1], second[1])
    return f"numeric({whole + scale},{scale})" if whole + scale <= MAX_DIGITS else None


def _digits(kind: str) -> tuple[int, int] | None:
    """Return the digits before and after the point, None for a type that is no exact number."""
    if kind in _INTEGERS:
        return (_INTEGERS[kind], 0)
    match = _NUMERIC.fullmatch(kind)
    return (int(match[1]) - int(match[2]), int(match[2])) if match else None


def _is_varchar(kind: str) -> bool:
    return kind == "character varying" or _VARCHAR.fullmatch(kind) is not None


def _length(kind: str) -> float:
    match = _VARCHAR.fullmatch(kind)
    return int(match[1]) if match else float("inf")
