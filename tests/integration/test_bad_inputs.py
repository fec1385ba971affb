"""Bad inputs that are no single file: versions and names, YAML, full disks, a warehouse in trouble.

The other cases are folders of ``tests/corpus``. Each test carries the number of its case.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.catalog import load_catalog
from tasks.loading.ledger import open_dataset
from tasks.loading.session import session
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import (
    CapacityExhausted,
    ConfigError,
    LoadConflict,
    WarehouseUnavailable,
)
from tests.integration.loading.support import make_spec
from tests.pipeline import Pipeline

COLUMNS = {"id": {"type": "int64"}, "text": {"type": "string"}, "seen": {"type": "int32"}}
SPEC = make_spec(COLUMNS)


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "inbox"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def write(pipeline: Pipeline, name: str, *rows: str) -> Path:
    path = pipeline.base / name
    path.write_text("\n".join(["id,text,seen", *rows]) + "\n")
    return path


def test_b30_an_older_version_does_not_win_and_the_same_content_is_loaded_once(
    pipeline: Pipeline,
) -> None:
    first = write(pipeline, "b.csv", "1,new,5", "2,x,1")
    pipeline.run(SPEC)
    write(pipeline, "a.csv", "1,old,4")
    (older,) = pipeline.run(SPEC)
    assert (older.counts.updated, older.counts.unchanged) == (0, 1)
    first.rename(pipeline.base / "c.csv")
    assert pipeline.run(SPEC) == []
    (pipeline.base / "d.csv").write_bytes((pipeline.base / "c.csv").read_bytes())
    assert pipeline.run(SPEC) == []
    assert pipeline.rows(SPEC)[0] == {"id": 1, "text": "new", "seen": 5}


@pytest.mark.parametrize("name", ["../x", "a/b", "%2e%2e", "/etc", "x ", "..", "a\x00b", "é"])
def test_b33_a_dataset_has_no_name_that_could_lead_out_of_the_lake(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a column or dataset"):
        make_spec(COLUMNS, name=name)


@pytest.mark.parametrize("name", ["a..%2e.csv", "a b+%.csv", "x;y ", "…emoji😀.csv", "-rf.csv"])
def test_b33_names_of_files_are_plain_text_and_never_paths_of_the_lake(
    pipeline: Pipeline, lake: Lake, name: str
) -> None:
    write(pipeline, name, "1,a,1")
    spec = make_spec(COLUMNS, source={"kind": "files", "path": "*", "format": {"kind": "csv"}})
    (receipt,) = pipeline.run(spec)
    assert receipt.counts.inserted == 1
    keys = [key for zone in ("raw", "clean", "manifests") for key in lake.keys(zone)]
    assert keys
    assert not [key for key in keys if ".." in key or name in key]


YAML = """name: things
description: Things
source: {kind: files, path: "*.csv", format: {kind: csv}}
columns:
  id: {type: int64}
load: {table: analytics.things, mode: append}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (YAML.replace("description", "descriptoin"), ["things.yaml", "2", "did you mean"]),
        (YAML.replace("int64", "integer"), ["things.yaml", "5", "'integer'", "int64"]),
        (YAML.replace("  id:", "\tid:"), ["things.yaml", "5"]),
        (YAML + "name: other\n", ["things.yaml", "7", "duplicate key"]),
        (YAML.replace("Things", "!!python/object/apply:os.system [x]"), ["things.yaml", "2"]),
        ("", ["things.yaml"]),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
            ["things.yaml"],
        ),
    ],
    ids=["unknown key", "wrong type", "tab", "duplicate", "python object", "empty", "anchors bomb"],
)  # fmt: skip
def test_b41_a_mistake_in_a_dataset_file_is_named_with_file_and_line(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "things.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_catalog(tmp_path)
    said = str(refused.value)
    assert not [word for word in words if word not in said], said
    assert len(said) < 5000


def test_b41_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "things.yaml").write_text(YAML)
    (tmp_path / "things.yml").write_text(YAML)
    with pytest.raises(ConfigError, match=r"things\.yaml.*things\.yml|things\.yml.*things\.yaml"):
        load_catalog(tmp_path)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: to those who write it is a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_b43_a_full_disk_publishes_nothing_and_the_next_run_goes_on(
    pipeline: Pipeline, lake: Lake, limit: int
) -> None:
    write(pipeline, "a.csv", *(f"{number},{number * 7919:040x},{number}" for number in range(9000)))
    with files_of_at_most(limit), pytest.raises(Exception) as refused:
        pipeline.run(SPEC)
    assert isinstance(classify(refused.value), CapacityExhausted)
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM etl.loads")
        assert cursor.fetchone() == (0,)
    (receipt,) = pipeline.run(SPEC)
    assert receipt.counts.inserted == 9000


def test_b43_of_two_runs_of_a_dataset_the_later_one_goes_on(pipeline: Pipeline) -> None:
    write(pipeline, "a.csv", "1,a,1")
    plan = pipeline.plan

    def taken_over(spec: DatasetSpec, *asked: object) -> object:
        planned = plan(spec, *asked)  # type: ignore[arg-type]
        open_dataset(pipeline.engine, spec.name, "the-later-run")
        return planned

    pipeline.plan = taken_over  # type: ignore[assignment, method-assign]
    with pytest.raises(LoadConflict, match="the-later-run took the dataset over from run earlier"):
        pipeline.run(SPEC, "earlier")


def test_b44_a_read_only_warehouse_is_tried_again_and_named(
    pipeline: Pipeline, engine: Engine
) -> None:
    write(pipeline, "a.csv", "1,a,1")
    database = engine.url.database
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            f'ALTER DATABASE "{database}" SET default_transaction_read_only = on'
        )
        engine.dispose()
        try:
            with pytest.raises(WarehouseUnavailable, match="read-only transaction"):
                pipeline.run(SPEC)
        finally:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            connection.exec_driver_sql(
                f'ALTER DATABASE "{database}" SET default_transaction_read_only = off'
            )
    engine.dispose()
    assert [receipt.counts.inserted for receipt in pipeline.run(SPEC)] == [1]


def test_b44_a_warehouse_without_free_connections_is_tried_again_and_named(
    pipeline: Pipeline, engine: Engine
) -> None:
    database = str(engine.url.database)
    other = sa.create_engine(engine.url, poolclass=sa.NullPool)
    with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{database}" CONNECTION LIMIT 1')
        engine.dispose()
        role = connection.exec_driver_sql(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        )
        superuser = role.scalar_one()
        try:
            if superuser:
                pytest.skip("a superuser is not limited")
            with pytest.raises(WarehouseUnavailable, match="too many connections"):
                pipeline.run(SPEC)
        finally:
            connection.exec_driver_sql(f'ALTER DATABASE "{database}" CONNECTION LIMIT -1')
    other.dispose()


def test_b44_a_statement_that_takes_too_long_is_tried_again_and_named(engine: Engine) -> None:
    with pytest.raises(WarehouseUnavailable, match="statement timeout"):  # noqa: SIM117
        with session(engine) as connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 20")
            cursor.execute("SELECT pg_sleep(5)")
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
