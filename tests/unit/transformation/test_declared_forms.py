"""Numbers, dates and local times in declared forms: exactly those, and nothing like them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.model.columns import ColumnSpec
from tasks.transformation.normalize import cast_expression
from tasks.transformation.sql import TEXT
from tasks.transformation.validate import column_rules

CONNECTION = duckdb.connect(":memory:")
CONNECTION.execute("SET TimeZone = 'UTC'")


def cast(text: str, **declared: Any) -> Any:
    column = ColumnSpec.model_validate(declared)
    CONNECTION.execute("CREATE OR REPLACE TEMP TABLE v AS SELECT CAST(? AS VARCHAR) AS v", [text])
    row = CONNECTION.execute(f"SELECT {cast_expression('v', TEXT, column)} FROM v").fetchone()
    assert row is not None
    return row[0]


GERMAN = {"decimal": ",", "thousands": "."}
SWISS = {"thousands": "'"}
FRENCH = {"decimal": ",", "thousands": "\u202f"}
BOOKS = {"thousands": ",", "negative": ["parentheses"]}


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (GERMAN, "1.234,5", "1234.5"),
        (GERMAN, "1234,50", "1234.50"),
        (GERMAN, "-1.234.567,89", "-1234567.89"),
        (GERMAN, "+,5", "0.5"),
        (GERMAN, "12,", "12"),
        (GERMAN, "1,234.5", None),  # the other convention
        (GERMAN, "1234.5", None),  # a group of one digit
        (GERMAN, "12.34,5", None),  # a group of two
        (GERMAN, "1..234", None),
        (GERMAN, ".234", None),
        (GERMAN, "1.234,567", None),  # a digit that would be lost
        (GERMAN, "(12)", None),
        (GERMAN, "12-", None),
        (GERMAN, ",", None),
        (GERMAN, "", None),
        (SWISS, "1'234'567.25", "1234567.25"),
        (FRENCH, "1\u202f234,5", "1234.5"),
        (FRENCH, "1 234,5", None),  # another space than the declared one
        (BOOKS, "(1,234.50)", "-1234.50"),
        (BOOKS, "1,234.50", "1234.50"),
        (BOOKS, "-12", None),  # only parentheses are declared
        (BOOKS, "(-12)", None),
        (BOOKS, "(12", None),
        ({"negative": ["trailing_minus", "minus"]}, "12-", "-12"),
        ({"negative": ["trailing_minus", "minus"]}, "-12", "-12"),
        ({"negative": ["trailing_minus", "minus"]}, "-12-", None),
    ],
)
def test_b23_number_is_one_only_in_its_declared_form(
    form: dict[str, Any], text: str, expected: str | None
) -> None:
    found = cast(text, type="decimal(12,2)", format=form)
    assert found == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.234.567", 1234567), ("9.223.372.036.854.775.807", 2**63 - 1), ("1.234,0", None),
     ("9.223.372.036.854.775.808", None), ("1.2345", None)],
)  # fmt: skip
def test_b24_integer_with_groups_keeps_its_range(text: str, expected: int | None) -> None:
    assert cast(text, type="int64", format={"thousands": "."}) == expected


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9
    )
)
def test_number_that_python_groups_is_read_back(number: Decimal) -> None:
    text = f"{number:,.2f}".translate(str.maketrans(",.", ".,"))
    assert cast(text, type="decimal(12,2)", format=GERMAN) == number


def test_message_shows_the_declared_form() -> None:
    column = ColumnSpec.model_validate({"type": "int64", "format": {"thousands": "."}})
    (rule,) = column_rules("n", column, required=False, text="x")
    assert rule.message == "not an int64 in the form 1.234 or -1.234"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"type": "decimal(9,2)", "format": {"thousands": "."}}, "say what 'decimal' is"),
        ({"type": "decimal(9,2)", "format": {"decimal": "5"}}, "separates digits"),
        ({"type": "int32", "format": {"decimal": ","}}, "numbers with decimals"),
        ({"type": "string", "format": GERMAN}, "for numbers"),
        ({"type": "date", "format": "%d.%m.%y"}, "say with 'pivot'"),
        ({"type": "date", "format": "%d.%m.%Y", "pivot": 70}, "for formats with %y"),
        ({"type": "timestamp", "format": "%d.%m.%Y %z"}, "declare 'timezone'"),
        ({"type": "timestamp", "timezone": "UTC", "format": "%z %d.%m.%Y"}, "at the end only"),
    ],
)
def test_form_that_is_not_clear_is_no_declaration(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ColumnSpec.model_validate(declared)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("13.02.2025", date(2025, 2, 13)),
        ("2025-02-13", date(2025, 2, 13)),
        ("29.02.2023", None),
        ("13.2.2025", None),
        ("2025/02/13", None),
    ],
)
def test_b25_several_formats_may_be_declared(text: str, expected: date | None) -> None:
    assert cast(text, type="date", format=["%d.%m.%Y", "%Y-%m-%d"]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("13/02/2025", date(2025, 2, 13)), ("02/13/2025", date(2025, 2, 13)),
     ("02/02/2025", date(2025, 2, 2)), ("01/02/2025", None)],
)  # fmt: skip
def test_29_text_that_two_formats_read_differently_is_refused(
    text: str, expected: date | None
) -> None:
    assert cast(text, type="date", format=["%d/%m/%Y", "%m/%d/%Y"]) == expected


@pytest.mark.parametrize(
    ("pivot", "text", "expected"),
    [
        (70, "01.01.69", date(2069, 1, 1)),
        (70, "01.01.70", date(1970, 1, 1)),
        (0, "01.01.00", date(1900, 1, 1)),
        (100, "31.12.99", date(2099, 12, 31)),
        (70, "29.02.00", date(2000, 2, 29)),
        (0, "29.02.00", None),  # 1900 had none
        (70, "29.02.23", None),
        (70, "01.01.1970", None),
    ],
)
def test_b25_two_digit_year_is_of_the_declared_century(
    pivot: int, text: str, expected: date | None
) -> None:
    assert cast(text, type="date", format="%d.%m.%y", pivot=pivot) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01/02/2025 10:00:00 +0545", datetime(2025, 2, 1, 4, 15, tzinfo=UTC)),
        ("01/02/2025 10:00:00 -05:45", datetime(2025, 2, 1, 15, 45, tzinfo=UTC)),
        ("01/02/2025 10:00:00 Z", datetime(2025, 2, 1, 10, tzinfo=UTC)),
        ("01/02/2025 10:00:00", None),
        ("01/02/2025 10:00:00 +25:00", None),
        ("01/02/2025 10:00:60 Z", None),  # a leap second
        ("01/02/2025 24:00:00 Z", None),
    ],
)
def test_b27_offset_of_a_declared_format_gives_the_exact_instant(
    text: str, expected: datetime | None
) -> None:
    declared = {"timezone": "Europe/Berlin", "format": "%d/%m/%Y %H:%M:%S %z"}
    assert cast(text, type="timestamp", **declared) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10:00:00.123456000", datetime(2025, 1, 2, 10, 0, 0, 123456)), ("10:00:00.123456789", None)],
)
def test_b27_nanoseconds_that_would_be_lost_are_refused(
    text: str, expected: datetime | None
) -> None:
    found = cast(f"2025-01-02 {text}", type="timestamp", format="%Y-%m-%d %H:%M:%S.%n")
    assert found == expected


ZONES = [
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",  # half an hour
    "Antarctica/Troll",  # two hours
    "America/Sao_Paulo",  # at midnight
    "Pacific/Apia",  # left out a whole day
    "Asia/Kathmandu",
]


def utc(local: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return local.replace(tzinfo=zone, fold=fold).astimezone(UTC)


@cache
def around_changes(name: str) -> list[datetime]:
    """Local times around every change of a zone in some years."""
    zone, found = ZoneInfo(name), []
    hour = datetime(2010, 1, 1, tzinfo=UTC)
    while hour.year < 2014:
        following = hour + timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            local = following.astimezone(zone).replace(tzinfo=None)
            found += [local + timedelta(minutes=minutes) for minutes in range(-180, 181, 15)]
        hour = following
    return found


@pytest.mark.parametrize("nonexistent", ["quarantine", "shift_forward"])
@pytest.mark.parametrize("ambiguous", ["quarantine", "earlier", "later"])
def test_b26_local_time_is_what_python_says_around_every_change(
    ambiguous: str, nonexistent: str
) -> None:
    for name in ZONES:
        zone = ZoneInfo(name)
        column = ColumnSpec.model_validate(
            {
                "type": "timestamp",
                "timezone": name,
                "ambiguous": ambiguous,
                "nonexistent": nonexistent,
            }
        )
        times = around_changes(name)
        if not times:
            continue
        CONNECTION.execute(
            "CREATE OR REPLACE TEMP TABLE v AS SELECT unnest(?) AS v",
            [[local.isoformat(" ") for local in times]],
        )
        found = CONNECTION.execute(f"SELECT {cast_expression('v', TEXT, column)} FROM v").fetchall()
        for local, (instant,) in zip(times, found, strict=True):
            earlier, later = utc(local, zone, 0), utc(local, zone, 1)
            if earlier == later:
                expected: datetime | None = earlier
            elif earlier.astimezone(zone).replace(tzinfo=None) != local:  # skipped
                expected = earlier if nonexistent == "shift_forward" else None
            else:
                expected = {"quarantine": None, "earlier": earlier, "later": later}[ambiguous]
            assert instant == expected, (name, local)


@settings(max_examples=50)
@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)))
def test_utc_knows_no_daylight_saving(local: datetime) -> None:
    assert cast(local.isoformat(), type="timestamp", timezone="UTC") == local.replace(tzinfo=UTC)
