"""The key under which Prefect keeps the result of a stage."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.serializers import JSONSerializer

from tasks.model.manifest import Manifest
from tasks.stages import StageCache, Work

NO_CONTEXT: Any = None
WORK = Work("dev", "orders", "abc", "identity", "manifests/abc", "run", "label")


def key() -> str | None:
    return StageCache(stage="ingestion", version="1").compute_key(NO_CONTEXT, {"work": WORK}, {})


def test_key_names_the_class_that_the_result_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of a class that has moved would come back as a dict; its key is not asked for."""
    fields: dict[str, Any] = dict.fromkeys(Manifest.model_fields)
    written = JSONSerializer().dumps(Manifest.model_construct(**fields)).decode()
    named = written.split('"__class__": "')[1].split('"')[0]
    assert named in str(key()).split("/")
    before = key()
    monkeypatch.setattr("tasks.stages.RESULT", "elsewhere.Manifest")
    assert key() != before
