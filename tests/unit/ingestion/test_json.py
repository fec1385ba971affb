"""JSON keeps its digits; a record that cannot be trusted is refused with its text."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.json_lines import read_json_lines
from tasks.ingestion.json_select import records_at
from tasks.json_records import parse_json, record_texts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=6,
)


def read(
    content: bytes, limits: PlanLimits | None = None
) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for raw in read_json_lines(io.BytesIO(content), "u", limits or PlanLimits()):
        rows += raw.batch.to_pylist() if raw.batch is not None else []
        rejects += raw.rejects
    return rows, rejects


@given(st.dictionaries(st.text("abcdé", min_size=1, max_size=4), VALUES, max_size=4))
def test_record_becomes_texts_that_mean_the_same(record: dict[str, Any]) -> None:
    texts = record_texts(parse_json(json.dumps(record)))
    assert texts.keys() == record.keys()
    for name, value in record.items():
        text = texts[name]
        if value is None or isinstance(value, str):
            assert text == value
        else:
            assert text is not None
            assert json.loads(text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 300))
def test_number_keeps_its_digits(number: Decimal) -> None:
    text = record_texts(parse_json(f'{{"n": {number}}}'))["n"]
    assert text is not None
    assert Decimal(text) == number
    assert "E" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.1000", "0.1000"),
        ("9007199254740993", "9007199254740993"),
        ("-0", "-0"),
        ("1e3", "1000"),
        ("1.50E-3", "0.00150"),
        (
            "1e999999999",
            "1e999999999",
        ),  # left as it is: no column can hold it, and no memory either
    ],
)
def test_digits_are_those_that_were_written(number: str, text: str) -> None:
    assert record_texts(parse_json(f'{{"n": {number}}}'))["n"] == text


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b'{"a":1,"a":2}', "duplicate_key"),
        (b'{"a":{"b":1,"b":2}}', "duplicate_key"),
        (b'{"a":[NaN]}', "not_a_number"),
        (b'{"a":-Infinity}', "not_a_number"),
        (b'{"a":"\\ud800"}', "lone_surrogate"),
        (b'{"a":["\\udc00"]}', "lone_surrogate"),
        (b"[1]", "not_an_object"),
        (b'"a"', "not_an_object"),
        (b'{"a":1', "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":"caf\xe9"}', "encoding"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":"' + b"x" * 2000 + b'"}', "value_too_long"),
    ],
)
def test_record_is_refused_and_the_others_go_on(line: bytes, rule: str) -> None:
    limit = PlanLimits(max_value_bytes=1000 if rule == "value_too_long" else 1 << 20)
    rows, (reject,) = read(b'{"a":1}\n' + line + b'\n{"a":2}\n', limit)
    assert [(row["a"], row["_source_row"]) for row in rows] == [("1", 1), ("2", 3)]
    assert (reject.rule, reject.source_row) == (rule, 2)
    assert reject.raw
    reject.raw.encode()


def test_lines_end_at_line_feeds_only() -> None:
    rows, rejects = read('{"a":"x\u2028y\u0085z"}\r\n\n{"a":"2"}'.encode())
    assert [row["a"] for row in rows] == ["x\u2028y\u0085z", "2"]
    assert not rejects


def test_missing_key_and_null_and_types_that_flip() -> None:
    rows, _ = read(b'{"a":1}\n{"a":"1","b":null}\n{"a":{"c":[1.10]},"b":true}\n')
    assert [(row["a"], row["b"]) for row in rows] == [
        ("1", None),
        ("1", None),
        ('{"c":[1.10]}', "true"),
    ]


@pytest.mark.parametrize(
    ("body", "path", "found"),
    [({"a": {"b": [1]}}, "a.b", [1]), ([1], None, [1]), ({"a": 1}, "a", None), ({}, "a", None)],
)
def test_records_are_found_by_their_path(body: Any, path: str | None, found: Any) -> None:
    assert records_at(body, path) == found
