"""Reads refused rows out of the lake, and stores the corrections of some of them there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import read_manifest, store_file
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.manifest import LakeFile
from tasks.protection import Protection, parse_values

BATCH_ROWS = 5000
CORRECTIONS_SCHEMA = pa.schema([("row", pa.int64()), ("raw", pa.string()), ("sealed", pa.string())])


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A refused row as the lake has it; ``row`` is its place in the files, starting at 1."""

    row: int
    stage: str
    rule: str
    column: str | None
    message: str
    failures: str
    source_uri: str
    source_row: int
    raw: str | None
    sealed: str | None

    @property
    def is_row(self) -> bool:
        """Has it columns? Ingestion refuses what it could not take apart."""
        return self.stage == "transformation"

    def values(self, raw: str | None) -> dict[str, str | None] | None:
        """Return its values by the source's column names, as texts; None if it has no columns."""
        values = parse_values(raw) if self.is_row else None
        if values is None:
            return None
        return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def kept_rows(
    lake: Lake,
    manifest_key: str,
    wanted: Callable[[int], bool] = lambda _row: True,
    child: str | None = None,
) -> Iterator[KeptRow]:
    """Yield the refused rows of a load, in the order of its quarantine files.

    Args:
        lake: Where they are.
        manifest_key: The manifest that names the files.
        wanted: Tells by a row's number whether it is asked for.
        child: The child table whose refused items are asked for, instead of rows.

    Raises:
        ContractBroken: The lake has lost the manifest or a file.
    """
    manifest = read_manifest(lake, manifest_key)
    if manifest is None:
        raise ContractBroken(
            f"the manifest of refused rows {manifest_key} is missing",
            "dpp reconcile says what else is; restore the lake from a backup, or discard the rows",
        )
    number = 0
    with tempfile.TemporaryDirectory(prefix="dpp-quarantine-") as scratch:
        refused = manifest.quarantine if child is None else manifest.children[child].quarantine
        for file in refused:
            for batch in _batches(lake, file, Path(scratch)):
                for row in batch.to_pylist():
                    number += 1
                    if wanted(number):
                        yield _kept(number, row)


def _kept(number: int, row: Mapping[str, Any]) -> KeptRow:
    said: dict[str, Any] = {field.name: row.get(field.name) for field in fields(KeptRow)}
    return KeptRow(**{**said, "row": number})


def _batches(lake: Lake, file: LakeFile, scratch: Path) -> Iterator[pa.RecordBatch]:
    try:
        path = lake.local_path(file.key, scratch)
    except FileNotFoundError:
        raise ContractBroken(
            f"lake file {file.key} is missing, and with it {file.rows} refused rows",
            "restore the lake from a backup, or discard the rows",
        ) from None
    yield from pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS)


def store_corrections(
    lake: Lake,
    spec: DatasetSpec,
    corrected: Sequence[tuple[int, Mapping[str, str | None]]],
    protection: Protection,
) -> LakeFile:
    """Keep corrected rows in the lake, protected as the original ones are."""
    rows = []
    for number, values in corrected:
        raw = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        shown, sealed = protection.protect(raw, is_row=True)
        rows.append({"row": number, "raw": shown, "sealed": sealed})
    with tempfile.TemporaryDirectory(prefix="dpp-quarantine-") as scratch:
        path = Path(scratch) / "corrections.parquet"
        pq.write_table(pa.Table.from_pylist(rows, CORRECTIONS_SCHEMA), path, compression="zstd")
        return store_file(lake, "quarantine", spec.name, path, len(rows))


def read_corrections(
    lake: Lake, file: LakeFile, protection: Protection, scratch: Path
) -> dict[int, dict[str, str | None]]:
    """Return corrected values by row number."""
    return {
        row["row"]: json.loads(protection.reveal(row["raw"], row["sealed"]) or "{}")
        for batch in _batches(lake, file, scratch)
        for row in batch.to_pylist()
    }
