"""Runs the compiled query of a partition and writes what comes out of it into the lake."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from blocks.lake import Lake
from tasks.lake import intact_manifest, manifest_key, publish_manifest
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.value import json_digest
from tasks.protection import Protection
from tasks.quarantine import Origin
from tasks.transformation.child_rows import find_broken, replay_items, transform_children
from tasks.transformation.output import BATCH_ROWS, STAGE, Output
from tasks.transformation.run_query import run_files
from tasks.transformation.session import Session
from tasks.transformation.user_code import code_digest

__all__ = ["BATCH_ROWS", "STAGE", "STAGE_VERSION", "transform_partition", "transformation_identity"]

STAGE_VERSION = "3"
"""Raised whenever this code would make other rows of the same input."""

log = structlog.get_logger("dpp.transformation")


def transformation_identity(
    spec: DatasetSpec, raw: Manifest, snapshots: Mapping[str, LakeFile]
) -> str:
    """Return a hash of all that decides the result: configuration, input, lookups and code."""
    return json_digest(
        {
            "version": STAGE_VERSION,
            "config": spec.config_hash,
            "raw": [file.sha256 for file in (*raw.files, *raw.quarantine)],
            "code": code_digest(spec),
            "lookups": {name: file.sha256 for name, file in sorted(snapshots.items())},
        }
    )


def transform_partition(
    spec: DatasetSpec,
    raw: Manifest,
    snapshots: Mapping[str, LakeFile],
    lake: Lake,
    scratch: Path,
    *,
    memory_bytes: int,
    deadline_seconds: float | None = None,
    protection: Protection | None = None,
) -> Manifest:
    """Clean, cast, enrich, check and deduplicate the rows of one partition.

    Args:
        spec: The dataset.
        raw: What ingestion made of the partition.
        snapshots: Rows of the datasets that are looked up.
        lake: Where the raw files are and the result goes.
        scratch: Folder for spilled data and unfinished files.
        memory_bytes: What the rows may take of memory, beside the program itself.
        deadline_seconds: Seconds after which the query is interrupted.
        protection: Protects the columns marked ``pii`` of refused rows.

    Returns:
        The manifest of the clean files; it accounts for every row that was read.

    Raises:
        ContractBroken: The columns do not fit the dataset file.
        CapacityExhausted: The work does not fit into its memory or disk.
        StageTimeout: It took too long.
    """
    started = time.monotonic()
    identity = transformation_identity(spec, raw, snapshots)
    key = manifest_key(STAGE, spec.name, raw.fingerprint, identity)
    if done := intact_manifest(lake, key):
        log.info("transformation.reused", rows=done.rows)
        return done
    session = Session(scratch, memory_bytes, deadline_seconds)
    output = Output(spec, scratch, Origin.of(spec, raw.fingerprint, protection))
    columns_added: tuple[str, ...] = ()
    types: dict[str, ColumnSpec] = {}
    rows_read = raw.rows_read
    with output:
        if raw.rows and not raw.child:
            columns_added, types = _run(spec, raw, snapshots, lake, session, output)
    if raw.child:
        rows_read = 0  # they are in the account of the child
        children = replay_items(spec, raw, lake, output.quarantine.origin, session)
    else:
        children = transform_children(spec, types, raw, lake, output, session)
    manifest = Manifest(
        stage="transformation",
        dataset=spec.name,
        fingerprint=raw.fingerprint,
        config_hash=spec.config_hash,
        files=output.store(lake),
        quarantine=(*raw.quarantine, *output.quarantine.store(lake, spec.name)),
        rows_read=rows_read,
        rows_deduplicated=raw.rows_deduplicated + output.contenders.dropped,
        rows_quarantined=raw.rows_quarantined + output.quarantine.rows,
        reasons=(*raw.reasons, *output.quarantine.reasons),
        warnings=output.warnings.reasons,
        columns_added=columns_added,
        column_types=types,
        state=raw.state,
        profile=output.profile,
        children=children,
        created_at=datetime.now(UTC),
        seconds=time.monotonic() - started,
    )
    log.info(
        "transformation.done",
        rows=manifest.rows,
        deduplicated=manifest.rows_deduplicated,
        quarantined=manifest.rows_quarantined,
        seconds=manifest.seconds,
    )
    return publish_manifest(lake, key, manifest)


def _run(
    spec: DatasetSpec,
    raw: Manifest,
    snapshots: Mapping[str, LakeFile],
    lake: Lake,
    session: Session,
    output: Output,
) -> tuple[tuple[str, ...], dict[str, ColumnSpec]]:
    raw_files = [str(lake.local_path(file.key, session.scratch)) for file in raw.files]
    lookup_files = {
        name: str(lake.local_path(file.key, session.scratch)) for name, file in snapshots.items()
    }
    output.broken = find_broken(spec, raw_files, session)
    return run_files(spec, raw_files, lookup_files, session, output)
