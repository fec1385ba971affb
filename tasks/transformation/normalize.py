"""Normalising: SQL that casts a value to its declared type, or to NULL when that would change it.

DuckDB's ``TRY_CAST`` is too kind for us: it takes '1.5' for the bigint 2 and '0x10' for 16. So a
text must have a declared form before it is cast, and a typed value must survive the way back.
A cast that gives NULL for a value that was there sends the row to quarantine.
"""

from __future__ import annotations

import re

from tasks.model.column_types import SIGNED, decimal_digits, is_integer, list_element
from tasks.model.columns import ColumnSpec, NumberFormat
from tasks.model.units import conversion
from tasks.transformation.clean import is_non_finite
from tasks.transformation.functions import canonical_call, round_function, unit_function
from tasks.transformation.moments import date_or_time_expression, local_time, timestamp_expression
from tasks.transformation.sql import TEXT, duckdb_type, literal, literals

_INTEGER = r"[+-]?[0-9]+"
_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


_PLAIN_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)"
# ISO 8601 with designators, or a clock; the numbers of digits keep within PostgreSQL's interval.
_DURATION = (
    r"P(-?[0-9]{1,5}Y)?(-?[0-9]{1,6}M)?(-?[0-9]{1,6}W)?(-?[0-9]{1,8}D)?"
    r"(T(-?[0-9]{1,8}H)?(-?[0-9]{1,9}M)?(-?[0-9]{1,10}(\.[0-9]{1,6})?S)?)?"
    r"|-?[0-9]{1,8}:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
)
_WHOLE = ("BIGINT", "UBIGINT")
_JSON_KINDS: dict[str, tuple[str, ...]] = {
    "boolean": ("BOOLEAN",),
    **dict.fromkeys(SIGNED, _WHOLE),
    "float": (*_WHOLE, "HUGEINT", "DOUBLE"),
}


def cast_expression(value: str, raw_type: str, column: ColumnSpec) -> str:
    """Return SQL for the value in its declared type, NULL if it cannot be that without a change.

    Args:
        value: SQL of the cleaned value.
        raw_type: Its DuckDB type.
        column: What is declared for it.
    """
    if raw_type == TEXT:
        return _from_text(value, column)
    return _from_typed(value, raw_type, column)


def _matches(value: str, form: str) -> str:
    return f"regexp_full_match({value}, {literal(form)})"


def _when(condition: str, result: str) -> str:
    return f"CASE WHEN {condition} THEN {result} END"


def _from_text(value: str, column: ColumnSpec) -> str:
    if column.number:
        point = "" if is_integer(column.type) else column.number.decimal or "."
        value = plain_number(value, column.number, point)
    if column.unit and column.type != "float":
        converted = f"{unit_function(column.unit)}({value})"
        value = _when(_matches(value, _PLAIN_NUMBER), converted)
    target = duckdb_type(column)
    tried = f"TRY_CAST({value} AS {target})"
    if digits := decimal_digits(column.type):
        # Zeros after the declared scale change nothing; any other digit there would be rounded.
        form = rf"[+-]?([0-9]+(\.[0-9]{{0,{digits[1]}}}0*)?|\.[0-9]{{0,{digits[1]}}}0*)"
        exact = _when(f"{_matches(value, form)} AND {value} NOT IN ('.', '+.', '-.')", tried)
        return _rounded(exact, value, digits[1], target) if column.round else exact
    simple = {
        "string": canonical_call(column, value) if column.canonical else value,
        "enum": _when(f"{value} IN ({literals(column.values)})", value),
        "duration": _when(f"{_matches(value, _DURATION)} AND {value} NOT IN ('P', 'PT')", value),
        "bytes": f"encode({value})",
        "boolean": _when(f"lower({value}) IN ('true', 'false')", tried),
        "float": _float(value, tried, column),
        "json": _when(f"json_valid({value})", value),
        "uuid": f"CAST({tried} AS {TEXT})",
    }
    if column.type in simple:
        return simple[column.type]
    if is_integer(column.type):
        # What reads the same when it is written again needs no look at its form: nine times as fast.
        same = f"CAST({tried} AS {TEXT}) = {value}"
        return f"CASE WHEN {same} THEN {tried} WHEN {_matches(value, _INTEGER)} THEN {tried} END"
    if element := list_element(column.type):
        return _list(value, element)
    if column.type == "timestamp":
        return timestamp_expression(value, column)
    return date_or_time_expression(value, column)


