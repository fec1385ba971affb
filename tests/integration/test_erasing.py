"""Retention of the lake: what is old and needed by nothing goes, in the audit; all else stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import read_manifest
from tasks.loading.audit import audit_checks
from tasks.loading.parallel import drop_left_tables
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.replay import Selection
from tasks.replay.discard import discard_rows, rows_to_discard
from tasks.retention.erase import erase, old_entries, old_lookups, summary
from tasks.retention.plan import Erased, Plan
from tasks.retention.rows import (
    erase_answers,
    erase_rows,
    old_answers,
    old_rows,
    vacuum_hints,
)
from tests.pipeline import Pipeline

SPEC = DatasetSpec.model_validate(
    {
        "name": "things",
        "description": "Things",
        "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
        "key": ["id"],
        "columns": {
            "id": {"type": "int64"},
            "price": {"type": "decimal(8,2)", "checks": {"between": [0, 1000]}},
        },
        "load": {"table": "analytics.things", "mode": "merge"},
    }
)
DAYS = 90
OLD = datetime.now(UTC) - timedelta(days=DAYS + 10)


@pytest.fixture
def loaded(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    """A load of a hundred days ago that refused a row, and one of today that updated a row of it."""
    pipeline = Pipeline(engine, lake, scratch, tmp_path)
    (tmp_path / "a.csv").write_text("id,price\n1,1.50\n2,2.00\n3,-1\n")
    pipeline.run(SPEC, "old")
    age_files(lake)
    sql(engine, "UPDATE etl.loads SET loaded_at = %s", OLD)
    sql(engine, "UPDATE etl.profiles SET at = %s", OLD)
    (tmp_path / "b.csv").write_text("id,price\n2,2.50\n4,4.00\n")
    pipeline.run(SPEC, "new")
    return pipeline


def sql(engine: Engine, statement: str, *values: object) -> list[tuple[object, ...]]:
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def age_files(lake: Lake) -> None:
    for key in list(lake.keys("")):
        os.utime(path_of(lake, key), (OLD.timestamp(), OLD.timestamp()))


def path_of(lake: Lake, key: str) -> Path:
    return lake.local_path(key, Path())


def discard_all(pipeline: Pipeline) -> None:
    rows = rows_to_discard(pipeline.engine, pipeline.lake, SPEC.name, Selection())
    discard_rows(pipeline.engine, rows, "never", "somebody")


def since() -> datetime:
    return datetime.now(UTC) - timedelta(days=DAYS)


def old(pipeline: Pipeline) -> dict[str, int]:
    found = old_entries(pipeline.engine, pipeline.lake, SPEC, since())
    return {zone: len(entries) for zone, entries in found.items()}


def holds(pipeline: Pipeline) -> bool:
    return all(check.holds for check in reconcile(pipeline.engine, pipeline.lake, SPEC, DAYS))


def test_what_is_needed_stays_until_it_is_not(loaded: Pipeline) -> None:
    # The raw rows of the old load, and the manifest that names them. Its clean rows are what the
    # younger load replaced; its refused row waits for somebody.
    assert old(loaded) == {"manifests": 1, "raw": 1}
    discard_all(loaded)
    assert old(loaded) == {"manifests": 1, "raw": 1, "quarantine": 1}
    sql(
        loaded.engine,
        "UPDATE etl.loads SET rows_inserted = rows_inserted + rows_updated, rows_updated = 0",
    )
    assert old(loaded) == {"manifests": 2, "raw": 1, "quarantine": 1, "clean": 1}
    sql(
        loaded.engine,
        "INSERT INTO etl.gate_failures (dataset, fingerprint, gate, label, run, target, found, rows, "
        "manifest_key, files, config_hash) SELECT dataset, 'waits', 'g', 'l', 'r', 't', 'f', 1, "
        "manifest_key, '[]', 'c' FROM etl.loads WHERE run = 'old'",
    )
    assert old(loaded) == {"manifests": 1, "raw": 1}


def test_files_of_a_run_under_way_stay_however_old(loaded: Pipeline) -> None:
    """Its manifest is young, and names a file that was there before; no ledger row knows it yet."""
    (loaded.base / "c.csv").write_text("id,price\n7,7.00\n")
    (partition,) = loaded.plan(SPEC)
    key, _ = loaded.transform(SPEC, partition)
    manifest = read_manifest(loaded.lake, key)
    assert manifest
    clean = path_of(loaded.lake, manifest.files[0].key)
    os.utime(clean, (OLD.timestamp(), OLD.timestamp()))
    found = old_entries(loaded.engine, loaded.lake, SPEC, since())
    erase(loaded.engine, loaded.lake, SPEC, found, since(), "maintain")
    assert clean.exists()
    loaded.run(SPEC, "goes on")
    assert [row["id"] for row in loaded.rows(SPEC)] == [1, 2, 4, 7]


def test_killed_erasing_goes_on_and_the_audit_tells_of_it(loaded: Pipeline) -> None:
    discard_all(loaded)
    before = set(loaded.lake.keys(""))

    class Killed(BaseException):
        pass

    keys: list[str] = []

    def kill(key: str) -> None:
        if keys:
            raise Killed
        keys.append(key)

    found = old_entries(loaded.engine, loaded.lake, SPEC, since())
    with pytest.raises(Killed):
        erase(loaded.engine, loaded.lake, SPEC, found, since(), "maintain", on_file=kill)
    assert keys[0].startswith("manifests/")  # none names a file that is gone
    assert before - set(loaded.lake.keys("")) == set(keys)
    assert holds(loaded)
    again = old_entries(loaded.engine, loaded.lake, SPEC, since())
    gone = erase(loaded.engine, loaded.lake, SPEC, again, since(), "maintain")
    assert {one.what: one.count for one in gone} == {"raw": 1, "quarantine": 1}
    assert old(loaded) == {}
    assert holds(loaded)
    lines = sql(
        loaded.engine,
        "SELECT details -> 'raw' ->> 'files' FROM etl.audit WHERE action = 'erase files' ORDER BY 1",
    )
    assert lines == [("1",), ("1",)]
    with session(loaded.engine) as connection, connection.cursor() as cursor:
        assert all(check.holds for check in audit_checks(cursor, SPEC))
    assert erase(loaded.engine, loaded.lake, SPEC, {}, since(), "maintain") == []


def test_file_that_is_written_again_is_young(loaded: Pipeline, scratch: Path) -> None:
    """A run that needs an old file again writes it again; it was found before, and stays."""
    found = old_entries(loaded.engine, loaded.lake, SPEC, since())
    (raw,) = found["raw"]
    copy = scratch / "copy.parquet"
    copy.write_bytes(path_of(loaded.lake, raw.key).read_bytes())
    loaded.lake.take_file(copy, raw.key)
    assert summary(SPEC.name, found)[1].count == 1
    erase(loaded.engine, loaded.lake, SPEC, found, since(), "maintain")
    assert loaded.lake.size(raw.key) == raw.bytes


@pytest.fixture
def few_profiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tasks.retention.rows.PROFILES_KEPT", 1)
    yield


def test_old_rows_about_a_dataset_go(loaded: Pipeline, few_profiles: None) -> None:
    sql(
        loaded.engine,
        "INSERT INTO etl.gate_failures (dataset, fingerprint, gate, label, run, target, found, rows, "
        "manifest_key, files, config_hash, failed_at) SELECT dataset, f, 'g', 'l', 'r', 't', 'f', 1, "
        "manifest_key, '[]', 'c', %s FROM etl.loads, unnest(ARRAY[fingerprint, 'waits']) f "
        "WHERE run = 'old'",
        OLD,
    )
    expected = {"profiles": 1, "gate failures that were overcome": 1}
    assert {one.what: one.count for one in old_rows(loaded.engine, SPEC, since())} == expected
    erase_rows(loaded.engine, SPEC, since(), "maintain")
    assert old_rows(loaded.engine, SPEC, since()) == []
    assert sql(loaded.engine, "SELECT fingerprint FROM etl.gate_failures") == [("waits",)]
    assert sql(loaded.engine, "SELECT count(*) FROM etl.profiles") == [(1,)]
    sql(
        loaded.engine,
        "INSERT INTO etl.lookup_answers VALUES ('r', 'old', 'x', %s), ('r', 'new', 'x', now())",
        OLD,
    )
    assert old_answers(loaded.engine, since()) == 1
    also = {"cached results": {"files": 2, "bytes": 7}}
    assert erase_answers(loaded.engine, since(), "maintain", also) == 1
    assert sql(loaded.engine, "SELECT key FROM etl.lookup_answers") == [("new",)]
    assert sql(
        loaded.engine,
        "SELECT dataset, actor, details FROM etl.audit WHERE action = 'erase what is shared'",
    ) == [("*", "maintain", {"answers of APIs, and their hosts": 1, **also})]


def test_plan_was_shown_for_its_dataset_and_part_and_for_no_shorter_retention(
    engine: Engine,
) -> None:
    found = [Erased(dataset="things", what="raw", count=3, bytes=5)]
    first = Plan(engine, "things", "files and rows", 90, "run 1")
    assert not first.was_shown()
    first.show(found, "maintain")
    assert not first.was_shown()  # tried again: nobody has looked at it
    plan = replace(first, run="run 2")
    assert plan.was_shown() and replace(plan, days=91).was_shown()
    assert not replace(plan, days=89).was_shown()  # more would go than was shown
    assert not replace(plan, dataset="others").was_shown()
    assert not replace(plan, of="flow runs").was_shown()
    assert sql(engine, "SELECT action, dataset, actor, details -> 'plan' FROM etl.audit") == [
        ("plan to erase", "things", "maintain", {"raw": {"count": 3, "bytes": 5}})
    ]


def test_staging_table_of_a_load_that_is_gone_is_dropped_in_the_audit(engine: Engine) -> None:
    name = "staging_0123456789abcdef"
    sql(engine, f"CREATE UNLOGGED TABLE etl.{name} (n int)")
    assert drop_left_tables(engine, "maintain") == 1
    assert sql(engine, f"SELECT to_regclass('etl.{name}')") == [(None,)]
    lines = sql(engine, "SELECT dataset, actor, action, details FROM etl.audit")
    assert lines == [("*", "maintain", "drop staging table", {"table": name})]


def test_table_with_many_dead_rows_is_named(loaded: Pipeline) -> None:
    assert vacuum_hints(loaded.engine, [SPEC.load.table]) == []
    sql(
        loaded.engine,
        "CREATE TABLE analytics.churned AS SELECT generate_series(1, 110000) AS n; "
        "ALTER TABLE analytics.churned SET (autovacuum_enabled = false)",
    )
    sql(loaded.engine, "DELETE FROM analytics.churned")
    sql(loaded.engine, "SELECT pg_stat_force_next_flush()")
    (hint,) = vacuum_hints(loaded.engine, ["analytics.churned"])
    assert (hint.table, hint.dead_rows) == ("analytics.churned", 110000)
    assert "VACUUM (ANALYZE) analytics.churned" in hint.advice


def test_snapshots_of_lookups_go_but_not_what_is_of_a_dataset(lake: Lake) -> None:
    spec = SPEC.model_copy(update={"name": "flights"})
    lookup = type("Used", (), {"lookup": "airlines"})
    spec = spec.model_construct(**{**dict(spec), "enrich": (lookup,)})
    keys = (
        "lookups/airlines/a",
        "lookups/flights_airlines/b",
        "raw/flights_airlines/c",
        "raw/airlines/d",
    )
    for key in keys:
        lake.put_new(key, b"x")
    assert old_lookups(lake, spec, [], since()) == []
    age_files(lake)
    found = [entry.key for entry in old_lookups(lake, spec, ["flights"], since())]
    assert found == [*keys[:3]]
    found = [entry.key for entry in old_lookups(lake, spec, ["flights_airlines"], since())]
    assert found == [keys[0]]
