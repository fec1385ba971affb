"""Quarantine files: the refused rows of a partition, with the reason and what they said originally."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import read_manifest, store_file
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile, QuarantineReason
from tasks.protection import UNPROTECTED, Protection, pii_columns

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("message", pa.string(), nullable=False),
        pa.field("failures", pa.string(), nullable=False),
        pa.field("raw", pa.string()),
        pa.field("sealed", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("partition", pa.string()),
        pa.field("config_hash", pa.string()),
    ]
)
"""``rule``, ``column`` and ``message`` name the first rule broken, ``failures`` all of them;
``raw`` is the row as it was read: a JSON object of its columns, or the text that is no row; where
columns are marked ``pii`` they are protected in it, and ``sealed`` has what they said, encrypted.
Run, time, replays and resolution of the row are in the ledger, under the load of the partition."""

FLUSH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """One row for quarantine; the fields are those of ``QUARANTINE_SCHEMA``."""

    source_uri: str
    source_row: int
    rule: str
    column: str | None
    message: str
    failures: str
    raw: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """What all refused rows of a partition have in common.

    Attributes:
        dataset: Name of the dataset.
        partition: Fingerprint of the partition.
        config_hash: Hash of the dataset file under which they were refused.
        protection: Protects the columns marked ``pii``.
    """

    dataset: str | None = None
    partition: str | None = None
    config_hash: str | None = None
    protection: Protection = UNPROTECTED

    @classmethod
    def of(cls, spec: DatasetSpec, fingerprint: str, protection: Protection | None) -> Origin:
        """Return the origin of the rows of a partition.

        Raises:
            ConfigError: A column is to be protected, and there is no key.
        """
        usable = protection or Protection(pii_columns(spec), None)
        return cls(spec.name, fingerprint, spec.config_hash, usable)

    def of_child(self, child: DatasetSpec) -> Origin:
        """Return the origin of the items of a child table of these rows."""
        protection = self.protection.of_dataset(child)
        return replace(self, dataset=child.name, protection=protection)


class QuarantineWriter:
    """Collects the refused rows of one stage and partition in a Parquet file.

    Args:
        path: The file to write; it is made with the first row.
        stage: The stage that refuses the rows.
        origin: What they have in common.
    """

    def __init__(
        self,
        path: Path,
        stage: Literal["ingestion", "transformation"],
        origin: Origin | None = None,
    ) -> None:
        self._path = path
        self.origin = origin or Origin()
        self._stage: Literal["ingestion", "transformation"] = stage
        self._pending: list[RefusedRow] = []
        self._writer: pq.ParquetWriter | None = None
        self._reasons: dict[tuple[str, str | None], QuarantineReason] = {}
        self.rows = 0

    def append(self, rows: Sequence[RefusedRow]) -> None:
        """Add refused rows."""
        for row in rows:
            self._count(row)
        self._pending.extend(rows)
        self.rows += len(rows)
        if len(self._pending) >= FLUSH_ROWS:
            self._flush()

    def _count(self, row: RefusedRow) -> None:
        known = self._reasons.get((row.rule, row.column))
        self._reasons[row.rule, row.column] = (
            known.model_copy(update={"rows": known.rows + 1})
            if known
            else QuarantineReason(
                stage=self._stage,
                rule=row.rule,
                column=row.column,
                rows=1,
                message=row.message,
                source_uri=row.source_uri,
                source_row=row.source_row,
            )
        )

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, QUARANTINE_SCHEMA, compression="zstd")
        rows = [self._kept(row) for row in self._pending]
        self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=QUARANTINE_SCHEMA))
        self._pending.clear()

    def _kept(self, row: RefusedRow) -> dict[str, Any]:
        is_row = self._stage == "transformation"
        shown, sealed = self.origin.protection.protect(row.raw, is_row=is_row)
        return {
            **asdict(row),
            "raw": shown,
            "sealed": sealed,
            "stage": self._stage,
            "dataset": self.origin.dataset,
            "partition": self.origin.partition,
            "config_hash": self.origin.config_hash,
        }

    def close(self) -> None:
        """Finish the local file; safe to call twice."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def store(self, lake: Lake, dataset: str) -> tuple[LakeFile, ...]:
        """Finish the file and move it into the lake; nothing if no row was refused."""
        self.close()
        if not self.rows:
            return ()
        return (store_file(lake, "quarantine", dataset, self._path, self.rows),)

    @property
    def reasons(self) -> tuple[QuarantineReason, ...]:
        """How many rows each rule refused, with the first of them, most rows first."""
        return tuple(sorted(self._reasons.values(), key=lambda reason: -reason.rows))


def read_refused(
    lake: Lake, manifest_keys: Sequence[str], rule: str | None, limit: int
) -> Iterator[dict[str, Any]]:
    """Yield refused rows, as dictionaries with the fields of ``QUARANTINE_SCHEMA``.

    Args:
        lake: Where the files are.
        manifest_keys: Manifests that name the files.
        rule: Only rows whose first broken rule is this one.
        limit: Most rows to yield.
    """
    left = limit
    with tempfile.TemporaryDirectory(prefix="dpp-quarantine-") as scratch:
        for key in manifest_keys:
            manifest = read_manifest(lake, key)
            for file in manifest.quarantine if manifest else ():
                path = lake.local_path(file.key, Path(scratch))
                for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
                    for row in batch.to_pylist():
                        if rule is not None and row["rule"] != rule:
                            continue
                        if left == 0:
                            return
                        left -= 1
                        yield row
