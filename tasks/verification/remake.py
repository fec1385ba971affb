"""Files of the lake that are missing or damaged, made again from the source as they were.

What is made goes into a lake of its own first. A file takes its place again only if it has the very
SHA-256 that its manifest names; nothing else is believed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from obstore.store import LocalStore
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import Connector
from tasks.ingestion.connectors.replay import ReplayConnector
from tasks.ingestion.read import STAGE as INGESTION
from tasks.ingestion.read import ingest_partition, ingestion_identity
from tasks.lake import manifest_key, publish_manifest, read_manifest
from tasks.loading.lake_checks import damage_of, raw_manifest
from tasks.loading.loaded import Loaded, loaded_partitions
from tasks.loading.session import session
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition, SourceItem
from tasks.model.replay import replay_of
from tasks.model.request import SourceState
from tasks.model.rest_source import RestSource
from tasks.model.source import FilesSource
from tasks.protection import UNPROTECTED, Protection
from tasks.transformation.execute import STAGE as TRANSFORMATION
from tasks.transformation.execute import transform_partition, transformation_identity
from tasks.verification.inventory import Inventory, find_items, inventory
from tasks.verification.source import listed_span

RESTORE = "restore the lake from a backup, or take the load back (dpp unload) and run again"
Snapshots = Callable[[Lake], dict[str, LakeFile]]
"""Takes what a dataset looks up, into a lake."""

log = structlog.get_logger("dpp.verification")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What it takes to do the stages of a dataset again.

    Attributes:
        spec: The dataset.
        lake: The lake that lacks something.
        connector: Reads the source.
        snapshots: Takes what is looked up.
        scratch: Folder for what is made.
        memory_bytes: What the transformation may take.
        protection: Protects the columns marked ``pii`` of refused rows.
    """

    spec: DatasetSpec
    lake: Lake
    connector: Connector
    snapshots: Snapshots
    scratch: Path
    memory_bytes: int
    protection: Protection = UNPROTECTED


@dataclass(frozen=True, slots=True)
class Remade:
    """Files of one load that are there again."""

    load_id: int
    files: int


def remake_files(engine: Engine, workshop: Workshop, retention_days: int) -> list[Remade]:
    """Make again what the lake lacks of the loads of a dataset, as far as it must still have it.

    Raises:
        ContractBroken: It cannot be made as it was; the message names the load and the reason. What was
            made of loads before is in its place.
    """
    spec = workshop.spec
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        loads = [one for one in loaded_partitions(cursor, spec) if one.row.loaded_at >= oldest]
    workshop.scratch.mkdir(parents=True, exist_ok=True)
    listed: list[Inventory] = []
    made = []
    for load in loads:
        folder = Path(tempfile.mkdtemp(prefix="remake-", dir=workshop.scratch))
        try:
            files = _Load(workshop, loads, load, folder, listed).remake()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if files:
            log.info("lake.remade", dataset=spec.name, load_id=load.row.load_id, files=files)
            made.append(Remade(load.row.load_id, files))
    return made


