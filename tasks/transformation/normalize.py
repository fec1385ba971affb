"""Normalising: SQL that casts a value to its declared type, or to NULL when that would change it.

DuckDB's ``TRY_CAST`` is too kind for us: it takes '1.5' for the bigint 2 and '0x10' for 16. So a
text must have a declared form before it is cast, and a typed value must survive the way back.
A cast that gives NULL for a value that was there sends the row to quarantine.
"""

from __future__ import annotations

import re

from tasks.model.columns import ColumnSpec, NumberFormat, decimal_digits
from tasks.transformation.moments import date_or_time_expression, local_time, timestamp_expression
from tasks.transformation.sql import TEXT, duckdb_type, literal

_INTEGER = r"[+-]?[0-9]+"
_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


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
        point = "" if column.type.startswith("int") else column.number.decimal or "."
        value = plain_number(value, column.number, point)
    target = duckdb_type(column)
    tried = f"TRY_CAST({value} AS {target})"
    if digits := decimal_digits(column.type):
        # Zeros after the declared scale change nothing; any other digit there would be rounded.
        form = rf"[+-]?([0-9]+(\.[0-9]{{0,{digits[1]}}}0*)?|\.[0-9]{{0,{digits[1]}}}0*)"
        return _when(f"{_matches(value, form)} AND {value} NOT IN ('.', '+.', '-.')", tried)
    simple = {
        "string": value,
        "bytes": f"encode({value})",
        "boolean": _when(f"lower({value}) IN ('true', 'false')", tried),
        "float": _when(f"{_matches(value, _NUMBER)} AND isfinite({tried})", tried),
        "json": _when(f"json_valid({value})", value),
        "uuid": f"CAST({tried} AS {TEXT})",
    }
    if column.type in simple:
        return simple[column.type]
    if column.type.startswith("int"):
        return _when(_matches(value, _INTEGER), tried)
    if column.type == "timestamp":
        return timestamp_expression(value, column)
    return date_or_time_expression(value, column)


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
    if column.type == "uuid":
        return f"CAST(TRY_CAST({value} AS UUID) AS {TEXT})"
    if column.type == "json":
        return f"CAST({value} AS {TEXT})"
    if raw_type == target:
        return value
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
