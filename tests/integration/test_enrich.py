"""Derived columns and lookups on real rows: from datasets, tables, files; by key and as of a time."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from blocks.lake import Lake
from tasks.catalog import load_catalog
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken
from tasks.model.report import LoadReceipt
from tasks.transformation.check import check_query
from tests.pipeline import Pipeline

CSV = {"kind": "csv", "null_values": ["NULL"]}


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "project"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def spec_of(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "trips", "description": "Trips",
            "source": {"kind": "files", "path": "trips*.csv", "format": CSV},
            "key": ["id"],
            "columns": {
                "id": {"type": "int64"}, "at": {"type": "timestamp"},
                "code": {"type": "string"}, "miles": {"type": "int32"},
            },
            "load": {"table": "analytics.trips", "mode": "merge"},
            **more,
        }
    )  # fmt: skip


def load(pipeline: Pipeline, spec: DatasetSpec, *rows: str, name: str = "trips") -> LoadReceipt:
    (pipeline.base / f"{name}.csv").write_text("\n".join(["id,at,code,miles", *rows]) + "\n")
    (receipt,) = pipeline.run(spec)
    assert receipt.counts.balanced
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []
    return receipt


def refused(receipt: LoadReceipt) -> dict[tuple[str, str | None], int]:
    return {(reason.rule, reason.column): reason.rows for reason in receipt.reasons}


def column(pipeline: Pipeline, spec: DatasetSpec, name: str) -> dict[int, Any]:
    return {row["id"]: row[name] for row in pipeline.rows(spec)}


def test_derived_columns_are_computed_or_refuse_the_row(pipeline: Pipeline) -> None:
    derive = {
        "km": {"sql": "miles * 1.609344", "type": "decimal(12,6)"},
        "half": {"sql": "miles / 2", "type": "int32"},  # 1.5 is no whole number
        "share": {"sql": "100 / miles", "type": "decimal(9,2)", "round": "half_even"},
        "label": {"sql": "upper(code) || '-' || km", "type": "string", "nullable": False},
        "day": {"sql": '"at"::DATE', "type": "date"},
        "year": {
            "sql": "CAST(substr(code, 2) AS INTEGER)",  # fails on what is no number
            "type": "int16",
            "checks": {"between": [1900, 2100]},
        },
    }
    spec = spec_of(
        derive=derive,
        rules=[{"name": "sane", "sql": "km < 1000"}],
        unique=[["label"]],
        load={
            "table": "analytics.trips",
            "mode": "merge",
            "index": {"search": ["label"], "language": "simple"},
        },
    )
    receipt = load(
        pipeline,
        spec,
        "1,2013-01-01 10:00:00,a2001,4",
        "2,2013-01-01 10:00:00,b2001,3",  # half
        "3,2013-01-01 10:00:00,cx,4",  # year fails
        "4,2013-01-01 10:00:00,d1800,4",  # year out of range
        "5,2013-01-01 10:00:00,NULL,4",  # label is NULL
        "6,NULL,e2001,800",  # 1287 km
        "7,NULL,f2001,NULL",  # all of miles is NULL, and so is the label
        "8,NULL,g2001,0",  # 100 / 0 is no decimal
    )
    assert pipeline.rows(spec) == [
        {
            "id": 1, "at": datetime(2013, 1, 1, 10), "code": "a2001",
            "miles": 4, "km": Decimal("6.437376"), "half": 2, "share": Decimal("25.00"),
            "label": "A2001-6.437376", "day": date(2013, 1, 1), "year": 2001,
        },
    ]  # fmt: skip
    assert refused(receipt) == {
        ("derive", "half"): 1,
        ("derive", "share"): 1,
        ("derive", "year"): 1,
        ("between", "year"): 1,
        ("required", "label"): 2,
        ("sane", None): 1,
    }
    with pipeline.engine.connect() as connection:
        kinds = dict(
            connection.execute(
                text(
                    "SELECT column_name, data_type FROM information_schema.columns "
                    "WHERE table_name = 'trips'"
                )
            ).all()  # type: ignore[arg-type]
        )
    assert (kinds["km"], kinds["half"], kinds["day"]) == ("numeric", "integer", "date")


@pytest.mark.parametrize(
    ("derive", "enrich", "message"),
    [
        ({"x": {"sql": "nr + 1", "type": "int32"}}, (), 'column "nr" not found'),
        ({"x": {"sql": "y", "type": "int32"}, "y": {"sql": "miles", "type": "int32"}}, (),
         "derive: x: y is derived after it"),
        ({"x": {"sql": "name", "type": "string"}},
         ({"lookup": "l", "source": {"kind": "files", "path": "l.csv", "format": CSV},
           "columns": {"x": {"type": "string"}, "name": {"type": "string"}},
           "by": ["x"], "take": ["name"]},),
         "is looked up by x, which is derived from what lookups take"),
        ({}, ({"lookup": "l", "source": {"kind": "files", "path": "l.csv", "format": CSV},
               "columns": {"code": {"type": "string"}, "n": {"type": "int16"}},
               "by": ["code"], "take": ["n"], "missing": {"n": "many"}},),
         "missing: n: 'many' is no SMALLINT"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_found_without_data(
    tmp_path: Path, derive: dict[str, Any], enrich: tuple[Any, ...], message: str
) -> None:
    spec = spec_of(derive=derive, enrich=enrich)
    lookups = {lookup.lookup: lookup for lookup in spec.enrich}
    with pytest.raises(ConfigError) as found:
        check_query(spec, lookups, tmp_path)
    assert message in str(found.value)


def test_mistakes_of_lookups_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "trips.yaml").write_text(
        """
