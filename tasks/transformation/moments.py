"""SQL for dates, times and instants: ISO 8601 or declared formats, and local times of a zone."""

from __future__ import annotations

import re

from tasks.model.columns import ColumnSpec
from tasks.transformation.sql import literal

# Year 0000 is no year of PostgreSQL; year 0001 is the first.
_YEAR = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DATE = _YEAR + r"-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_OFFSET = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_WRITTEN_OFFSET = r"(Z|[+-](0[0-9]|1[0-5]):?[0-5][0-9])"
_FIXED_ZONES = ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z", "Zulu")


def _matches(value: str, form: str) -> str:
    return f"regexp_full_match({value}, {literal(form)})"


def _when(condition: str, result: str) -> str:
    return f"CASE WHEN {condition} THEN {result} END"


def date_or_time_expression(value: str, column: ColumnSpec) -> str:
    """Return SQL for a text as a date or a time of day, NULL if it is none of the declared form."""
    target, iso_form = {"date": ("DATE", _DATE), "time": ("TIME", _CLOCK)}[column.type]
    if column.formats:
        return f"CAST({_by_formats(value, column)} AS {target})"
    return _when(_matches(value, iso_form), f"TRY_CAST({value} AS {target})")


def timestamp_expression(value: str, column: ColumnSpec) -> str:
    """Return SQL for a text as a timestamp, or as an instant if the column has a time zone."""
    if column.formats:
        return _by_formats(value, column)
    naive_form = f"{_DATE}[T ]{_CLOCK}"
    naive = _when(_matches(value, naive_form), f"TRY_CAST({value} AS TIMESTAMP)")
    if column.timezone is None:
        return naive
    with_offset = _when(
        _matches(value, f"{naive_form} ?{_OFFSET}"), f"TRY_CAST({value} AS TIMESTAMPTZ)"
    )
    return f"coalesce({with_offset}, {local_time(naive, column.timezone, column)})"


def _by_formats(value: str, column: ColumnSpec) -> str:
    """Parse by any of the formats, and refuse what two of them read differently."""
    read = [_by_format(value, text_format, column) for text_format in column.formats]
    if len(read) == 1:
        return read[0]
    listed = ", ".join(read)
    return _when(f"least({listed}) = greatest({listed})", f"least({listed})")


def _by_format(value: str, text_format: str, column: ColumnSpec) -> str:
    if text_format.endswith("%z"):
        return _with_offset(value, text_format.removesuffix("%z"), column)
    naive = _written_so(value, text_format, column)
    if column.timezone is None:
        return naive
    return local_time(naive, column.timezone, column)


def _written_so(value: str, text_format: str, column: ColumnSpec) -> str:
    """Parse by one format, and refuse what does not read the same when it is written again."""
    parsed = f"TRY_STRPTIME({value}, {literal(text_format)})"
    if re.search(r"%-?y", text_format):
        # The century is ours to tell; 29 February may exist in only one of the two.
        year = f"year({parsed}) % 100"
        century = f"CASE WHEN {year} < {column.pivot} THEN 2000 ELSE 1900 END"
        parsed = f"({parsed} + to_years(CAST({century} + {year} - year({parsed}) AS INTEGER)))"
    written = f"strftime({parsed}, {literal(text_format)})"
    exact = f"CAST({parsed} AS TIMESTAMP)"
    same = f"{written} = {value}"
    if "%n" in text_format:  # nanoseconds
        same += f" AND CAST({exact} AS TIMESTAMP_NS) = {parsed}"
    return _when(same, exact)


def _with_offset(value: str, text_format: str, column: ColumnSpec) -> str:
    """Parse a text that ends with an offset, such as +0545, +05:45 or Z."""
    offset = f"regexp_extract({value}, {literal(_WRITTEN_OFFSET + '$')})"
    naive = _written_so(f"left({value}, -length({offset}))", text_format, column)
    digits = f"replace({offset}, ':', '')"
    minutes = (
        f"CASE WHEN {offset} = 'Z' THEN 0 ELSE CAST(left({digits}, 1) || '1' AS INTEGER) * "
        f"(CAST({digits}[2:3] AS INTEGER) * 60 + CAST({digits}[4:5] AS INTEGER)) END"
    )
    instant = f"(({naive}) - to_minutes({minutes})) AT TIME ZONE 'UTC'"
    return _when(f"{offset} <> ''", instant)


def local_time(naive: str, timezone: str, column: ColumnSpec) -> str:
    """Return SQL for the instant of a local time.

    The zone's offsets of the day before and of the day after give the two instants that it can be;
    those that read as the local time again are real. Both are real and differ where clocks are set
    back, none is where they are set forward; then the column's ``ambiguous`` and ``nonexistent``
    decide.

    Args:
        naive: SQL of the local time, without a zone.
        timezone: The zone.
        column: What is declared for the value.
    """
    zone = literal(timezone)
    if timezone in _FIXED_ZONES:
        return f"(({naive}) AT TIME ZONE {zone})"
    before = f"(((({naive}) - INTERVAL 1 DAY) AT TIME ZONE {zone}) + INTERVAL 24 HOUR)"
    after = f"(((({naive}) + INTERVAL 1 DAY) AT TIME ZONE {zone}) - INTERVAL 24 HOUR)"
    first = _when(f"({before} AT TIME ZONE {zone}) = ({naive})", before)
    second = _when(f"({after} AT TIME ZONE {zone}) = ({naive})", after)
    pick = {
        "quarantine": _when(f"least({first}, {second}) = greatest({first}, {second})", first),
        "earlier": f"least({first}, {second})",
        "later": f"greatest({first}, {second})",
    }[column.ambiguous]
    if column.ambiguous == "quarantine":
        pick = _when(
            f"least({first}, {second}) = greatest({first}, {second})",
            f"coalesce({first}, {second})",
        )
    if column.nonexistent == "shift_forward":
        return f"CASE WHEN {first} IS NULL AND {second} IS NULL THEN {before} ELSE {pick} END"
    return pick
