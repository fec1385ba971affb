"""Late, changed and repeated data: what is planned, what is loaded again, and that nothing is twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.object_store import LakeStorage
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.ledger_state import load_sizes, source_state
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, LoadConflict
from tasks.model.partition import Partition
from tasks.model.report import LoadStatus
from tasks.model.request import RunRequest, Window
from tests.pipeline import Pipeline


def day(number: int) -> datetime:
    return datetime(2013, 1, number, tzinfo=UTC)


def span(start: int, end: int, **request: Any) -> RunRequest:
    return RunRequest(window=Window(start=day(start), end=day(end)), **request)


def declared(**keys: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "things",
            "description": "Things",
            "source": {
                "kind": "files",
                "path": "in/{date:%Y-%m-%d}.csv",
                "format": {"kind": "csv"},
            },
            "key": ["id"],
            "columns": {"id": {"type": "int64"}, "x": {"type": "string"}},
            "load": {"table": "analytics.things", "mode": "merge"},
            **keys,
        }
    )


@pytest.fixture
def pipeline(engine: Engine, tmp_path: Path) -> Pipeline:
    """Five days of files, one row a day."""
    ensure_ledger(engine)
    for folder in ("in", "scratch"):
        (tmp_path / folder).mkdir()
    for number in range(1, 6):
        (tmp_path / "in" / f"2013-01-0{number}.csv").write_text(f"id,x\n{number},a\n")
    lake = LakeStorage(uri=f"file://{tmp_path / 'lake'}").get_lake()
    return Pipeline(engine, lake, tmp_path / "scratch", tmp_path)


def ids(pipeline: Pipeline, spec: DatasetSpec) -> list[int]:
    return [row["id"] for row in pipeline.rows(spec)]


def ledger(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_backfill_loads_what_is_missing_in_the_span_only(pipeline: Pipeline) -> None:
    spec = declared()
    pipeline.run(spec, request=span(2, 4))
    assert ids(pipeline, spec) == [2, 3]
    assert pipeline.plan(spec, span(2, 4)) == []
    pipeline.run(spec, request=span(1, 4))
    assert ids(pipeline, spec) == [1, 2, 3]
    pipeline.run(spec)
    assert ids(pipeline, spec) == [1, 2, 3, 4, 5]
    assert pipeline.plan(spec) == []


def test_refresh_loads_again_and_nothing_is_twice(pipeline: Pipeline) -> None:
    spec = declared()
    pipeline.run(spec)
    ledger(pipeline, "UPDATE analytics.things SET x = 'spoiled'; SELECT 1")
    assert pipeline.plan(spec) == []
    [receipt] = pipeline.run(spec, run="again", request=RunRequest(refresh=True))
    assert (receipt.status, receipt.counts.read, receipt.counts.updated) == (
        LoadStatus.LOADED,
        5,
        5,
    )
    assert [row["x"] for row in pipeline.rows(spec)] == ["a"] * 5
    assert pipeline.plan(spec) == []
    owners = ledger(pipeline, "SELECT DISTINCT load_id FROM etl.source_items")
    assert owners == [(receipt.load_id,)]


def test_refresh_that_is_tried_again_goes_on_where_it_was(pipeline: Pipeline) -> None:
    """The run's id names what it loads again: another run begins anew, the same one does not."""
    spec = declared()
    pipeline.run(spec)
    pipeline.run(spec, run="one", request=RunRequest(refresh=True))
    assert pipeline.plan(spec, RunRequest(refresh=True), "one") == []
    assert len(pipeline.plan(spec, RunRequest(refresh=True), "two")) == 1


def test_refresh_of_a_span_leaves_the_rest_alone(pipeline: Pipeline) -> None:
    spec = declared()
    pipeline.run(spec)
    ledger(pipeline, "UPDATE analytics.things SET x = 'spoiled'; SELECT 1")
    pipeline.run(spec, run="again", request=span(2, 4, refresh=True))
    assert [row["x"] for row in pipeline.rows(spec)] == ["spoiled", "a", "a", "spoiled", "spoiled"]


