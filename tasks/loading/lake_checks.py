"""The invariants that connect ledger and lake: every load has its manifest, every file its content."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import SHORT, file_sha256, read_manifest
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile, Manifest

Loaded = list[tuple[LedgerRow, Manifest]]


@dataclass(frozen=True, slots=True)
class LakeState:
    """What the lake has of the loads of a dataset.

    Attributes:
        checks: The invariants of those loads whose files must still be there.
        clean: Manifests of the loads whose clean files are all intact, by load.
        damaged: Files that are missing or changed, with what is wrong; of retained loads.
    """

    checks: list[Check]
    clean: dict[int, Manifest]
    damaged: dict[str, str]


def examine_lake(
    lake: Lake, spec: DatasetSpec, rows: list[LedgerRow], retained: set[int]
) -> LakeState:
    """Check the manifests of all loads, and read every file that they name.

    Args:
        lake: The lake.
        spec: The dataset.
        rows: The ledger.
        retained: Loads whose files must still be there; those of others may be gone.
    """
    loaded, broken = _manifests(lake, rows, retained)
    kept = [row for row in rows if row.load_id in retained]
    raw, without_raw = _raw_manifests(lake, spec, kept)
    named = {
        file.key: file
        for manifest in [*(manifest for _, manifest in loaded), *raw]
        for file in manifest.all_files
    }
    with tempfile.TemporaryDirectory(prefix="dpp-reconcile-") as scratch:
        damages = {
            key: damage
            for key, file in named.items()
            if (damage := damage_of(lake, file, Path(scratch)))
        }
    must_be_whole = {
        file.key
        for manifest in [*(manifest for row, manifest in loaded if row.load_id in retained), *raw]
        for file in manifest.all_files
    }
    damaged = {key: damage for key, damage in damages.items() if key in must_be_whole}
    lines = [f"{key}: {damage}" for key, damage in damaged.items()]
    of_retained = [(row, manifest) for row, manifest in loaded if row.load_id in retained]
    checks = [
        check(spec, "I2", "every load has its manifest", "none broken", shown(broken), broken),
        check(spec, "I2", "every load has its raw rows", "none broken", shown(without_raw)),
        check(
            spec, "I2", "every lake file is as it was written", "none broken", shown(lines), lines
        ),
        *_sums(spec, of_retained),
    ]
    clean = {
        row.load_id: manifest
        for row, manifest in loaded
        if not any(file.key in damages for file in manifest.files)
    }
    return LakeState(checks, clean, damaged)


def intact_loads(lake: Lake, rows: Sequence[LedgerRow]) -> dict[int, Manifest]:
    """Return the manifests of the loads whose clean files are all intact; each file is read once."""
    loaded, _ = _manifests(lake, rows, set())
    files = {file.key: file for _, manifest in loaded for file in manifest.files}
    with tempfile.TemporaryDirectory(prefix="dpp-lake-") as scratch:
        damaged = {key for key, file in files.items() if damage_of(lake, file, Path(scratch))}
    return {
        row.load_id: manifest
        for row, manifest in loaded
        if damaged.isdisjoint(file.key for file in manifest.files)
    }


def _manifests(
    lake: Lake, rows: Sequence[LedgerRow], retained: set[int]
) -> tuple[Loaded, list[str]]:
    loaded: Loaded = []
    broken = []
    for row in rows:
        manifest = read_manifest(lake, row.manifest_key)
        if manifest is not None and manifest.digest == row.manifest_digest:
            loaded.append((row, manifest))
        elif row.load_id in retained:
            why = "is not the one that was loaded" if manifest else "missing"
            broken.append(f"{row.manifest_key}: {why}")
    return loaded, broken


def _raw_manifests(
    lake: Lake, spec: DatasetSpec, rows: list[LedgerRow]
) -> tuple[list[Manifest], list[str]]:
    found, missing = [], []
    for row in rows:
        manifest = raw_manifest(lake, spec, row)
        if manifest is not None:
            found.append(manifest)
        else:
            folder = _manifests_folder(spec, row)
            missing.append(f"load {row.load_id}: no manifest of {row.read} rows in {folder}")
    return found, missing


def raw_manifest(lake: Lake, spec: DatasetSpec, row: LedgerRow) -> Manifest | None:
    """Find what ingestion made of a load: a manifest with as many rows as the ledger says.

    Of a replay of a child's items it has these, which are in the account of the child.
    A partition has more than one when it was ingested again, under a changed format.
    """
    folder = _manifests_folder(spec, row)
    for key in lake.keys(folder):
        if not key.startswith(f"{folder}/ingestion-"):
            continue
        manifest = read_manifest(lake, key)
        if (
            manifest is not None
            and manifest.fingerprint == row.fingerprint
            and (0 if manifest.child else manifest.rows_read) == row.read
        ):
            return manifest
    return None


def _manifests_folder(spec: DatasetSpec, row: LedgerRow) -> str:
    return f"manifests/{spec.name}/{row.fingerprint[:SHORT]}"


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
