"""The stages one after the other, without Prefect: what a flow does with one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg2 import sql
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.files import FilesConnector
from tasks.ingestion.planning import plan_partitions
from tasks.ingestion.read import ingest_partition
from tasks.lake import manifest_key
from tasks.loading.ledger import open_dataset, session, source_state
from tasks.loading.publish import Load, load_partition
from tasks.loading.schema import target
from tasks.model.dataset import DatasetSpec
from tasks.model.run import LoadReceipt, Manifest, Partition, RunRequest
from tasks.model.source import FilesSource
from tasks.transformation.execute import STAGE, transform_partition, transformation_identity
from tasks.transformation.snapshot import lookup_columns, snapshot_lookup

MEMORY = 128 << 20
WHAT_IS_NEW = RunRequest()


@dataclass
class Pipeline:
    """A warehouse, a lake, and what it takes to run datasets through them."""

    engine: Engine
    lake: Lake
    scratch: Path
    base: Path
    lookups: Mapping[str, DatasetSpec] = field(default_factory=dict)
    limits: PlanLimits = field(default_factory=PlanLimits)

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, FilesSource)
        return FilesConnector(spec.name, spec.source, self.base, self.limits, len(spec.columns))

    def plan(
        self, spec: DatasetSpec, request: RunRequest = WHAT_IS_NEW, run_id: str = "test"
    ) -> list[Partition]:
        state = source_state(self.engine, spec.name)
        return plan_partitions(self.connector(spec), spec, state, request, run_id)

    def transform(self, spec: DatasetSpec, partition: Partition) -> tuple[str, Manifest]:
        if partition.deletes_up_to is not None:
            spec = spec.keys_only()
        raw = ingest_partition(self.connector(spec), partition, spec, self.lake, self.scratch)
        snapshots = {
            name: snapshot_lookup(
                self.engine, self.lake, self.scratch, lookup, lookup_columns(lookup, [spec])
            )
            for name, lookup in self.lookups.items()
            if name in spec.dependencies
        }
        clean = transform_partition(
            spec, raw, snapshots, self.lake, self.scratch, memory_bytes=MEMORY
        )
        identity = transformation_identity(spec, raw, snapshots)
        return manifest_key(STAGE, spec.name, raw.fingerprint, identity), clean

    def run(
        self, spec: DatasetSpec, run: str = "test", request: RunRequest = WHAT_IS_NEW
    ) -> list[LoadReceipt]:
        """Load what is asked for."""
        fence = open_dataset(self.engine, spec.name, run, request.purpose)
        receipts = []
        for partition in self.plan(spec, request, run):
            key, clean = self.transform(spec, partition)
            load = Load(
                spec=spec,
                lookups=self.lookups,
                partition=partition,
                manifest=clean,
                manifest_key=key,
                run=run,
                fence=fence,
                code_version="test",
                purpose=request.purpose,
            )
            receipts.append(load_partition(self.engine, self.lake, self.scratch, load))
        return receipts

    def rows(self, spec: DatasetSpec) -> list[dict[str, Any]]:
        """Return the rows of a dataset's table in the order of its key."""
        names = [*spec.columns, *(column for lookup in spec.enrich for column in lookup.take)]
        statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            target(spec),
            sql.SQL(", ").join(map(sql.Identifier, spec.key or names)),
        )
        with session(self.engine) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
