"""A row's story, from the file to the table, through stages that really ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.privacy import Privacy
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.loading.unload import unload
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken
from tasks.model.replay import ReplayRequest
from tasks.protection import Protection, pii_columns
from tasks.trace.key import parse_key
from tasks.trace.model import Cell, Story
from tasks.trace.story import trace_row
from tests.pipeline import Pipeline

HEADER = "Code,No,E-Mail,amount,at\n"


def spec_of(**amount: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "people",
            "description": "d",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": ["code", "no"],
            "cursor": "at",
            "columns": {
                "code": {"type": "string", "source": "Code", "clean": ["strip", "upper"]},
                "no": {"type": "int64", "source": "No"},
                "mail": {"type": "string", "source": "E-Mail", "pii": "mask"},
                "amount": {"type": "decimal(9,2)", "checks": {"between": [0, 100]}, **amount},
                "at": {"type": "timestamp", "timezone": "UTC"},
            },
            "load": {"table": "analytics.people", "mode": "merge"},
        }
    )


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "source"
    base.mkdir()
    protection = Protection(pii_columns(spec_of()), Privacy(["k" * 32]))
    return Pipeline(engine, lake, scratch, base, protection=protection)


def _load(pipeline: Pipeline, name: str, *lines: str, spec: DatasetSpec | None = None) -> int:
    (pipeline.base / f"{name}.csv").write_text(HEADER + "\n".join(lines) + "\n")
    (receipt,) = pipeline.run(spec or spec_of())
    return receipt.load_id


def _trace(pipeline: Pipeline, *key: str) -> Story:
    spec = spec_of()
    return trace_row(pipeline.engine, pipeline.lake, spec, parse_key(spec, key))


def test_story_of_a_row_that_was_refused_replayed_updated_and_taken_back(
    pipeline: Pipeline,
) -> None:
    """Every load and every refusal of the key is there, with raw beside clean, and nothing personal."""
    _load(
        pipeline,
        "a",
        "zz,1,x@example.org,1,2013-01-01 00:00:00",
        " ua ,7,secret@example.org,1.5,2013-01-01 00:00:00",
    )
    _load(
        pipeline,
        "b",
        "ua,7,secret@example.org,200,2013-01-02 00:00:00",
        "ua,8,x@example.org,-1,2013-01-02 00:00:00",
    )
    _load(pipeline, "c", "UA,7,other@example.org,2.50,2012-12-31 00:00:00")
    story = _trace(pipeline, "code=UA,no=7")
    assert [(v.load_id, v.what, v.is_current) for v in story.versions] == [
        (1, "inserted", True),
        (3, "not taken: older", False),
    ]
    first = story.versions[0]
    assert first.source_uri is not None
    assert (first.source_uri.endswith("a.csv"), first.source_row) == (True, 2)
    assert first.cells == (
        Cell(column="code", raw=" ua ", clean="UA", changed=True),
        Cell(column="no", raw="7", clean="7", changed=False),
        Cell(column="mail", raw="***", clean="***", changed=False),
        Cell(column="amount", raw="1.5", clean="1.50", changed=True),
        Cell(column="at", raw="2013-01-01 00:00:00", clean="2013-01-01 00:00:00+00", changed=True),
    )
    (refused,) = story.refused
    assert (refused.id, refused.resolution, refused.raw["amount"]) == ("2-1", None, "200")
    assert "amount" in refused.failures
    assert story.row is not None
    assert (story.row["mail"], story.row["amount"]) == ("***", "1.50")
    assert "secret" not in story.model_dump_json()

    # The rule is corrected, and the refused row replayed: it is newer than what is there.
    spec = spec_of(checks={"between": [0, 1000]})
    pipeline.replay(spec, ReplayRequest())
    story = _trace(pipeline, "code=UA", "no=7")
    replayed = story.versions[-1]
    assert (replayed.load_id, replayed.what, replayed.is_current) == (4, "updated", True)
    assert (replayed.source_row, replayed.cells[3].clean) == (1, "200.00")
    assert (story.refused[0].resolution, story.refused[0].replay_load_id) == ("replayed", 4)

    # What the replay came from cannot go before it; then the row waits again.
    options = {"actor": "me", "reason": "a mistake"}
    with pytest.raises(ContractBroken, match="were replayed by load 4"):
        unload(pipeline.engine, pipeline.lake, spec, 2, **options)  # type: ignore[arg-type]
    done = unload(pipeline.engine, pipeline.lake, spec, 4, **options)  # type: ignore[arg-type]
    assert (done.was_replay, done.rows_restored) == (True, 1)
    story = _trace(pipeline, "code=UA,no=7")
    assert story.refused[0].resolution is None
    assert story.row is not None
    assert story.row["amount"] == "1.50"
    assert [c for c in reconcile(pipeline.engine, pipeline.lake, spec, 90) if not c.holds] == []


def test_row_that_is_nowhere_and_keys_that_are_none(pipeline: Pipeline) -> None:
    """Each mistake is named, with what to write instead; never with a value."""
    _load(pipeline, "a", "UA,7,x@example.org,1,2013-01-01 00:00:00")
    with pytest.raises(ConfigError, match="no load ever had a row with this key"):
        _trace(pipeline, "code=XX,no=7")
    with pytest.raises(ConfigError, match="lacks no"):
        _trace(pipeline, "code=UA")
    with pytest.raises(ConfigError, match="is no column of the key"):
        _trace(pipeline, "flight=7")
    with pytest.raises(ConfigError, match="names no twice"):
        _trace(pipeline, "code=UA,no=7", "no=8")
    with pytest.raises(ConfigError, match="--key no: the value is no bigint"):
        _trace(pipeline, "code=UA,no=seven")
    assert parse_key(spec_of(), ["code=a,b=c,no=7"]) == {"code": "a,b=c", "no": "7"}


def test_row_deleted_by_hand_still_has_its_story(pipeline: Pipeline) -> None:
    """The table has lost it, the lake has not; what the lake has lost is said too."""
    _load(pipeline, "a", "UA,7,x@example.org,1,2013-01-01 00:00:00")
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM analytics.people")
    story = _trace(pipeline, "code=UA,no=7")
    assert (story.row, story.load_id) == (None, None)
    assert [(v.what, v.is_current) for v in story.versions] == [("inserted", False)]
    for key in list(pipeline.lake.keys("raw/people")):
        pipeline.lake.delete(key)
    story = _trace(pipeline, "code=UA,no=7")
    assert story.versions[0].cells[0] == Cell(column="code", raw=None, clean="UA", changed=False)
    assert story.notes[0].startswith("the lake has lost raw/people/")
