"""A small world to load into: a warehouse, a lake, and builders of what the other stages make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import LocalStore
from psycopg2 import sql
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.warehouse import WarehouseCredentials
from tasks.lake import manifest_key, publish_manifest, store_file
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.publish import Load, load_partition
from tasks.loading.reconcile import Check, reconcile
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile, Manifest, QuarantineReason
from tasks.model.partition import Partition, SourceItem
from tasks.model.report import LoadReceipt
from tasks.quarantine import QuarantineWriter, RefusedRow

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
SMALL = {
    "id": {"type": "int64", "nullable": False},
    "name": {"type": "string"},
    "seen": {"type": "int64"},
}
SMALL_ARROW = pa.schema([("id", pa.int64()), ("name", pa.string()), ("seen", pa.int64())])


def make_spec(
    columns: Mapping[str, Any] | None = None,
    *,
    name: str = "things",
    mode: str = "merge",
    key: Iterable[str] = ("id",),
    cursor: str | None = "seen",
    search: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> DatasetSpec:
    """Return a dataset; by default one of (id, name, seen) merged by id, the newest by seen."""
    load: dict[str, Any] = {"table": f"analytics.{name}", "mode": mode, **(options or {})}
    if search:
        load["index"] = {"search": list(search)}
    return DatasetSpec.model_validate(
        {
            "name": name,
            "description": "A dataset of the tests",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": list(key),
            "cursor": cursor,
            "columns": dict(columns or SMALL),
            "load": load,
            **more,
        }
    )


def make_partition(label: str, dataset: str = "things", **more: Any) -> Partition:
    """Return a partition of one file, whose content its label stands for."""
    item = SourceItem(uri=f"file:///{label}.csv", version=f"sha-{label}", bytes=10)
    return Partition(**{"dataset": dataset, "label": label, "items": (item,), **more})


def rows_table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema = SMALL_ARROW) -> pa.Table:
    """Return rows as the Arrow table of a clean file."""
    columns = list(zip(*rows, strict=True)) or [() for _ in schema.names]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def refused(rule: str, count: int, uri: str) -> list[RefusedRow]:
    """Return rows for quarantine."""
    return [
        RefusedRow(uri, row, rule, "name", f"breaks {rule}", f"name: breaks {rule}", '{"id": "x"}')
        for row in range(count)
    ]


class World:
    """A warehouse and a lake, seen by one process."""

    def __init__(self, engine: Engine, lake: Lake, root: Path) -> None:
        self.engine, self.lake, self.root = engine, lake, root
        self.scratch = root / "scratch"
        self.scratch.mkdir(exist_ok=True)

    def manifest(
        self,
        spec: DatasetSpec,
        partition: Partition,
        *tables: pa.Table,
        duplicates: int = 0,
        bad: Mapping[str, int] | None = None,
        columns_added: tuple[str, ...] = (),
        row_group: int = 1000,
    ) -> tuple[str, Manifest]:
        """Store clean and quarantine files and their manifests, as the stages before do it."""
        files = tuple(
            self._clean(spec, table, f"{position}", row_group)
            for position, table in enumerate(tables)
            if table.num_rows
        )
        quarantine, reasons = self._quarantine(spec, partition, bad or {})
        refused_rows = sum(file.rows for file in quarantine)
        read = sum(file.rows for file in files) + duplicates + refused_rows
        common: dict[str, Any] = {
            "dataset": spec.name,
            "fingerprint": partition.fingerprint,
            "config_hash": spec.config_hash,
            "files": files,
            "quarantine": quarantine,
            "rows_read": read,
            "rows_quarantined": refused_rows,
            "rows_deduplicated": duplicates,
            "reasons": reasons,
            "created_at": CREATED,
            "seconds": 0.0,
        }
        self._raw(spec, partition, read, common)
        manifest = Manifest(stage="transformation", columns_added=columns_added, **common)
        key = manifest_key("transformation", spec.name, partition.fingerprint, "ab" * 32)
        return key, publish_manifest(self.lake, key, manifest)

    def _raw(
        self, spec: DatasetSpec, partition: Partition, read: int, common: dict[str, Any]
    ) -> None:
        path = self.scratch / "raw.parquet"
        pq.write_table(
            pa.table({"line": [f"{partition.label} {row}" for row in range(read)]}), path
        )
        files = (store_file(self.lake, "raw", spec.name, path, read),)
        nothing: dict[str, Any] = {"quarantine": (), "rows_quarantined": 0, "reasons": ()}
        raw = {**common, **nothing, "files": files, "rows_deduplicated": 0}
        key = manifest_key("ingestion", spec.name, partition.fingerprint, "cd" * 32)
        publish_manifest(self.lake, key, Manifest(stage="ingestion", **raw))

    def _clean(self, spec: DatasetSpec, table: pa.Table, name: str, row_group: int) -> LakeFile:
        path = self.scratch / f"clean-{name}.parquet"
        pq.write_table(table, path, row_group_size=row_group)
        return store_file(self.lake, "clean", spec.name, path, table.num_rows)

    def _quarantine(
        self, spec: DatasetSpec, partition: Partition, bad: Mapping[str, int]
    ) -> tuple[tuple[LakeFile, ...], tuple[QuarantineReason, ...]]:
        writer = QuarantineWriter(self.scratch / "refused.parquet", "transformation")
        for rule, count in bad.items():
            writer.append(refused(rule, count, f"file:///{partition.label}.csv"))
        return writer.store(self.lake, spec.name), writer.reasons

    def open(self, spec: DatasetSpec, run: str = "run-1") -> int:
        """Open the dataset for a run."""
        ensure_ledger(self.engine)
        return open_dataset(self.engine, spec.name, run)

    def prepared(
        self,
        spec: DatasetSpec,
        partition: Partition,
        *tables: pa.Table,
        fence: int | None = None,
        run: str = "run-1",
        lookups: Mapping[str, DatasetSpec] | None = None,
        **of_manifest: Any,
    ) -> Load:
        """Return a load that is ready to be published."""
        key, manifest = self.manifest(spec, partition, *tables, **of_manifest)
        return Load(
            spec=spec,
            lookups=lookups or {},
            partition=partition,
            manifest=manifest,
            manifest_key=key,
            run=run,
            fence=self.open(spec, run) if fence is None else fence,
            code_version="test",
        )

    def publish(
        self, load: Load, on_step: Callable[[str], None] = lambda _step: None
    ) -> LoadReceipt:
        """Publish a prepared load."""
        return load_partition(self.engine, self.lake, self.scratch, load, on_step=on_step)

    def load(
        self, spec: DatasetSpec, label: str, rows: Iterable[tuple[Any, ...]], **more: Any
    ) -> LoadReceipt:
        """Load rows of (id, name, seen) as a partition."""
        partition = make_partition(label, spec.name)
        return self.publish(self.prepared(spec, partition, rows_table(rows), **more))

    def sql(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any."""
        with session(self.engine) as connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self, spec: DatasetSpec, columns: str = "id, name, seen") -> list[tuple[Any, ...]]:
        """Return the rows of the dataset's table, in key order."""
        with session(self.engine) as connection:
            table = sql.Identifier(spec.schema_name, spec.table_name).as_string(connection)
        return self.sql(f"SELECT {columns} FROM {table} ORDER BY 1")

    def reconcile(self, spec: DatasetSpec) -> list[Check]:
        """Check all invariants."""
        return reconcile(self.engine, self.lake, spec, 10_000)

    def broken(self, spec: DatasetSpec) -> set[str]:
        """Return the names of the invariants that do not hold."""
        return {check.invariant for check in self.reconcile(spec) if not check.holds}


def make_lake(root: Path) -> Lake:
    """Return a lake in a local folder."""
    root.mkdir(parents=True, exist_ok=True)
    return Lake(LocalStore(root), root)


@pytest.fixture
def world(warehouse: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    """A warehouse and a lake, both empty."""
    engine = warehouse.get_engine("test")
    yield World(engine, make_lake(tmp_path / "lake"), tmp_path)
    engine.dispose()
