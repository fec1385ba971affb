"""A JSON document is read record by record; a damaged one is refused whole."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.ingestion import json_cursor
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.json_array import read_json_document
from tasks.ingestion.json_select import records_at
from tasks.json_records import parse_json
from tasks.model.errors import SourceRejected
from tasks.model.formats import JsonArrayFormat
from tasks.model.json_path import parse_records_path


def read(
    content: bytes, limits: PlanLimits | None = None, **declared: Any
) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    made = JsonArrayFormat(kind="json", **declared)
    for raw in read_json_document(io.BytesIO(content), "u", limits or PlanLimits(), made):
        rows += raw.batch.to_pylist() if raw.batch is not None else []
        rejects += raw.rejects
    return rows, rejects


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("data.items", ["1", "2"]),
        ("$.data.items", ["1", "2"]),
        ("$.data.items[*]", ["1", "2"]),
        ("$['data']['items'][*]", ["1", "2"]),
        ("$.data.items[1].sub[*]", ["3", "4"]),
        ("$.data.items[*].sub[*]", ["3", "4"]),
        ("$.by_id.*", ["5", "6"]),
        ('$.by_id["x y"]', None),
        ("$.data.items[*].nothing[*]", []),
        ("data.nothing", None),
        ("data", None),
        ("$.n[*]", None),
    ],
)
def test_records_are_found_by_their_path(path: str, ids: list[str] | None) -> None:
    document = {
        "n": 1,
        "data": {"no": [{"id": 9}], "items": [{"id": 1}, {"id": 2, "sub": [{"id": 3}, {"id": 4}]}]},
        "by_id": {"x y": {"id": 5}, "z": {"id": 6}},
    }
    text = json.dumps(document, indent=1)
    in_memory = records_at(parse_json(text), path)
    if ids is None:
        assert in_memory is None
        with pytest.raises(SourceRejected, match="no list of records at"):
            read(text.encode(), records=path)
        return
    rows, rejects = read(text.encode(), records=path)
    assert [row["id"] for row in rows] == ids == [str(record["id"]) for record in in_memory or []]
    assert [row["_source_row"] for row in rows] == list(range(1, len(ids) + 1))
    assert not rejects


@pytest.mark.parametrize(
    "path", ["$..a", "$.a[?(@.b)]", "$.a[0:2]", "$.a[-1]", "$['a','b']", "$.a[", "a..b", "a[*]", "$a", ""]
)  # fmt: skip
def test_rest_of_jsonpath_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read|a key is missing|begin a path"):
        parse_records_path(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"a":1},{"a":2}', "no JSON at byte 16: expected ',' or ']'"),
        (b'[{"a":1},{"a":', "the document ends within a value"),
        (b'[{"a":1},', "expected a value"),
        (b'[{"a":1},]', "expected a value"),
        (b'[{"a":1} {"a":2}]', "byte 9: expected ',' or ']'"),
        (b'[{"a":1}] x', "byte 10: the document goes on after its end"),
        (b'[{"a":1}][]', "goes on after its end"),
        (b"", "expected a value"),
        (b"{}", "no list of records at the top of the document"),
        (b'[{"a":"\\', "ends within a value"),
        (b'{"data":[{"a":1}],"data":[{"a":2}]}', "key 'data' is there twice"),
        (b'{"data":[{"a":1}],"more":[1,2', "ends within a value"),
        (b'{"data":[{"a":1}],"more":[1,2}}', "byte 29: '}' closes what it did not open"),
        (b'{"data":[{"a":1}] "x":1}', "expected ',' or '}'"),
        (b'{data:[{"a":1}]}', "expected a key"),
        (b'{"data" [{"a":1}]}', "expected ':'"),
        (b"[" * 100_000, "ends within a value"),
    ],
)
def test_damaged_document_is_refused_whole(content: bytes, words: str) -> None:
    path = "data" if b"data" in content else None
    with pytest.raises(SourceRejected) as refusal:
        read(content, records=path)
    assert words in str(refusal.value)


def test_truncated_gzip_is_refused_whole() -> None:
    with pytest.raises(SourceRejected, match="gzip ends too early"):
        read(gzip.compress(json.dumps([{"a": n} for n in range(1000)]).encode())[:-9])


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        ('{"a":1,"a":2}', "duplicate_key"),
        ('{"a":{"b":1,"b":1}}', "duplicate_key"),
        ('{"a":NaN}', "not_a_number"),
        ('{"a":"\\ud800"}', "lone_surrogate"),
        ("[1]", "not_an_object"),
        ("7", "not_an_object"),
        ('"text, with ] and \\" in it"', "not_an_object"),
        ('{"a":1]', "invalid_json"),
        ("{'a':1}", "invalid_json"),
        ('{"a":01}', "invalid_json"),
        ('{"a":"' + "x" * 5000 + '"}', "value_too_long"),
        ("[" * 2000 + "]" * 2000, "invalid_json or not_an_object"),  # Python 3.13 reads deeper
    ],
)
def test_item_is_refused_with_its_text_and_number_and_the_others_go_on(
    item: str, rule: str
) -> None:
    text = f'[{{"a":"1"}},\n {item} ,{{"a":"2"}}]'
    rows, (reject,) = read(text.encode(), PlanLimits(max_value_bytes=4500))
    assert [(row["a"], row["_source_row"]) for row in rows] == [("1", 1), ("2", 3)]
    assert (reject.rule in rule.split(" or "), reject.source_row) == (True, 2), reject.rule
    assert item.startswith(reject.raw)
    assert reject.raw


def test_bom_and_other_encodings() -> None:
    text = '[{"a":"né\u2028"}]'
    for content, encoding in (
        (b"\xef\xbb\xbf" + text.encode(), "utf-8"),
        (text.encode("utf-16"), "utf-16"),
    ):
        rows, _ = read(content, encoding=encoding)
        assert [row["a"] for row in rows] == ["né\u2028"]


DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text('a"\\[]{}:,é', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('ab"\\', max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), DOCUMENTS, min_size=1), max_size=6),
    st.integers(1, 9),
    st.none() | st.integers(0, 2),
)
@example([{"a": '\\"'}, {"b": [[[[1]]]]}], 1, None)
def test_document_is_the_same_in_pieces_of_any_size(
    records: list[dict[str, Any]], piece: int, indent: int | None
) -> None:
    text = json.dumps({"x": records, "data": records, "y": [records]}, indent=indent)
    before = json_cursor.CHUNK_BYTES
    json_cursor.CHUNK_BYTES = piece
    try:
        rows, rejects = read(text.encode(), records="$.data[*]")
    finally:
        json_cursor.CHUNK_BYTES = before
    assert not rejects
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        for name, value in record.items():
            text_of = row[name]
            assert (
                text_of == value
                if value is None or isinstance(value, str)
                else json.loads(text_of) == value
            )


class _Endless(io.RawIOBase):
    """A list of many records, 50 MB of text, that is nowhere in memory."""

    def __init__(self, records: int) -> None:
        self._left = records
        self._ready = b'{"n": [1, 2], "items": ['

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._ready) < len(buffer) and self._left:
            some = min(self._left, 100)
            self._left -= some
            self._ready += (
                b'{"id": 12345678, "name": "%s"},' % (b"some text of a record" * 40) * some
            )
            if not self._left:
                self._ready = self._ready[:-1] + b"]}"
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


def test_memory_does_not_grow_with_the_list() -> None:
    declared = JsonArrayFormat(kind="json", records="items")
    tracemalloc.start()
    rows = 0
    for raw in read_json_document(_Endless(60_000), "u", PlanLimits(), declared):  # type: ignore[arg-type]
        rows += raw.batch.num_rows if raw.batch else 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 60_000
    assert peak < 30 << 20


def test_line_of_50_mb_is_refused_within_memory() -> None:
    content = b'[{"a":"1"},{"a":"' + b"x" * (50 << 20) + b'"},{"a":"2"}]'
    tracemalloc.start()
    rows, (reject,) = read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row["_source_row"] for row in rows] == [1, 3]
    assert (reject.rule, reject.source_row, len(reject.raw)) == ("value_too_long", 2, 10_000)
    assert peak < 64 << 20
