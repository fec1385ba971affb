"""Nested values out of every kind of source that has them, and deletions that reach the items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from blocks.lake import Lake
from tasks.loading.ledger import session
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tests.integration.ingestion.database_support import dispose_readers
from tests.integration.loading.test_deletes import DeletesPipeline
from tests.pipeline import Pipeline

CHILDREN: dict[str, Any] = {
    "lines": {
        "table": "analytics.lines",
        "path": "doc.lines",
        "key": ["part"],
        "columns": {"part": {"type": "string"}, "n": {"type": "int64"}},
    }
}
DOCUMENT = {"city": "Bern", "n": 9007199254740993, "lines": [{"part": "a", "n": 1}, {"part": "b"}]}


def spec_of(source: dict[str, Any], **load: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "docs", "description": "Documents", "source": source, "key": ["id"],
            "columns": {
                "id": {"type": "int64"},
                "op": {"type": "string"},
                "city": {"type": "string", "path": "doc.city"},
                "n": {"type": "int64", "path": "doc.n"},
            },
            "children": CHILDREN,
            "load": {"table": "analytics.docs", "mode": "merge", **load},
        }
    )  # fmt: skip


def found(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def sound(pipeline: Pipeline, spec: DatasetSpec) -> None:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []


def _jsonl(path: Path) -> None:
    path.write_text(json.dumps({"id": 1, "op": "u", "doc": DOCUMENT}) + "\n")


def _json(path: Path) -> None:
    path.write_text(json.dumps([{"id": 1, "op": "u", "doc": DOCUMENT}], indent=1))


def _csv(path: Path) -> None:
    text = json.dumps(DOCUMENT).replace('"', '""')
    path.write_text(f'id,op,doc\n1,u,"{text}"\n')


def _parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"id": 1, "op": "u", "doc": DOCUMENT}]), path)


def _avro(path: Path) -> None:
    line = {"type": "record", "name": "line", "fields": [
        {"name": "part", "type": "string"}, {"name": "n", "type": ["null", "long"]}]}  # fmt: skip
    doc = {"type": "record", "name": "doc", "fields": [
        {"name": "city", "type": "string"}, {"name": "n", "type": "long"},
        {"name": "lines", "type": {"type": "array", "items": line}}]}  # fmt: skip
    schema = {"type": "record", "name": "row", "fields": [
        {"name": "id", "type": "long"}, {"name": "op", "type": "string"},
        {"name": "doc", "type": doc}]}  # fmt: skip
    lines = [{"part": "a", "n": 1}, {"part": "b", "n": None}]
    with path.open("wb") as file:
        fastavro.writer(file, schema, [{"id": 1, "op": "u", "doc": {**DOCUMENT, "lines": lines}}])


WRITERS: dict[str, Callable[[Path], None]] = {
    "jsonl": _jsonl, "json": _json, "csv": _csv, "parquet": _parquet, "avro": _avro,
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same(
    engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path, kind: str
) -> None:
    pipeline = Pipeline(engine, lake, scratch, tmp_path)
    WRITERS[kind](tmp_path / f"docs.{kind}")
    spec = spec_of({"kind": "files", "path": f"docs.{kind}", "format": {"kind": kind}})
    pipeline.run(spec)
    sound(pipeline, spec)
    assert found(pipeline, "SELECT id, city, n FROM analytics.docs") == [
        (1, "Bern", 9007199254740993)
    ]
    assert found(pipeline, "SELECT id, part, n FROM analytics.lines ORDER BY 2") == [
        (1, "a", 1), (1, "b", None),
    ]  # fmt: skip


@pytest.fixture(params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> Iterator[DeletesPipeline]:
    made = DeletesPipeline(engine=engine, lake=lake, scratch=scratch, base=tmp_path)
    url: sa.URL = sa.make_url(f"sqlite:///{tmp_path}/docs.db")
    kind = "text"
    if request.param == "postgresql":
        url, kind = engine.url, "jsonb"
    made.source_engine = sa.create_engine(url, poolclass=sa.NullPool)
    text = json.dumps(DOCUMENT)
    made.execute(
        f"CREATE TABLE docs (id bigint PRIMARY KEY, op varchar(1), doc {kind})",
        f"INSERT INTO docs VALUES (1, 'u', '{text}'), (2, 'u', '{text}'), (3, 'u', 'null'), "
        "(4, 'u', NULL)",
    )
    yield made
    dispose_readers()
    made.source_engine.dispose()


def test_json_columns_of_databases_and_rows_that_are_gone(database: DeletesPipeline) -> None:
    """A row that is deleted in the source takes its items with it; they are counted."""
    deletes = {"detect": "keys", "max_share": 0.5}
    spec = spec_of({"kind": "database", "block": "b", "table": "docs", "deletes": deletes})
    database.run(spec)
    assert found(database, "SELECT id, city, n FROM analytics.docs ORDER BY 1") == [
        (1, "Bern", 9007199254740993), (2, "Bern", 9007199254740993),
        (3, None, None), (4, None, None),
    ]  # fmt: skip
    database.execute("DELETE FROM docs WHERE id = 1")
    receipts = database.run(spec, "second")
    sound(database, spec)
    assert found(database, "SELECT id, part FROM analytics.lines ORDER BY 1, 2") == [
        (2, "a"), (2, "b"),
    ]  # fmt: skip
    assert [receipt.children["lines"].deleted for receipt in receipts] == [0, 2]


def test_a_row_that_is_flagged_as_deleted_takes_its_items_with_it(
    engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> None:
    pipeline = Pipeline(engine, lake, scratch, tmp_path)
    source = {"kind": "files", "path": "*.jsonl", "format": {"kind": "jsonl"}}
    spec = spec_of(source, delete={"column": "op", "values": ["d"]})
    _jsonl(tmp_path / "a.jsonl")
    pipeline.run(spec)
    (tmp_path / "b.jsonl").write_text('{"id": 1, "op": "d"}\n')
    (receipt,) = pipeline.run(spec)
    sound(pipeline, spec)
    assert receipt.children["lines"].deleted == 2
    assert found(pipeline, "SELECT count(*) FROM analytics.lines") == [(0,)]
