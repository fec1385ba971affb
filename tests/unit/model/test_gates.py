"""Gates as they are written in a dataset file, and what is said about those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.catalog import load_catalog
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError

FILE = """\
name: {name}
description: Things
source: {{kind: files, path: "*.csv", format: {{kind: csv}}}}
key: [id]
columns:
  id: {{type: int64}}
  at: {{type: timestamp}}
load: {{table: analytics.{name}, mode: merge}}
quality:
  gates:
    - {gate}
"""


def written(folder: Path, **gates: str) -> dict[str, DatasetSpec]:
    for name, gate in gates.items():
        (folder / f"{name}.yaml").write_text(FILE.format(name=name, gate=gate))
    return load_catalog(folder).datasets


MISTAKES = [
    ("{rows_betwen: [1, 2]}", "gates.0: a gate is one of rows_between, null_rate"),
    ("{unique: [nope]}", "quality.gates: unique (nope): no column 'nope'; declared are id, at"),
    ("{unique: []}", "quality.gates.0.unique: "),
    ("{null_rate: {id: 2}}", "quality.gates.0.null_rate.id: found 2: input should be less than"),
    ("{freshness: {column: id, max_age: 1d}}", "freshness: column 'id' is int64, not a time"),
    ("{freshness: {column: at, max_age: soon}}", "'soon' is no span of time"),
    ("{references: {columns: {id: id}}}", "references: give either 'dataset' or 'table'"),
    ("{references: {table: cities, columns: {id: id}}}", "write schema.table"),
    ("{references: {dataset: nobody, columns: {id: id}}}", "no dataset 'nobody'; declared are: a"),
    ("{sql: ' '}", "sql is empty"),
    ("{sql: SELECT 1, name: x, nmae: y}", "gates.0.nmae: unknown key; did you mean 'name'?"),
]


@pytest.mark.parametrize(("gate", "said"), MISTAKES)
def test_mistake_is_named_with_its_line(tmp_path: Path, gate: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        written(tmp_path, a=gate)
    assert said in raised.value.message
    assert len(raised.value.message.splitlines()) == 1
    assert f"{tmp_path}/a.yaml:" in raised.value.message


def test_dataset_that_a_gate_refers_to_runs_before(tmp_path: Path) -> None:
    """It is no lookup: nothing is taken of it, but its table must be there."""
    gate = "{references: {dataset: b, columns: {id: id}}}"
    catalog = written(tmp_path, a=gate, b="{rows_between: [0, 9]}")
    assert catalog["a"].dependencies == ("b",)
    assert catalog["a"].lookups == ()
    assert [spec.name for spec in load_catalog(tmp_path).in_order(["a", "b"])] == ["b", "a"]
    with pytest.raises(ConfigError, match="b has no column 'code'"):
        written(tmp_path, a=gate.replace("id: id", "id: code"))


def test_gates_survive_json(tmp_path: Path) -> None:
    """A dataset travels as JSON between a flow and its tasks; each gate stays what it is."""
    gates: list[dict[str, Any]] = [
        {"rows_between": [1, 2]},
        {"null_rate": {"id": 0.5}},
        {"quarantine_rate": 0.5},
        {"unique": ["id", "at"]},
        {"references": {"table": "x.y", "columns": {"id": "z"}}},
        {"freshness": {"column": "at", "max_age": "2d"}},
        {"sql": "SELECT 1 WHERE false", "timeout": "5s"},
    ]
    spec = written(tmp_path, a="{rows_between: [1, 2]}")["a"]
    spec = DatasetSpec.model_validate({**spec.model_dump(mode="json"), "quality": {"gates": gates}})
    again = DatasetSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert len({type(gate) for gate in again.quality.gates}) == 7
