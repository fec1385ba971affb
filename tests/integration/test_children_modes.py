"""Child tables in every load mode, against a model in Python: random documents in any order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import PlanLimits
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tests.child_models import MODELS, MODES, in_order, random_files, spec_of, write
from tests.pipeline import Pipeline


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "project"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base, limits=PlanLimits(partition_bytes=1))


def query(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def sound(pipeline: Pipeline, spec: DatasetSpec) -> None:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []


@pytest.mark.parametrize("mode", MODES)
def test_random_histories_agree_with_a_model(pipeline: Pipeline, mode: str) -> None:
    """Old rows late, deletions, keys twice, bad items: tables and accounts are the model's."""
    rng = random.Random(f"children {mode}")
    spec, model = spec_of(mode), MODELS[mode]()
    for number in range(4):
        files = random_files(rng, mode, number)
        write(pipeline.base, files)
        receipts = pipeline.run(spec, run=f"run{number}")
        model.run(files)
        assert len(receipts) == len(files)
        assert all(receipt.children["items"].balanced for receipt in receipts)
        found = query(pipeline, f"SELECT {model.columns} FROM analytics.order_items")
        assert in_order(mode, found) == model.rows()
        assert pipeline.run(spec, run="again") == []
    sound(pipeline, spec)
