"""Repairs a table: rows that are not as the lake says are loaded again from there, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.audit import record
from tasks.loading.checks import LedgerRow
from tasks.loading.commit import commit
from tasks.loading.content import compare
from tasks.loading.content_checks import History, history_of
from tasks.loading.expected import Expected, expected_content
from tasks.loading.lake_checks import intact_loads
from tasks.loading.past import Past, is_folded, past_of
from tasks.loading.reapply import NO_LOOKUPS
from tasks.loading.reconcile import ledger_rows
from tasks.loading.replayed import missing_tables, restore_tables
from tasks.loading.restore import replace_loads, restore_rows, take_over
from tasks.loading.schema import ensure_schema
from tasks.loading.session import session
from tasks.loading.shadow import Shadow, shadow
from tasks.loading.table_checks import rows_retired
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import CommitUnknown, ContractBroken, WarehouseUnavailable
from tasks.model.manifest import Manifest

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        loads: Loads whose rows were not as they must be; also such as the ledger does not know.
        deleted: Rows that were taken out of the table.
        inserted: Rows that were put in.
        made: Tables that were gone.
    """

    loads: tuple[int, ...] = ()
    deleted: int = 0
    inserted: int = 0
    made: tuple[str, ...] = ()


STEPS = ("expected", "locked", "restored", "recorded", "committed")
"""Names of the steps, in their order."""


def repair(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    retention_days: int,
    *,
    actor: str,
    lookups: Mapping[str, LookedUp] = NO_LOOKUPS,
    on_step: Callable[[str], None] = lambda _step: None,
) -> Repaired:
    """Make the tables of a dataset hold what the lake says; safe to call again after any failure.

    Rows that are as they must be are not touched; a table that is gone is made again. It is one
    transaction, and it takes the dataset over from runs that are under way: they end with a conflict,
    and go on when they are run again.

    Args:
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        retention_days: Files of loads older than this may be gone.
        actor: Who does it, for the audit.
        lookups: What the dataset looks up; they give the types of columns.
        on_step: Is told the name of each step as it is reached.

    Raises:
        ContractBroken: The lake cannot say what the table must hold.
        LoadConflict: A load was committed meanwhile; nothing was changed.
    """
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    with session(engine) as connection, connection.cursor() as cursor:
        rows = ledger_rows(cursor, spec)
        if not rows:
            return Repaired()
        gone = missing_tables(cursor, spec)
        folded = is_folded(spec, retired=bool(rows_retired(cursor, spec)))
    clean = intact_loads(lake, rows)
    lost = [row.load_id for row in rows if row.load_id not in clean and row.loaded_at >= oldest]
    if lost:
        raise ContractBroken(
            f"{spec.name}: files of load {lost[0]} are missing or damaged in the lake",
            "restore them from a backup, or take the load back (dpp unload) and run again",
        )
    if gone or not folded:
        done = _replayed(engine, lake, spec, lookups, rows, clean, actor, on_step)
        log.info("repair.done", dataset=spec.name, deleted=done.deleted, inserted=done.inserted)
        return done
    with session(engine) as connection, connection.cursor() as cursor:
        history = history_of(cursor, spec, rows, clean)
    if history.refusal:
        raise _refused(spec, history.refusal)
    with expected_content(engine, lake, history.layout, history.loads) as expected:
        on_step("expected")
        done = _repair(engine, spec, expected, history, actor, on_step)
    log.info("repair.done", dataset=spec.name, deleted=done.deleted, inserted=done.inserted)
    return done


def _refused(spec: DatasetSpec, why: str) -> ContractBroken:
    return ContractBroken(f"{spec.name} cannot be repaired: {why}", "nothing was changed")


def _replayed(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
    actor: str,
    on_step: Callable[[str], None],
) -> Repaired:
    """Repair by applying every load again beside the tables, in the same transaction."""
    for one in (spec, *child_tables(spec).values()):
        ensure_schema(engine, one)
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            try:
                past = past_of(cursor, spec, rows, clean)
                with shadow(cursor, spec, lookups, lake, past) as made:
                    _check_counts(past, made)
                    on_step("expected")
                    take_over(cursor, spec, f"repair by {actor}", [row.load_id for row in rows])
                    on_step("locked")
                    outcome = restore_tables(cursor, engine, lake, spec, lookups, past, made)
                    on_step("restored")
            except ContractBroken as error:
                raise _refused(spec, error.message) from None
            loads, restored = sorted(outcome.loads), outcome.restored
            if not loads and not outcome.made:
                connection.rollback()
                return Repaired()
            done = Repaired(tuple(loads), restored.deleted, restored.inserted, tuple(outcome.made))
            _finish(connection, cursor, spec, actor, done, outcome.differences, on_step)
    except CommitUnknown:
        raise _lost(spec) from None
    return done


def _check_counts(past: Past, made: Shadow) -> None:
    """Refuse to repair from loads that do something else than the ledger says that they did."""
    for load in past.loads:
        if made.done[load.row.load_id].counts != load.row.counts:
            raise ContractBroken(
                f"load {load.row.load_id} does something else than the ledger says when it is applied "
                "again under the dataset file as it is now"
            )


def _finish(
    connection: Connection,
    cursor: Cursor,
    spec: DatasetSpec,
    actor: str,
    done: Repaired,
    differences: Mapping[Any, int],
    on_step: Callable[[str], None],
) -> None:
    counts = {f"rows {what}": rows for what, rows in differences.items()}
    details = {
        "loads": list(done.loads),
        "deleted": done.deleted,
        "inserted": done.inserted,
        "tables made": list(done.made),
    }
    record(
        cursor,
        spec.name,
        "repair",
        actor=actor,
        reason="rows were not as the lake says",
        details=details | counts,
    )
    on_step("recorded")
    commit(connection)
    on_step("committed")


def _lost(spec: DatasetSpec) -> WarehouseUnavailable:
    return WarehouseUnavailable(
        f"{spec.name}: the connection was lost at the end of the repair",
        "run dpp reconcile again; it says whether anything is left to repair",
    )


def _repair(
    engine: Engine,
    spec: DatasetSpec,
    expected: Expected,
    history: History,
    actor: str,
    on_step: Callable[[str], None],
) -> Repaired:
    known = sorted([*(load.load_id for load in history.loads), *history.unknown])
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            take_over(cursor, spec, f"repair by {actor}", known)
            on_step("locked")
            comparison = compare(cursor, spec, expected, history.unknown)
            different = list(comparison.loads)
            if not different:
                return Repaired()
            restored = (
                restore_rows(cursor, spec, expected, history.loads)
                if expected.layout.key
                else replace_loads(cursor, spec, expected, history.loads, different)
            )
            on_step("restored")
            done = Repaired(tuple(different), restored.deleted, restored.inserted)
            _finish(connection, cursor, spec, actor, done, comparison.rows, on_step)
    except CommitUnknown:
        raise _lost(spec) from None
    return done
