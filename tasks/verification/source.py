"""The source read again, and compared with what the lake has of it, load by load.

Each partition is read through its connector into a lake of its own, which is thrown away; so memory is
bounded as it is in ingestion, and disk by the size of a partition.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from obstore.store import LocalStore
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import Connector
from tasks.ingestion.read import ingest_partition
from tasks.loading.checks import Check, PartitionSums, check
from tasks.loading.lake_checks import damage_of, raw_manifest
from tasks.loading.ledger_state import source_state
from tasks.loading.loaded import Loaded, loaded_partitions
from tasks.loading.session import session
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import SourceRejected
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import SourceState, Window
from tasks.model.rest_source import RestSource
from tasks.model.source import FilesSource, S3Source
from tasks.protection import Protection, pii_columns
from tasks.verification.inventory import Found, Inventory, find_items, inventory
from tasks.verification.row_sets import RowSets, RowWords

SAME = "as it was read"
REMEDY = (
    "the lake and the table have what was read then. dpp run loads objects that were changed; rows "
    "that came into a window late, or were changed in it: dpp backfill, or dpp run --refresh"
)
LOADS_SHOWN = 5

log = structlog.get_logger("dpp.verification")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is to be read again of a load.

    Attributes:
        partition: It.
        uris: Origins of its rows, where only some of its objects are there; None for all.
    """

    partition: Partition
    uris: frozenset[str] | None = None


@dataclass
class _SourceCheck:
    lake: Lake
    spec: DatasetSpec
    connector: Connector
    protection: Protection | None
    scratch: Path
    sets: RowSets
    sums: list[PartitionSums] = field(default_factory=list)
    differences: dict[int, list[str]] = field(default_factory=dict)
    skipped: dict[str, list[int]] = field(default_factory=dict)
    raw: dict[int, Manifest] = field(default_factory=dict)

    def skip(self, load: Loaded, why: str) -> None:
        self.skipped.setdefault(why, []).append(load.row.load_id)

    def differ(self, load: Loaded, *lines: str) -> None:
        self.differences.setdefault(load.row.load_id, []).extend(lines)

    def compare(self, load: Loaded, reading: _Reading) -> None:
        """Read a partition again, and compare its rows with the lake's."""
        load_id, raw = load.row.load_id, self.raw.get(load.row.load_id)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            lake_paths = None if raw is None else self._local(raw, folder)
            if raw is None or lake_paths is None:
                self.skip(load, "its raw rows are missing from the lake, or damaged")
                return
            again, paths = self.read(reading.partition, folder)
            there = self.sets.sums(lake_paths, reading.uris)
            same_files = [f.sha256 for f in again.files] == [f.sha256 for f in raw.files]
            found = there if same_files else self.sets.sums(paths)
            if found != there:
                self.sets.compare(load_id, lake_paths, paths, reading.uris)
            if reading.uris is None and again.rows_quarantined != raw.rows_quarantined:
                self.differ(
                    load,
                    f"{again.rows_quarantined} records cannot be read now, {raw.rows_quarantined} "
                    "could not then",
                )
            self.sums.append(
                PartitionSums(
                    load_id=load_id,
                    label=load.row.label,
                    expected_rows=there.rows,
                    expected_checksum=there.checksum,
                    found_rows=found.rows,
                    found_checksum=found.checksum,
                )
            )
        except SourceRejected as error:
            self.differ(load, error.message)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def read(self, partition: Partition, folder: Path) -> tuple[Manifest, list[Path]]:
        """Read a partition into a lake of its own."""
        root = folder / "lake"
        work = folder / "work"
        root.mkdir()
        work.mkdir()
        own = Lake(LocalStore(root), root)
        made = ingest_partition(
            self.connector, partition, self.spec, own, work, protection=self.protection
        )
        return made, [own.local_path(file.key, work) for file in made.files]

    def _local(self, raw: Manifest, folder: Path) -> list[Path] | None:
        """Return the raw files of a load on this machine; None if one is not as it was written."""
        if any(damage_of(self.lake, file, folder) for file in raw.files):
            return None
        return [self.lake.local_path(file.key, folder) for file in raw.files]

    def look_elsewhere(self, pending: Sequence[Partition]) -> None:
        """Look for rows that left a window in later loads, and in what the next run will read."""
        if not self.sets.differing():
            return
        for load_id, raw in self.raw.items():
            folder = Path(tempfile.mkdtemp(dir=self.scratch))
            if paths := self._local(raw, folder):
                self.sets.look_elsewhere(load_id, paths)
            shutil.rmtree(folder, ignore_errors=True)
        last = max(self.raw, default=0)
        for partition in pending:
            if partition.deletes_up_to is None:
                folder = Path(tempfile.mkdtemp(dir=self.scratch))
                _, paths = self.read(partition, folder)
                self.sets.look_elsewhere(last + 1, paths)
                shutil.rmtree(folder, ignore_errors=True)


