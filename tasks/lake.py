"""Writes what a stage made into the lake, manifest last; and trusts nothing that is not intact."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from blocks.lake import Lake
from tasks.model.manifest import LakeFile, Manifest

Zone = Literal["raw", "clean", "quarantine", "lookups"]
HASH_BYTES = 1 << 20
SHORT = 16
"""Hex digits of a hash that a key shows."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def store_file(lake: Lake, zone: Zone, dataset: str, path: Path, rows: int) -> LakeFile:
    """Move a finished local file into the lake, under a key that names its content."""
    sha256 = file_sha256(path)
    key = f"{zone}/{dataset}/{sha256}.parquet"
    size = path.stat().st_size
    lake.take_file(path, key)
    return LakeFile(key=key, rows=rows, bytes=size, sha256=sha256)


def manifest_key(stage: str, dataset: str, fingerprint: str, identity: str) -> str:
    """Return where the manifest of a stage's work on a partition is.

    Args:
        stage: ingestion or transformation.
        dataset: Name of the dataset.
        fingerprint: Fingerprint of the partition.
        identity: Hash of everything else that decides the stage's result.
    """
    return f"manifests/{dataset}/{fingerprint[:SHORT]}/{stage}-{identity[:SHORT]}.json"


def publish_manifest(lake: Lake, key: str, manifest: Manifest) -> Manifest:
    """Store a manifest; if another worker was first, its manifest is the one that counts."""
    if lake.put_new(key, manifest.model_dump_json().encode()):
        return manifest
    return intact_manifest(lake, key) or _replace(lake, key, manifest)


def _replace(lake: Lake, key: str, manifest: Manifest) -> Manifest:
    """Put a manifest in place of one whose files are gone or changed."""
    lake.delete(key)
    lake.put_new(key, manifest.model_dump_json().encode())
    return manifest


def read_manifest(lake: Lake, key: str) -> Manifest | None:
    """Return the manifest at a key, or None if there is none that can be read."""
    content = lake.get(key)
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError:
        return None


def intact_manifest(lake: Lake, key: str) -> Manifest | None:
    """Return the manifest at a key if every file it names is there, unchanged."""
    manifest = read_manifest(lake, key)
    if manifest is None or any(broken_file(lake, file) for file in manifest.all_files):
        return None
    return manifest


def broken_file(lake: Lake, file: LakeFile) -> str | None:
    """Say what is wrong with a file of the lake, or return None if it is as it was written."""
    size = lake.size(file.key)
    if size is None:
        return "missing"
    if size != file.bytes:
        return f"{size} bytes instead of {file.bytes}"
    if lake.sha256(file.key) != file.sha256:
        return "content changed"
    return None
