"""Values inside of nested fields: digit by digit, and nothing else in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.lake import Lake
from tasks.model.dataset import DatasetSpec
from tasks.model.json_path import parse_value_path
from tasks.transformation.check import check_query
from tasks.transformation.nested import Opener, Wanted
from tests.unit.transformation.test_stage import make_spec, reasons, refused, transform

COLUMNS: dict[str, Any] = {
    "id": {"type": "int64"},
    "city": {"type": "string", "path": "customer.address.city"},
    "total": {"type": "decimal(38,4)", "path": "customer.total"},
    "extra": {"type": "json", "path": "$.customer['x.y']"},
    "first_tag": {"type": "string", "path": "$.customer.tags[0]"},
}
SPEC = make_spec(columns=COLUMNS)


def clean_of(
    lake: Lake, scratch: Path, *customers: str | None, spec: DatasetSpec = SPEC
) -> tuple[list[dict[str, Any]], Any]:
    rows = [{"id": str(n), "customer": text} for n, text in enumerate(customers)]
    manifest, clean = transform(lake, scratch, spec, rows)
    return [
        {name: row[name] for name in spec.columns} for row in clean if row["_source_row"]
    ], manifest


def test_values_keep_what_they_were(lake: Lake, scratch: Path) -> None:
    """Digits, empty texts, escapes, zeros after the point; a key with a dot; a place in a list."""
    clean, _ = clean_of(
        lake,
        scratch,
        '{"address": {"city": "Zürich \\u00e9\\n"}, "total": 9007199254740993.1000, "x.y": {"d": 1.00}}',
        '{"address": {"city": ""}, "total": 1e3, "tags": ["a", "b"], "x.y": "text"}',
    )
    assert clean[0]["city"] == "Zürich é\n"
    assert str(clean[0]["total"]) == "9007199254740993.1000"
    assert clean[0]["extra"] == '{"d":1.00}'
    assert (clean[1]["city"], str(clean[1]["total"])) == ("", "1000.0000")
    assert (clean[1]["first_tag"], clean[1]["extra"]) == ("a", '"text"')


@pytest.mark.parametrize(
    "customer",
    [
        None,  # no object at all
        "null",
        "{}",
        '{"address": null, "tags": null}',  # null on the way
        '{"address": {}, "tags": []}',
        '{"address": {"city": null}}',
    ],
)
def test_what_is_not_there_is_null(lake: Lake, scratch: Path, customer: str | None) -> None:
    (row,), manifest = clean_of(lake, scratch, customer)
    assert [row[name] for name in ("city", "total", "extra", "first_tag")] == [None] * 4
    assert manifest.rows_quarantined == 0


def test_an_empty_object_is_no_null_where_the_column_is_json(lake: Lake, scratch: Path) -> None:
    clean, _ = clean_of(lake, scratch, '{"x.y": {}}', '{"x.y": []}', '{"x.y": null}', "{}")
    assert [row["extra"] for row in clean] == ["{}", "[]", None, None]


@pytest.mark.parametrize(
    ("customer", "column"),
    [
        ('{"address": {"city": {"name": "X"}}}', "city"),  # an object in the value's place
        ('{"address": {"city": ["X"]}}', "city"),
        ('{"address": "X"}', "city"),  # no object on the way
        ('{"address": {"city": "X", "city": "Y"}}', "city"),  # which of them?
        ('{"tags": {"0": "a"}}', "first_tag"),
        ('{"x.y": {"a": 1, "a": 2}}', "extra"),
    ],
)
def test_something_else_goes_to_quarantine_with_its_text(
    lake: Lake, scratch: Path, customer: str, column: str
) -> None:
    clean, manifest = clean_of(lake, scratch, customer)
    assert clean == []
    assert reasons(manifest) == {("path", column): 1}
    (row,) = refused(lake, manifest, scratch)
    assert json.loads(row["raw"]) == {"id": "0", "customer": customer}
    assert SPEC.columns[column].path in row["message"]


@pytest.mark.parametrize(
    "customer", ["text", "5", "[1]", "", '{"a":', "[" * 20_000, r'{"x.y": "\ud800"}']
)
def test_what_is_no_object_is_refused_whole(lake: Lake, scratch: Path, customer: str) -> None:
    clean, manifest = clean_of(lake, scratch, customer)
    assert (clean, reasons(manifest)) == ([], {("path", "city"): 1})


def test_a_missing_value_of_a_required_path_is_named_as_missing(lake: Lake, scratch: Path) -> None:
    columns = COLUMNS | {"city": COLUMNS["city"] | {"nullable": False}}
    _, manifest = clean_of(lake, scratch, "{}", '{"address": 1}', spec=make_spec(columns=columns))
    assert reasons(manifest) == {("required", "city"): 1, ("path", "city"): 1}


def test_a_name_with_a_dot_stays_a_name(lake: Lake, scratch: Path) -> None:
    spec = make_spec(columns={"id": {"type": "int64"}, "v": {"type": "string", "source": "a.b"}})
    _, clean = transform(lake, scratch, spec, [{"id": "1", "a.b": "x"}])
    assert clean[0]["v"] == "x"
    spec = make_spec(columns={"id": {"type": "int64"}, "v": {"type": "int8", "path": "$['a.b'].c"}})
    _, clean = transform(lake, scratch, spec, [{"id": "1", "a.b": '{"c": 7}'}])
    assert clean[0]["v"] == 7


def test_cleaning_and_widening_see_the_value(lake: Lake, scratch: Path) -> None:
    spec = make_spec(
        columns={
            "id": {"type": "int64"},
            "city": {"type": "string", "path": "c.city", "clean": ["strip", "upper"]},
            "n": {"type": "int8", "path": "c.n"},
        },
        contract={"changed": "evolve"},
    )
    manifest, clean = transform(
        lake, scratch, spec, [{"id": "1", "c": '{"city": " bern ", "n": 70000}'}]
    )
    assert (clean[0]["city"], clean[0]["n"]) == ("BERN", 70000)
    assert manifest.column_types["n"].type == "int32"


def test_the_query_is_checked_without_data(scratch: Path) -> None:
    check_query(SPEC, {}, scratch)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a..b", "a key is missing"),
        ("$.a[*]", "leads to several values"),
        ("$.a[*].b", "leads to several values"),
        ("$.a.*", "leads to several values"),
        ("$..a", "cannot read"),
        ("$", "begins with no name"),
        ("$[0]", "begins with no name"),
    ],
)
def test_paths_to_no_single_value_are_mistakes(path: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make_spec(columns={"id": {"type": "int64", "path": path}})


def test_a_value_is_in_one_place() -> None:
    with pytest.raises(ValidationError, match="begins with the name in the source"):
        make_spec(columns={"id": {"type": "int64", "path": "a.b", "source": "a"}})


def test_a_path_of_one_step_is_a_name() -> None:
    assert not parse_value_path("city").is_nested
    assert parse_value_path("$['city name']").column == "city name"


def test_one_value_cannot_be_object_and_list() -> None:
    opener = Opener((Wanted("a", ("k",), "scalar"), Wanted("b", (0,), "scalar")))
    assert opener.open(b'{"k": 1}') == [('{"k": 1}', True)] * 2


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
)
KEYS = st.sampled_from(["a", "b", "x.y", 'q"', "ü:"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
STEPS = st.lists(KEYS | st.integers(0, 2), min_size=1, max_size=3).map(tuple)
MISSING, FLAW = object(), object()


def model(tree: Any, steps: tuple[str | int, ...]) -> Any:
    """Walk by Python's own parser: what is there, MISSING, or FLAW."""
    for step in steps:
        if tree is None:
            return MISSING
        kind = dict if isinstance(step, str) else list
        if not isinstance(tree, kind):
            return FLAW
        if (step not in tree) if kind is dict else step >= len(tree):
            return MISSING
        tree = tree[step]
    return tree


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, STEPS, st.sampled_from(["scalar", "json", "list"]), st.sampled_from([None, 1]))
def test_paths_agree_with_a_model(
    tree: Any, steps: tuple[str | int, ...], kind: Any, indent: int | None
) -> None:
    """Whatever the document is like, a path finds what Python finds there, or says that it cannot."""
    text = json.dumps(tree, ensure_ascii=False, indent=indent)
    ((found, flawed),) = Opener((Wanted("v", steps, kind),)).open(text.encode())
    expected = model(tree, steps)
    if expected is FLAW:
        assert flawed and found is not None
    elif expected is MISSING or expected is None:
        assert (found, flawed) == (None, False)
    elif kind == "list":
        assert flawed is not isinstance(expected, list)
        assert json.loads(found or "") == expected
    elif kind == "json":
        assert not flawed and json.loads(found or "") == expected
    else:
        assert flawed is isinstance(expected, dict | list)
        shown = expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False)
        if not flawed:
            assert found == shown
