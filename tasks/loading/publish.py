"""The load transaction: rows and ledger row become visible together, or not at all.

Its steps are those of ``docs/architecture.md``; each is announced, so that a test can end the
process at every one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import file_sha256
from tasks.loading import ledger
from tasks.loading.commit import ask_ledger, commit, wait_for_turn
from tasks.loading.deletes import check_keys, delete_missing
from tasks.loading.encoding import check_columns, staged_schema
from tasks.loading.evolution import prepare_target, record_changes
from tasks.loading.gate_failures import record_gate_failure
from tasks.loading.gates import check_gates
from tasks.loading.locks import patiently
from tasks.loading.merge import publish_statement
from tasks.loading.profiles import check_history, insert_profile
from tasks.loading.queries import query
from tasks.loading.resolutions import mark_replayed
from tasks.loading.schema import TargetColumn, ensure_schema, target_columns
from tasks.loading.staging import STAGING, clean_batches, copy_into_staging, create_staging
from tasks.loading.unique import check_unique
from tasks.model.anomaly import Finding
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import CommitUnknown, ContractBroken, GateFailed, LoadConflict
from tasks.model.replay import replay_of
from tasks.model.run import LoadReceipt, LoadStatus, Manifest, Partition, Purpose, RowCounts

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
        purpose: Among which runs the fence decides.
        code_version: Version of the product.
    """

    spec: DatasetSpec
    lookups: Mapping[str, LookedUp]
    partition: Partition
    manifest: Manifest
    manifest_key: str
    run: str
    fence: int
    code_version: str
    purpose: Purpose = "run"


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
    ensure_schema(engine, load.spec)
    receipt = _publish(engine, paths, load, started, on_step)
    if receipt.status is LoadStatus.LOADED:
        log.info(
            "loading.committed",
            load_id=receipt.load_id,
            inserted=receipt.counts.inserted,
            updated=receipt.counts.updated,
            unchanged=receipt.counts.unchanged,
            deleted=receipt.counts.deleted,
            seconds=receipt.seconds,
        )
    return receipt


def _publish(
    engine: Engine, paths: list[Path], load: Load, started: float, on_step: Callable[[str], None]
) -> LoadReceipt:
    receipt: LoadReceipt | None = None
    try:
        with ledger.session(engine) as connection:
            receipt = _transaction(connection, paths, load, started, on_step)
            on_step("committing")
            commit(connection)
    except GateFailed as error:
        record_gate_failure(
            engine, load.spec, load.partition, load.manifest, load.manifest_key, load.run, error
        )
        raise
    except CommitUnknown:
        if receipt is None:
            raise
        return ask_ledger(engine, load.spec.load.table, load.partition, receipt)
    on_step("committed")
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
        columns = target_columns(spec, load.lookups, manifest.columns_added, manifest.column_types)
        deletes_up_to = load.partition.deletes_up_to
        findings: tuple[Finding, ...] = ()
        # Neither a comparison of keys nor a few rows that are replayed say what is usual.
        described = deletes_up_to is None and not replay_of(load.partition)
        if deletes_up_to is None:
            has_rows = _stage(cursor, paths, load, columns, on_step)
            _check_gates(cursor, load, columns, has_rows=has_rows)
            if described:
                findings = check_history(cursor, spec, load.partition, manifest)
        else:
            key = [column for column in columns if column.name in spec.key]
            has_rows = _stage(cursor, paths, load, key, on_step)
            check_keys(spec, manifest)
        on_step("gated")
        wait_for_turn(cursor, spec.load.table)
        on_step("locked")
        if receipt := ledger.find_load(cursor, load.partition):
            return receipt
        _check_fence(cursor, load)
        on_step("checked")
        name = spec.load.table
        table = patiently(cursor, spec.name, name, lambda: prepare_target(cursor, spec, columns))
        on_step("evolved")
        load_id = ledger.next_load_id(cursor)
        inserted = updated = deleted = 0
        if deletes_up_to is not None:
            up_to = deletes_up_to
            deleted = patiently(
                cursor,
                spec.name,
                name,
                lambda: delete_missing(cursor, spec, key, up_to, has_rows=has_rows),
            )
        elif has_rows:
            inserted, updated = patiently(
                cursor, spec.name, name, lambda: _merge(cursor, spec, table.columns, load_id)
            )
            check_unique(cursor, spec, {column.name: column for column in columns})
        on_step("merged")
        counts = RowCounts(
            read=manifest.rows_read,
            inserted=inserted,
            updated=updated,
            unchanged=manifest.rows - inserted - updated,
            deduplicated=manifest.rows_deduplicated,
            quarantined=manifest.rows_quarantined,
            deleted=deleted,
        )
        receipt = LoadReceipt(
            dataset=spec.name,
            fingerprint=load.partition.fingerprint,
            load_id=load_id,
            status=LoadStatus.LOADED,
            counts=counts,
            reasons=manifest.reasons,
            findings=findings,
            schema_changes=table.changes,
            warnings=manifest.warnings,
            seconds=time.monotonic() - started,
        )
        state = load.partition.state | manifest.state
        partition = load.partition.model_copy(update={"state": state})
        ledger.insert_load(cursor, _ledger_row(load, receipt), partition)
        record_changes(cursor, spec, load_id, table.changes)
        on_step("ledger_written")
        ledger.insert_quarantine(cursor, load_id, manifest)
        if described:
            insert_profile(cursor, load_id, spec, manifest, findings)
        mark_replayed(cursor, load.partition, load_id, load.run)
        on_step("quarantine_written")
        return receipt


def _stage(
    cursor: Cursor,
    paths: list[Path],
    load: Load,
    columns: list[TargetColumn],
    on_step: Callable[[str], None],
) -> bool:
    """Copy the clean rows into the staging table; tell whether there is one."""
    if not paths:
        on_step("staged")
        on_step("copied")
        return False
    began = time.monotonic()
    schema = staged_schema(pq.read_schema(paths[0]))
    check_columns(schema.names, [column.name for column in columns])
    create_staging(cursor, schema)
    on_step("staged")
    batches = clean_batches(paths, schema)
    rows = copy_into_staging(cursor, schema, batches, lambda: on_step("copying"))
    if rows != load.manifest.rows:
        raise ContractBroken(
            f"{load.spec.name}: COPY took {rows} rows, the manifest has {load.manifest.rows}",
            "this must never happen; keep the lake files and report it",
        )
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", STAGING)))
    log.info("loading.copied", rows=rows, seconds=time.monotonic() - began)
    on_step("copied")
    return True


def _check_gates(
    cursor: Cursor, load: Load, columns: list[TargetColumn], *, has_rows: bool
) -> None:
    if replay_of(load.partition):
        return  # gates are about a slice of the source; these rows were picked because they broke
    check_gates(
        cursor,
        load.spec,
        load.lookups,
        columns,
        load.manifest,
        has_rows=has_rows,
        live=load.purpose == "run" and load.partition.refresh is None,
    )


def _check_fence(cursor: Cursor, load: Load) -> None:
    cursor.execute(query("read_fence"), {"dataset": load.spec.name, "purpose": load.purpose})
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
    log.info("loading.merged", inserted=row[0], updated=row[1], seconds=time.monotonic() - began)
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
        "source_bytes": load.partition.bytes or None,
        "seconds": receipt.seconds,
        **receipt.counts.model_dump(),
    }