name: trips
description: Trips
source: {kind: files, path: "*.csv", format: {kind: csv}}
key: [id]
columns:
  id: {type: int64}
  at: {type: timestamp}
  code: {type: string}
  label: {type: string}
enrich:
  - lookup: nearest
    table: reference.nearest
    columns: {code: {type: int32}, since: {type: timestamp, timezone: UTC}, n: {type: int16}}
    by: [code]
    as_of: {at: since}
    take: [n]
  - lookup: levels
    table: reference.levels
    columns: {id: {type: int16}, n: {type: string}}
    by: {code: id}
    as_of: {label: n}
    take: {level: n}
load: {table: analytics.trips, mode: merge}
"""
    )
    with pytest.raises(ConfigError) as found:
        load_catalog(tmp_path)
    lines = str(found.value).splitlines()
    assert [line.split("trips.yaml:")[1] for line in lines] == [
        "12: enrich: by: code is string, nearest.code is number",
        "12: enrich: by: at is timestamp, nearest.since is timestamp with a time zone",
        "18: enrich: by: code is string, levels.id is number",
        "18: enrich: as_of: label is string; times and numbers have a before and an after",
    ]


def table(pipeline: Pipeline, ddl: str, *rows: str) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS reference"))
        connection.execute(text(ddl))
        for row in rows:
            connection.execute(text(row))


def test_latest_row_before_the_time_is_taken_and_no_older_one(pipeline: Pipeline) -> None:
    table(
        pipeline,
        "CREATE TABLE reference.prices "
        "(code text, since timestamp, price numeric(6,2), unused json)",
        "INSERT INTO reference.prices VALUES ('a', '2013-01-01 10:00', 1), "
        "('a', '2013-01-01 12:00', 2), ('a', '2013-01-02', NULL), ('b', '2013-01-01', 9), "
        "(NULL, '2013-01-01', 7)",
    )
    prices = {
        "lookup": "prices", "table": "reference.prices",
        "columns": {
            "code": {"type": "string"}, "from_then": {"type": "timestamp", "source": "since"},
            "price": {"type": "decimal(6,2)"},
        },
        "by": ["code"], "as_of": {"at": "from_then"}, "take": ["price"],
    }  # fmt: skip
    always = {**prices, "lookup": "first", "take": {"ever": "price"}}
    recent = {**prices, "within": "2h", "missing": {"price": "0.5"}}
    spec = spec_of(enrich=[recent, always])
    load(
        pipeline,
        spec,
        "1,2013-01-01 09:59:59,a,1",  # none yet
        "2,2013-01-01 10:00:00,a,1",  # at that moment
        "3,2013-01-01 11:59:59.999999,a,1",
        "4,2013-01-01 14:00:00,a,1",  # two hours old
        "5,2013-01-01 14:00:01,a,1",  # older than that
        "6,2013-01-02 00:00:00,a,1",  # found, and NULL
        "7,2013-01-01 00:00:01,b,1",
        "8,2013-01-01 10:00:00,c,1",
        "9,NULL,a,1",
        "10,2013-01-01 10:00:00,NULL,1",
    )
    half = Decimal("0.50")
    assert column(pipeline, spec, "price") == {
        1: half, 2: 1, 3: 1, 4: 2, 5: half, 6: None, 7: 9, 8: half, 9: half, 10: half,
    }  # fmt: skip
    assert column(pipeline, spec, "ever") == {
        1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: None, 7: 9, 8: None, 9: None, 10: None,
    }  # fmt: skip


NAMES = {
    "lookup": "names",
    "source": {"kind": "files", "path": "names/*.csv", "format": CSV},
    "columns": {
        "short": {"type": "string", "clean": ["strip", "upper"]},
        "name": {"type": "string", "source": "Long Name"},
    },
    "by": {"letter": "short"},
    "take": ["name"],
}


def names(pipeline: Pipeline, *rows: str) -> None:
    (pipeline.base / "names").mkdir(exist_ok=True)
    (pipeline.base / "names" / "n.csv").write_text("\n".join(["short,Long Name", *rows]) + "\n")


def test_file_is_looked_up_by_a_derived_column_and_what_is_taken_is_derived_from(
    pipeline: Pipeline,
) -> None:
    names(pipeline, " a ,Alpha", "b,Beta", "c,NULL")
    spec = spec_of(
        derive={
            "letter": {"sql": "upper(code[1])", "type": "string"},
            "greeting": {"sql": "'Hello ' || name", "type": "string"},
        },
        enrich=[{**NAMES, "missing": "quarantine"}],
        rules=[{"name": "no_beta", "sql": "name IS DISTINCT FROM 'Beta'", "severity": "warn"}],
    )
    receipt = load(pipeline, spec, "1,NULL,axe,1", "2,NULL,bee,1", "3,NULL,cat,1", "4,NULL,dog,1")
    assert column(pipeline, spec, "greeting") == {1: "Hello Alpha", 2: "Hello Beta", 3: None}
    assert refused(receipt) == {("lookup", "letter"): 1}
    assert [warning.rule for warning in receipt.warnings] == ["no_beta"]
    names(pipeline, "A,Alpha", "D,Delta")
    load(pipeline, spec, "4,NULL,dog,2", name="trips2")
    assert column(pipeline, spec, "greeting")[4] == "Hello Delta"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a,Alpha", "A ,Again"), "1 rows have the short of another row"),
        (("a,Alpha", "NULL,None"), r"1 of 2 rows are refused, the most by rule required \(short"),
    ],
)
def test_half_a_lookup_is_none(pipeline: Pipeline, rows: tuple[str, ...], message: str) -> None:
    names(pipeline, *rows)
    spec = spec_of(enrich=[{**NAMES, "by": {"code": "short"}}])
    with pytest.raises(ContractBroken, match=message):
        load(pipeline, spec, "1,NULL,A,1")


def test_table_with_a_key_that_repeats_or_of_another_type_is_refused(pipeline: Pipeline) -> None:
    table(
        pipeline,
        "CREATE TABLE reference.levels (code text, level numeric)",
        "INSERT INTO reference.levels VALUES ('a', 1), ('b', 1.5)",
    )
    levels = {
        "lookup": "levels", "table": "reference.levels",
        "columns": {"code": {"type": "string"}, "level": {"type": "int32"}},
        "by": ["code"], "take": ["level"],
    }  # fmt: skip
    spec = spec_of(enrich=[levels])
    with pytest.raises(ContractBroken, match="table's level is not of the declared type int32"):
        load(pipeline, spec, "1,NULL,a,1")
    table(
        pipeline,
        "ALTER TABLE reference.levels ALTER level TYPE integer USING 1",
        "UPDATE reference.levels SET code = 'a'",
    )
    with pytest.raises(ContractBroken, match="several rows have the same code"):
        load(pipeline, spec, "1,NULL,a,1")
    wrong = spec_of(enrich=[{**levels, "table": "reference.nothing"}])
    with pytest.raises(ConfigError, match=r"table reference\.nothing is not there yet"):
        load(pipeline, wrong, "1,NULL,a,1")
