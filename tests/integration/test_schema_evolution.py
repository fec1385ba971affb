"""A source and a table that change: what each word of the contract does, from file to table."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sqlalchemy import Engine

from blocks.lake import Lake
from cli.tables import differences_table
from tasks.loading import load as load_stage
from tasks.loading.session import session
from tasks.loading.table_check import table_report
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, PipelineError
from tasks.model.report import LoadReceipt
from tasks.reporting.events import Event
from tasks.transformation.contract import column_name
from tests.integration.loading.support import make_spec
from tests.pipeline import Pipeline

ID = {"id": {"type": "int64"}}


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "inbox"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def spec_of(columns: Mapping[str, Any], contract: Any, kind: str = "csv") -> DatasetSpec:
    source = {"kind": "files", "path": f"*.{kind}", "format": {"kind": kind}}
    return make_spec({**ID, **columns}, cursor=None, source=source, contract=contract)


def load(pipeline: Pipeline, spec: DatasetSpec, name: str, content: str | pa.Table) -> LoadReceipt:
    if isinstance(content, str):
        (pipeline.base / f"{name}.csv").write_text(content)
    else:
        pq.write_table(content, pipeline.base / f"{name}.parquet")
    (receipt,) = pipeline.run(spec)
    assert receipt.counts.balanced
    return receipt


def sql(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


TYPES = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'analytics.things'::regclass AND attnum > 0 AND attname NOT IN ('id', '_load_id')
ORDER BY attname"""
CHANGES = "SELECT column_name, from_type, to_type, kind FROM etl.schema_changes ORDER BY 1, load_id"


