"""Inputs that break ETL tools, each from its file to the table: what must be loaded, and what refused.

One folder of ``tests/corpus`` per case: the input, its dataset file, and what is expected.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.documents import parse, read_yaml
from tasks.loading.reconcile import reconcile
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import PipelineError
from tests.pipeline import Pipeline

CORPUS = Path(__file__).parent.parent / "corpus"
CASES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_input_has_the_declared_outcome(
    case: str, engine: Engine, lake: Lake, scratch: Path
) -> None:
    folder = CORPUS / case
    expected: dict[str, Any] = YAML(typ="safe").load(folder / "expect.yaml")
    spec = parse(read_yaml(folder / "dataset.yaml"), DatasetSpec)
    pipeline = Pipeline(engine, lake, scratch, folder)
    if "refused" in expected:
        with pytest.raises(PipelineError) as refusal:
            pipeline.run(spec)
        assert type(refusal.value).__name__ == expected["refused"]
        assert expected["message"] in str(refusal.value)
        assert not any(lake.keys("clean"))
        return
    (receipt,) = pipeline.run(spec)
    refused = Counter[str]()
    for reason in receipt.reasons:
        refused[reason.rule] += reason.rows
    assert dict(refused) == expected.get("quarantined", {})
    assert receipt.counts.loaded == expected["loaded"]
    assert receipt.counts.deduplicated == expected.get("deduplicated", 0)
    assert receipt.counts.balanced
    if "rows" in expected:
        found = [
            {name: _comparable(value) for name, value in row.items()} for row in pipeline.rows(spec)
        ]
        wanted = [
            {name: _comparable(value) for name, value in row.items()} for row in expected["rows"]
        ]
        assert found == wanted
    broken = [check for check in reconcile(engine, lake, spec, 90) if not check.holds]
    assert not broken
    assert pipeline.run(spec) == []


def _comparable(value: Any) -> Any:
    """Compare what YAML cannot write (decimals, dates) by its text, all else as it is."""
    if value is None or isinstance(value, bool | int | float | str | dict | list):
        return value
    return str(value)
