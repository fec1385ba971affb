"""Quarantine files: the refused rows of a partition, with the reason and what they said originally."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import read_manifest, store_file
from tasks.model.run import LakeFile, QuarantineReason

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
    ]
)
"""``rule``, ``column`` and ``message`` name the first rule broken, ``failures`` all of them;
``raw`` is the row as it was read: a JSON object of its columns, or the text that is no row."""

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


class QuarantineWriter:
    """Collects the refused rows of one stage and partition in a Parquet file.

    Args:
        path: The file to write; it is made with the first row.
        stage: The stage that refuses the rows.
    """

    def __init__(self, path: Path, stage: Literal["ingestion", "transformation"]) -> None:
        self._path = path
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
        columns = [
            pa.array(
                [self._stage if name == "stage" else getattr(row, name) for row in self._pending],
                type=QUARANTINE_SCHEMA.field(name).type,
            )
            for name in QUARANTINE_SCHEMA.names
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=QUARANTINE_SCHEMA))
        self._pending.clear()

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