def test_new_columns_have_the_type_of_the_source_and_are_null_once_it_lacks_them(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of({}, "evolve", "parquet")
    load(pipeline, spec, "a", pa.table({"id": [1, 2]}))
    at = datetime(2020, 1, 2, 3, 4, 5, 6, UTC)
    many = {
        "id": pa.array([1]),
        "Day": pa.array([date(2020, 1, 2)]),
        "at": pa.array([at], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.10")], pa.decimal128(10, 2)),
        "n": pa.array([2**53 + 1]),
        "small": pa.array([7], pa.uint8()),
        "text": pa.array([""]),
    }
    receipt = load(pipeline, spec, "b", pa.table(many))
    assert sql(pipeline, TYPES) == [
        ("at", "timestamp with time zone"), ("day", "date"), ("n", "bigint"),
        ("price", "numeric(10,2)"), ("small", "smallint"), ("text", "text"),
    ]  # fmt: skip
    named = "SELECT id, day, at, price, n, small, text FROM analytics.things ORDER BY id"
    values = (date(2020, 1, 2), at, Decimal("1.10"), 2**53 + 1, 7, "")
    assert sql(pipeline, named) == [(1, *values), (2, *[None] * 6)]
    assert [row[0] for row in sql(pipeline, CHANGES)] == [
        "at",
        "day",
        "n",
        "price",
        "small",
        "text",
    ]
    assert {row[3] for row in sql(pipeline, CHANGES)} == {"column added"}
    told: list[Event] = []
    monkeypatch.setattr(load_stage, "emit", told.append)
    load_stage.tell_of_changes("dev", receipt)
    assert told[0].name == "etl.schema.changed"
    assert told[0].resource["prefect.resource.id"] == "etl.dataset.things"
    assert len(told[0].model_dump()["changes"]) == 6
    # The newest version of row 1 has none of these values: the old ones are not kept.
    late = load(pipeline, spec, "c", pa.table({"id": [1, 3]}))
    load_stage.tell_of_changes("dev", late)
    assert len(told) == 1
    assert sql(pipeline, named) == [(number, *[None] * 6) for number in (1, 2, 3)]


def test_types_are_widened_for_the_data_and_never_narrowed(pipeline: Pipeline) -> None:
    columns = {
        "small": {"type": "int16"},
        "price": {"type": "decimal(4,2)"},
        "amount": {"type": "decimal(3,1)", "format": {"decimal": ",", "thousands": "."}},
    }
    spec = spec_of(columns, {"changed": "evolve"})
    load(pipeline, spec, "a", 'id,small,price,amount\n1,1,1.50,"1,5"\n')
    assert sql(pipeline, CHANGES) == []
    wide = 'id,small,price,amount\n2,40000,123456.789,"1.234,55"\n3,x,1e3,y\n'
    receipt = load(pipeline, spec, "b", wide)
    assert receipt.counts.quarantined == 1  # what is no number is none in any type
    assert sql(pipeline, CHANGES) == [
        ("amount", "numeric(3,1)", "numeric(6,2)", "type widened"),
        ("price", "numeric(4,2)", "numeric(9,3)", "type widened"),
        ("small", "smallint", "integer", "type widened"),
    ]
    load(pipeline, spec, "c", 'id,small,price,amount\n4,1,2.25,"2,5"\n')
    assert len(sql(pipeline, CHANGES)) == 3
    rows = [(row["small"], row["price"], row["amount"]) for row in pipeline.rows(spec)]
    assert rows == [
        (1, Decimal("1.50"), Decimal("1.5")),
        (40000, Decimal("123456.789"), Decimal("1234.55")),
        (1, Decimal("2.25"), Decimal("2.5")),
    ]
    load(pipeline, spec, "d", f"id,small,price,amount\n5,{2**63 - 1},1,1\n6,{2**63},1,1\n")
    assert sql(pipeline, "SELECT small FROM analytics.things WHERE id > 4") == [(2**63 - 1,)]


def test_a_type_that_changed_is_frozen_or_quarantined(pipeline: Pipeline) -> None:
    columns = {"small": {"type": "int16"}}
    load(pipeline, spec_of(columns, {}), "a", "id,small\n1,1\n")
    content = "id,small\n2,40000\n3,2\n"
    with pytest.raises(ContractBroken, match=r"b\.csv row 1: small: not an int16") as refused:
        load(pipeline, spec_of(columns, {"changed": "freeze"}), "b", content)
    assert "contract" in str(refused.value.remedy)
    assert "40000" not in str(refused.value)
    receipt = load(pipeline, spec_of(columns, {"changed": "quarantine"}), "b", content)
    assert [(reason.rule, reason.rows) for reason in receipt.reasons] == [("type", 1)]
    assert sql(pipeline, TYPES) == [("small", "smallint")]


def test_a_column_that_is_missing_is_null_frozen_or_quarantined(pipeline: Pipeline) -> None:
    columns = {
        "n": {"type": "int16"},
        "text": {"type": "string"},
        "kind": {"type": "string", "default": "x"},
    }
    with pytest.raises(ContractBroken, match="no column text; it has id, n"):
        load(pipeline, spec_of(columns, {"missing": "freeze"}), "a", "id,n\n1,1\n")
    receipt = load(pipeline, spec_of(columns, {"missing": "quarantine"}), "a", "id,n\n1,1\n")
    assert [(r.rule, r.column, r.rows) for r in receipt.reasons] == [("missing_column", "text", 1)]
    spec = spec_of(columns, {"missing": "evolve"})
    load(pipeline, spec, "b", "id,n\n2,1\n")
    assert pipeline.rows(spec) == [{"id": 2, "n": 1, "text": None, "kind": "x"}]


def test_a_table_is_compared_with_its_file_and_the_ddl_is_shown(pipeline: Pipeline) -> None:
    """What ``dpp check`` prints is what a run does: nothing but that."""
    before = {"small": {"type": "int16"}, "n": {"type": "int32"}, "flag": {"type": "boolean"}}
    load(pipeline, spec_of(before, {}), "a", "id,small,n,flag\n1,2,3,true\n")
    after = {"small": {"type": "int64"}, "n": {"type": "string"}, "flag": {"type": "date"}}
    more = {**after, "note": {"type": "string"}}
    report = table_report(pipeline.engine, spec_of(more, "evolve"), {})
    assert [(each.column, bool(each.refusal)) for each in report.differences] == [
        ("small", False), ("n", False), ("flag", True), ("note", False),
    ]  # fmt: skip
    assert [(each.text, each.when) for each in report.ddl] == [
        ('ALTER TABLE "analytics"."things" ALTER COLUMN "small" TYPE bigint', "load"),
        ('ALTER TABLE "analytics"."things" ALTER COLUMN "n" TYPE text', "load"),
        ('ALTER TABLE "analytics"."things" ADD COLUMN "note" text', "load"),
    ]
    shown = io.StringIO()
    Console(file=shown, width=160).print(differences_table(report.differences))
    assert "is refused" in shown.getvalue()
    with pytest.raises(ContractBroken, match="flag is boolean, the dataset says date"):
        load(pipeline, spec_of(more, "evolve"), "b", "id,small,n,flag,note\n2,9,x,,\n")
    with pytest.raises(ContractBroken, match=r"small is smallint.*note is missing"):
        pipeline.run(spec_of({**more, "flag": {"type": "boolean"}}, "freeze"))
    (pipeline.base / "b.csv").write_text("id,small,n,flag,note\n2,4000000000,x,false,new\n")
    spec = spec_of({**more, "flag": {"type": "boolean"}}, "evolve")
    pipeline.run(spec)
    assert [(r["small"], r["n"], r["note"]) for r in pipeline.rows(spec)] == [
        (2, "3", None), (4000000000, "x", "new"),
    ]  # fmt: skip
    assert table_report(pipeline.engine, spec, {}).differences == ()


def test_alteration_is_undone_with_the_load(pipeline: Pipeline) -> None:
    """The table is altered in the load's transaction: a load that fails leaves it as it was."""
    spec = spec_of({}, "evolve")
    load(pipeline, spec, "a", "id\n1\n")
    sql(pipeline, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION USING ERRCODE = 42501; END'; "
        "CREATE TRIGGER no BEFORE INSERT ON etl.loads FOR EACH ROW EXECUTE FUNCTION no()")  # fmt: skip
    (pipeline.base / "b.csv").write_text("id,new\n2,x\n")
    with pytest.raises(PipelineError):
        pipeline.run(spec)
    assert (sql(pipeline, TYPES), sql(pipeline, CHANGES)) == ([], [])


def test_names_that_begin_alike_stay_apart() -> None:
    names = ["n" * 70 + "a", "n" * 70 + "b", "N" * 70 + "a", "é" * 40]
    made = [column_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(len(name) == 63 or name.startswith("c_") for name in made)
    assert [column_name(n) for n in ("select", "Unit Price", "1st", "_x")] == [
        "select", "unit_price", "c_1st", "c__x",
    ]  # fmt: skip
