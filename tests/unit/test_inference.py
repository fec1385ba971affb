"""A dataset file inferred from a sample: what is sure is declared, what is not is said."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalog import load_dataset
from tasks.inference.content import guess_format, guess_text_format, records_path
from tasks.inference.draft import Draft, render
from tasks.inference.text import identifier
from tasks.inference.values import guess_column, guess_text
from tasks.model.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "type_name", "options", "doubt"),
    [
        (["1", "-2", "0"], "int64", {}, None),
        (["007", "12"], "string", {}, "leading zeros"),
        (["9" * 19, "1"], "decimal(38,0)", {}, "more digits"),
        (["1.50", "20"], "decimal(8,2)", {}, "at most 2 decimals"),
        (["1.234,50", "3,00"], "decimal(10,2)", {"format": {"decimal": ",", "thousands": "."}}, ""),
        (["1,234.50", "3"], "decimal(10,2)", {"format": {"thousands": ","}}, ""),
        (["1,234", "5,678"], "string", {}, "1,234 is 1234 or 1.234"),
        (["1e5", "2.5"], "float", {}, "exponents"),
        (["0." + "1" * 15], "float", {}, "15 decimals"),
        (["true", "FALSE"], "boolean", {}, None),
        (["yes", "no"], "string", {}, None),
        (["2024-01-31", "2024-02-29"], "date", {}, None),
        (["2024-13-31"], "string", {}, None),
        (["31.01.2024"], "date", {"format": "%d.%m.%Y"}, None),
        (["31/01/2024", "01/02/2024"], "date", {"format": "%d/%m/%Y"}, None),
        (["01/31/2024", "01/02/2024"], "date", {"format": "%m/%d/%Y"}, None),
        (["01/02/2024", "03/04/2024"], "string", {}, "day or month first?"),
        (["2024-01-31T10:00:00Z"], "timestamp", {"timezone": "UTC"}, None),
        (["2024-01-31 10:00"], "timestamp", {}, "no offset"),
        (["2024-01-31T10:00:00Z", "2024-01-31T10:00:00"], "string", {}, "some have none"),
        (["10:15", "23:59:59"], "time", {}, None),
        (["9f8b4c1e-1111-4222-8333-444455556666"], "uuid", {}, None),
        (['{"a": 1}', "[1]"], "json", {}, None),
        (["1", "2", "x"], "string", {}, "mixed: 2 of 3 values are numbers"),
        (["1", "NA", "3"], "int64", {"null_values": ["NA"]}, "'NA' taken for NULL"),
        (["NA", "x"], "string", {}, None),
        ([], "string", {}, "no value in the sample"),
    ],
)
def test_column_is_what_all_its_values_are(
    values: list[str], type_name: str, options: dict[str, Any], doubt: str | None
) -> None:
    guess = guess_text(values)
    assert (guess.type, guess.options) == (type_name, options)
    if doubt is None:
        assert guess.doubts == []
    else:
        assert doubt in "; ".join(guess.doubts)


@pytest.mark.parametrize(
    ("kind", "type_name"),
    [
        (pa.int8(), "int16"), (pa.uint32(), "int64"), (pa.uint64(), "decimal(20,0)"),
        (pa.float32(), "float"), (pa.decimal128(30, 10), "decimal(30,10)"), (pa.bool_(), "boolean"),
        (pa.date32(), "date"), (pa.timestamp("us"), "timestamp"), (pa.binary(), "bytes"),
        (pa.time64("us"), "time"), (pa.null(), "string"),
    ],
)  # fmt: skip
def test_types_of_the_source_are_kept(kind: pa.DataType, type_name: str) -> None:
    assert guess_column(pa.chunked_array([pa.nulls(2, kind)])).type == type_name


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, "id;x\n1;a\n")
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "declared", "doubt"),
    [
        (b"id,x\n1,a\n", {"kind": "csv"}, ""),
        (b"id;x\n1;a,b\n2;c\n", {"kind": "csv", "delimiter": ";"}, ""),
        (b"id\tx\n1\ta\n", {"kind": "csv", "delimiter": "\t"}, ""),
        (b'id,x\n1,"a;b;c\nd"\n2,"e"\n', {"kind": "csv"}, ""),
        (b"1,a\n2,b\n", {"kind": "csv", "header": ["column_1", "column_2"]}, "no header line"),
        (b"id\n1\n", {"kind": "csv"}, "one column was found"),
        ("id,x\n1,ä\n".encode("cp1252"), {"kind": "csv", "encoding": "cp1252"}, "not UTF-8"),
        ("id,x\n1,ä\n".encode("utf-16"), {"kind": "csv", "encoding": "utf-16"}, ""),
        (b"\xef\xbb\xbfid,x\n1,a\n", {"kind": "csv"}, ""),
        (b'{"id": 1}\n{"id": 2}\n', {"kind": "jsonl"}, ""),
        (b'{"id": 1}', {"kind": "jsonl"}, ""),
        (b'[{"id": 1}]', {"kind": "json"}, ""),
        (b'{"d": {"items": [{"id": 1}]}}', {"kind": "json", "records": "d.items"}, ""),
        (gzip.compress(b"id;x\n1;a\n", mtime=0), {"kind": "csv", "delimiter": ";"}, ""),
        (zipped("a.csv"), {"kind": "csv", "delimiter": ";"}, ""),
        (
            zipped("a.csv", "b.csv"),
            {"kind": "csv", "delimiter": ";", "member": "*"},
            "all 2 members",
        ),
        (b"PAR1....", {"kind": "parquet"}, ""),
        (b"Obj\x01....", {"kind": "avro"}, ""),
    ],
)
def test_format_is_told_by_the_content(
    content: bytes, declared: dict[str, Any], doubt: str
) -> None:
    guess = guess_format(lambda: io.BytesIO(content), "u")
    assert guess.declared == declared
    assert doubt in "; ".join(guess.doubts)


@pytest.mark.parametrize("content", [b"", b" \n", b"\x00\x01\x02", zipped()])
def test_what_is_no_rows_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^u"):
        guess_format(lambda: io.BytesIO(content), "u")


def test_longest_list_of_objects_is_the_records() -> None:
    body = {"errors": [], "meta": {"tags": ["a"]}, "one": [{}], "data": [{}, {}]}
    assert records_path(body) == "data"
    assert records_path({"meta": 1}) is None


def test_names_become_identifiers_and_stay_different() -> None:
    taken: set[str] = set()
    names = ["orderId", "Order ID", "Größe", "1st", "", "_x", "a" * 90]
    made = [identifier(name, taken) for name in names]
    assert made[:6] == ["order_id", "order_id_2", "gr_e", "c_1st", "column", "x"]
    assert len(made[6]) <= 63


def drafted(tmp_path: Path, table: pa.Table, **source: Any) -> tuple[str, Any]:
    declared = {"kind": "files", "path": "in/*.csv", "format": {"kind": "csv"}, **source}
    text = render(Draft("things", "in/*.csv", declared, table))
    path = tmp_path / "things.yaml"
    path.write_text(text)
    return text, load_dataset(path)


def test_draft_is_a_dataset_file_with_its_doubts(tmp_path: Path) -> None:
    table = pa.table(
        {
            "Order No": ["1", "2", "3"],
            "zip": ["01234", "99999", "12345"],
            "paid: at": ["2024-01-01T00:00:00Z", "", "2024-01-02T00:00:00Z"],
            "updated_at": ["2024-01-01T00:00:00Z"] * 3,
            "yes": ["a", "a", "a"],
        }
    )
    text, spec = drafted(tmp_path, table)
    assert spec.key == ("order_no",) and spec.load.mode == "merge"
    assert spec.cursor == "updated_at"
    assert spec.source.format.null_values == ("",)
    assert spec.columns["paid_at"].source == "paid: at"
    assert "# digits with leading zeros" in text
    assert "# different in each of 3 rows; is it always?" in text


def test_rows_that_cannot_be_told_apart_are_appended(tmp_path: Path) -> None:
    text, spec = drafted(tmp_path, pa.table({"x": ["a", "a"]}))
    assert spec.load.mode == "append" and spec.key == ()
    assert "No key was found" in text


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).map(lambda name: f"{name}x"),
        st.lists(st.text(max_size=8), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_draft_of_whatever_is_named_can_be_read(columns: dict[str, list[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        names = {name for name in columns if name not in ("_source_uri", "_source_row")}
        _, spec = drafted(Path(folder), pa.table({name: columns[name] for name in names}))
        assert {column.source or name for name, column in spec.columns.items()} == names


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers()), min_size=2, max_size=9))
def test_json_lines_are_recognised(records: list[dict[str, int]]) -> None:
    content = "\n".join(json.dumps(record) for record in records).encode()
    assert guess_text_format(content, "u").declared == {"kind": "jsonl"}


def test_without_a_key_a_list_of_objects_stays_a_column(tmp_path: Path) -> None:
    table = pa.table({"a": ["1", "1"], "lines": ['[{"x": 1}]', None]})
    text, spec = drafted(tmp_path, table)
    assert "# lines is a list of objects: with a key it can be a table (children)." in text
    assert (spec.children, spec.columns["lines"].type) == ({}, "json")


@pytest.mark.parametrize(
    "lists",
    [
        ['[{"x": 1}]', "[2]"],  # not all of its items are objects
        ['[{"x": 1}]', '{"x": 1}'],  # not a list in every row
        ['[{"x": 1, "X": 2}]', None],  # keys that DuckDB cannot tell apart
        ['[{"x": 1, "x": 2}]', None],  # a key twice
        ["[]", "[{}]"],  # nothing to make columns of
    ],
)
def test_what_is_no_table_stays_a_column(tmp_path: Path, lists: list[str | None]) -> None:
    _, spec = drafted(tmp_path, pa.table({"id": ["1", "2"], "lines": lists}))
    assert (spec.children, list(spec.columns)) == ({}, ["id", "lines"])
