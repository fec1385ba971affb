"""Files that the lake has lost are made again from the source, if it still has what it had."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.replay import ReplayRequest
from tasks.verification.determinism import determinism_check
from tasks.verification.remake import Workshop, remake_files
from tests.pipeline import MEMORY, Pipeline


def _spec(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "people",
            "description": "d",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": ["no"],
            "columns": {
                "no": {"type": "int64"},
                "amount": {"type": "int64", "checks": {"between": [0, 10]}, **more},
            },
            "load": {"table": "analytics.people", "mode": "merge"},
        }
    )


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "source"
    base.mkdir()
    made = Pipeline(engine, lake, scratch, base)
    (base / "a.csv").write_text("no,amount\n1,5\n2,99\n3,x\n4,1,ragged\n")
    made.run(_spec())
    made.replay(_spec(checks={"between": [0, 100]}), ReplayRequest())
    return made


def _remake(pipeline: Pipeline, spec: DatasetSpec) -> list[tuple[int, int]]:
    workshop = Workshop(
        spec, pipeline.lake, pipeline.connector(spec), lambda _lake: {}, pipeline.scratch, MEMORY
    )
    return [(one.load_id, one.files) for one in remake_files(pipeline.engine, workshop, 90)]


def _files(tmp_path: Path) -> dict[Path, bytes]:
    zones = ("raw", "clean", "quarantine", "manifests")
    return {
        path: path.read_bytes()
        for zone in zones
        for path in sorted((tmp_path / "lake" / zone).rglob("*"))
        if path.is_file()
    }


def test_lost_and_damaged_files_are_there_again(pipeline: Pipeline, tmp_path: Path) -> None:
    """Every zone, missing or of the same size with other bytes; each is what it was."""
    spec = _spec()
    before = _files(tmp_path)
    assert _remake(pipeline, spec) == []
    kept = {path for path in before if "transformation-" in path.name}
    for number, (path, content) in enumerate(before.items()):
        if path.suffix == ".parquet" and "clean" not in path.parts:
            if number % 2:
                path.unlink()
            else:
                path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(ContractBroken, match="missing or damaged"):
        # The replay was made under another dataset file: what it was made of is not known here.
        _remake(pipeline, spec)
    assert {path.read_bytes() for path in kept} == {before[path] for path in kept}
    of_first = [c for c in reconcile(pipeline.engine, pipeline.lake, spec, 90) if not c.holds]
    assert all("load 1" not in line for check in of_first for line in check.differences)


def test_clean_rows_are_made_again_from_the_raw_ones(pipeline: Pipeline, tmp_path: Path) -> None:
    """The source is not asked while the raw rows are there."""
    spec = _spec()
    before = _files(tmp_path)
    clean = [path for path in before if "clean" in path.parts]
    first = clean[0]
    first.unlink()
    (pipeline.base / "a.csv").unlink()
    done = _remake_all(pipeline, spec)
    assert done == 1
    assert _files(tmp_path) == before


def _remake_all(pipeline: Pipeline, spec: DatasetSpec) -> int:
    """Remake under each dataset file that loads were made with, until nothing is missing."""
    total = 0
    for one in (spec, _spec(checks={"between": [0, 100]})):
        try:
            total += sum(files for _, files in _remake(pipeline, one))
        except ContractBroken:
            continue
    return total


def test_source_that_has_something_else_now_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """The message names the load, what became of the object, and what can be done."""
    spec = _spec()
    raw = next(path for path in _files(tmp_path) if "raw" in path.parts)
    for path in (tmp_path / "lake" / "raw").rglob("*.parquet"):
        path.unlink()
    (pipeline.base / "a.csv").write_text("no,amount\n1,6\n")
    with pytest.raises(ContractBroken, match=r"load 1 .*a.csv was changed since") as error:
        _remake(pipeline, spec)
    assert "dpp unload" in str(error.value.remedy)
    (pipeline.base / "a.csv").unlink()
    (pipeline.base / "b.csv").write_text("no,amount\n9,9\n")
    with pytest.raises(ContractBroken, match=r"a.csv is gone from the source"):
        _remake(pipeline, spec)
    assert not raw.exists()


def test_random_load_is_transformed_again(pipeline: Pipeline, tmp_path: Path) -> None:
    """In a dry run: the lake is as it was, and rows that are others than then are a difference."""
    spec = _spec()
    before = _files(tmp_path)
    workshop = Workshop(
        spec, pipeline.lake, pipeline.connector(spec), lambda _lake: {}, pipeline.scratch, MEMORY
    )
    found = determinism_check(pipeline.engine, workshop, random.Random(1))
    assert (found.invariant, found.holds, found.found) == ("I17", True, "the same")
    assert _files(tmp_path) == before
    path = next(
        path for path in before if "transformation-" in path.name and b'"rows":1' in before[path]
    )
    changed = json.loads(before[path])
    changed["rows_read"] += 1
    changed["rows_deduplicated"] += 1
    path.write_text(json.dumps(changed))
    broken = determinism_check(pipeline.engine, workshop, random.Random(1))
    if not broken.holds:
        assert "'deduplicated': 1" in broken.differences[0]
    other = replace(workshop, spec=_spec(checks={"between": [0, 9]}))
    assert (
        "not transformed again"
        in determinism_check(pipeline.engine, other, random.Random(1)).statement
    )
