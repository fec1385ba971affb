"""Which files of the lake are needed however old: for loads to be taken back, for refused rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import SHORT, read_manifest
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import Manifest

READERS = 16
"""Manifests that are read at the same time."""


@dataclass(frozen=True, slots=True)
class LoadAge:
    """A load, as far as retention asks about it.

    Attributes:
        fingerprint: Of its partition.
        manifest_key: Names its files.
        is_kept: Is it within its retention?
        replaced: Did it replace rows of other loads, or find them unchanged?
        has_open_rows: Are there refused rows of it that nobody has resolved?
    """

    fingerprint: str
    manifest_key: str
    is_kept: bool
    replaced: bool
    has_open_rows: bool


def loads_by_age(engine: Engine, spec: DatasetSpec, since: datetime) -> list[LoadAge]:
    """Return the loads of a dataset."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("loads_by_age"), {"dataset": spec.name, "since": since})
        return [LoadAge(*row) for row in cursor]


def gated_manifests(engine: Engine, spec: DatasetSpec) -> list[str]:
    """Return the manifests of partitions that wait at a gate."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("gated_manifests"), {"dataset": spec.name})
        return [str(row[0]) for row in cursor]


def needed_keys(
    engine: Engine, lake: Lake, spec: DatasetSpec, since: datetime, young: Iterable[str]
) -> set[str]:
    """Return the keys of a dataset's manifests and files that must stay.

    These are all that a load within its retention was made of; what older loads left in the table, if
    a load within its retention replaced any of it, since it could not be taken back otherwise; refused
    rows that nobody has resolved; partitions that wait at a gate; and what young manifests name: they
    may be of a run that is under way.

    Args:
        engine: The warehouse, with a ledger.
        lake: The lake.
        spec: The dataset.
        since: Begin of the retention.
        young: Keys of manifests that were written since then.
    """
    loads = loads_by_age(engine, spec, since)
    folders = {
        f"manifests/{spec.name}/{load.fingerprint[:SHORT]}" for load in loads if load.is_kept
    }
    of_kept = [key for folder in folders for key in lake.keys(folder)]
    whole = {*young, *of_kept, *gated_manifests(engine, spec)}
    whole |= {load.manifest_key for load in loads if load.is_kept}
    older = [load for load in loads if not load.is_kept]
    replaced = any(load.replaced for load in loads if load.is_kept)
    refused = {load.manifest_key for load in older if load.has_open_rows}
    restorable = {load.manifest_key for load in older} if replaced else set()
    needed = whole | refused | restorable
    for key, manifest in _manifests(lake, needed):
        if key in whole:
            needed.update(file.key for file in manifest.all_files)
        if key in restorable:
            needed.update(file.key for file in manifest.files)
        if key in refused:
            needed.update(_refused_files(manifest))
    return needed


def _refused_files(manifest: Manifest) -> Iterator[str]:
    yield from (file.key for file in manifest.quarantine)
    for child in manifest.children.values():
        yield from (file.key for file in child.quarantine)


def _manifests(lake: Lake, keys: set[str]) -> Iterator[tuple[str, Manifest]]:
    keys = set(keys)
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda key: (key, read_manifest(lake, key)), keys)
        yield from ((key, manifest) for key, manifest in read if manifest)
