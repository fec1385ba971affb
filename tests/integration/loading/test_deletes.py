"""Rows that are gone from the source are deleted, and no others; counted, capped, exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg2 import sql

from blocks.lake import Lake
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.loading.ledger import open_dataset
from tasks.loading.publish import Load, load_partition
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed
from tasks.model.partition import Partition
from tasks.model.report import LoadReceipt
from tests.integration.ingestion.database_support import dispose_readers, reader
from tests.pipeline import Pipeline


def spec_of(**source: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "people",
            "description": "People",
            "source": {
                "kind": "database",
                "block": "b",
                "table": "people",
                "deletes": {"detect": "keys", "max_share": 0.5},
                **source,
            },
            "key": ["code"],
            "columns": {
                "code": {"type": "string", "source": "Code", "clean": ["strip"]},
                "age": {"type": "int32"},
            },
            "load": {"table": "analytics.people", "mode": "merge"},
        }
    )


SPEC = spec_of()


class DeletesPipeline(Pipeline):
    source_engine: sa.Engine

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, DatabaseSource)
        engine = reader(self.source_engine.url)
        return DatabaseConnector(spec.name, spec.source, engine, PlanLimits(), key=spec.source_key)

    def execute(self, *statements: str) -> None:
        with self.source_engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def keys(self, spec: DatasetSpec) -> Partition:
        (keys,) = [part for part in self.plan(spec) if part.deletes_up_to is not None]
        return keys

    def load(
        self, spec: DatasetSpec, part: Partition, on_step: Callable[[str], None] = lambda _: None
    ) -> LoadReceipt:
        manifest_key, clean = self.transform(spec, part)
        load = Load(
            spec=spec, lookups={}, partition=part, manifest=clean, manifest_key=manifest_key,
            run="keys", fence=open_dataset(self.engine, spec.name, "keys"), code_version="test",
        )  # fmt: skip
        return load_partition(self.engine, self.lake, self.scratch, load, on_step=on_step)

    def people(self) -> dict[str, int]:
        return {row["code"]: row["age"] for row in self.rows(SPEC)}

    def broken(self) -> list[str]:
        checks = reconcile(self.engine, self.lake, SPEC, retention_days=90)
        return [check.statement for check in checks if not check.holds]


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def pipeline(
    request: pytest.FixtureRequest, engine: sa.Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> Iterator[DeletesPipeline]:
    made = DeletesPipeline(engine=engine, lake=lake, scratch=scratch, base=tmp_path)
    url: sa.URL = sa.make_url(f"sqlite:///{tmp_path}/people.db")
    if request.param == "postgresql":
        url = engine.url
    elif request.param == "mariadb":
        url = request.getfixturevalue("mariadb")
    made.source_engine = sa.create_engine(url, poolclass=sa.NullPool)
    code = '"Code"' if request.param != "mariadb" else "`Code`"
    made.execute(
        f"CREATE TABLE people ({code} varchar(20), age integer)",
        "INSERT INTO people VALUES ('a', 1), (' b', 2), ('c', 3), ('d', 4), (NULL, 5)",
    )
    yield made
    dispose_readers()
    made.source_engine.dispose()


def deleted(receipts: list[LoadReceipt]) -> int:
    return sum(receipt.counts.deleted for receipt in receipts)


def test_rows_that_are_gone_are_deleted_and_counted(pipeline: DeletesPipeline) -> None:
    assert [part.deletes_up_to for part in pipeline.plan(SPEC)] == [None]  # nothing to compare with
    pipeline.run(SPEC)
    assert pipeline.people() == {"a": 1, "b": 2, "c": 3, "d": 4}
    pipeline.execute(
        "DELETE FROM people WHERE age IN (2, 3)", "INSERT INTO people VALUES ('e  ', 6)"
    )
    receipts = pipeline.run(SPEC, "second")
    assert pipeline.people() == {"a": 1, "d": 4, "e": 6}
    assert deleted(receipts) == 2
    assert all(receipt.counts.balanced for receipt in receipts)
    assert (receipts[-1].counts.read, receipts[-1].counts.unchanged) == (3, 3)
    assert deleted(pipeline.run(SPEC, "third")) == 0
    assert pipeline.broken() == []


@pytest.mark.parametrize("step", ["copying", "merged", "ledger_written"])
def test_killed_and_repeated_it_deletes_once(pipeline: DeletesPipeline, step: str) -> None:
    pipeline.run(SPEC)
    pipeline.execute("DELETE FROM people WHERE age = 1")
    keys = pipeline.keys(SPEC)

    class Killed(Exception):
        pass

    def kill(reached: str) -> None:
        if reached == step:
            raise Killed

    with pytest.raises(Exception):  # noqa: B017 - it says what was under way
        pipeline.load(SPEC, keys, kill)
    assert len(pipeline.people()) == 4
    assert pipeline.load(SPEC, keys).counts.deleted == 1
    again = pipeline.load(SPEC, keys)
    assert (again.status, again.counts.deleted) == ("already loaded", 1)
    assert set(pipeline.people()) == {"b", "c", "d"}
    assert pipeline.broken() == []


def test_a_row_that_was_loaded_after_the_keys_were_read_stays(pipeline: DeletesPipeline) -> None:
    pipeline.run(SPEC)
    pipeline.execute("DELETE FROM people WHERE age = 1")
    keys = pipeline.keys(SPEC)
    pipeline.transform(SPEC, keys)  # they are read here
    pipeline.execute("INSERT INTO people VALUES ('new', 9)")
    data = [part for part in pipeline.plan(SPEC) if part.deletes_up_to is None]
    for part in data:
        pipeline.load(SPEC, part)
    assert pipeline.load(SPEC, keys).counts.deleted == 1
    assert set(pipeline.people()) == {"b", "c", "d", "new"}


def test_more_than_the_allowed_share_is_never_deleted(pipeline: DeletesPipeline) -> None:
    pipeline.run(SPEC)
    pipeline.execute("DELETE FROM people WHERE age > 1")
    with pytest.raises(GateFailed, match=r"3 of 4 rows of analytics.people \(75.0%\).*50.0%"):
        pipeline.load(SPEC, pipeline.keys(SPEC))
    pipeline.execute("DELETE FROM people")
    with pytest.raises(GateFailed, match=r"gave no key, and analytics.people has 4 rows"):
        pipeline.load(SPEC, pipeline.keys(SPEC))
    assert len(pipeline.people()) == 4
    assert pipeline.broken() == []


def test_a_key_that_cannot_be_read_deletes_nothing(pipeline: DeletesPipeline) -> None:
    pipeline.run(SPEC)
    pipeline.execute("DELETE FROM people WHERE age = 1")
    strict = spec_of()
    column = strict.columns["code"].model_copy(update={"null_values": ("b",)})
    strict = strict.model_copy(update={"columns": {**strict.columns, "code": column}})
    with pytest.raises(ContractBroken, match=r"1 keys of the source cannot be compared.*code"):
        pipeline.load(strict, pipeline.keys(strict))
    assert len(pipeline.people()) == 4


def test_rows_that_somebody_else_added_are_not_ours_to_delete(pipeline: DeletesPipeline) -> None:
    pipeline.run(SPEC)
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("INSERT INTO analytics.people VALUES ('x', 0, 1000000)"))
    assert deleted(pipeline.run(SPEC, "second")) == 0
    assert "x" in pipeline.people()