def test_append_is_not_loaded_again(pipeline: Pipeline) -> None:
    spec = declared(load={"table": "analytics.things", "mode": "append"})
    pipeline.run(spec)
    with pytest.raises(ConfigError, match="'append' would hold each row twice"):
        pipeline.plan(spec, RunRequest(refresh=True))
    assert pipeline.plan(spec, span(1, 6)) == []


def test_append_of_a_database_has_no_backfill(pipeline: Pipeline) -> None:
    source = {"kind": "database", "block": "b", "table": "t", "cursor": "at"}
    spec = declared(source=source, load={"table": "analytics.things", "mode": "append"})
    from tasks.ingestion.planning import check_request

    with pytest.raises(ConfigError, match="may be loaded already"):
        check_request(spec, span(1, 2))


def test_backfill_goes_on_beside_a_live_run(pipeline: Pipeline) -> None:
    """Each has a fence of its own: neither takes the dataset over from the other."""
    spec = declared()
    engine = pipeline.engine
    live = open_dataset(engine, spec.name, "live")
    pipeline.run(spec, run="back", request=span(1, 3))
    assert open_dataset(engine, spec.name, "live 2") == live + 1
    pipeline.run(spec, run="back 2", request=span(3, 4))
    assert ids(pipeline, spec) == [1, 2, 3]


def test_second_backfill_takes_over_from_the_first(pipeline: Pipeline) -> None:
    spec = declared()
    original = pipeline.plan

    def taken_over(*arguments: Any) -> list[Partition]:
        open_dataset(pipeline.engine, spec.name, "newer", "backfill")
        return original(*arguments)

    pipeline.plan = taken_over  # type: ignore[method-assign]
    with pytest.raises(LoadConflict, match="run newer took the dataset over from run older"):
        pipeline.run(spec, run="older", request=span(1, 3))
    assert ledger(pipeline, "SELECT count(*) FROM etl.loads") == [(0,)]


def test_backfill_leaves_the_position_of_live_runs_alone(pipeline: Pipeline) -> None:
    from tasks.ingestion.planning import plan_partitions

    class Dated:
        def plan(self, _state: Any) -> list[Partition]:
            return [Partition(dataset="things", label="x", slice={"a": 1}, state={"mark": 5})]

    spec = declared()
    state = source_state(pipeline.engine, "things")
    connector: Any = Dated()
    [live] = plan_partitions(connector, spec, state, RunRequest(), "r")
    [back] = plan_partitions(connector, spec, state, span(1, 2), "r")
    assert (live.state, back.state) == ({"mark": 5}, {})
    assert live.fingerprint == back.fingerprint


def test_rows_of_what_is_missing_are_estimated_from_what_was_loaded(pipeline: Pipeline) -> None:
    spec = declared()
    pipeline.run(spec, request=span(1, 3))
    sizes = load_sizes(pipeline.engine, spec.name)
    [rest] = pipeline.plan(spec)
    assert sizes.expected_rows(rest) == 3


def test_ledger_of_an_older_version_is_brought_up_to_date(engine: Engine) -> None:
    ensure_ledger(engine)
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE etl.datasets DROP CONSTRAINT datasets_pkey;"
            "ALTER TABLE etl.datasets DROP COLUMN purpose;"
            "ALTER TABLE etl.datasets ADD PRIMARY KEY (dataset);"
            "ALTER TABLE etl.source_items DROP CONSTRAINT source_items_pkey;"
            "ALTER TABLE etl.source_items DROP COLUMN part;"
            "ALTER TABLE etl.source_items ADD PRIMARY KEY (dataset, uri, version);"
            "ALTER TABLE etl.loads DROP COLUMN source_bytes;"
            "INSERT INTO etl.datasets (dataset, fence, run) VALUES ('things', 7, 'old');"
            "COMMENT ON SCHEMA etl IS 'of an older version'"
        )
    ensure_ledger(engine)
    assert open_dataset(engine, "things", "new") == 8
    assert open_dataset(engine, "things", "new", "backfill") == 1
    assert source_state(engine, "things").items == frozenset()
