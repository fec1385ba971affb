"""The stages one after the other, without Prefect: what a flow does with one dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from psycopg2 import sql
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.files import FilesConnector
from tasks.ingestion.connectors.replay import ReplayConnector
from tasks.ingestion.planning import plan_partitions
from tasks.ingestion.read import ingest_partition
from tasks.lake import manifest_key
from tasks.loading.ledger import open_dataset
from tasks.loading.ledger_state import source_state
from tasks.loading.publish import Load, load_partition
from tasks.loading.schema import target
from tasks.loading.session import session
from tasks.loading.whole import load_whole
from tasks.lookups.rows import rows_of, take_rows
from tasks.lookups.snapshot import snapshot_table
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.load import ReplaceLoad
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.model.replay import ReplayRequest, replay_of
from tasks.model.report import LoadReceipt
from tasks.model.request import Purpose, RunRequest, SourceState
from tasks.model.source import FilesSource
from tasks.protection import UNPROTECTED, Protection
from tasks.replay.plan import plan_replay
from tasks.transformation.enrich import lookup_columns
from tasks.transformation.execute import STAGE, transform_partition, transformation_identity

MEMORY = 128 << 20
WHAT_IS_NEW = RunRequest()


@dataclass
class Pipeline:
    """A warehouse, a lake, and what it takes to run datasets through them."""

    engine: Engine
    lake: Lake
    scratch: Path
    base: Path
    lookups: Mapping[str, LookedUp] = field(default_factory=dict)
    limits: PlanLimits = field(default_factory=PlanLimits)
    protection: Protection = UNPROTECTED

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, FilesSource)
        limits = self.limits.whole_objects() if spec.load.whole_objects else self.limits
        return FilesConnector(spec.name, spec.source, self.base, limits, len(spec.columns))

    def plan(
        self, spec: DatasetSpec, request: RunRequest = WHAT_IS_NEW, run_id: str = "test"
    ) -> list[Partition]:
        state = source_state(self.engine, spec.name)
        return plan_partitions(self.connector(spec), spec, state, request, run_id)

    def transform(self, spec: DatasetSpec, partition: Partition) -> tuple[str, Manifest]:
        if partition.deletes_up_to is not None:
            spec = spec.keys_only()
        connector: Connector = (
            ReplayConnector(spec, self.lake, self.scratch, self.protection)
            if replay_of(partition)
            else self.connector(spec)
        )
        raw = ingest_partition(
            connector, partition, spec, self.lake, self.scratch, protection=self.protection
        )
        snapshots = {
            name: self._snapshot(spec, name, looked_up)
            for name, looked_up in self._looked_up(spec).items()
            if name in {lookup.lookup for lookup in spec.lookups}
        }
        clean = transform_partition(
            spec,
            raw,
            snapshots,
            self.lake,
            self.scratch,
            memory_bytes=MEMORY,
            protection=self.protection,
        )
        identity = transformation_identity(spec, raw, snapshots)
        return manifest_key(STAGE, spec.name, raw.fingerprint, identity), clean

    def _looked_up(self, spec: DatasetSpec) -> dict[str, LookedUp]:
        own = {lookup.lookup: lookup for lookup in spec.enrich if not lookup.is_dataset}
        return {**{name: self.lookups[name] for name in spec.dependencies}, **own}

    def _snapshot(self, spec: DatasetSpec, name: str, looked_up: LookedUp) -> LakeFile:
        columns = lookup_columns(name, looked_up, [spec])
        if isinstance(looked_up, DatasetSpec) or looked_up.table:
            return snapshot_table(self.engine, self.lake, self.scratch, name, looked_up, columns)
        rows = rows_of(spec.name, looked_up)
        connector = self.connector(rows)
        folder = Path(mkdtemp(dir=self.scratch))
        planned = connector.plan(SourceState())
        return take_rows(rows, columns, connector, planned, self.lake, folder, memory_bytes=MEMORY)

    def replay(
        self,
        spec: DatasetSpec,
        request: ReplayRequest,
        run: str = "replay",
        *,
        partition_rows: int = 20_000,
        on_step: Callable[[int, str], None] = lambda _number, _step: None,
    ) -> list[LoadReceipt]:
        """Replay refused rows; ``on_step`` is told the number of each partition and its steps."""
        fence = open_dataset(self.engine, spec.name, run, request.purpose)
        made = plan_replay(self.engine, self.lake, spec, request, self.protection, partition_rows)
        receipts = []
        for number, partition in enumerate(made.partitions):
            key, clean = self.transform(spec, partition)
            load = self._load(spec, partition, key, clean, run, fence, request.purpose)
            receipts.append(
                load_partition(
                    self.engine,
                    self.lake,
                    self.scratch,
                    load,
                    on_step=lambda step, number=number: on_step(number, step),  # type: ignore[misc]
                )
            )
        return receipts

    def load_of(self, spec: DatasetSpec, partition: Partition, run: str, fence: int) -> Load:
        """Take a partition up to its load, and return that."""
        key, clean = self.transform(spec, partition)
        return self._load(spec, partition, key, clean, run, fence, "run")

    def _load(
        self,
        spec: DatasetSpec,
        partition: Partition,
        key: str,
        clean: Manifest,
        run: str,
        fence: int,
        purpose: Purpose,
    ) -> Load:
        return Load(
            spec=spec,
            lookups=self._looked_up(spec),
            partition=partition,
            manifest=clean,
            manifest_key=key,
            run=run,
            fence=fence,
            code_version="test",
            purpose=purpose,
        )

    def run(
        self, spec: DatasetSpec, run: str = "test", request: RunRequest = WHAT_IS_NEW
    ) -> list[LoadReceipt]:
        """Load what is asked for."""
        fence = open_dataset(self.engine, spec.name, run, request.purpose)
        loads = (
            self._load(
                spec, partition, *self.transform(spec, partition), run, fence, request.purpose
            )
            for partition in self.plan(spec, request, run)
        )
        if isinstance(spec.load, ReplaceLoad):
            together = list(loads)
            return load_whole(self.engine, self.lake, self.scratch, together) if together else []
        return [load_partition(self.engine, self.lake, self.scratch, load) for load in loads]

    def rows(self, spec: DatasetSpec) -> list[dict[str, Any]]:
        """Return the rows of a dataset's table in the order of its key."""
        names = [*spec.columns, *spec.derive, *spec.taken_columns]
        statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            target(spec),
            sql.SQL(", ").join(map(sql.Identifier, spec.key or names)),
        )
        with session(self.engine) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
