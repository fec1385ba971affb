"""A cast either keeps the value or refuses it; checked against Python's own arithmetic."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.columns import ColumnSpec
from tasks.transformation.clean import clean_expression
from tasks.transformation.normalize import cast_expression
from tasks.transformation.sql import TEXT

NEW_YORK = ZoneInfo("America/New_York")


# Opening one takes longer than a thousand casts.
CONNECTION = duckdb.connect(":memory:")
CONNECTION.execute("SET TimeZone = 'UTC'")


def cast(value: Any, column: ColumnSpec, raw_type: str = TEXT) -> Any:
    raw = f"CAST(? AS {raw_type})"
    CONNECTION.execute(f"CREATE OR REPLACE TEMP TABLE v AS SELECT {raw} AS v", [value])
    row = CONNECTION.execute(f"SELECT {cast_expression('v', raw_type, column)} FROM v").fetchone()
    assert row is not None
    return row[0]


@given(st.text(st.sampled_from("0123456789+-.eE _x,"), max_size=12))
def test_text_is_an_integer_only_in_its_plain_form(text: str) -> None:
    found = cast(text, ColumnSpec(type="int64"))
    plain = re.fullmatch(r"[+-]?[0-9]+", text)
    inside = plain and -(2**63) <= int(text) < 2**63
    assert found == (int(text) if inside else None)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**6), max_value=10**6
    )
)
def test_decimal_is_exact_or_refused(number: Decimal) -> None:
    found = cast(format(number, "f"), ColumnSpec(type="decimal(8,2)"))
    fits = number == round(number, 2) and abs(number) < 10**6
    assert found == (number if fits else None)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_written_by_python_arrives_bit_by_bit(number: float) -> None:
    assert cast(repr(number), ColumnSpec(type="float")) == number


@given(st.dates())
def test_every_iso_date_is_exact(day: date) -> None:
    assert cast(day.isoformat(), ColumnSpec(type="date")) == day


@given(st.dates(min_value=date(1000, 1, 1)))
def test_every_date_of_a_declared_format_is_exact(day: date) -> None:
    column = ColumnSpec(type="date", format="%d.%m.%Y")
    assert cast(day.strftime("%d.%m.%Y"), column) == day


@given(st.times())
def test_every_iso_time_is_exact(moment: time) -> None:
    assert cast(moment.isoformat(), ColumnSpec(type="time")) == moment


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.integers(-14 * 4, 14 * 4),
)
def test_text_with_an_offset_is_that_instant(moment: datetime, quarters: int) -> None:
    sign = "-" if quarters < 0 else "+"
    hours, minutes = divmod(abs(quarters) * 15, 60)
    text = f"{moment.isoformat()}{sign}{hours:02}:{minutes:02}"
    column = ColumnSpec(type="timestamp", timezone="Asia/Kathmandu")
    found = cast(text, column)
    assert found.astimezone(UTC).replace(tzinfo=None) == moment - timedelta(minutes=15 * quarters)


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2030, 1, 1)))
def test_local_time_is_its_instant_or_refused(local: datetime) -> None:
    """In the hours that daylight saving skips or repeats, and in no other, the row is refused."""
    column = ColumnSpec(type="timestamp", timezone="America/New_York")
    found = cast(local.isoformat(), column)
    first, second = (local.replace(tzinfo=NEW_YORK, fold=fold) for fold in (0, 1))
    clear = first.utcoffset() == second.utcoffset()
    assert found == (first.astimezone(UTC) if clear else None)


@pytest.mark.parametrize(
    ("policy", "hour"), [("earlier", 5), ("later", 6)]
)  # 01:30 is 05:30 UTC in summer time, 06:30 in winter time
def test_hour_that_occurs_twice_is_what_is_declared(policy: str, hour: int) -> None:
    column = ColumnSpec.model_validate(
        {"type": "timestamp", "timezone": "America/New_York", "ambiguous": policy}
    )
    found = cast("2013-11-03 01:30:00", column)
    assert found == datetime(2013, 11, 3, hour, 30, tzinfo=UTC)
    assert cast("2013-03-10 02:30:00", column) is None  # skipped: never there


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("timestamp", "2013-01-01T00:00:60"),  # a leap second
        ("timestamp", "2013-01-01T24:00:00"),
        ("timestamp", "2013-01-01T00:00:00.1234567"),  # would lose a digit
        ("timestamp", "2013-01-01T00:00:00Z"),  # an instant in a column without a zone
        ("timestamp", "0000-01-01T00:00:00"),
        ("timestamp", "now"),
        ("date", "infinity"),
        ("date", "epoch"),
        ("date", "2013-1-1"),
        ("date", " 2013-01-01"),
        ("time", "24:00"),
        ("time", "7:30"),
        ("boolean", "yes"),
        ("boolean", "1"),
        ("uuid", "b81c8a1e"),
        ("json", "{'a': 1}"),
        ("float", "nan"),
        ("float", "1e400"),
        ("float", " 1"),
        ("decimal(4,2)", "."),
        ("decimal(4,2)", "1e1"),
        ("int16", "32768"),
        ("int32", "-2147483649"),
    ],
)
def test_text_of_no_declared_form_is_refused(kind: str, refused: str) -> None:
    assert cast(refused, ColumnSpec(type=kind)) is None


@pytest.mark.parametrize(
    ("raw_type", "value", "kind", "expected"),
    [
        ("BIGINT", 2**53 + 1, "int64", 2**53 + 1),
        ("BIGINT", 2**40, "int32", None),
        ("DOUBLE", 2.0, "int32", 2),
        ("DOUBLE", 2.5, "int32", None),
        ("DECIMAL(10,4)", Decimal("1.2300"), "decimal(6,2)", Decimal("1.23")),
        ("DECIMAL(10,4)", Decimal("1.2345"), "decimal(6,2)", None),
        ("UBIGINT", 2**64 - 1, "decimal(20,0)", Decimal(2**64 - 1)),
        ("UBIGINT", 2**64 - 1, "int64", None),
        ("BIGINT", 7, "string", "7"),
        ("BOOLEAN", True, "boolean", True),
        (
            "TIMESTAMP_NS",
            "2013-01-01 00:00:00.000001",
            "timestamp",
            datetime(2013, 1, 1, 0, 0, 0, 1),
        ),
        ("TIMESTAMP_NS", "2013-01-01 00:00:00.000000001", "timestamp", None),
        ("TIMESTAMP WITH TIME ZONE", "2013-01-01 00:00:00+00", "timestamp", None),
    ],
)
def test_typed_value_keeps_itself_or_is_refused(
    raw_type: str, value: Any, kind: str, expected: Any
) -> None:
    assert cast(value, ColumnSpec(type=kind), raw_type) == expected


@pytest.mark.parametrize(
    ("declared", "text", "expected"),
    [
        ({"clean": ["strip"]}, "\u00a0 a b\t", "a b"),
        ({"clean": ["strip", "collapse_spaces", "upper"]}, " a \n b ", "A B"),
        ({"clean": ["nfc"]}, "cafe\u0301", "café"),
        ({"null_values": ["-", "n/a"]}, "n/a", None),
        ({"null_values": ["-"]}, "", ""),
        ({"replace": {"a": "it's"}}, "a", "it's"),
        ({"replace": {"a": "b"}}, "A", "A"),
        ({"default": "x"}, None, "x"),
        ({"null_values": [""], "default": "x"}, "", "x"),
        ({"clean": ["lower"], "replace": {"a": "b"}}, "A", "b"),
    ],
)
def test_cleaning_does_what_is_declared_and_no_more(
    declared: dict[str, Any], text: str, expected: str
) -> None:
    column = ColumnSpec.model_validate({"type": "string", **declared})
    row = CONNECTION.execute(f"SELECT {clean_expression('CAST($1 AS VARCHAR)', column)}", [text])
    assert row.fetchall() == [(expected,)]
