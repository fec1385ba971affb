"""The load transaction: rows and ledger row become visible together, or not at all.

Its steps are those of ``docs/architecture.md``; each is announced, so that a test can end the
process at every one of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading import ledger_entry, parallel
from tasks.loading.account import Changes, receipt_of, write_account
from tasks.loading.children.publish import publish_children, write_child_accounts
from tasks.loading.children.staged import child_files, ensure_child_schemas, stage_children
from tasks.loading.commit import ask_ledger, commit, wait_for_turn
from tasks.loading.deletes import check_keys, delete_missing
from tasks.loading.evolution import Prepared, prepare_target
from tasks.loading.gate_failures import record_gate_failure
from tasks.loading.job import Load, OnStep
from tasks.loading.locks import patiently
from tasks.loading.modes.conflicts import check_conflicts
from tasks.loading.modes.prepare import prepare_mode
from tasks.loading.modes.publication import statements_of
from tasks.loading.modes.statements import Statement
from tasks.loading.ownership import check_ownership
from tasks.loading.partitions import prepare_partitions
from tasks.loading.profiles import check_history
from tasks.loading.schema import TargetColumn, ensure_schema
from tasks.loading.session import session
from tasks.loading.staged import check_staged, clean_files, stage_rows
from tasks.loading.staging import STAGING
from tasks.loading.unique import check_unique
from tasks.model.anomaly import Finding
from tasks.model.errors import CommitUnknown, GateFailed, PipelineError
from tasks.model.report import LoadReceipt, LoadStatus

__all__ = ["STEPS", "Load", "load_partition"]

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


def load_partition(
    engine: Engine,
    lake: Lake,
    scratch: Path,
    load: Load,
    *,
    on_step: OnStep = lambda _step: None,
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
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if receipt := ledger_entry.find_load(cursor, load.partition):
            log.info("loading.already_loaded", load_id=receipt.load_id)
            return receipt
    paths = clean_files(lake, scratch, load.manifest)
    items = child_files(lake, scratch, load)
    ensure_schema(engine, load.spec)
    ensure_child_schemas(engine, load.spec)
    try:
        # Before the transaction: a forest takes its time, and nobody shall wait for it.
        findings = check_history(engine, load)
        receipt = _publish(engine, paths, items, load, findings, started, on_step)
    except GateFailed as error:
        record_gate_failure(engine, load, error)
        raise
    finally:
        if load.manifest.rows >= parallel.PARALLEL_ROWS:
            with suppress(PipelineError):  # the next such load does it
                parallel.drop_left_tables(engine)
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
    engine: Engine,
    paths: list[Path],
    items: Mapping[str, list[Path]],
    load: Load,
    findings: tuple[Finding, ...],
    started: float,
    on_step: OnStep,
) -> LoadReceipt:
    receipt: LoadReceipt | None = None
    try:
        with session(engine) as connection:
            receipt = _transaction(
                engine, connection, paths, items, load, findings, started, on_step
            )
            with connection.cursor() as cursor:
                parallel.end_staging(cursor)
            on_step("committing")
            commit(connection)
    except CommitUnknown:
        if receipt is None:
            raise
        return ask_ledger(engine, load.spec.load.table, load.partition, receipt)
    on_step("committed")
    return receipt


def _transaction(
    engine: Engine,
    connection: Connection,
    paths: list[Path],
    items: Mapping[str, list[Path]],
    load: Load,
    findings: tuple[Finding, ...],
    started: float,
    on_step: OnStep,
) -> LoadReceipt:
    with connection.cursor() as cursor:
        name_session(cursor, load)
        on_step("begun")
        columns = _staged_columns(load)
        has_rows = stage_rows(cursor, paths, load, columns, on_step, beside=engine)
        staged = stage_children(cursor, load, items)
        _check(cursor, load, has_rows=has_rows)
        on_step("gated")
        wait_for_turn(cursor, load.spec.load.table)
        on_step("locked")
        if receipt := ledger_entry.find_load(cursor, load.partition):
            return receipt
        check_ownership(cursor, load)
        on_step("checked")
        table = patiently(cursor, load.spec, lambda: _prepare(cursor, load, has_rows=has_rows))
        on_step("evolved")
        load_id = ledger_entry.next_load_id(cursor)
        changes = Changes()
        if load.compares_keys:
            changes = patiently(
                cursor,
                load.spec,
                lambda: _delete_missing(cursor, load, columns, has_rows=has_rows),
            )
        elif has_rows:
            changes = patiently(
                cursor, load.spec, lambda: _change_table(cursor, load, table.columns, load_id)
            )
        children = publish_children(cursor, load, staged, table.columns, load_id, has_rows=has_rows)
        on_step("merged")
        receipt = receipt_of(
            load,
            load_id,
            changes,
            findings=findings,
            schema_changes=table.changes,
            children={child.name: child.counts for child in children},
            seconds=time.monotonic() - started,
        )
        write_account(cursor, load, receipt, on_step)
        write_child_accounts(cursor, load, load_id, children)
        return receipt


def name_session(cursor: Cursor, load: Load) -> None:
    """Name the transaction after the load: the server ends a silent one, and tells whose it was."""
    cursor.execute(
        "SELECT set_config('application_name', %s, true)",
        (f"etl/{load.spec.name}/{load.run}"[:63],),
    )


def _staged_columns(load: Load) -> list[TargetColumn]:
    if not load.compares_keys:
        return load.columns
    return [column for column in load.columns if column.name in load.spec.key]


def _check(cursor: Cursor, load: Load, *, has_rows: bool) -> None:
    """Check what must hold before anything is visible."""
    if load.compares_keys:
        check_keys(load.spec, load.manifest)
    else:
        check_staged(cursor, load, has_rows=has_rows)


def _prepare(cursor: Cursor, load: Load, *, has_rows: bool) -> Prepared:
    """Create or alter what the rows go into: the table, and what its mode keeps beside it."""
    table = prepare_target(cursor, load.spec, load.columns)
    prepare_mode(cursor, load.spec, table.columns, is_new=table.is_new)
    if not load.compares_keys:
        prepare_partitions(cursor, load.spec, {STAGING: table.columns} if has_rows else {})
    return table


def _delete_missing(
    cursor: Cursor, load: Load, key: list[TargetColumn], *, has_rows: bool
) -> Changes:
    up_to = load.partition.deletes_up_to
    assert up_to is not None
    return Changes(deleted=delete_missing(cursor, load.spec, key, up_to, has_rows=has_rows))


def _change_table(
    cursor: Cursor, load: Load, columns: Sequence[TargetColumn], load_id: int
) -> Changes:
    """Publish the staged rows as the load mode says, and check what must hold in the whole table."""
    check_conflicts(cursor, load, columns)
    statements = statements_of(load.spec, columns, load_id, is_replay=load.is_replay)
    changes = run_statements(cursor, statements)
    check_unique(cursor, load.spec, {column.name: column for column in load.columns})
    return changes


def run_statements(cursor: Cursor, statements: Sequence[Statement]) -> Changes:
    """Run the statements of a mode, and add up what they count."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    for statement in statements:
        cursor.execute(statement.sql)
        if statement.counts:
            row = cursor.fetchone()
            assert row is not None, "a statement that counts gives a row"
            counts.update(dict(zip(statement.counts, row, strict=True)))
    log.info("loading.merged", **counts, seconds=time.monotonic() - began)
    return Changes(**counts)
