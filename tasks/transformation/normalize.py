"""Normalising: SQL that casts a value to its declared type, or to NULL when that would change it.

DuckDB's ``TRY_CAST`` is too kind for us: it takes '1.5' for the bigint 2 and '0x10' for 16. So a
text must have a declared form before it is cast, and a typed value must survive the way back.
A cast that gives NULL for a value that was there sends the row to quarantine.
"""

from __future__ import annotations

from tasks.model.columns import ColumnSpec, decimal_digits
from tasks.transformation.sql import TEXT, duckdb_type, literal

_INTEGER = r"[+-]?[0-9]+"
_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
# Year 0000 is no year of PostgreSQL; year 0001 is the first.
_YEAR = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DATE = _YEAR + r"-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_OFFSET = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"


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
        return _timestamp(value, column)
    return _temporal(
        value, column, *{"date": (_DATE, "DATE"), "time": (_CLOCK, "TIME")}[column.type]
    )


def _temporal(value: str, column: ColumnSpec, iso_form: str, target: str) -> str:
    if column.format is None:
        return _when(_matches(value, iso_form), f"TRY_CAST({value} AS {target})")
    return f"CAST({_by_format(value, column.format)} AS {target})"


def _by_format(value: str, text_format: str) -> str:
    """Parse by a strptime format, and refuse what does not read the same when written again."""
    parsed = f"TRY_STRPTIME({value}, {literal(text_format)})"
    written = f"strftime({parsed}, {literal(text_format)})"
    return _when(f"{written} = {value}", parsed)


def _timestamp(value: str, column: ColumnSpec) -> str:
    naive_form = f"{_DATE}[T ]{_CLOCK}"
    if column.format:
        naive = _by_format(value, column.format)
    else:
        naive = _when(_matches(value, naive_form), f"TRY_CAST({value} AS TIMESTAMP)")
    if column.timezone is None:
        return naive
    local = local_time(naive, column.timezone, column.ambiguous)
    if column.format:
        return local
    with_offset = _when(
        _matches(value, f"{naive_form} ?{_OFFSET}"), f"TRY_CAST({value} AS TIMESTAMPTZ)"
    )
    return f"coalesce({with_offset}, {local})"


def local_time(naive: str, timezone: str, ambiguous: str) -> str:
    """Return SQL for the instant of a local time; NULL in the hour that daylight saving skips.

    A time that occurs twice is the earlier or the later one as declared, else NULL. Shifts of less
    or more than an hour (Lord Howe) are found too, because both candidates are looked at.
    """
    zone = literal(timezone)
    instant = f"(({naive}) AT TIME ZONE {zone})"
    exists = f"({instant} AT TIME ZONE {zone}) = ({naive})"
    other = " ".join(
        f"WHEN (({instant} {sign} INTERVAL {minutes} MINUTE) AT TIME ZONE {zone}) = ({naive}) "
        f"THEN {instant} {sign} INTERVAL {minutes} MINUTE"
        for minutes in (60, 30)
        for sign in ("+", "-")
    )
    twin = f"(CASE {other} END)"
    if ambiguous == "quarantine":
        return _when(f"{exists} AND {twin} IS NULL", instant)
    pick = "least" if ambiguous == "earlier" else "greatest"
    return _when(exists, f"{pick}({instant}, coalesce({twin}, {instant}))")


def _from_typed(value: str, raw_type: str, column: ColumnSpec) -> str:
    target = duckdb_type(column)
    if column.type == "uuid":
        return f"CAST(TRY_CAST({value} AS UUID) AS {TEXT})"
    if column.type == "json":
        return f"CAST({value} AS {TEXT})"
    if raw_type == target:
        return value
    if raw_type.startswith("TIMESTAMP") and column.type == "timestamp":
        if column.timezone and raw_type != "TIMESTAMP WITH TIME ZONE":
            return local_time(
                _exact(value, raw_type, "TIMESTAMP"), column.timezone, column.ambiguous
            )
        if raw_type == "TIMESTAMP WITH TIME ZONE" and not column.timezone:
            # An instant has no local time of its own: the file must name the zone it is seen in.
            return "CAST(NULL AS TIMESTAMP)"
    return _exact(value, raw_type, target)


def _exact(value: str, raw_type: str, target: str) -> str:
    """Cast, and refuse a value that the way back does not restore."""
    cast = f"TRY_CAST({value} AS {target})"
    return _when(f"TRY_CAST({cast} AS {raw_type}) IS NOT DISTINCT FROM {value}", cast)
