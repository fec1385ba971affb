"""The database is lost: tables and ledger are made again from the lake, row by row what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.copies import copy_ledger, refuse_unrebuilt
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.maintenance import maintain
from tasks.loading.rebuild import rebuild
from tasks.loading.session import session
from tasks.loading.unload import unload
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken, LoadConflict
from tasks.model.partition import Partition, SourceItem
from tasks.model.replay import ReplayRequest
from tests.integration.loading import test_partitions as partitioned
from tests.integration.loading import test_retention as retention
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
    world,
)
from tests.integration.test_children import ITEMS
from tests.integration.test_children import spec_of as orders
from tests.pipeline import Pipeline

__all__ = ["world"]

FLAG = {"column": "name", "values": ["gone"]}
LEDGER = (
    "loads", "source_items", "quarantine", "schema_changes", "child_loads", "child_quarantine",
    "replays", "profiles", "unloads", "quarantine_resolutions", "datasets", "retention", "identity",
)  # fmt: skip
LOADS = [
    [(1, "one", 1), (2, "two", 1)],
    [(1, "eins", 2), (2, "gone", 3), (3, "drei", 2)],
    [(3, "late", 1), (2, "old", 2), (4, None, 2)],
]


def lose(warehouse: WarehouseCredentials, *engines: Any) -> None:
    """Drop the database, and make an empty one of its name."""
    for engine in engines:
        engine.dispose()
    connection = psycopg2.connect(
        host=warehouse.host, port=warehouse.port, user=warehouse.username, dbname="postgres",
        password=warehouse.password.get_secret_value(),
    )  # fmt: skip
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{warehouse.database}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{warehouse.database}"')
    connection.close()


def everything(world: World) -> dict[str, list[str]]:
    """Return all rows of all tables, as texts in an order."""
    found = {}
    tables = world.sql(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname IN ('analytics', 'etl')"
    )
    for schema, name in tables:
        if (
            schema == "etl"
            and name not in LEDGER
            and not name.startswith(("marks_", "tombstones_"))
        ):
            continue
        rows = world.sql(f'SELECT to_jsonb(t) FROM "{schema}"."{name}" t')
        found[f"{schema}.{name}"] = sorted(json.dumps(row[0], sort_keys=True) for row in rows)
    lines = world.sql(
        "SELECT to_jsonb(a) FROM etl.audit a WHERE action <> 'rebuild' ORDER BY audit_id"
    )
    found["audit"] = [json.dumps(row[0], sort_keys=True) for row in lines]
    return found


@pytest.fixture
def again(warehouse: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    engine = warehouse.get_engine("again")
    yield World(engine, make_lake(tmp_path / "lake"), tmp_path)
    engine.dispose()


def _filled(world: World) -> list[DatasetSpec]:
    """Load datasets of every kind: each mode, children, retention, a load taken back, a replay."""
    specs = [
        make_spec(name="merged"),
        make_spec(name="hard", options={"delete": FLAG}),
        make_spec(name="soft", options={"delete": {**FLAG, "kind": "soft"}}),
        make_spec(name="versions", mode="scd2", options={"delete": FLAG}),
        make_spec(name="added", mode="append", key=(), cursor=None),
    ]
    for spec in specs:
        for number, rows in enumerate(LOADS):
            world.load(spec, f"p{number}", rows, duplicates=1, bad={"range": 2})
    unload(world.engine, world.lake, specs[0], 2, actor="me", reason="wrong", exclude=True)

    whole = make_spec(name="whole", mode="replace")
    for version in ("1", "2"):
        items = [SourceItem(uri=uri, version=version) for uri in "ab"]
        parts = [
            Partition(dataset="whole", label=one.uri, items=(one,), refresh=version)
            for one in items
        ]
        fence = world.open(whole, f"run-{version}")
        rows = [LOADS[int(version)], [(9, version, 9)]]
        loads = [
            world.prepared(whole, part, rows_table(content), fence=fence, run=f"run-{version}")
            for part, content in zip(parts, rows, strict=True)
        ]
        load_whole(world.engine, world.lake, world.scratch, loads)

    kept = partitioned.spec_of("merge", name="things", retention=retention.KEPT)
    retention.loaded(world)
    maintain(world.engine, kept, "tidy")
    partitioned.load(world, kept, "c", [(9, partitioned.THIS_MONTH, "newer", 2)])
    return [*specs, whole, kept]


def _with_children(world: World, tmp_path: Path) -> DatasetSpec:
    base = tmp_path / "project"
    base.mkdir()
    pipeline = Pipeline(world.engine, world.lake, world.scratch, base)
    spec = orders({**ITEMS, "table": "analytics.order_items"})
    rows = [
        [{"id": 1, "v": 1, "items": [{"sku": "a", "price": 1}, {"sku": "b", "price": -1}]}],
        [{"id": 1, "v": 2, "items": [{"sku": "c", "price": 2}]}, {"id": "x", "v": 1, "items": []}],
    ]
    for number, lines in enumerate(rows):
        (base / f"p{number}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        pipeline.run(spec)
    pipeline.replay(spec, ReplayRequest())
    return spec


def test_lost_database_is_made_again(
    world: World, again: World, warehouse: WarehouseCredentials, tmp_path: Path
) -> None:
    """Into an empty database without a ledger; then loads go on as if nothing had happened."""
    specs = [*_filled(world), _with_children(world, tmp_path)]
    copy_ledger(world.engine, world.lake, wait=True)
    before = everything(world)
    assert all(world.broken(spec) == set() for spec in specs)
    lose(warehouse, world.engine)

    first, *others = specs
    assert rebuild(again.engine, again.lake, first, actor="me").loads == 2
    for spec in others:
        with pytest.raises(LoadConflict, match="loads of it that the warehouse lacks"):
            refuse_unrebuilt(again.engine, again.lake, spec)
        rebuild(again.engine, again.lake, spec, actor="me")
    copy_ledger(again.engine, again.lake, wait=True)
    after = everything(again)
    assert after.keys() == before.keys()
    for table, rows in before.items():
        assert after[table] == rows, table
    assert all(again.broken(spec) == set() for spec in specs)
    # It is there now: nothing is done twice.
    done = rebuild(again.engine, again.lake, first, actor="me")
    assert (done.loads, done.already) == (0, 3)
    largest = again.sql("SELECT max(load_id) FROM etl.loads")[0][0]
    receipt = again.load(first, "p9", [(7, "seven", 1)])
    assert receipt.load_id == largest + 1
    assert again.broken(first) == set()


def test_rebuild_refuses_what_it_cannot_do(
    world: World, again: World, warehouse: WarehouseCredentials
) -> None:
    """Two ledgers, a warehouse that has one, a lake that lacks a file; while it goes on, no run begins."""
    spec, other = make_spec(), make_spec(name="others")
    assert rebuild(world.engine, world.lake, spec, actor="me").nothing
    for number, rows in enumerate(LOADS):
        world.load(spec, f"p{number}", rows)
    copy_ledger(world.engine, world.lake, wait=True)
    (identity,) = world.sql("SELECT ledger::text FROM etl.identity")[0]
    lose(warehouse, world.engine)

    ensure_ledger(again.engine)
    again.load(other, "x", [(1, "x", 1)])
    with pytest.raises(ConfigError, match="has a ledger of its own"):
        rebuild(again.engine, again.lake, spec, actor="me")
    again.load(spec, "y", [(1, "y", 1)])
    copy_ledger(again.engine, again.lake, wait=True)
    lose(warehouse, again.engine)

    with pytest.raises(ConfigError, match="copies of 2 ledgers"):
        rebuild(again.engine, again.lake, spec, actor="me")
    with pytest.raises(ConfigError, match="no copy of a ledger nonsense"):
        rebuild(again.engine, again.lake, spec, actor="me", ledger="nonsense")
    path = sorted((again.root / "lake" / "clean").rglob("*.parquet"))
    contents = {one: one.read_bytes() for one in path}
    for one in path:
        one.unlink()
    with pytest.raises(ContractBroken, match="is missing"):
        rebuild(again.engine, again.lake, spec, actor="me", ledger=identity)
    with pytest.raises(LoadConflict, match="being made again from the lake, by me"):
        open_dataset(again.engine, spec.name, "run")
    for one, content in contents.items():
        one.write_bytes(content)
    assert rebuild(again.engine, again.lake, spec, actor="me").loads == 3
    assert again.broken(spec) == set()
    changed = make_spec(options={"delete": FLAG})
    lose(warehouse, again.engine)
    with pytest.raises(ContractBroken, match="load 2 does something else than then"):
        rebuild(again.engine, again.lake, changed, actor="me", ledger=identity)
    with session(again.engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM etl.loads")
        assert cursor.fetchone() == (1,)
    assert make_partition("p0").fingerprint
