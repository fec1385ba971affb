"""Nested values out of every kind of source that has them, and deletions that reach the items."""

from __future__ import annotations

import io
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
from tasks.ingestion.connector import Connector
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.model.child_dataset import quarantined
from tasks.model.dataset import DatasetSpec
from tasks.model.replay import ReplayRequest, Selection
from tasks.protection import UNPROTECTED
from tasks.replay.export import write_export
from tasks.replay.select import selected_rows
from tests.integration.ingestion.database_support import dispose_readers
from tests.integration.ingestion.rest.support import Api, api
from tests.integration.loading.test_deletes import DeletesPipeline
from tests.misbehaving_http import Asked, Reply
from tests.pipeline import Pipeline

__all__ = ["api"]
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


class RestPipeline(Pipeline):
    """A pipeline whose source is an API."""

    api: Api

    def connector(self, spec: DatasetSpec) -> Connector:
        return self.api.connector(pagination={"kind": "page", "size": 2, "pages": "pages"})


def order(number: int, version: int, *lines: Any) -> dict[str, Any]:
    customer = {"name": f"c{number}", "address": {"city": "Bern", "geo": [46.948, 7.447]}}
    return {"id": number, "v": version, "customer": customer, "body": {"lines": list(lines)}}


def test_an_api_with_nested_records_loads_and_merges(
    engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path, api: Api
) -> None:
    """Two pages, one of which is not there at first; then newer records; then a corrected line."""
    pipeline = RestPipeline(engine, lake, scratch, tmp_path)
    pipeline.api = api
    records = [
        order(1, 1, {"part": "a", "n": 9007199254740993}, {"part": "b", "n": "many"}),
        order(2, 1, {"part": "a", "n": 1, "more": {"colour": "red"}}),
        order(3, 1),
    ]

    def answer(asked: Asked, number: int) -> Reply:
        page = int(asked.query["page"])
        if number == 2:
            return Reply(503, headers={"Retry-After": "1"})
        body = {"data": records[2 * page - 2 : 2 * page], "pages": 2}
        return Reply(200, json.dumps(body).encode())

    api.answer = answer
    spec = DatasetSpec.model_validate(
        {
            "name": "things", "description": "Orders of an API", "key": ["id"], "cursor": "v",
            "source": {"kind": "rest", "block": "b", "path": "/things", "records": "data",
                       "pagination": {"kind": "page", "size": 2, "pages": "pages"}},
            "columns": {
                "id": {"type": "int64"}, "v": {"type": "int32"},
                "city": {"type": "string", "path": "customer.address.city"},
                "east": {"type": "decimal(9,6)", "path": "$.customer.address.geo[1]"},
            },
            "contract": "ignore",
            "children": {
                "lines": {
                    **CHILDREN["lines"], "path": "body.lines", "contract": "ignore",
                    "columns": {**CHILDREN["lines"]["columns"],
                                "colour": {"type": "string", "path": "more.colour"}},
                }
            },
            "load": {"table": "analytics.docs", "mode": "merge"},
        }
    )  # fmt: skip
    (receipt,) = pipeline.run(spec)
    assert (receipt.counts.inserted, receipt.children["lines"].quarantined) == (3, 1)
    assert found(pipeline, "SELECT DISTINCT city, east::text FROM analytics.docs") == [
        ("Bern", "7.447000")
    ]
    lines = "SELECT id, part, n, colour FROM analytics.lines ORDER BY 1, 2"
    big = (1, "a", 9007199254740993, None)
    assert found(pipeline, lines) == [big, (2, "a", 1, "red")]
    records[1:] = [order(2, 2, {"part": "c", "n": 2}), order(3, 1, {"part": "d", "n": 3})]
    (second,) = pipeline.run(spec, "second")
    counts = second.children["lines"]
    assert (counts.inserted, counts.deleted, counts.unchanged) == (2, 1, 1)
    merged = [big, (2, "c", 2, None), (3, "d", 3, None)]
    assert found(pipeline, lines) == merged
    refused = Selection(child="lines", load_id=second.load_id)
    (row,) = selected_rows(engine, lake, "things", refused)
    file = io.StringIO(newline="")
    child = quarantined(spec, "lines")
    write_export(file, child, lambda: iter([row]), UNPROTECTED, reveal=False)
    lake.put_new("corrections/api.csv", file.getvalue().replace('"many"', '"7"').encode())
    request = ReplayRequest(selection=refused, corrections="corrections/api.csv")
    (replayed,) = pipeline.replay(spec, request)
    assert replayed.children["lines"].inserted == 1
    assert found(pipeline, lines) == sorted([*merged, (1, "b", 7, None)])
    sound(pipeline, spec)