@dataclass
class _Load:
    """One load, and what is made of it again."""

    workshop: Workshop
    loads: Sequence[Loaded]
    load: Loaded
    folder: Path
    listed: list[Inventory]

    def remake(self) -> int:
        """Put what is missing of the load in its place; return the number of files."""
        workshop, row = self.workshop, self.load.row
        clean = read_manifest(workshop.lake, row.manifest_key)
        if clean is None or clean.digest != row.manifest_digest:
            raise self._refused("its manifest is missing, or is not the one that was loaded")
        raw = raw_manifest(workshop.lake, workshop.spec, row)
        lost_raw = {} if raw is None else self._damaged(raw.all_files)
        lost = self._damaged(file for file in clean.all_files if file.key not in lost_raw)
        if raw is not None and not lost_raw and not lost:
            return 0
        root, work = self.folder / "lake", self.folder / "work"
        root.mkdir()
        work.mkdir()
        own = Lake(LocalStore(root), root)
        if raw is None or lost_raw:
            again = self._ingest(own, work)
            self._put_back(own, lost_raw, again)
            if raw is None:
                for file in again.all_files:
                    workshop.lake.put_file(own.local_path(file.key, work), file.key)
                identity = ingestion_identity(self._spec)
                key = manifest_key(INGESTION, self._spec.name, row.fingerprint, identity)
                publish_manifest(workshop.lake, key, again)
        else:
            again = raw
            for file in raw.all_files:
                own.put_file(workshop.lake.local_path(file.key, work), file.key)
        if lost:
            self._put_back(own, lost, self._transform(own, work, again))
        return len(lost_raw) + len(lost) + (raw is None)

    @property
    def _spec(self) -> DatasetSpec:
        keys_only = self.load.row.deletes_up_to is not None
        return self.workshop.spec.keys_only() if keys_only else self.workshop.spec

    def _refused(self, why: str) -> ContractBroken:
        return ContractBroken(
            f"{self.workshop.spec.name}: files of load {self.load.row.load_id} "
            f"({self.load.row.label}) are missing or damaged in the lake, and cannot be made again: "
            f"{why}",
            RESTORE,
        )

    def _damaged(self, files: Iterable[LakeFile]) -> dict[str, LakeFile]:
        scratch = self.folder
        return {file.key: file for file in files if damage_of(self.workshop.lake, file, scratch)}

    def _put_back(self, own: Lake, lost: Mapping[str, LakeFile], made: Manifest) -> None:
        """Put files in their place, each only with the content that it had."""
        contents = {file.sha256: file for file in made.all_files}
        if other := [file for file in lost.values() if file.sha256 not in contents]:
            raise self._refused(f"{other[0].key} would have another content than then")
        for file in lost.values():
            path = own.local_path(contents[file.sha256].key, self.folder)
            self.workshop.lake.delete(file.key)  # a damaged one of the same size would be kept
            self.workshop.lake.put_file(path, file.key)

    def _ingest(self, own: Lake, work: Path) -> Manifest:
        partition = self._partition()
        workshop = self.workshop
        connector = workshop.connector
        if replay_of(partition):
            connector = ReplayConnector(self._spec, workshop.lake, work, workshop.protection)
        try:
            made = ingest_partition(
                connector, partition, self._spec, own, work, protection=workshop.protection
            )
        except SourceRejected as error:
            raise self._refused(error.message) from None
        if made.rows_read != self.load.row.read:
            raise self._refused(
                f"the source gives {made.rows_read} rows, and gave {self.load.row.read} then"
            )
        return made

    def _partition(self) -> Partition:
        """Return the partition of the load, whose objects still have the content that they had."""
        spec, load = self.workshop.spec, self.load
        if isinstance(spec.source, RestSource) and not load.is_replay:
            raise self._refused("an API answers with what it has today")
        items: tuple[SourceItem, ...] = ()
        if isinstance(spec.source, DatabaseSource):
            items = tuple(SourceItem(uri=one[0], version=one[1]) for one in sorted(load.items))
        elif not load.is_replay:
            items = self._items()
        partition = load.partition(spec.name, items)
        if partition is None:
            raise self._refused("the ledger does not say which part of the source it read")
        return partition

    def _items(self) -> tuple[SourceItem, ...]:
        spec = self.workshop.spec
        if not self.listed:
            span = listed_span(spec, self.loads)
            plan = self.workshop.connector.plan(SourceState(window=span))
            by_content = isinstance(spec.source, FilesSource)
            self.listed.append(inventory(plan, content_versions=by_content))
        found = find_items(self.load.items, self.listed[0], ())
        if found.differences:
            raise self._refused(found.differences[0].split(", and its new")[0])
        if found.cut or found.renamed:
            raise self._refused("its objects have other names today, or are cut into other parts")
        return found.there

    def _transform(self, own: Lake, work: Path, raw: Manifest) -> Manifest:
        workshop, spec = self.workshop, self._spec
        if any(lookup.api for lookup in spec.enrich):
            raise self._refused("it looked something up in an API")
        snapshots = workshop.snapshots(own) if spec.lookups else {}
        identity = transformation_identity(spec, raw, snapshots)
        key = manifest_key(TRANSFORMATION, spec.name, raw.fingerprint, identity)
        if key != self.load.row.manifest_key:
            raise self._refused(
                "they were made of other raw rows, under another dataset file, or with other rows of "
                "what it looks up"
            )
        return transform_partition(
            spec,
            raw,
            snapshots,
            own,
            work,
            memory_bytes=workshop.memory_bytes,
            protection=workshop.protection,
        )
