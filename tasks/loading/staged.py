"""The rows of a load on their way from the lake into the staging table, and the gates there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import file_sha256
from tasks.loading.encoding import check_columns, staged_schema
from tasks.loading.gates import check_gates
from tasks.loading.job import Load, OnStep
from tasks.loading.parallel import copies_at_once, copy_in_parallel
from tasks.loading.schema import TargetColumn
from tasks.loading.staging import (
    STAGING,
    analyze_staging,
    clean_batches,
    copy_into_staging,
    create_staging,
)
from tasks.model.errors import ContractBroken
from tasks.model.manifest import ChildManifest, Manifest

log = structlog.get_logger("dpp.loading")


def clean_files(lake: Lake, scratch: Path, manifest: Manifest | ChildManifest) -> list[Path]:
    """Return the clean files on this machine, each with the content that its manifest names.

    Raises:
        ContractBroken: One is missing, or was changed.
    """
    paths = []
    for file in manifest.files:
        try:
            path = lake.local_path(file.key, scratch)
        except FileNotFoundError:
            raise ContractBroken(
                f"lake file {file.key} is missing", "run again; the partition is transformed anew"
            ) from None
        if path.stat().st_size != file.bytes or file_sha256(path) != file.sha256:
            raise ContractBroken(
                f"lake file {file.key} was changed after it was written",
                "run again; the partition is transformed anew",
            )
        paths.append(path)
    return paths


def stage_rows(
    cursor: Cursor,
    paths: Sequence[Path],
    load: Load,
    columns: Sequence[TargetColumn],
    on_step: OnStep,
    *,
    beside: Engine | None = None,
) -> bool:
    """Copy the clean rows into the staging table; tell whether there is one.

    Args:
        cursor: In the load transaction.
        paths: The clean files.
        load: What is loaded.
        columns: What the files must have.
        on_step: Is told of the steps.
        beside: Where further connections come from, over which a large partition is copied too; the
            transaction has to call ``end_staging`` then.

    Raises:
        ContractBroken: The files do not have these columns, or not as many rows as they should.
    """
    if not paths:
        on_step("staged")
        on_step("copied")
        return False
    began = time.monotonic()
    schema = staged_schema(pq.read_schema(paths[0]))
    check_columns(schema.names, [column.name for column in columns])
    rows = _copied_in_parallel(beside, cursor, paths, schema, load, on_step)
    if rows is None:
        create_staging(cursor, schema)
        on_step("staged")
        batches = clean_batches(paths, schema)
        rows = copy_into_staging(cursor, schema, batches, lambda: on_step("copying"))
        analyze_staging(cursor, sql.Identifier("pg_temp", STAGING))
    if rows != load.manifest.rows:
        raise ContractBroken(
            f"{load.spec.name}: COPY took {rows} rows, the manifest has {load.manifest.rows}",
            "this must never happen; keep the lake files and report it",
        )
    log.info("loading.copied", rows=rows, seconds=time.monotonic() - began)
    on_step("copied")
    return True


def _copied_in_parallel(
    engine: Engine | None,
    cursor: Cursor,
    paths: Sequence[Path],
    schema: pa.Schema,
    load: Load,
    on_step: OnStep,
) -> int | None:
    """Copy a large partition over several connections; None if it is to be copied over this one."""
    copies = copies_at_once(engine, load.manifest.rows) if engine else 1
    if engine is None or copies == 1:
        return None
    on_step("staged")
    return copy_in_parallel(engine, cursor, paths, schema, copies, lambda: on_step("copying"))


def check_staged(cursor: Cursor, load: Load, *, has_rows: bool) -> None:
    """Check the gates of the dataset on the staged rows.

    Raises:
        GateFailed: One does not hold.
        ConfigError: The query of one is none that can be asked.
    """
    if load.is_replay:
        return  # gates are about a slice of the source; these rows were picked because they broke
    check_gates(
        cursor,
        load.spec,
        load.lookups,
        load.columns,
        load.manifest,
        has_rows=has_rows,
        live=load.is_live,
    )
