"""Repairs a table: rows that are not as the lake says are loaded again from there, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.audit import record
from tasks.loading.commit import commit
from tasks.loading.content import compare
from tasks.loading.content_checks import History, history_of
from tasks.loading.expected import Expected, expected_content
from tasks.loading.lake_checks import intact_loads
from tasks.loading.ledger import session
from tasks.loading.reconcile import ledger_rows
from tasks.loading.restore import replace_loads, restore_rows, take_over
from tasks.loading.schema import existing_columns
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import CommitUnknown, ContractBroken, WarehouseUnavailable

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        loads: Loads whose rows were not as they must be; also such as the ledger does not know.
        deleted: Rows that were taken out of the table.
        inserted: Rows that were put in.
    """

    loads: tuple[int, ...] = ()
    deleted: int = 0
    inserted: int = 0


def repair(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    retention_days: int,
    *,
    actor: str,
    on_step: Callable[[str], None] = lambda _step: None,
) -> Repaired:
    """Make a table hold what the lake says; safe to call again after any failure.

    Rows that are as they must be are not touched. It is one transaction, and it takes the dataset over
    from runs that are under way: they end with a conflict, and go on when they are run again.

    Args:
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        retention_days: Files of loads older than this may be gone.
        actor: Who does it, for the audit.
        on_step: Is told the name of each step as it is reached.

    Raises:
        ContractBroken: The lake cannot say what the table must hold.
        LoadConflict: A load was committed meanwhile; nothing was changed.
    """
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    with session(engine) as connection, connection.cursor() as cursor:
        rows = ledger_rows(cursor, spec)
        if not existing_columns(cursor, spec):
            if not rows:
                return Repaired()
            raise ContractBroken(
                f"{spec.name}: table {spec.load.table} is gone",
                f"dpp unload its {len(rows)} loads, and run the dataset again",
            )
    clean = intact_loads(lake, rows)
    with session(engine) as connection, connection.cursor() as cursor:
        history = history_of(cursor, spec, rows, clean)
    refusal = history.refusal
    if spec.children:
        refusal = "it has child tables, whose rows would lose their parents"
    if refusal:
        raise ContractBroken(f"{spec.name} cannot be repaired: {refusal}", "nothing was changed")
    lost = [row.load_id for row in rows if row.load_id not in clean and row.loaded_at >= oldest]
    if lost:
        raise ContractBroken(
            f"{spec.name}: files of load {lost[0]} are missing or damaged in the lake",
            "restore them from a backup, or take the load back (dpp unload) and run again",
        )
    with expected_content(engine, lake, history.layout, history.loads) as expected:
        on_step("expected")
        done = _repair(engine, spec, expected, history, actor, on_step)
    log.info("repair.done", dataset=spec.name, deleted=done.deleted, inserted=done.inserted)
    return done


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
            counts = {f"rows {what}": rows for what, rows in comparison.rows.items()}
            details = {"loads": different, "deleted": done.deleted, "inserted": done.inserted}
            record(
                cursor,
                spec,
                "repair",
                actor=actor,
                reason="rows were not as the lake says",
                details=details | counts,
            )
            on_step("recorded")
            commit(connection)
    except CommitUnknown:
        raise WarehouseUnavailable(
            f"{spec.name}: the connection was lost at the end of the repair",
            "run dpp reconcile again; it says whether anything is left to repair",
        ) from None
    return done
