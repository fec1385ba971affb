"""Streams one partition out of its source into the raw zone of the lake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from blocks.lake import Lake
from tasks.ingestion.arrow import settle
from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, Connector, RawBatch
from tasks.lake import intact_manifest, manifest_key, publish_manifest, store_file
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import StageTimeout
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.model.replay import replay_of
from tasks.model.value import json_digest
from tasks.protection import Protection
from tasks.quarantine import Origin, QuarantineWriter, RefusedRow

STAGE: Final = "ingestion"
STAGE_VERSION = "2"
"""Raised whenever this code would make other raw files of the same source."""
GROUP_BYTES = 4 << 20
GROUP_ROWS = 100_000
SAMPLE_ROWS = 4000

log = structlog.get_logger("dpp.ingestion")

settle()


def ingestion_identity(spec: DatasetSpec) -> str:
    """Return a hash of all that decides the raw files, beside the source's content."""
    source = spec.source.model_dump(mode="json")
    return json_digest({"version": STAGE_VERSION, "source": source})


def ingest_partition(
    connector: Connector,
    partition: Partition,
    spec: DatasetSpec,
    lake: Lake,
    scratch: Path,
    *,
    deadline_seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    protection: Protection | None = None,
) -> Manifest:
    """Copy a partition into the raw zone as the source says it; what cannot be read, to quarantine.

    Args:
        connector: Reads the source.
        partition: What to read.
        spec: The dataset.
        lake: Where the raw files go.
        scratch: Folder for unfinished files.
        deadline_seconds: Seconds after which the work is given up.
        clock: Gives seconds; an argument so that tests can set it.
        protection: Protects the columns marked ``pii`` of refused rows.

    Returns:
        The manifest of the raw files; it accounts for every record.

    Raises:
        StageTimeout: It took too long.
        PipelineError: What the connector raises.
    """
    started = clock()
    key = manifest_key(STAGE, spec.name, partition.fingerprint, ingestion_identity(spec))
    if done := intact_manifest(lake, key):
        log.info("ingestion.reused", rows=done.rows)
        return done
    writer = _RawWriter(scratch)
    state: dict[str, Any] = {}
    origin = Origin.of(spec, partition.fingerprint, protection)
    quarantine = QuarantineWriter(scratch / "rejected.parquet", STAGE, origin)
    with writer, closing(quarantine):
        for raw in connector.read(partition):
            _check_deadline(clock() - started, deadline_seconds)
            if raw.state is not None:
                state = dict(raw.state)
            if raw.batch is not None and raw.batch.num_rows:
                writer.write(raw.batch)
            if raw.rejects:
                quarantine.append(list(_refused(raw)))
    files = writer.store(lake, spec.name)
    manifest = Manifest(
        stage="ingestion",
        dataset=spec.name,
        fingerprint=partition.fingerprint,
        config_hash=spec.config_hash,
        files=files,
        quarantine=quarantine.store(lake, spec.name),
        rows_read=sum(file.rows for file in files) + quarantine.rows,
        rows_deduplicated=0,
        rows_quarantined=quarantine.rows,
        reasons=quarantine.reasons,
        state=state,
        child=replay.child if (replay := replay_of(partition)) else None,
        created_at=datetime.now(UTC),
        seconds=clock() - started,
    )
    log.info(
        "ingestion.done",
        rows=manifest.rows_read,
        quarantined=manifest.rows_quarantined,
        bytes=sum(file.bytes for file in files),
        seconds=manifest.seconds,
    )
    return publish_manifest(lake, key, manifest)


def _check_deadline(elapsed: float, deadline_seconds: float | None) -> None:
    if deadline_seconds is not None and elapsed > deadline_seconds:
        raise StageTimeout(
            f"ingestion did not end within {deadline_seconds:.0f} s",
            "raise stage_timeout or lower partition_bytes",
        )


def _refused(raw: RawBatch) -> Iterator[RefusedRow]:
    for reject in raw.rejects:
        yield RefusedRow(
            source_uri=reject.source_uri,
            source_row=reject.source_row,
            rule=reject.rule,
            column=None,
            message=reject.message,
            failures=reject.message,
            raw=reject.raw,
        )


def _repeating(batch: pa.RecordBatch) -> list[str]:
    """Return the columns that say the same again and again, by the first rows of a file."""
    sample = batch.slice(0, SAMPLE_ROWS)
    most = sample.num_rows // 4
    return [
        name
        for name, column in zip(sample.schema.names, sample.columns, strict=True)
        if name == SOURCE_URI or (name != SOURCE_ROW and pc.count_distinct(column).as_py() <= most)
    ]


class _RawWriter:
    """Writes batches as Parquet, gathered into larger row groups; a new file for new columns.

    Row groups are encoded in a thread of their own, one at a time, while the source is read on.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._thread = ThreadPoolExecutor(1, "raw")
        self._writing: Future[None] | None = None
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._pending_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._files: list[tuple[Path, int]] = []

    def write(self, batch: pa.RecordBatch) -> None:
        if self._schema is None or not batch.schema.equals(self._schema):
            self.close()
            path = self._scratch / f"raw-{len(self._files)}.parquet"
            self._schema = batch.schema
            # Each row is read once, by the transformation: statistics find nothing there, and a
            # dictionary of different values is the values again. Without both it writes twice as fast.
            self._writer = pq.ParquetWriter(
                path,
                batch.schema,
                compression="zstd",
                compression_level=1,
                write_statistics=False,
                use_dictionary=_repeating(batch),
                column_encoding={SOURCE_ROW: "DELTA_BINARY_PACKED"},
            )
            self._files.append((path, 0))
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        self._pending_rows += batch.num_rows
        if self._pending_bytes >= GROUP_BYTES or self._pending_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None or not self._pending:
            return
        table = pa.Table.from_batches(self._pending)
        self._settle()
        self._writing = self._thread.submit(self._writer.write_table, table)
        path, rows = self._files[-1]
        self._files[-1] = (path, rows + self._pending_rows)
        self._pending, self._pending_bytes, self._pending_rows = [], 0, 0

    def _settle(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Finish the open file."""
        try:
            self._flush()
            self._settle()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._thread:
            self.close()

    def store(self, lake: Lake, dataset: str) -> tuple[LakeFile, ...]:
        """Move the finished files into the lake."""
        return tuple(store_file(lake, "raw", dataset, path, rows) for path, rows in self._files)
