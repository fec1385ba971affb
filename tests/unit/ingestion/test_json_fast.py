"""The fast way of reading JSON gives what the exact way gives, or leaves the record to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.json_batches import MOST_SHAPES, RecordBatcher
from tasks.json_records import Flattener, parse_json, record_texts
from tasks.json_tokens import split_record, split_together, token_columns
from tasks.model.formats import Flatten

SPACES = st.sampled_from(["", "", "", " ", "\t", "\r", "  \n "])
NUMBERS = st.one_of(
    st.integers().map(str),
    st.sampled_from(
        ["0.1000", "-0", "-0.0", "9007199254740993", "1e3", "1E-05", "1.50e+2", "1e400", "1e401", "-1e0",
         "1" * 40, "01", "1.", ".5", "+1", "-", "NaN", "Infinity", "-Infinity", "1_0", "0x1"]
    ),
    st.from_regex(r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)  # fmt: skip
STRINGS = st.one_of(
    st.text(max_size=6).map(json.dumps),
    st.text(st.characters(codec="utf-8"), max_size=6).map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.text(":,{}[]\"\\ en1", max_size=6).map(json.dumps),
    st.sampled_from(
        [r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0000"', r'"\/"', '"\t"', '"\x7f"', '"\u2028"',
         r'"\x"', r'"\u12"', '"a', '"null"', '""', '"1e5"', '":"', r'"\u003a"', r'"\u0022"']
    ),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "é", "", ":", "a:b", "n"]).map(
        lambda key: json.dumps(key, ensure_ascii=False)
    ),
    st.sampled_from([r'"\u0061"', r'"\u003a"', r'"\ud800"', '"a\tb"', r'"\n"', "a", "1"]),
)
WORDS = st.sampled_from(["null", "true", "false", "nul", "None", ""])


@st.composite
def _joined(draw: st.DrawFn, parts: list[str], around: str) -> str:
    spaced = [draw(SPACES) + part + draw(SPACES) for part in parts]
    return around[0] + ",".join(spaced) + draw(SPACES) * (not parts) + around[1]


def _object(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(KEYS, SPACES, SPACES, value).map(lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}")
    return st.lists(member, max_size=4).flatmap(lambda parts: _joined(parts, "{}"))


SCALARS = st.one_of(NUMBERS, STRINGS, WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        _object(inner), st.lists(inner, max_size=3).flatmap(lambda parts: _joined(parts, "[]"))
    ),
    max_leaves=5,
)
RECORDS = st.tuples(SPACES, st.one_of(_object(VALUES), _object(SCALARS)), SPACES).map("".join)


def exactly(text: str, flattener: Flattener | None = None) -> dict[str, str | None] | str:
    """Read a record the exact way; give its refusal as a text."""
    try:
        return record_texts(parse_json(text), flattener)
    except ValueError as error:
        return getattr(error, "rule", "invalid_json")


def fast(text: str, flattener: Flattener | None = None) -> dict[str, str | None] | None:
    """Read a record the fast way, alone and with others; None if that is not sure."""
    content = text.encode("utf-8", "surrogatepass")
    alone = split_record(content, flattener)
    groups = split_together([content, content], flattener)
    if groups is not None:
        (group,) = groups
        columns = token_columns([group.tokens], len(group.names))
        assert group.positions == [0, 1]
        rows = [
            {name: c[n].as_py() for name, c in zip(group.names, columns, strict=True)}
            for n in (0, 1)
        ]
        assert rows == [alone, alone]
    return alone


@settings(max_examples=1500)
@given(RECORDS)
@example('{"a":1,"a":2}')
@example(r'{"a":1,"\u0061":2}')
@example(r'{"\u003a":1,"\u003a":2}')
@example('{":":1,":":2}')
@example('{"a":"x:y","a":2}')
@example('{"a" : "2013-01-01T00:00:00Z" , "b" : {"c":1,"c":1}}')
@example('{"a":[{"b":1,"b":1}]}')
@example('{"a":[true, 1E5, "e"]}')
@example(r'{"a":{"\u003a":1,"\u003a":2}}')
@example(r'{"a":["\ud800"]}')
def test_fast_way_agrees_with_the_exact_way_or_leaves_it_alone(text: str) -> None:
    found = fast(text)
    if found is not None:
        assert found == exactly(text)


@settings(max_examples=200)
@given(RECORDS, st.integers(1, 3), st.none() | st.just(("a", "b")))
def test_flattening_is_the_same_in_both_ways(
    text: str, depth: int, columns: tuple[str, ...] | None
) -> None:
    declared = Flatten(depth=depth, columns=columns)
    found = fast(text, Flattener(declared))
    if found is not None:
        assert found == exactly(text, Flattener(declared))


PLAIN = st.dictionaries(
    st.sampled_from(["a", "b", "time", "x y", "é"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(codec="utf-8", exclude_characters='"\0'), max_size=5)
    | st.lists(st.integers() | st.text("ab :"), max_size=2)
    | st.dictionaries(st.text("ab", max_size=1), st.text("1:", max_size=2), max_size=2),
    max_size=5,
)


@given(PLAIN.filter(bool), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_ordinary_records_take_the_fast_way(
    record: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    text = json.dumps(record, separators=separators, ensure_ascii=ascii_only)
    assert fast(text) == exactly(text)
    assert split_together([text.encode()]) is not None


def _rows(batches: list[RawBatch | None]) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for made in batches:
        for row in made.batch.to_pylist() if made and made.batch else []:
            number = row.pop("_source_row")
            del row["_source_uri"]
            rows.append((number, {name: text for name, text in row.items() if text is not None}))
        rows += [(r.source_row, {"rule": r.rule}) for r in (made.rejects if made else ())]
    return rows


@settings(max_examples=100)
@given(
    st.lists(RECORDS | PLAIN.map(json.dumps), max_size=6)
    | st.lists(PLAIN.map(json.dumps), max_size=9),
    st.integers(0, 9),
)
def test_batches_are_the_same_in_both_ways(texts: list[str], together: int) -> None:
    """Records of the fast and of the exact way, mixed, keep their order and their numbers."""
    one, two = (RecordBatcher("u", PlanLimits()) for _ in range(2))
    contents = [text.encode("utf-8", "surrogatepass") for text in texts]
    assert not list(one.add_texts(contents[:together]))
    for content in contents[together:]:
        assert not list(one.add_text(content))
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            two.refuse("encoding", "", text)
            continue
        try:
            two.add(parse_json(text), text)
        except ValueError:
            two.refuse("invalid_json", "", text)
    found, expected = _rows([one.flush()]), _rows([two.flush()])
    assert found == expected
    assert sorted(number for number, _ in found) == list(range(1, len(texts) + 1))


def test_records_of_many_shapes_keep_their_values() -> None:
    batcher = RecordBatcher("u", PlanLimits())
    texts = [f'{{"id":{n},"k{n % 50}":"v{n}","z":1e2}}' for n in range(MOST_SHAPES * 4)]
    for start in range(0, len(texts), 20):
        assert not list(batcher.add_texts([text.encode() for text in texts[start : start + 20]]))
    rows = _rows([batcher.flush()])
    assert rows == [
        (n + 1, {"id": str(n), f"k{n % 50}": f"v{n}", "z": "100"}) for n in range(len(texts))
    ]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"a_b": 1}, {"a": {"b": 2}}, "'a_b' and 'a.b' would both be column 'a_b'"),
        ({"a": {"b": 2}}, {"a_b": 1}, "'a.b' and 'a_b' would both be column 'a_b'"),
        ({"x": 1}, {"a_b": 1, "a": {"b": 2}}, "'a_b' and 'a.b' would both be column 'a_b'"),
    ],
)
def test_two_paths_to_one_column_are_refused_with_both_named(
    first: dict[str, Any], second: dict[str, Any], words: str
) -> None:
    batcher = RecordBatcher("u", PlanLimits(), flatten=Flatten())
    texts = [json.dumps(record).encode() for record in (first, second)]
    assert not list(batcher.add_texts(texts))
    made = batcher.flush()
    assert made is not None
    (reject,) = made.rejects
    assert (reject.rule, reject.source_row, reject.message) == ("name_collision", 2, words)


def test_listed_objects_are_flattened_and_null_in_their_place_has_no_column() -> None:
    declared = Flatten(separator=".", depth=2, columns=("a",))
    batcher = RecordBatcher("u", PlanLimits(), flatten=declared)
    texts = (
        b'{"a":{"b":{"c":{"d":1.10}},"l":[1, 2]},"o":{"p":1}}',
        b'{"a":null,"o":null}',
        b'{"a":{},"o":{}}',
        b'{"a":"text","o":1}',
    )
    assert not list(batcher.add_texts(texts))
    assert _rows([batcher.flush()]) == [
        (1, {"a.b.c": '{"d":1.10}', "a.l": "[1,2]", "o": '{"p":1}'}),
        (2, {}),
        (3, {"o": "{}"}),
        (4, {"a": "text", "o": "1"}),
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"A":1,"a":2}', "duplicate_key"),
        ("{" + ",".join(f'"k{n}":1' for n in range(5001)) + "}", "too_many_keys"),
        ('{"a":' + "[" * 300 + "]" * 300 + "}", "nesting"),
        ('{"a":' + '{"a":' * 300 + "1" + "}" * 301, "nesting"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "invalid_json"),
    ],
)
def test_record_that_would_break_the_table_is_refused(text: str, rule: str) -> None:
    batcher = RecordBatcher("u", PlanLimits())
    assert not list(batcher.add_texts([b'{"a":"1"}', text.encode(), b'{"a":"2"}']))
    made = batcher.flush()
    assert made is not None
    assert [reject.rule for reject in made.rejects] == [rule]
    assert made.batch is not None
    assert made.batch.column("_source_row").to_pylist() == [1, 3]


def test_number_of_5000_digits_and_list_of_a_million_items_keep_them() -> None:
    digits, items = "7" * 5000, ",".join(["1"] * 1_000_000)
    row = fast(f'{{"n":{digits},"l":[{items}]}}')
    assert row == {"n": digits, "l": f"[{items}]"}
