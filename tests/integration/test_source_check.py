"""The source read again: what is as it was is proven, and what is not is named, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.privacy import Privacy
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.loading.checks import Check
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.protection import Protection, pii_columns
from tasks.verification.source import check_source
from tests.pipeline import Pipeline


def _spec(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "people",
            "description": "d",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": ["no"],
            "columns": {
                "no": {"type": "int64", "source": "No"},
                "mail": {"type": "string", "pii": "mask"},
            },
            "load": {"table": "analytics.people", "mode": "merge"},
            **more,
        }
    )


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "source"
    base.mkdir()
    limits = PlanLimits(partition_items=1)
    protection = Protection(pii_columns(_spec()), Privacy(["k" * 32]))
    return Pipeline(engine, lake, scratch, base, limits=limits, protection=protection)


def _check(pipeline: Pipeline, spec: DatasetSpec) -> list[Check]:
    connector = pipeline.connector(spec)
    return check_source(
        pipeline.engine,
        pipeline.lake,
        spec,
        connector,
        pipeline.scratch,
        protection=pipeline.protection,
    )


def _write(pipeline: Pipeline, name: str, *lines: str) -> None:
    (pipeline.base / f"{name}.csv").write_text("No,mail\n" + "".join(f"{line}\n" for line in lines))


def test_files_that_are_as_they_were(pipeline: Pipeline) -> None:
    """Counts and checksums of both sides; a record that cannot be read is counted with them."""
    _write(pipeline, "a", "1,x", "2,y", "3,z,ragged")
    _write(pipeline, "b", "2,y", "1,x")
    pipeline.run(_spec())
    (made,) = _check(pipeline, _spec())
    assert made.holds
    first, second = made.partitions
    assert (first.label, first.expected_rows, first.found_rows) == ("a.csv", 2, 2)
    assert first.expected_checksum == first.found_checksum == second.found_checksum != 0
    # A file under another name is the same file.
    (pipeline.base / "a.csv").rename(pipeline.base / "z.csv")
    (made,) = _check(pipeline, _spec())
    assert (made.holds, len(made.partitions)) == (True, 2)


def test_files_that_are_gone_or_changed_are_named(pipeline: Pipeline) -> None:
    """Until the next run has loaded the new version; what is gone stays a difference."""
    spec = _spec()
    for name in "abc":
        _write(pipeline, name, f"{ord(name)},x")
    pipeline.run(spec)
    (pipeline.base / "a.csv").unlink()
    _write(pipeline, "b", "98,y")
    (made,) = _check(pipeline, spec)
    assert not made.holds
    assert made.differences == (
        "load 1: a.csv is gone from the source",
        "load 2: b.csv was changed since, and its new content is not loaded",
    )
    assert [one.load_id for one in made.partitions] == [3]
    pipeline.run(spec)
    made, skipped = _check(pipeline, spec)
    assert made.differences == ("load 1: a.csv is gone from the source",)
    assert skipped.statement.endswith("1 loads: newer versions of its objects were loaded since")


def test_raw_rows_that_are_not_those_of_the_file(pipeline: Pipeline, tmp_path: Path) -> None:
    """The lake itself is what is wrong: each row is named by its key, values that are pii never."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.lake import publish_manifest, read_manifest, store_file

    spec = _spec()
    _write(pipeline, "a", "1,secret", "2,y", "3,z")
    pipeline.run(spec)
    (key,) = [k for k in pipeline.lake.keys("manifests/people") if "/ingestion-" in k]
    raw = read_manifest(pipeline.lake, key)
    assert raw is not None
    table = pq.read_table(pipeline.lake.local_path(raw.files[0].key, tmp_path)).to_pylist()
    table[0]["mail"], table[1]["No"] = "other", "7"
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    file = store_file(pipeline.lake, "raw", "people", path, 3)
    pipeline.lake.delete(key)
    publish_manifest(pipeline.lake, key, raw.model_copy(update={"files": (file,)}))
    (made,) = _check(pipeline, _spec())
    assert made.differences[1:] == (
        "load 1: changed in the source: No=1",
        "load 1: missing from the source: No=7",
        "load 1: new in the source: No=2",
    )
    assert "3 rows with checksum" in made.differences[0]
    assert "secret" not in made.model_dump_json()


class DatabasePipeline(Pipeline):
    source_engine: sa.Engine
    pieces = PlanLimits(partition_bytes=20_000)

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, DatabaseSource)
        source = spec.source.model_copy(update={"snapshot": "none"})
        return DatabaseConnector(spec.name, source, self.source_engine, self.pieces)


def test_windows_of_a_database(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> None:
    """A row that was changed and read again later is none; one that came late, or changed in place, is."""
    made = DatabasePipeline(engine, lake, scratch, tmp_path)
    made.source_engine = sa.create_engine(engine.url, poolclass=sa.NullPool)

    def execute(*statements: str) -> None:
        with made.source_engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    execute(
        "CREATE TABLE public.orders (no integer PRIMARY KEY, note text, at timestamptz NOT NULL)",
        "CREATE INDEX ON public.orders (at)",
        "INSERT INTO public.orders SELECT i, 'n', timestamptz '2013-01-01 00:00+00' + "
        "i * interval '1 minute' FROM generate_series(1, 4000) i",
        "ANALYZE public.orders",
    )
    source = {"kind": "database", "block": "b", "table": "public.orders", "cursor": "at"}
    columns = {
        "no": {"type": "int64"},
        "note": {"type": "string"},
        "at": {"type": "timestamp", "timezone": "UTC"},
    }
    spec = _spec(source=source, columns=columns, cursor="at")
    made.run(spec)
    (check,) = _check(made, spec)
    assert (check.holds, sum(one.found_rows for one in check.partitions)) == (True, 4000)
    windows = len(check.partitions)
    assert windows > 1

    execute("UPDATE public.orders SET note = 'm', at = '2013-02-01 00:00+00' WHERE no IN (3, 500)")
    (check,) = _check(made, spec)  # they wait for the next run
    assert check.holds
    made.run(spec)
    execute("UPDATE public.orders SET note = 'm', at = '2013-03-01 00:00+00' WHERE no = 7")
    made.run(spec)
    (check,) = _check(made, spec)
    assert check.holds

    execute(
        "DELETE FROM public.orders WHERE no = 10",
        "UPDATE public.orders SET note = 'in place' WHERE no = 11",
        "INSERT INTO public.orders VALUES (9000, 'late', '2013-01-01 00:00:30+00')",
    )
    (check,) = _check(made, spec)
    assert not check.holds
    assert check.differences[1:] == (
        "load 1: changed in the source: no=11",
        "load 1: missing from the source: no=10",
        "load 1: new in the source: no=9000",
    )
    made.source_engine.dispose()