def check_source(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    connector: Connector,
    scratch: Path,
    *,
    since: datetime | None = None,
    protection: Protection | None = None,
) -> list[Check]:
    """Read again what was loaded, and compare it with the lake: counts, checksums, and each row.

    Args:
        engine: The warehouse, for the ledger.
        lake: The lake.
        spec: The dataset.
        connector: Reads its source; a database without a snapshot shared between partitions.
        scratch: Folder for what is read.
        since: Leave out loads before this moment.
        protection: Protects the columns marked ``pii`` of what cannot be read.

    Raises:
        SourceUnavailable: The source does not answer.
        CredentialsRejected: It refuses the credentials.
    """
    if isinstance(spec.source, RestSource):
        why = "not compared with the source: an API answers with what it has today"
        return [check(spec, "I11", why, "–", "–")]
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        loads = loaded_partitions(cursor, spec)
    asked = [load for load in loads if since is None or load.row.loaded_at >= since]
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="source-", dir=scratch) as folder:
        words = RowWords(_key_in_source(spec), pii_columns(spec))
        sets = RowSets(Path(folder), words)
        try:
            made = _SourceCheck(lake, spec, connector, protection, Path(folder), sets)
            for load in loads:
                found = raw_manifest(lake, spec, load.row)
                if found and not found.child:
                    made.raw[load.row.load_id] = found
            for load, reading in _readings(made, loads, asked):
                log.info("verification.reading", load_id=load.row.load_id, partition=load.row.label)
                made.compare(load, reading)
            if isinstance(spec.source, DatabaseSource) and spec.source.cursor and sets.differing():
                made.look_elsewhere(connector.plan(source_state(engine, spec.name)))
            return list(_verdicts(made))
        finally:
            sets.close()


def _key_in_source(spec: DatasetSpec) -> tuple[str, ...]:
    if not spec.key or any(spec.columns[name].path for name in spec.key if name in spec.columns):
        return ()
    return spec.source_key if set(spec.key) <= set(spec.columns) else ()


def _readings(
    made: _SourceCheck, loads: Sequence[Loaded], asked: Sequence[Loaded]
) -> Iterator[tuple[Loaded, _Reading]]:
    """Yield what is to be read again; note what has become of the rest."""
    asked = list(_of_source(made, asked))
    if isinstance(made.spec.source, DatabaseSource):
        yield from _windows(made, loads, asked)
        return
    if not asked:
        return
    plan = made.connector.plan(SourceState(window=listed_span(made.spec, loads)))
    listed = inventory(plan, content_versions=isinstance(made.spec.source, FilesSource))
    committed = {identity[:2] for load in loads for identity in load.items}
    for load in asked:
        if not load.items:
            made.skip(load, "a later load has loaded its objects again")
        elif reading := _of_objects(made, load, listed, committed):
            yield load, reading


