"""A database into the warehouse: what the ledger keeps is enough to go on, whatever was committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from blocks.lake import Lake
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.loading.ledger_state import source_state
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tests.pipeline import Pipeline

LIMITS = PlanLimits(partition_bytes=20_000)


class DatabasePipeline(Pipeline):
    source_engine: sa.Engine

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, DatabaseSource)
        return DatabaseConnector(spec.name, spec.source, self.source_engine, LIMITS)


@pytest.fixture
def pipeline(
    engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> Iterator[DatabasePipeline]:
    made = DatabasePipeline(engine=engine, lake=lake, scratch=scratch, base=tmp_path)
    made.source_engine = sa.create_engine(engine.url, poolclass=sa.NullPool)
    execute(
        made,
        "CREATE TABLE public.orders (id integer PRIMARY KEY, total numeric(38,10), note text, "
        "at timestamptz NOT NULL)",
        "CREATE INDEX ON public.orders (at)",
        "INSERT INTO public.orders SELECT i, i * 1.0000000001, CASE WHEN i % 2 = 0 THEN '' END, "
        "timestamptz '2013-01-01 00:00+00' + i * interval '1 minute' FROM generate_series(1, 4000) i",
        "ANALYZE public.orders",
    )
    yield made
    made.source_engine.dispose()


def execute(pipeline: DatabasePipeline, *statements: str) -> None:
    with pipeline.source_engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


SPEC = DatasetSpec.model_validate(
    {
        "name": "orders",
        "description": "Orders",
        "source": {"kind": "database", "block": "b", "table": "public.orders", "cursor": "at"},
        "key": ["id"],
        "cursor": "at",
        "columns": {
            "id": {"type": "int64"},
            "total": {"type": "decimal(38,10)"},
            "note": {"type": "string"},
            "at": {"type": "timestamp", "timezone": "UTC"},
        },
        "load": {"table": "analytics.orders", "mode": "merge"},
    }
)


def test_runs_go_on_where_the_last_one_ended(pipeline: DatabasePipeline) -> None:
    first = pipeline.run(SPEC)
    assert len(first) > 2
    assert sum(receipt.counts.inserted for receipt in first) == 4000
    assert pipeline.run(SPEC, "second") == []
    execute(
        pipeline,
        "UPDATE public.orders SET note = 'changed', at = at + interval '10 days' WHERE id <= 3",
        "INSERT INTO public.orders VALUES (5000, 0.5, NULL, '2013-01-03 18:40+00')",  # a tie
    )
    (third,) = pipeline.run(SPEC, "third")
    assert third.counts.balanced
    assert (third.counts.inserted, third.counts.updated, third.counts.unchanged) == (1, 3, 1)
    with pipeline.source_engine.connect() as connection:
        query = "SELECT id, total, note, at FROM public.orders ORDER BY id"
        expected = [dict(row._mapping) for row in connection.exec_driver_sql(query)]
    assert pipeline.rows(SPEC) == expected


def test_partition_that_failed_is_loaded_by_the_next_run(pipeline: DatabasePipeline) -> None:
    planned = pipeline.plan(SPEC)
    plan = pipeline.plan
    pipeline.plan = lambda *asked: plan(*asked)[2:]  # type: ignore[method-assign]
    pipeline.run(SPEC)
    pipeline.plan = plan  # type: ignore[method-assign]
    state = source_state(pipeline.engine, SPEC.name)
    assert state.latest["cursor"] == planned[0].state["cursor"]
    assert [part.fingerprint for part in pipeline.plan(SPEC)] == [
        part.fingerprint for part in planned[:2]
    ]
    pipeline.run(SPEC, "second")
    assert len(pipeline.rows(SPEC)) == 4000
    assert pipeline.plan(SPEC) == []
