"""Traps of the libraries and of the server that this product stands on, each by its number.

What they do by themselves is said beside each test; the test shows that it does not happen here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.index import build_search_index
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, PipelineError
from tasks.model.report import LoadReceipt
from tests.integration.loading.support import World, make_partition, make_spec
from tests.pipeline import Pipeline

TEXT = {"id": {"type": "int64"}, "text": {"type": "string"}}


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Any, tmp_path: Any) -> Pipeline:
    base = tmp_path / "inbox"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def spec_of(columns: dict[str, Any] = TEXT, *, kind: str = "csv", **more: Any) -> DatasetSpec:
    form = {"kind": kind, **({"null_values": ["NULL-TOKEN"]} if kind == "csv" else {})}
    source = {"kind": "files", "path": f"*.{kind}", "format": form}
    return make_spec(columns, cursor=None, source=source, **more)


def load(pipeline: Pipeline, spec: DatasetSpec, name: str, content: str | bytes) -> LoadReceipt:
    data = content if isinstance(content, bytes) else content.encode()
    (pipeline.base / name).write_bytes(data)
    (receipt,) = pipeline.run(spec)
    assert receipt.counts.balanced
    return receipt


def sql(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def values(pipeline: Pipeline, spec: DatasetSpec, column: str = "text") -> list[Any]:
    return [row[column] for row in pipeline.rows(spec)]


def reasons(receipt: LoadReceipt) -> dict[str, int]:
    found = Counter[str]()
    for reason in receipt.reasons:
        found[reason.rule] += reason.rows
    return found


def test_trap_01_a_line_of_backslash_and_dot_ends_no_load(pipeline: Pipeline) -> None:
    """COPY of CSV stops at such a line without an error, and leaves out the rest."""
    spec = spec_of({"text": {"type": "string"}}, key=(), mode="append")
    assert load(pipeline, spec, "a.csv", "text\none\n\\.\nthree\n").counts.inserted == 3
    assert sorted(values(pipeline, spec)) == ["\\.", "one", "three"]


def test_trap_02_an_empty_text_is_not_null(pipeline: Pipeline) -> None:
    """csv.writer and to_csv write both alike."""
    spec = spec_of()
    load(pipeline, spec, "a.csv", 'id,text\n1,""\n2,NULL-TOKEN\n3,\n4,"NULL-TOKEN"\n')
    assert values(pipeline, spec) == ["", None, "", "NULL-TOKEN"]


def test_trap_03_rows_do_not_shift_and_words_stay_words(pipeline: Pipeline) -> None:
    """pandas shifts longer rows by a column, takes NA for NULL, 00123 for 123, rounds 2^53 + 1."""
    spec = spec_of({**TEXT, "n": {"type": "int64"}})
    content = "id,text,n\n1,NA,9007199254740993\n2,00123,NULL-TOKEN\n3,null,1\n4,x,1,9\n5,None,-0\n"
    assert reasons(load(pipeline, spec, "a.csv", content)) == {"ragged_row": 1}
    found = [(row["text"], row["n"]) for row in pipeline.rows(spec)]
    assert found == [("NA", 2**53 + 1), ("00123", None), ("null", 1), ("None", 0)]


def test_trap_04_no_type_is_guessed_and_no_rest_is_swallowed(pipeline: Pipeline) -> None:
    """pyarrow makes bytes of a column with one bad byte, floats beyond int64; a quote eats the rest."""
    spec = spec_of({**TEXT, "n": {"type": "string"}})
    content = b"id,text,n\n1,caf\xe9,1\n2,caf\xc3\xa9,18446744073709551617\n3,x,00\n"
    assert reasons(load(pipeline, spec, "a.csv", content)) == {"encoding": 1}
    assert values(pipeline, spec) == ["café", "x"]
    assert values(pipeline, spec, "n") == ["18446744073709551617", "00"]
    (pipeline.base / "b.csv").write_text('id,text,n\n4,"never closed,1\n5,y,2\n6,z,3\n')
    with pytest.raises(PipelineError, match="never closed"):
        pipeline.run(spec)
    assert len(pipeline.rows(spec)) == 2


def test_trap_05_unicode_line_ends_are_no_line_ends_of_json(pipeline: Pipeline) -> None:
    """httpx iter_lines() and str.splitlines() cut records at U+2028, U+2029, U+0085 and others."""
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
    spec = spec_of(kind="jsonl")
    raw = text.replace("\x0b", "\\u000b").replace("\x0c", "\\u000c").replace("\x1c", "\\u001c")
    load(pipeline, spec, "a.jsonl", f'{{"id":1,"text":"{raw}"}}\n{{"id":2,"text":"next"}}\n')
    assert values(pipeline, spec) == [text, "next"]


def test_trap_06_json_is_read_strictly(pipeline: Pipeline) -> None:
    """json takes NaN, 1e400 as infinity, the last of two keys; orjson makes a float of 2^64."""
    spec = spec_of({"id": {"type": "int64"}, "n": {"type": "decimal(38,0)"}}, kind="jsonl")
    lines = [
        '{"id":1,"n":18446744073709551616}',
        '{"id":2,"n":NaN}',
        '{"id":3,"n":1e400}',
        '{"id":4,"n":1,"n":2}',
        '{"id":5,"n":true}',
        '{"id":true,"n":1}',
    ]
    receipt = load(pipeline, spec, "a.jsonl", "\n".join(lines) + "\n")
    assert (receipt.counts.quarantined, receipt.counts.inserted) == (5, 1)
    assert reasons(receipt)["duplicate_key"] == 1
    assert values(pipeline, spec, "n") == [2**64]


def test_trap_07_what_the_driver_raises_outside_its_errors(pipeline: Pipeline) -> None:
    """psycopg2 raises IndexError for % in a name, ValueError for NUL and for years beyond 9999.

    Infinity, which it reads as the end of the year 9999, is in ``test_database_types``.
    """
    columns = {
        **TEXT,
        "share": {"type": "string", "source": "100 %s"},
        "at": {"type": "timestamp"},
        "day": {"type": "date"},
    }
    spec = spec_of(columns, contract="evolve")
    content = (
        "id,text,100 %s,at,day,%d%%\n"
        "1,%s,%(a)s,9999-12-31T23:59:59.999999,0001-01-01,%\n"
        "2,a\0b,x,2020-01-01T00:00:00,2020-01-01,x\n"
        "3,x,x,10000-01-01T00:00:00,2020-01-01,x\n"
        "4,x,x,infinity,2020-01-01,x\n"
        "5,x,x,2020-01-01T00:00:00,0044-03-15 BC,x\n"
        "6,x,x,2020-01-01T00:00:00,2020-01-01,a\0b\n"
    )
    assert reasons(load(pipeline, spec, "a.csv", content)) == {"nul_character": 2, "type": 3}
    (row,) = pipeline.rows(spec)
    assert (row["text"], row["share"], row["at"].year, row["day"].year) == ("%s", "%(a)s", 9999, 1)
    assert sql(pipeline, "SELECT c__d__ FROM analytics.things") == [("%",)]


def test_trap_08_no_hour_of_daylight_saving_is_guessed(pipeline: Pipeline) -> None:
    """PostgreSQL moves 02:30 to 03:30 in spring and takes one of two 01:30 in autumn, silently."""
    spec = spec_of(
        {"id": {"type": "int64"}, "at": {"type": "timestamp", "timezone": "America/New_York"}}
    )
    content = (
        "id,at\n1,2013-03-10T02:30:00\n2,2013-11-03T01:30:00\n"
        "3,2013-11-03T01:30:00-05:00\n4,2013-03-10T03:30:00\n"
    )
    assert reasons(load(pipeline, spec, "a.csv", content)) == {"type": 2}
    found = [str(value) for value in values(pipeline, spec, "at")]
    assert found == ["2013-11-03 06:30:00+00:00", "2013-03-10 07:30:00+00:00"]


def test_trap_09_names_that_agree_in_63_bytes_are_not_one(pipeline: Pipeline) -> None:
    """PostgreSQL cuts names, so that two tables, or the indexes of two tables, are one."""
    with pytest.raises(ValueError, match="at most 63 bytes"):
        spec_of(name="t" * 64)
    specs = [spec_of(name="t" * 62 + end, search=("text",)) for end in "ab"]
    (pipeline.base / "a.csv").write_text("id,text\n1,x\n")
    for spec in specs:
        pipeline.run(spec)
        assert len(build_search_index(pipeline.engine, spec)) == 2
    assert [values(pipeline, spec) for spec in specs] == [["x"], ["x"]]
    found = sql(
        pipeline,
        "SELECT tablename, count(*) FROM pg_indexes WHERE schemaname = 'analytics' GROUP BY 1",
    )
    assert [count for _, count in found] == [3, 3]


def test_trap_10_a_table_that_can_take_no_more_columns(pipeline: Pipeline) -> None:
    """Dropped columns count for ever; and a row of many texts does not fit into a page."""
    spec = spec_of(contract="evolve")
    load(pipeline, spec, "a.csv", "id,text\n1,x\n")
    names = [f"c{number}" for number in range(1595)]
    for verb, kind in (("ADD", " int"), ("DROP", "")):
        steps = ", ".join(f"{verb} COLUMN {name}{kind}" for name in names)
        sql(pipeline, f"ALTER TABLE analytics.things {steps}")
    load(pipeline, spec, "b.csv", "id,text,one,two\n2,y,1,2\n")
    (pipeline.base / "c.csv").write_text("id,text,one,two,three\n3,z,1,2,3\n")
    with pytest.raises(ContractBroken, match=r"1600 of the 1600.*dropped ones included"):
        pipeline.run(spec)
    assert values(pipeline, spec) == ["x", "y"]
    wide = spec_of({"id": {"type": "int64"}}, contract="evolve", name="wide")
    names = tuple(f"c{number}" for number in range(900))
    table = pa.table({"id": [1], **{name: [f"{name:0>30}"] for name in names}})
    world = World(pipeline.engine, pipeline.lake, pipeline.base)
    with pytest.raises(PipelineError) as refused:
        world.publish(world.prepared(wide, make_partition("a", "wide"), table, columns_added=names))
    assert "too big" in str(refused.value)
    assert refused.value.remedy
    assert "000000" not in str(refused.value)
    assert sql(pipeline, "SELECT count(*) FROM etl.loads WHERE dataset = 'wide'") == [(0,)]


def test_trap_11_null_in_a_key_and_a_key_that_comes_twice(pipeline: Pipeline) -> None:
    """NULL in a key makes a new row at each load; a key that is there twice fails the upsert."""
    columns = {"a": {"type": "int64"}, "b": {"type": "string"}, "n": {"type": "int32"}}
    spec = spec_of(columns, key=("a", "b"))
    content = "a,b,n\n1,x,1\n1,x,2\n1,NULL-TOKEN,3\nNULL-TOKEN,x,4\n1,,5\n"
    receipt = load(pipeline, spec, "a.csv", content)
    assert reasons(receipt) == {"required": 2}
    assert (receipt.counts.inserted, receipt.counts.deduplicated) == (2, 1)
    again = load(pipeline, spec, "b.csv", content + "2,y,1\n")
    assert (again.counts.inserted, again.counts.unchanged) == (1, 2)
    assert [(row["b"], row["n"]) for row in pipeline.rows(spec)] == [("", 5), ("x", 2), ("y", 1)]
