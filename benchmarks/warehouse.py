"""A warehouse for benchmarks that load, and what they ask it about their own work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from obstore.store import LocalStore
from pydantic import SecretStr
from sqlalchemy import Engine, text

from blocks.lake import Lake
from blocks.warehouse import WarehouseCredentials
from embedded.stack import EmbeddedStack
from tasks.lake import store_file
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.publish import Load
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition, SourceItem

SERVER_SETTINGS = {"max_wal_size": "16GB", "checkpoint_timeout": "30min", "autovacuum": "off"}
"""Checkpoints, or a vacuum of the last contender's table, in the middle of the next would be noise."""


@dataclass(frozen=True)
class Bench:
    """A warehouse and a lake.

    Attributes:
        folder: For files.
        credentials: Of the warehouse.
        engine: The warehouse as loads use it.
        lake: A lake on this disk.
    """

    folder: Path
    credentials: WarehouseCredentials
    engine: Engine
    lake: Lake

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own; return its rows."""
        with session(self.engine) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def load(self, spec: DatasetSpec, files: Sequence[Path], label: str) -> Load:
        """Return the load of clean Parquet files, which go into the lake, as one partition."""
        item = SourceItem(uri=f"file:///{label}", version=label, bytes=1)
        partition = Partition(dataset=spec.name, label=label, items=(item,))
        kept = tuple(
            store_file(self.lake, "clean", spec.name, file, pq.read_metadata(file).num_rows)
            for file in files
        )
        manifest = Manifest(
            stage="transformation",
            dataset=spec.name,
            fingerprint=partition.fingerprint,
            config_hash=spec.config_hash,
            files=kept,
            quarantine=(),
            rows_read=sum(file.rows for file in kept),
            rows_deduplicated=0,
            rows_quarantined=0,
            created_at=datetime.now(UTC),
            seconds=0.0,
        )
        key = f"manifests/{partition.fingerprint}.json"
        fence = open_dataset(self.engine, spec.name, label)
        return Load(
            spec=spec, lookups={}, partition=partition, manifest=manifest,
            manifest_key=key, run=label, fence=fence, code_version="benchmark",
        )  # fmt: skip


@contextmanager
def warehouse() -> Iterator[Bench]:
    """Start a warehouse that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="dpp-bench-") as root,
        EmbeddedStack(Path(root) / "servers") as stack,
    ):
        stack.start("postgres")
        address = stack.postgres
        credentials = WarehouseCredentials(
            host=address.host, port=address.port, database="postgres", username=address.user,
            password=SecretStr(address.password), sslmode="disable",
        )  # fmt: skip
        engine = credentials.get_engine("benchmark")
        with engine.connect() as connection:
            outside = connection.execution_options(isolation_level="AUTOCOMMIT")
            for name, value in SERVER_SETTINGS.items():
                outside.execute(text(f"ALTER SYSTEM SET {name} = '{value}'"))
            outside.execute(text("SELECT pg_reload_conf()"))
        ensure_ledger(engine)
        lake = Path(root) / "lake"
        lake.mkdir()
        try:
            yield Bench(Path(root), credentials, engine, Lake(LocalStore(lake), lake))
        finally:
            engine.dispose()