def _float(value: str, tried: str, column: ColumnSpec) -> str:
    number = _when(f"{_matches(value, _NUMBER)} AND isfinite({tried})", tried)
    if column.unit:
        factor, offset = conversion(column.unit.source, column.unit.to)
        number = f"({number}) * {float(factor)!r}::DOUBLE + {float(offset)!r}::DOUBLE"
    if column.non_finite == "keep":
        return f"CASE WHEN {is_non_finite(value)} THEN {tried} ELSE {number} END"
    return number


def _rounded(exact: str, value: str, places: int, target: str) -> str:
    """Round what the type cannot hold exactly; half of a unit goes to the even neighbour."""
    rounded = _when(_matches(value, _PLAIN_NUMBER), f"{round_function(places)}({value})")
    return f"coalesce({exact}, TRY_CAST({rounded} AS {target}))"


def _list(value: str, element: str) -> str:
    """Return the JSON array, NULL if one of its elements is not of the type."""
    kinds = literals(_JSON_KINDS.get(element, ("VARCHAR",)))
    cast = _from_text("(e ->> '$')", ColumnSpec(type=element))
    good = f"json_type(e) = 'NULL' OR (json_type(e) IN ({kinds}) AND ({cast}) IS NOT NULL)"
    bad = f"len(list_filter(json_extract({value}, '$[*]'), lambda e: NOT ({good})))"
    is_array = f"json_valid({value}) AND json_type({value}) = 'ARRAY'"
    return f"CASE WHEN {is_array} THEN CASE WHEN {bad} = 0 THEN {value} END END"


def plain_number(value: str, form: NumberFormat, point: str) -> str:
    """Return SQL for a number in the plain form, NULL for a text of no declared form.

    Groups are of three digits, or there are none; a sign is where it is declared to be.

    Args:
        value: SQL of the text.
        form: Its declared form.
        point: Character before the decimals; '' if there are none.
    """
    digits = "[0-9]+"
    if form.thousands:
        digits = f"([0-9]+|[0-9]{{1,3}}({re.escape(form.thousands)}[0-9]{{3}})+)"
    number = digits
    if point:
        number = f"({digits}({re.escape(point)}[0-9]*)?|{re.escape(point)}[0-9]+)"
    signed = {
        "minus": f"-{number}",
        "trailing_minus": f"{number}-",
        "parentheses": rf"\({number}\)",
    }
    forms = "|".join([rf"\+?{number}", *(signed[sign] for sign in form.negative)])
    bare = f"translate({value}, '()-', '')"
    if form.thousands:
        bare = f"replace({bare}, {literal(form.thousands)}, '')"
    if point not in ("", "."):
        bare = f"replace({bare}, {literal(point)}, '.')"
    sign = f"CASE WHEN regexp_matches({value}, '[-(]') THEN '-' ELSE '' END"
    return _when(_matches(value, forms), f"{sign} || {bare}")


def _from_typed(value: str, raw_type: str, column: ColumnSpec) -> str:
    target = duckdb_type(column)
    if column.type in ("enum", "duration") or list_element(column.type) or column.canonical:
        return _from_text(f"CAST({value} AS {TEXT})", column)
    if column.type == "uuid":
        return f"CAST(TRY_CAST({value} AS UUID) AS {TEXT})"
    if column.type == "json":
        return f"CAST({value} AS {TEXT})"
    if column.non_finite == "quarantine":
        value = _when(f"isfinite({value})", value) if raw_type in ("DOUBLE", "FLOAT") else value
    if raw_type == target:
        return value
    if column.round and (digits := decimal_digits(column.type)):
        text = f"CAST({value} AS {TEXT})"
        rounded = f"TRY_CAST({round_function(digits[1])}({text}) AS {target})"
        return f"coalesce({_exact(value, raw_type, target)}, {rounded})"
    if raw_type.startswith("TIMESTAMP") and column.type == "timestamp":
        is_instant = raw_type in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
        if column.timezone and not is_instant:
            return local_time(_exact(value, raw_type, "TIMESTAMP"), column.timezone, column)
        if is_instant and not column.timezone:
            # An instant has no local time of its own: the file must name the zone it is seen in.
            return "CAST(NULL AS TIMESTAMP)"
    return _exact(value, raw_type, target)


def _exact(value: str, raw_type: str, target: str) -> str:
    """Cast, and refuse a value that the way back does not restore."""
    cast = f"TRY_CAST({value} AS {target})"
    return _when(f"TRY_CAST({cast} AS {raw_type}) IS NOT DISTINCT FROM {value}", cast)
