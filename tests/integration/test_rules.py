"""Rules of a dataset file on real rows: what is in the table, what is refused, what only warns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.catalog import load_catalog
from tasks.loading.ledger_state import quarantine_manifests
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken, GateFailed
from tasks.model.report import LoadReceipt
from tasks.refused import kept_rows
from tasks.transformation.check import check_query
from tests.pipeline import Pipeline

CODE = """
import pandas as pd
import pandera.pandas as pa


class Schema(pa.DataFrameModel):
    price: int = pa.Field(ge=0, nullable=True)

    @pa.dataframe_check
    def cheap_things_are_small(cls, frame: pd.DataFrame) -> pd.Series:
        return (frame["price"] > 10) | (frame["size"] < 5)

    class Config:
        coerce = False


Plain = pa.DataFrameSchema({"size": pa.Column(checks=pa.Check.lt(100))})


def band(frame: pd.DataFrame) -> pd.DataFrame:
    frame["band"] = "small"
    frame.loc[frame["size"] >= 5, "band"] = "large"
    return frame


def fails_on_seven(frame: pd.DataFrame) -> pd.DataFrame:
    if (frame["size"] == 7).any():
        raise ValueError("seven is not my number")
    return frame


def loses(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["size"] > 1]


def invents(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(other=1)


def changes_the_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(id=frame["id"] + 1)


def wrong_type(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(size="x")


def nothing(frame: pd.DataFrame) -> None:
    return None
"""


@pytest.fixture
def pipeline(
    engine: Engine, lake: Lake, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Pipeline:
    base = tmp_path / "project"
    (base / "datasets").mkdir(parents=True)
    (base / "datasets" / "things.py").write_text(CODE)
    monkeypatch.setenv("DPP_HOME", str(base))
    return Pipeline(engine, lake, scratch, base)


def spec_of(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "things", "description": "Things",
            "source": {"kind": "files", "path": "*.csv",
                       "format": {"kind": "csv", "null_values": ["NULL"]}},
            "key": ["id"],
            "columns": {
                "id": {"type": "int64"}, "size": {"type": "int32"}, "price": {"type": "int64"},
                "code": {"type": "string"},
            },
            "load": {"table": "analytics.things", "mode": "merge"},
            **more,
        }
    )  # fmt: skip


def load(pipeline: Pipeline, spec: DatasetSpec, *rows: str, name: str = "a") -> LoadReceipt:
    text = "\n".join(["id,size,price,code", *rows]) + "\n"
    (pipeline.base / f"{name}.csv").write_text(text)
    (receipt,) = pipeline.run(spec)
    assert receipt.counts.balanced
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []
    return receipt


def refused(receipt: LoadReceipt) -> dict[tuple[str, str | None], int]:
    return {(reason.rule, reason.column): reason.rows for reason in receipt.reasons}


def warned(receipt: LoadReceipt) -> dict[tuple[str, str | None], int]:
    return {(warning.rule, warning.column): warning.rows for warning in receipt.warnings}


def ids(pipeline: Pipeline, spec: DatasetSpec) -> list[int]:
    return [row["id"] for row in pipeline.rows(spec)]


def test_rules_refuse_warn_or_end_the_partition(pipeline: Pipeline) -> None:
    columns = {
        "id": {"type": "int64"},
        "size": {"type": "int32", "checks": {"between": [0, 5], "severity": "warn"}},
        "price": {"type": "int64"},
        "code": {"type": "string", "checks": {"one_of": ["a", "b"]}},
    }
    rules = [
        {"name": "cheap", "sql": "price < 100", "severity": "warn"},
        {"name": "not_zero", "sql": "id <> 0", "severity": "fail", "message": "zero is no id"},
    ]
    spec = spec_of(columns=columns, rules=rules)
    receipt = load(pipeline, spec, "1,1,1,a", "2,9,1,a", "3,9,100,b", "4,9,1,x", "5,1,NULL,b")
    assert ids(pipeline, spec) == [1, 2, 3, 5]
    assert refused(receipt) == {("one_of", "code"): 1}
    assert warned(receipt) == {("between", "size"): 2, ("cheap", None): 2}
    with pytest.raises(GateFailed, match=r"b\.csv row 2: not_zero: zero is no id"):
        load(pipeline, spec, "6,1,1,a", "0,1,1,a", name="b")
    assert ids(pipeline, spec) == [1, 2, 3, 5]


def test_unique_values_are_unique_in_the_partition_and_in_the_table(pipeline: Pipeline) -> None:
    spec = spec_of(unique=[["code"]])
    rows = ["1,1,1,a", "2,1,1,b", "3,1,1,b", "4,1,1,NULL", "5,1,1,NULL", "1,2,1,a"]
    receipt = load(pipeline, spec, *rows)
    assert refused(receipt) == {("unique", "code"): 2}
    assert ids(pipeline, spec) == [1, 4, 5]
    with pytest.raises(GateFailed, match=r"1 values of \(code\) would be in more than one row"):
        load(pipeline, spec, "7,1,1,c", "8,1,1,a", name="b")
    assert ids(pipeline, spec) == [1, 4, 5]
    (pipeline.base / "b.csv").unlink()
    load(pipeline, spec, "1,3,1,a", name="c")  # its own row may keep its value


def test_references_must_be_keys_of_the_other_dataset(pipeline: Pipeline) -> None:
    codes = DatasetSpec.model_validate(
        {
            "name": "codes", "description": "Codes",
            "source": {"kind": "files", "path": "codes/*.csv", "format": {"kind": "csv"}},
            "key": ["code"], "columns": {"code": {"type": "string"}},
            "load": {"table": "analytics.codes", "mode": "merge"},
        }
    )  # fmt: skip
    (pipeline.base / "codes").mkdir()
    (pipeline.base / "codes" / "c.csv").write_text("code\na\n")
    pipeline.run(codes)
    pipeline.lookups = {"codes": codes}
    reference = {"dataset": "codes", "columns": {"code": "code"}}
    spec = spec_of(references=[reference])
    assert spec.dependencies == ("codes",)
    receipt = load(pipeline, spec, "1,1,1,a", "2,1,1,b", "3,1,1,NULL")
    assert refused(receipt) == {("reference", "code"): 1}
    assert ids(pipeline, spec) == [1, 3]
    lenient = spec_of(references=[{**reference, "severity": "warn"}])
    assert warned(load(pipeline, lenient, "4,1,1,z", name="b")) == {("reference", "code"): 1}


BAND = {"sql": "lower(code)", "type": "string"}
CENTS = {"sql": "CAST(price AS DECIMAL(9,2)) / 100", "type": "decimal(9,2)"}


@pytest.mark.parametrize("columns", [["band"], ["cents", "band"]])
def test_derived_values_are_unique_in_the_partition_and_in_the_table(
    pipeline: Pipeline, columns: list[str]
) -> None:
    """Rows that differ as they are read, and not in what is computed from them."""
    spec = spec_of(derive={"band": BAND, "cents": CENTS}, unique=[columns])
    rows = ["1,1,150,a", "2,1,250,B", "3,2,250,b", "4,1,150,NULL", "5,9,150,NULL", "1,2,150,A"]
    receipt = load(pipeline, spec, *rows)
    assert refused(receipt) == {("unique", ", ".join(columns)): 2}
    assert [(row["id"], row["band"], str(row["cents"])) for row in pipeline.rows(spec)] == [
        (1, "a", "1.50"), (4, None, "1.50"), (5, None, "1.50"),
    ]  # fmt: skip
    words = rf"1 values of \({', '.join(columns)}\) would be in more than one row"
    with pytest.raises(GateFailed, match=words):
        load(pipeline, spec, "7,1,150,A", "8,1,1,x", name="b")
    assert ids(pipeline, spec) == [1, 4, 5]
    (pipeline.base / "b.csv").unlink()
    load(pipeline, spec, "1,3,150,a", name="c")  # its own row may keep its value


def test_row_that_is_refused_takes_no_derived_value_from_another(pipeline: Pipeline) -> None:
    """A derived column that fails is NULL for a rule over rows, and the reason is the failure."""
    half = {"sql": "size / price", "type": "int32"}
    spec = spec_of(derive={"half": half}, unique=[["half"]])
    receipt = load(pipeline, spec, "1,4,2,a", "2,5,2,a", "3,7,2,a", "4,NULL,2,a")
    assert refused(receipt) == {("derive", "half"): 2}
    assert ids(pipeline, spec) == [1, 4]


def test_derived_values_must_be_keys_of_the_other_dataset(pipeline: Pipeline) -> None:
    codes = DatasetSpec.model_validate(
        {
            "name": "codes", "description": "Codes",
            "source": {"kind": "files", "path": "codes/*.csv", "format": {"kind": "csv"}},
            "key": ["code", "size"],
            "columns": {"code": {"type": "string"}, "size": {"type": "int64"},
                        "name": {"type": "string"}},
            "load": {"table": "analytics.codes", "mode": "merge"},
        }
    )  # fmt: skip
    (pipeline.base / "codes").mkdir()
    (pipeline.base / "codes" / "c.csv").write_text("code,size,name\na,10,x\nb,20,y\n")
    pipeline.run(codes)
    pipeline.lookups = {"codes": codes}
    tens = {"sql": "size * 10", "type": "int32"}  # narrower than the key it is compared with
    reference = {"dataset": "codes", "columns": {"band": "code", "tens": "size"}}
    spec = spec_of(derive={"band": BAND, "tens": tens}, references=[reference])
    rows = ["1,1,1,A", "2,2,1,b", "3,2,1,A", "4,1,1,NULL", "5,NULL,1,z"]
    receipt = load(pipeline, spec, *rows)
    assert refused(receipt) == {("reference", "band, tens"): 1}
    assert ids(pipeline, spec) == [1, 2, 4, 5]
    strict = spec_of(
        derive={"band": BAND, "tens": tens}, references=[{**reference, "severity": "fail"}]
    )
    with pytest.raises(GateFailed, match=r"b\.csv row 1: .*codes has no row for this band, tens"):
        load(pipeline, strict, "9,1,1,z", name="b")
    taken = spec_of(
        name="labelled",
        load={"table": "analytics.labelled", "mode": "merge"},
        derive={"band": BAND, "tens": tens, "label": {"sql": "upper(name)", "type": "string"}},
        enrich=[{"lookup": "codes", "by": {"band": "code", "tens": "size"}, "take": ["name"]}],
        unique=[["label"]],
    )
    for file in pipeline.base.glob("*.csv"):
        file.unlink()
    receipt = load(pipeline, taken, "11,1,1,a", "12,1,1,A", "13,2,1,b", name="d")
    assert refused(receipt) == {("unique", "label"): 2}
    wrong = spec_of(
        derive={"label": {"sql": "upper(name)", "type": "string"}, "band": BAND, "tens": tens},
        enrich=taken.model_dump(mode="json", exclude_defaults=True)["enrich"],
        references=[{"dataset": "codes", "columns": {"label": "code", "tens": "size"}}],
    )
    with pytest.raises(
        ConfigError, match="codes is looked up by label, which is derived from what"
    ):
        check_query(wrong, {"codes": codes}, pipeline.scratch)


def test_ties_are_decided_by_the_declared_order(pipeline: Pipeline) -> None:
    spec = spec_of(cursor="price", tie_break=["size desc", "code"])
    receipt = load(pipeline, spec, "1,2,7,b", "1,3,7,b", "1,3,7,a", "1,1,7,c", "1,9,6,d")
    assert receipt.counts.deduplicated == 4
    assert pipeline.rows(spec) == [{"id": 1, "size": 3, "price": 7, "code": "a"}]


def test_pandera_schema_of_the_user_refuses_rows(pipeline: Pipeline) -> None:
    spec = spec_of(validate="datasets.things:Plain")
    receipt = load(pipeline, spec, "1,99,1,a", "2,100,1,a", "3,NULL,1,a")
    assert refused(receipt) == {
        ("pandera.less_than(100)", "size"): 1,
        ("pandera.not_nullable", "size"): 1,
    }
    assert ids(pipeline, spec) == [1]
    (key,) = quarantine_manifests(pipeline.engine, spec.name)
    kept = sorted(str(row.raw) for row in kept_rows(pipeline.lake, key))
    assert [json.loads(raw)["size"] for raw in kept] == ["100", None], "texts, as they were read"
    warn = {"schema": "datasets.things:Plain", "severity": "warn"}
    receipt = load(pipeline, spec_of(validate=warn), "4,100,1,a", name="b")
    assert warned(receipt) == {("pandera.less_than(100)", "size"): 1}
    fail = {"schema": "datasets.things:Plain", "severity": "fail"}
    with pytest.raises(GateFailed, match=r"c\.csv row 1: size: pandera refuses it"):
        load(pipeline, spec_of(validate=fail), "5,100,1,a", name="c")


def test_function_of_the_user_adds_a_column(pipeline: Pipeline) -> None:
    custom = {
        "function": "datasets.things:band",
        "columns": {"band": {"type": "string", "checks": {"one_of": ["small", "large"]}}},
    }
    spec = spec_of(custom=custom)
    load(pipeline, spec, "1,4,1,a", "2,5,1,a")
    with pipeline.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT id, band FROM analytics.things ORDER BY id"
        ).all()
    assert [tuple(row) for row in found] == [(1, "small"), (2, "large")]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails_on_seven", r"ValueError: seven is not my number \(.*\.py:\d+\); .*: a\.csv row 3"),
        ("loses", "was given 4 rows and returns 3"),
        ("invents", "returns other, which is not declared"),
        ("changes_the_key", "changes id, which is part of the key"),
        ("wrong_type", "size is .*, which is no int32 without a loss"),
        ("nothing", "returns a NoneType, not a DataFrame"),
    ],
)  # fmt: skip
def test_function_that_breaks_the_contract_publishes_nothing(
    pipeline: Pipeline, function: str, message: str
) -> None:
    spec = spec_of(custom=f"datasets.things:{function}")
    with pytest.raises(ContractBroken, match=message):
        load(pipeline, spec, "1,1,1,a", "2,2,1,a", "3,7,1,a", "4,7,1,a")


def test_changed_code_makes_the_rows_again(pipeline: Pipeline) -> None:
    spec = spec_of(custom="datasets.things:fails_on_seven")
    with pytest.raises(ContractBroken):
        load(pipeline, spec, "1,7,1,a")
    code = pipeline.base / "datasets" / "things.py"
    code.write_text(CODE.replace("== 7", "== 8"))
    load(pipeline, spec, "1,7,1,a")
    assert ids(pipeline, spec) == [1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"custom": "datasets.nowhere:f"}, r"custom: datasets\.nowhere:f: there is no module datasets"),
        ({"custom": "datasets.things:missing"}, r"datasets\.things has no missing"),
        ({"validate": "datasets.things:band"}, "neither a DataFrameModel nor a"),
        ({"validate": "datasets.broken:x"}, "cannot be imported: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_check_names_code_that_is_not_there(
    pipeline: Pipeline, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    (pipeline.base / "datasets" / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=message):
        check_query(spec_of(**more), {}, tmp_path)


def test_mistakes_in_rules_are_named_with_their_line(tmp_path: Path) -> None:
    text = """name: things
description: Things
source: {kind: files, path: "*", format: {kind: csv}}
columns:
  id: {type: int64}
references:
  - {dataset: nowhere, columns: {id: id}}
load: {table: analytics.things, mode: append}
"""
    (tmp_path / "things.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"things\.yaml:7: references: no dataset 'nowhere'"):
        load_catalog(tmp_path)
    (tmp_path / "things.yaml").write_text(text.replace("{id: id}", "{no: id}"))
    with pytest.raises(ConfigError, match=r"things\.yaml:.*references nowhere: no column 'no'"):
        load_catalog(tmp_path)
    (tmp_path / "things.yaml").write_text(
        text.replace("references:", "custom: nothing\nreferences:")
    )
    with pytest.raises(ConfigError, match=r"things\.yaml:6: custom.*names no Python object"):
        load_catalog(tmp_path)
