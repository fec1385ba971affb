"""The transaction of ``replace``: all partitions of a run take the place of the table's rows, or none.

The clean files of the partitions wait in the lake until there are all of them, so that a run which is
killed goes on where it was and leaves nothing behind in the warehouse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading import ledger_entry
from tasks.loading.account import Changes, receipt_of, write_account
from tasks.loading.children.publish import write_child_accounts
from tasks.loading.children.staged import child_files, ensure_child_schemas
from tasks.loading.children.whole import PiledChildren
from tasks.loading.commit import ask_ledger, commit, wait_for_turn
from tasks.loading.evolution import prepare_target
from tasks.loading.gate_failures import record_gate_failure
from tasks.loading.job import Load, OnStep
from tasks.loading.locks import patiently
from tasks.loading.modes.replace import (
    Pile,
    all_rows,
    delete_statement,
    insert_statement,
    pile_statement,
)
from tasks.loading.ownership import check_ownership
from tasks.loading.partitions import prepare_partitions
from tasks.loading.profiles import check_history
from tasks.loading.publish import name_session
from tasks.loading.schema import TargetColumn, ensure_schema
from tasks.loading.session import session
from tasks.loading.staged import check_staged, clean_files, stage_rows
from tasks.loading.staging import STAGING, analyze_staging
from tasks.loading.unique import check_unique_in_table
from tasks.model.anomaly import Finding
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import CommitUnknown, GateFailed
from tasks.model.load import ReplaceLoad
from tasks.model.report import LoadReceipt, SchemaChange

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True, slots=True)
class _Ready:
    """A load whose clean files are on this machine."""

    load: Load
    paths: list[Path]
    items: dict[str, list[Path]]
    findings: tuple[Finding, ...]


def load_whole(
    engine: Engine,
    lake: Lake,
    scratch: Path,
    loads: Sequence[Load],
    *,
    on_step: OnStep = lambda _step: None,
    on_refusal: Callable[[Load, GateFailed], None] = lambda _load, _error: None,
) -> list[LoadReceipt]:
    """Publish all partitions of a run in one transaction; safe to call again after any failure.

    Args:
        engine: The warehouse.
        lake: Where the clean files are.
        scratch: Folder for files fetched from a remote lake.
        loads: All partitions of the run, of one dataset.
        on_step: Is told the name of each step as it is reached.
        on_refusal: Is told the load that a gate refused.

    Returns:
        What was done for each, in their order.

    Raises:
        GateFailed: A gate does not hold, or there is no row at all; nothing was published.
        LoadConflict: A newer run owns the dataset; nothing was published.
        ContractBroken: The rows or the table do not fit the dataset file.
        WarehouseUnavailable: The warehouse went away; it is safe to try again.
    """
    started = time.monotonic()
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if found := _found(cursor, loads):
            return found
    ensure_schema(engine, loads[0].spec)
    ensure_child_schemas(engine, loads[0].spec)
    looked_at = [loads[0]]
    try:
        _check_not_empty(loads)
        ready = []
        for load in loads:
            looked_at.append(load)
            paths = clean_files(lake, scratch, load.manifest)
            items = child_files(lake, scratch, load)
            ready.append(_Ready(load, paths, items, check_history(engine, load)))
        receipts = _publish(engine, ready, started, looked_at, on_step)
    except GateFailed as error:
        record_gate_failure(engine, looked_at[-1], error)
        on_refusal(looked_at[-1], error)
        raise
    log.info("loading.replaced", partitions=len(loads), seconds=time.monotonic() - started)
    return receipts


def _publish(
    engine: Engine,
    ready: Sequence[_Ready],
    started: float,
    looked_at: list[Load],
    on_step: OnStep,
) -> list[LoadReceipt]:
    receipts: list[LoadReceipt] = []
    try:
        with session(engine) as connection:
            receipts = _transaction(connection, ready, started, looked_at, on_step)
            on_step("committing")
            commit(connection)
    except CommitUnknown:
        if not receipts:
            raise
        return _after_unknown(engine, [one.load for one in ready], receipts)
    on_step("committed")
    return receipts


def _found(cursor: Cursor, loads: Sequence[Load]) -> list[LoadReceipt]:
    """Return the receipts of loads that are in the ledger: of all, or of none of them."""
    receipts = [ledger_entry.find_load(cursor, load.partition) for load in loads]
    return [receipt for receipt in receipts if receipt]


def _check_not_empty(loads: Sequence[Load]) -> None:
    spec = loads[0].spec
    assert isinstance(spec.load, ReplaceLoad)
    if not spec.load.allow_empty and not any(load.manifest.rows for load in loads):
        read = sum(load.manifest.rows_read for load in loads)
        raise GateFailed(
            f"{spec.name}: the source has no row for {spec.load.table}: {read} were read in "
            f"{len(loads)} partitions, and none is clean",
            "the table was left as it is; set load.allow_empty: true if it shall be emptied",
        )


def _after_unknown(
    engine: Engine, loads: Sequence[Load], receipts: list[LoadReceipt]
) -> list[LoadReceipt]:
    """Find out what became of a COMMIT whose answer was lost: one load of the run tells of all."""
    table = loads[0].spec.load.table
    if ask_ledger(engine, table, loads[0].partition, receipts[0]) is receipts[0]:
        return receipts
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        return _found(cursor, loads)


def _transaction(
    connection: Connection,
    ready: Sequence[_Ready],
    started: float,
    looked_at: list[Load],
    on_step: OnStep,
) -> list[LoadReceipt]:
    loads = [one.load for one in ready]
    spec = loads[0].spec
    with connection.cursor() as cursor:
        name_session(cursor, loads[0])
        on_step("begun")
        children = PiledChildren()
        ids, piles = _pile_up(cursor, ready, children, looked_at, on_step)
        on_step("gated")
        wait_for_turn(cursor, spec.load.table)
        on_step("locked")
        if found := _found(cursor, loads):
            return found
        check_ownership(cursor, loads[0])
        on_step("checked")
        altered = patiently(cursor, spec, lambda: prepare_piles(cursor, spec, piles))
        on_step("evolved")
        changes, rows = patiently(cursor, spec, lambda: replace_rows(cursor, spec, piles, ids))
        items = children.publish(cursor, spec, rows, ids[0])
        check_unique_in_table(cursor, spec)
        on_step("merged")
        receipts = []
        for one, load_id in zip(ready, ids, strict=True):
            receipt = receipt_of(
                one.load,
                load_id,
                changes[load_id],
                findings=one.findings,
                schema_changes=altered if load_id == ids[0] else (),
                children={child.name: child.counts for child in items.get(load_id, ())},
                seconds=time.monotonic() - started,
            )
            write_account(cursor, one.load, receipt, on_step)
            write_child_accounts(cursor, one.load, load_id, items.get(load_id, ()))
            receipts.append(receipt)
        return receipts


def _pile_up(
    cursor: Cursor,
    ready: Sequence[_Ready],
    children: PiledChildren,
    looked_at: list[Load],
    on_step: OnStep,
) -> tuple[list[int], list[Pile]]:
    """Stage partition after partition, check the gates of each, and keep the rows of all."""
    ids: list[int] = []
    piles: dict[tuple[TargetColumn, ...], Pile] = {}
    for one in ready:
        looked_at.append(one.load)
        ids.append(ledger_entry.next_load_id(cursor))
        columns = one.load.columns
        has_rows = stage_rows(cursor, one.paths, one.load, columns, on_step)
        children.add(cursor, one.load, ids[-1], one.items)
        check_staged(cursor, one.load, has_rows=has_rows)
        pile = piles.setdefault(tuple(columns), Pile(f"etl_pile_{len(piles)}", columns))
        if has_rows:
            cursor.execute(pile_statement(pile, ids[-1]))
            cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("pg_temp", STAGING)))
            pile.is_there = True
    return ids, list(piles.values())


def prepare_piles(
    cursor: Cursor, spec: DatasetSpec, piles: Sequence[Pile]
) -> tuple[SchemaChange, ...]:
    """Make the table take the rows of every pile, and tell what was altered for it."""
    changes: list[SchemaChange] = []
    staged: dict[str, list[TargetColumn]] = {}
    for pile in piles:
        table = prepare_target(cursor, spec, pile.columns)
        changes += table.changes
        if pile.is_there:
            staged[pile.name] = table.columns
    prepare_partitions(cursor, spec, staged)
    return tuple(changes)


def replace_rows(
    cursor: Cursor, spec: DatasetSpec, piles: Sequence[Pile], ids: Sequence[int]
) -> tuple[dict[int, Changes], sql.Composable | None]:
    """Put the rows of the piles in the place of those that are there.

    What is deleted is counted for the first load of the run.

    Returns:
        What each load did, and the query for the rows of the piles; None if there are none.
    """
    began = time.monotonic()
    filled = []
    for pile in piles:
        if pile.is_there:
            analyze_staging(cursor, sql.Identifier("pg_temp", pile.name))
            # Asked again, now that the table has its last types.
            filled.append((pile, prepare_target(cursor, spec, pile.columns).columns))
    rows = all_rows(filled) if filled else None
    cursor.execute(delete_statement(spec, rows))
    deleted = int(cursor.rowcount)
    written: dict[int, tuple[int, int]] = {}
    if rows is not None:
        names = list(dict.fromkeys(column.name for _, columns in filled for column in columns))
        cursor.execute(insert_statement(spec, names, rows))
        written = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
    log.info("loading.merged", deleted=deleted, seconds=time.monotonic() - began)
    changes = {
        load_id: Changes(*written.get(load_id, (0, 0)), deleted if load_id == ids[0] else 0)
        for load_id in ids
    }
    return changes, rows
