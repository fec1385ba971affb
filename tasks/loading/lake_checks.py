"""The invariants that connect ledger and lake: every load has its manifest, every file its content."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import SHORT, file_sha256, read_manifest
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.model.dataset import DatasetSpec
from tasks.model.run import LakeFile, Manifest

Loaded = list[tuple[LedgerRow, Manifest]]


def lake_checks(lake: Lake, spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    """Check the manifests of some loads, and read every file that they name.

    Args:
        lake: The lake.
        spec: The dataset.
        rows: Loads whose files must still be there.
    """
    loaded, broken = _manifests(lake, rows)
    yield check(spec, "I2", "every load has its manifest", "none broken", shown(broken))
    raw, without_raw = _raw_manifests(lake, spec, rows)
    yield check(spec, "I2", "every load has its raw rows", "none broken", shown(without_raw))
    named = {
        file.key: file
        for manifest in [*(manifest for _, manifest in loaded), *raw]
        for file in manifest.all_files
    }
    with tempfile.TemporaryDirectory(prefix="dpp-reconcile-") as scratch:
        damages = {key: damage_of(lake, file, Path(scratch)) for key, file in named.items()}
    damaged = [f"{key}: {damage}" for key, damage in damages.items() if damage]
    yield check(spec, "I2", "every lake file is as it was written", "none broken", shown(damaged))
    yield from _sums(spec, loaded)


def _manifests(lake: Lake, rows: list[LedgerRow]) -> tuple[Loaded, list[str]]:
    loaded: Loaded = []
    broken = []
    for row in rows:
        manifest = read_manifest(lake, row.manifest_key)
        if manifest is None:
            broken.append(f"{row.manifest_key}: missing")
        elif manifest.digest != row.manifest_digest:
            broken.append(f"{row.manifest_key}: is not the one that was loaded")
        else:
            loaded.append((row, manifest))
    return loaded, broken


def _raw_manifests(
    lake: Lake, spec: DatasetSpec, rows: list[LedgerRow]
) -> tuple[list[Manifest], list[str]]:
    """Find what ingestion made of each load: a manifest with as many rows as the ledger says.

    A partition has more than one when it was ingested again, under a changed format.
    """
    found, missing = [], []
    for row in rows:
        folder = f"manifests/{spec.name}/{row.fingerprint[:SHORT]}"
        candidates = [
            manifest
            for key in lake.keys(folder)
            if key.startswith(f"{folder}/ingestion-")
            and (manifest := read_manifest(lake, key)) is not None
            and manifest.fingerprint == row.fingerprint
            and manifest.rows_read == row.read
        ]
        found += candidates[:1]
        if not candidates:
            missing.append(f"load {row.load_id}: no manifest of {row.read} rows in {folder}")
    return found, missing


def damage_of(lake: Lake, file: LakeFile, scratch: Path) -> str | None:
    """Say what is wrong with a file of the lake, or return None; it is read whole, once."""
    size = lake.size(file.key)
    if size is None:
        return "missing"
    if size != file.bytes:
        return f"{size} bytes instead of {file.bytes}"
    path = lake.local_path(file.key, scratch)
    try:
        if file_sha256(path) != file.sha256:
            return "content changed"
        rows = pq.read_metadata(path).num_rows
    except pa.ArrowInvalid:
        return "not a Parquet file"
    finally:
        if path.is_relative_to(scratch):
            path.unlink()
    return None if rows == file.rows else f"{rows} rows instead of {file.rows}"


def _sums(spec: DatasetSpec, loaded: Loaded) -> Iterator[Check]:
    different = [
        f"load {row.load_id}: {manifest.rows_read}, {manifest.rows}, {manifest.rows_deduplicated} "
        f"instead of {row.read}, {row.passed}, {row.deduplicated}"
        for row, manifest in loaded
        if (manifest.rows_read, manifest.rows, manifest.rows_deduplicated)
        != (row.read, row.passed, row.deduplicated)
    ]
    yield check(
        spec,
        "I2",
        "rows read, clean and deduplicated: manifest = ledger",
        "none broken",
        shown(different),
    )
    yield check(
        spec,
        "I5",
        "rows in quarantine files = rows in the ledger",
        sum(row.quarantined for row, _ in loaded),
        sum(file.rows for _, manifest in loaded for file in manifest.quarantine),
    )
