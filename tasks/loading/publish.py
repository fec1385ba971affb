"""The load transaction: rows and ledger row become visible together, or not at all.

Its steps are those of ``docs/architecture.md``; each is announced, so that a test can end the
process at every one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psycopg2
import pyarrow.parquet as pq
import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import file_sha256
from tasks.loading import ledger
from tasks.loading.gates import check_gates, null_rate_columns
from tasks.loading.merge import null_counts_statement, publish_statement
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, prepare_target, target_columns
from tasks.loading.staging import (
    STAGING,
    clean_batches,
    copy_into_staging,
    create_staging,
    staged_columns,
)
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import (
    CommitUnknown,
    ContractBroken,
    ErrorKind,
    LoadConflict,
    WarehouseUnavailable,
)
from tasks.model.run import LoadReceipt, LoadStatus, Manifest, Partition, RowCounts

STEPS = (
    "begun",
    "staged",
    "copying",
    "copied",
    "gated",
    "locked",
    "checked",
    "evolved",
    "merged",
    "ledger_written",
    "quarantine_written",
    "committing",
    "committed",
)
"""Names of the steps, in their order."""
ASK_LEDGER_ATTEMPTS = 5
ASK_LEDGER_SECONDS = 1.0

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True)
class Load:
    """One load: what is loaded, and on whose behalf.

    Attributes:
        spec: The dataset.
        lookups: Datasets that it looks up; they give the types of looked-up columns.
        partition: What is loaded.
        manifest: Its clean rows.
        manifest_key: Where the manifest is in the lake.
        run: Name of the run.
        fence: Number under which the run may publish.
        code_version: Version of the product.
    """

    spec: DatasetSpec
    lookups: Mapping[str, DatasetSpec]
    partition: Partition
    manifest: Manifest
    manifest_key: str
    run: str
    fence: int
    code_version: str


def load_partition(
    engine: Engine,
    lake: Lake,
    scratch: Path,
    load: Load,
    *,
    on_step: Callable[[str], None] = lambda _step: None,
) -> LoadReceipt:
    """Publish one partition exactly once; safe to call again after any failure.

    Args:
        engine: The warehouse.
        lake: Where the clean files are.
        scratch: Folder for files fetched from a remote lake.
        load: What to load.
        on_step: Is told the name of each step as it is reached.

    Returns:
        What was done; ``already loaded`` if the ledger has the partition.

    Raises:
        GateFailed: A gate does not hold; nothing was published.
        LoadConflict: A newer run owns the dataset; nothing was published.
        ContractBroken: The rows or the table do not fit the dataset file.
        WarehouseUnavailable: The warehouse went away; it is safe to try again.
    """
    started = time.monotonic()
    with ledger.session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if receipt := ledger.find_load(cursor, load.partition):
            log.info("loading.already_loaded", load_id=receipt.load_id)
            return receipt
    paths = _clean_files(lake, scratch, load.manifest)
    try:
        with ledger.session(engine) as connection:
            receipt = _transaction(connection, paths, load, started, on_step)
            on_step("committing")
            _commit(connection)
        on_step("committed")
    except CommitUnknown:
        receipt = _ask_ledger(engine, load.partition)
    if receipt.status is LoadStatus.LOADED:
        log.info(
            "loading.committed",
            load_id=receipt.load_id,
            inserted=receipt.counts.inserted,
            updated=receipt.counts.updated,
            unchanged=receipt.counts.unchanged,
            seconds=receipt.seconds,
        )
    return receipt


def _clean_files(lake: Lake, scratch: Path, manifest: Manifest) -> list[Path]:
    """Return the clean files on this machine, each with the content that its manifest names."""
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


def _transaction(
    connection: Connection,
    paths: list[Path],
    load: Load,
    started: float,
    on_step: Callable[[str], None],
) -> LoadReceipt:
    spec, manifest = load.spec, load.manifest
    with connection.cursor() as cursor:
        # The server ends a silent session by itself; the name tells whose it was.
        cursor.execute(
            "SELECT set_config('application_name', %s, true)",
            (f"etl/{spec.name}/{load.run}"[:63],),
        )
        on_step("begun")
        staged_names = _stage(cursor, paths, load, on_step)
        _check_gates(cursor, load, staged_names)
        on_step("gated")
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"etl:{spec.load.table}",)
        )
        on_step("locked")
        if receipt := ledger.find_load(cursor, load.partition):
            return receipt
        _check_fence(cursor, load)
        on_step("checked")
        columns = target_columns(spec, load.lookups, manifest.columns_added)
        prepare_target(cursor, spec, columns)
        on_step("evolved")
        load_id = ledger.next_load_id(cursor)
        inserted, updated = _merge(cursor, spec, columns, load_id) if staged_names else (0, 0)
        on_step("merged")
        counts = RowCounts(
            read=manifest.rows_read,
            inserted=inserted,
            updated=updated,
            unchanged=manifest.rows - inserted - updated,
            deduplicated=manifest.rows_deduplicated,
            quarantined=manifest.rows_quarantined,
        )
        receipt = LoadReceipt(
            dataset=spec.name,
            fingerprint=load.partition.fingerprint,
            load_id=load_id,
            status=LoadStatus.LOADED,
            counts=counts,
            reasons=manifest.reasons,
            seconds=time.monotonic() - started,
        )
        ledger.insert_load(cursor, _ledger_row(load, receipt), load.partition)
        on_step("ledger_written")
        ledger.insert_quarantine(cursor, load_id, manifest)
        on_step("quarantine_written")
        return receipt


def _stage(
    cursor: Cursor, paths: list[Path], load: Load, on_step: Callable[[str], None]
) -> list[str]:
    """Copy the clean rows into the staging table; return its columns, none if there are no rows."""
    if not paths:
        on_step("staged")
        on_step("copied")
        return []
    began = time.monotonic()
    names = staged_columns(pq.read_schema(paths[0]))
    batches = clean_batches(paths, names)
    first = next(batches)
    create_staging(cursor, first.schema)
    on_step("staged")
    rows = copy_into_staging(
        cursor, first.schema, chain([first], batches), lambda: on_step("copying")
    )
    if rows != load.manifest.rows:
        raise ContractBroken(
            f"{load.spec.name}: COPY took {rows} rows, the manifest has {load.manifest.rows}",
            "this must never happen; keep the lake files and report it",
        )
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", STAGING)))
    log.info("loading.copied", rows=rows, seconds=time.monotonic() - began)
    on_step("copied")
    return names


def _check_gates(cursor: Cursor, load: Load, staged_names: list[str]) -> None:
    names = null_rate_columns(load.spec)
    if not staged_names:
        return check_gates(load.spec, load.manifest, 0, dict.fromkeys(names, 0))
    cursor.execute(null_counts_statement(names))
    row = cursor.fetchone()
    assert row is not None
    return check_gates(
        load.spec, load.manifest, row[0], dict(zip(names, row[1:], strict=True))
    )


def _check_fence(cursor: Cursor, load: Load) -> None:
    cursor.execute(query("read_fence"), {"dataset": load.spec.name})
    row = cursor.fetchone()
    if row is None or row[0] != load.fence:
        owner = row[1] if row else "nobody"
        raise LoadConflict(
            f"{load.spec.name}: run {owner} took the dataset over from run {load.run}",
            "nothing was published by this run; the newer one goes on",
        )


def _merge(
    cursor: Cursor, spec: DatasetSpec, columns: list[TargetColumn], load_id: int
) -> tuple[int, int]:
    began = time.monotonic()
    cursor.execute(publish_statement(spec, columns, load_id))
    row = cursor.fetchone()
    assert row is not None
    log.info(
        "loading.merged", inserted=row[0], updated=row[1], seconds=time.monotonic() - began
    )
    return row[0], row[1]


def _ledger_row(load: Load, receipt: LoadReceipt) -> dict[str, object]:
    return {
        "load_id": receipt.load_id,
        "dataset": load.spec.name,
        "fingerprint": receipt.fingerprint,
        "label": load.partition.label,
        "run": load.run,
        "target": load.spec.load.table,
        "manifest_key": load.manifest_key,
        "manifest_digest": load.manifest.digest,
        "config_hash": load.spec.config_hash,
        "code_version": load.code_version,
        "seconds": receipt.seconds,
        **receipt.counts.model_dump(),
    }


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        known = classify(error)
        if known.kind is not ErrorKind.TRANSIENT:
            raise known from None
        raise CommitUnknown(f"COMMIT: {known.message}") from None


def _ask_ledger(engine: Engine, partition: Partition) -> LoadReceipt:
    """Find out what became of a COMMIT whose answer was lost; it is never simply tried again."""
    log.warning("loading.commit_unknown")
    engine.dispose()
    for attempt in range(ASK_LEDGER_ATTEMPTS):
        try:
            with ledger.session(engine, read_only=True) as connection, connection.cursor() as cursor:
                receipt = ledger.find_load(cursor, partition)
            break
        except WarehouseUnavailable:
            if attempt == ASK_LEDGER_ATTEMPTS - 1:
                raise
            time.sleep(ASK_LEDGER_SECONDS * 2**attempt)
    if receipt is None:
        raise WarehouseUnavailable(
            f"{partition.dataset}: the connection was lost, and the partition was not committed"
        )
    log.info("loading.commit_found", load_id=receipt.load_id)
    return receipt.model_copy(update={"status": LoadStatus.LOADED})