def _of_source(made: _SourceCheck, asked: Sequence[Loaded]) -> Iterator[Loaded]:
    for load in asked:
        if load.is_replay:
            made.skip(load, "replays of refused rows, which an earlier load read")
        elif load.row.deletes_up_to is not None:
            made.skip(load, "keys only, to find rows that are gone")
        else:
            yield load


def _windows(
    made: _SourceCheck, loads: Sequence[Loaded], asked: Sequence[Loaded]
) -> Iterator[tuple[Loaded, _Reading]]:
    newest = max(((load.row.slice or {}).get("as_of", "") for load in loads), default="")
    for load in asked:
        partition = load.partition(made.spec.name, _items_of_window(load))
        if load.row.slice is None or partition is None:
            made.skip(load, "the ledger does not say which window it read")
        elif load.row.slice.get("as_of", newest) != newest:
            made.skip(load, "the whole source was read again by a later load")
        else:
            yield load, _Reading(partition)


def _items_of_window(load: Loaded) -> tuple[SourceItem, ...]:
    return tuple(SourceItem(uri=item[0], version=item[1]) for item in sorted(load.items))


def _of_objects(
    made: _SourceCheck, load: Loaded, listed: Inventory, committed: Collection[tuple[str, ...]]
) -> _Reading | None:
    found: Found = find_items(load.items, listed, {(i[0], i[1]) for i in committed})
    if found.differences:
        made.differ(load, *found.differences)
    if found.replaced:
        made.skip(load, "newer versions of its objects were loaded since")
    if found.cut:
        made.skip(load, "its objects are cut into other parts today (partition_bytes)")
    if not found.there:
        return None
    partition = Partition(dataset=made.spec.name, label=load.row.label, items=found.there)
    if len(found.there) == len(load.items):
        return _Reading(partition)
    origins = frozenset(
        item.model_copy(update={"uri": found.renamed.get(item.uri, item.uri)}).origin
        for item in found.there
    )
    return _Reading(partition, origins)


def listed_span(spec: DatasetSpec, loads: Sequence[Loaded]) -> Window | None:
    """Return the time whose objects are listed, where a run lists the latest only."""
    source = spec.source
    if not isinstance(source, S3Source) or not (source.lookback_days or source.start):
        return None
    now = datetime.now(UTC)
    first = min((load.row.loaded_at for load in loads), default=now)
    start = first - timedelta(days=(source.lookback_days or 0) + 1)
    if source.start is not None:
        start = min(start, datetime.combine(source.start, datetime.min.time(), UTC))
    return Window(start=start, end=now + timedelta(days=1))


def _verdicts(made: _SourceCheck) -> Iterator[Check]:
    spec, sums = made.spec, sorted(made.sums, key=lambda one: one.load_id)
    by_row = made.sets.verdicts()
    lines = [
        f"load {load}: {line}"
        for load in sorted(made.differences)
        for line in made.differences[load]
    ]
    for one in sums:
        if one.load_id in by_row:
            counts = ", ".join(f"{rows} {what}" for what, rows in by_row[one.load_id].items())
            lines.append(
                f"load {one.load_id} {one.label}: {one.found_rows} rows with checksum "
                f"{one.found_checksum}, in the lake {one.expected_rows} with "
                f"{one.expected_checksum}: {counts}"
            )
    if by_row:
        lines += made.sets.lines()
    different = sorted({*made.differences, *by_row})
    loads = ", ".join(map(str, different[:LOADS_SHOWN]))
    more = " …" if len(different) > LOADS_SHOWN else ""
    found = f"{len(different)} loads differ ({loads}{more})" if different else SAME
    if different or sums or not made.skipped:
        statement = f"the source of {len(sums)} loads is as it was read"
        yield check(spec, "I11", statement, SAME, found, lines, REMEDY).model_copy(
            update={"partitions": tuple(sums)}
        )
    for why, skipped in made.skipped.items():
        statement = f"not compared with the source, {len(skipped)} loads: {why}"
        yield check(spec, "I11", statement, "–", "–")
