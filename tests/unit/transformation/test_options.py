"""What a column can ask for, each on a value: cleaned, rounded, converted, in canonical form."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.transformation.clean import clean_expression, is_cleaned
from tasks.transformation.functions import register
from tasks.transformation.normalize import cast_expression
from tasks.transformation.sql import TEXT


def spec_of(declared: dict[str, Any]) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "things", "description": "Things",
            "source": {"kind": "files", "path": "*", "format": {"kind": "csv"}},
            "columns": {"v": declared}, "load": {"table": "a.b", "mode": "append"},
        }
    )  # fmt: skip


def made(declared: dict[str, Any], value: Any, raw_type: str = TEXT) -> Any:
    """Return what becomes of a value."""
    spec = spec_of(declared)
    column: ColumnSpec = spec.columns["v"]
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        register(connection, spec)
        connection.execute(f"CREATE TABLE raw AS SELECT CAST(? AS {raw_type}) AS v", [value])
        if is_cleaned(column):
            cleaned, raw_type = clean_expression(f"CAST(v AS {TEXT})", column), TEXT
            connection.execute(f"CREATE OR REPLACE TABLE raw AS SELECT {cleaned} AS v FROM raw")
        query = f"SELECT {cast_expression('v', raw_type, column)} FROM raw"
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ({"clean": ["title"]}, "hELLO  wORLD éa", "Hello  World Éa"),
        ({"clean": ["nfkc"]}, "\ufb01 \u2460", "fi 1"),
        ({"clean": ["drop_control"]}, "a\x00b\x85c\td\x1b[0m", "abc\td[0m"),
        ({"nul": "replace"}, "a\x00b", "a\ufffdb"),
        ({"clip": {"length": 4, "mark": "…"}}, "abcde", "abc…"),
        ({"clip": {"length": 4, "mark": "…"}}, "abcd", "abcd"),
        ({"clip": {"length": 2}}, "😀é!", "😀é"),
        ({"canonical": "email"}, "Ann@EXAMPLE.com", "Ann@example.com"),
        ({"canonical": "email"}, "ann@", None),
        ({"canonical": "phone", "region": "DE"}, "030 901820", "+4930901820"),
        ({"canonical": "phone", "region": "DE"}, "+1 (650) 253-0000", "+16502530000"),
        ({"canonical": "phone"}, "030 901820", None),
        ({"canonical": "phone", "region": "US"}, "650 253 0000 ext. 5", None),
        ({"canonical": "url"}, "HTTP://Example.COM:80/a b?q=ä#x", "http://example.com/a%20b?q=%C3%A4#x"),
        ({"canonical": "url"}, "javascript:alert(1)", None),
        ({"canonical": "url"}, "/relative", None),
        ({"type": "enum", "values": ["a", "b"]}, "a", "a"),
        ({"type": "enum", "values": ["a", "b"]}, "A", None),
        ({"type": "enum", "values": ["yes"], "replace": {"1": "yes"}}, "1", "yes"),
        ({"type": "decimal(5,2)", "round": "half_even"}, "1.005", Decimal("1.00")),
        ({"type": "decimal(5,2)", "round": "half_even"}, "1.0150", Decimal("1.02")),
        ({"type": "decimal(5,2)", "round": "half_even"}, "-1.0250001", Decimal("-1.03")),
        ({"type": "decimal(5,2)", "round": "half_even"}, "999.996", None),
        ({"type": "decimal(5,2)", "round": "half_even"}, "1e3", None),
        ({"type": "decimal(5,2)"}, "1.005", None),
        ({"type": "float"}, "NaN", None),
        ({"type": "float", "non_finite": "null"}, "NaN", None),
        ({"type": "float", "non_finite": "keep"}, "-Infinity", float("-inf")),
        ({"type": "decimal(9,6)", "unit": {"from": "mi", "to": "km"}}, "1", Decimal("1.609344")),
        ({"type": "decimal(9,5)", "unit": {"from": "mi", "to": "km"}}, "1", None),
        ({"type": "decimal(5,1)", "unit": {"from": "degF", "to": "degC"}}, "212", Decimal("100.0")),
        ({"type": "int32", "unit": {"from": "km", "to": "m"}}, "42", 42_000),
        ({"type": "int32", "unit": {"from": "m", "to": "km"}}, "1500", None),
        ({"type": "float", "unit": {"from": "degF", "to": "degC"}}, "32", 0.0),
        ({"type": "duration"}, "P1DT2H-3M0.5S", "P1DT2H-3M0.5S"),
        ({"type": "duration"}, "-838:59:59", "-838:59:59"),
        ({"type": "duration"}, "PT", None),
        ({"type": "duration"}, "1 day", None),
        ({"type": "duration"}, "PT0.0000001S", None),
        ({"type": "uint8"}, "255", 255),
        ({"type": "uint8"}, "256", None),
        ({"type": "uint64"}, str(2**64 - 1), 2**64 - 1),
        ({"type": "uint32"}, "-1", None),
        ({"type": "int8"}, "-129", None),
        ({"type": "list(int64)"}, "[1, null, -9223372036854775808]", "[1, null, -9223372036854775808]"),
        ({"type": "list(int64)"}, "[1.0]", None),
        ({"type": "list(int64)"}, '["1"]', None),
        ({"type": "list(int64)"}, "[9223372036854775808]", None),
        ({"type": "list(int64)"}, '{"a": 1}', None),
        ({"type": "list(int64)"}, "[1", None),
        ({"type": "list(date)"}, '["2013-02-28"]', '["2013-02-28"]'),
        ({"type": "list(date)"}, '["2013-02-30"]', None),
        ({"type": "list(string)"}, "[1]", None),
        ({"type": "list(boolean)"}, "[true, null]", "[true, null]"),
    ],
)  # fmt: skip
def test_value_is_what_was_declared(declared: dict[str, Any], value: str, expected: Any) -> None:
    found = made({"type": "string", **declared}, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("declared", "value", "raw_type", "expected"),
    [
        ({"type": "float", "non_finite": "quarantine"}, "nan", "DOUBLE", None),
        ({"type": "float", "non_finite": "quarantine"}, "1.5", "DOUBLE", 1.5),
        ({"type": "float", "non_finite": "null"}, "inf", "DOUBLE", None),
        ({"type": "decimal(5,2)", "round": "half_even"}, "1.005", "DOUBLE", Decimal("1.00")),
        ({"type": "decimal(5,2)", "round": "half_even"}, "1.015", "DECIMAL(9,3)", Decimal("1.02")),
        ({"type": "decimal(5,2)"}, "1.015", "DECIMAL(9,3)", None),
        ({"type": "decimal(9,6)", "unit": {"from": "mi", "to": "km"}}, "2", "INTEGER", Decimal("3.218688")),
        ({"type": "enum", "values": ["1"]}, "1", "INTEGER", "1"),
        ({"type": "uint8"}, "255", "UTINYINT", 255),
        ({"type": "uint8"}, "-1", "INTEGER", None),
    ],
)  # fmt: skip
def test_typed_value_is_what_was_declared(
    declared: dict[str, Any], value: str, raw_type: str, expected: Any
) -> None:
    assert made(declared, value, raw_type) == expected


@settings(max_examples=60, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-900, max_value=900, places=5))
def test_rounding_is_that_of_the_library(number: Decimal) -> None:
    found = made({"type": "decimal(9,2)", "round": "half_even"}, format(number, "f"))
    assert found == number.quantize(Decimal("0.01"), ROUND_HALF_EVEN)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"type": "enum"}, "an enum has 'values'"),
        ({"type": "string", "values": ["a"]}, "an enum has 'values'"),
        ({"type": "int32", "clip": {"length": 3}}, "'clip' is not for int32"),
        ({"type": "string", "clip": {"length": 1, "mark": "…"}}, "as long as the text may be"),
        ({"type": "float", "round": "half_even"}, "'round' is not for float"),
        ({"type": "string", "canonical": "url", "region": "DE"}, "'region' is not for"),
        ({"type": "string", "unit": {"from": "mi", "to": "km"}}, "'unit' is not for string"),
        ({"type": "float", "unit": {"from": "mi", "to": "kg"}}, "Cannot convert"),
        ({"type": "float", "unit": {"from": "parrots", "to": "km"}}, "parrots"),
        ({"type": "list(json)"}, "not a column type"),
        ({"type": "decimal(39,1)"}, "not a column type"),
    ],
)
def test_option_that_does_not_fit_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(declared)
