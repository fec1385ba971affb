"""Takes one load back, in one transaction: what it had replaced is restored from the lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.checks import LedgerRow
from tasks.loading.commit import commit
from tasks.loading.content_checks import History, history_of
from tasks.loading.expected import expected_content
from tasks.loading.lake_checks import intact_loads
from tasks.loading.past import Past, is_folded, past_of
from tasks.loading.queries import query
from tasks.loading.reapply import NO_LOOKUPS
from tasks.loading.reconcile import ledger_rows
from tasks.loading.replayed import missing_tables, restore_tables
from tasks.loading.restore import Restored, restore_rows, take_over
from tasks.loading.schema import LOAD_ID, target
from tasks.loading.session import session
from tasks.loading.shadow import Shadow, shadow
from tasks.loading.table_checks import rows_retired
from tasks.loading.unload_account import (
    COUNTED,
    Order,
    Recounted,
    Unloaded,
    account_for,
    find_unload,
)
from tasks.loading.unload_fold import find_differences, without
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import (
    CommitUnknown,
    ConfigError,
    ContractBroken,
    LoadConflict,
    WarehouseUnavailable,
)
from tasks.model.load import ReplaceLoad
from tasks.model.manifest import Manifest
from tasks.model.report import RowCounts

__all__ = ["STEPS", "Unloaded", "unload"]

STEPS = ("expected", "locked", "restored", "recorded", "committed")
"""Names of the steps, in their order."""
REMEDY = "nothing was changed; load what the source has today: dpp run --refresh, or dpp backfill"

log = structlog.get_logger("dpp.loading")
OnStep = Callable[[str], None]


def unload(  # noqa: PLR0913 - each is asked for by its name
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    load_id: int,
    *,
    actor: str,
    reason: str,
    exclude: bool = False,
    lookups: Mapping[str, LookedUp] = NO_LOOKUPS,
    on_step: OnStep = lambda _step: None,
) -> Unloaded:
    """Take a load back, as if it had never been; safe to call again after any failure.

    Rows that it inserted go, rows that it updated or deleted get the version that they would have
    without it. Later loads count what they then did. The ledger row moves to ``etl.unloads``, and the
    reasons of its refused rows with it.

    Args:
        engine: The warehouse.
        lake: The lake; it has the versions before.
        spec: The dataset.
        load_id: The load.
        actor: Who does it, for the audit.
        reason: Why.
        exclude: Leave its part of the source alone from now on; else the next run loads it again.
        lookups: What the dataset looks up; they give the types of columns.
        on_step: Is told the name of each step as it is reached.

    Raises:
        ConfigError: The dataset has no such load, or no reason is given.
        ContractBroken: It cannot be taken back; the message says why.
        LoadConflict: A load was committed meanwhile; nothing was changed.
    """
    if not reason.strip():
        raise ConfigError("taking a load back needs a reason", 'e.g. --reason "wrong file"')
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if done := find_unload(cursor, spec, load_id):
            return done
        rows = ledger_rows(cursor, spec)
        row = next((row for row in rows if row.load_id == load_id), None)
        if row is None:
            raise ConfigError(
                f"{spec.name} has no load {load_id}", "dpp trace and dpp reconcile name the loads"
            )
        _check_replays(cursor, spec, load_id)
        _check_mode(cursor, spec, row)
        cursor.execute(query("is_replay"), {"load_id": load_id})
        was_replay = bool(cursor.fetchone())
        folded = is_folded(spec, retired=bool(rows_retired(cursor, spec)))
    moved_on = row.source_state and any(o.source_state for o in rows if o.load_id > load_id)
    order = Order(
        load_id,
        actor,
        reason.strip(),
        exclude,
        read_again=not (exclude or was_replay or moved_on),
        was_replay=was_replay,
    )
    ids = [one.load_id for one in rows]
    if folded and not spec.table_key:
        return _transaction(
            engine, spec, order, ids, lambda cursor: _delete_rows(cursor, spec, load_id), on_step
        )
    clean = intact_loads(lake, rows)
    if not folded or any(one.deletes_up_to is not None for one in rows):
        return _replayed(engine, lake, spec, lookups, order, rows, clean, on_step)
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        history = history_of(cursor, spec, rows, clean)
    _check_history(spec, row, history)
    with expected_content(engine, lake, history.layout, history.loads) as expected:
        recounted = Recounted(without(expected, load_id))
        on_step("expected")

        def restore(cursor: Cursor) -> tuple[Restored, Recounted]:
            find_differences(cursor, spec, expected)
            return restore_rows(cursor, spec, expected, history.loads), recounted

        return _transaction(engine, spec, order, ids, restore, on_step)


def _check_replays(cursor: Cursor, spec: DatasetSpec, load_id: int) -> None:
    cursor.execute(query("replays_of"), {"load_id": load_id})
    replays = [str(row[0]) for row in cursor.fetchall()]
    if replays:
        raise ContractBroken(
            f"{spec.name}: rows that load {load_id} refused were replayed by load {', '.join(replays)}",
            f"take that back first: dpp unload {spec.name} --load {replays[-1]}",
        )


def _check_mode(cursor: Cursor, spec: DatasetSpec, row: LedgerRow) -> None:
    """Refuse what has no table to take it out of, and a part of what is only ever whole."""
    if missing := missing_tables(cursor, spec):
        raise _refused(
            spec, row, f"table {missing[0]} is gone", "dpp reconcile --repair makes it again"
        )
    if isinstance(spec.load, ReplaceLoad):
        raise _refused(
            spec,
            row,
            "in mode replace the table is the whole source as it was last read, and would lack a part",
            f"nothing was changed; correct the source, then dpp run {spec.name} replaces the table",
        )


def _check_history(spec: DatasetSpec, row: LedgerRow, history: History) -> None:
    """Refuse what cannot be undone exactly."""
    refusal = history.refusal
    if refusal is None and row.load_id in history.unknown:
        refusal = "its clean files are gone from the lake"
    elif refusal is None and history.unknown and (row.updated or row.unchanged):
        other = history.unknown[0]
        refusal = f"what it replaced may be of load {other}, whose files are gone from the lake"
    if refusal:
        raise _refused(spec, row, refusal)


def _refused(spec: DatasetSpec, row: LedgerRow, why: str, remedy: str = REMEDY) -> ContractBroken:
    return ContractBroken(f"{spec.name}: load {row.load_id} cannot be taken back: {why}", remedy)


def _replayed(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    order: Order,
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
    on_step: OnStep,
) -> Unloaded:
    """Take a load back by applying all others again beside the tables, in the same transaction."""
    (row,) = (one for one in rows if one.load_id == order.load_id)
    ids = [one.load_id for one in rows]
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            try:
                past = past_of(cursor, spec, rows, clean).without(order.load_id)
                with shadow(cursor, spec, lookups, lake, past) as made:
                    recounted = _recounted(cursor, spec, row, past, made)
                    on_step("expected")
                    if done := _taken(cursor, spec, order, ids):
                        return done
                    on_step("locked")
                    outcome = restore_tables(cursor, engine, lake, spec, lookups, past, made)
                    on_step("restored")
            except ContractBroken as error:
                raise _refused(spec, row, error.message) from None
            return _finish(connection, cursor, spec, order, outcome.restored, recounted, on_step)
    except CommitUnknown:
        raise _lost(spec, order) from None


def _recounted(
    cursor: Cursor, spec: DatasetSpec, gone: LedgerRow, past: Past, made: Shadow
) -> Recounted:
    """Return by how much counts change; loads before the one that goes must do what they did."""
    cursor.execute(query("child_counts"), {"dataset": spec.name})
    names = tuple(RowCounts.model_fields)
    of_children = {
        (row[0], row[1]): dict(zip(names, row[2:], strict=True)) for row in cursor.fetchall()
    }
    loads: dict[int, dict[str, int]] = {}
    children: dict[tuple[int, str], dict[str, int]] = {}
    for load in past.loads:
        load_id, done = load.row.load_id, made.done[load.row.load_id]
        now, then = done.counts.model_dump(), load.row.counts.model_dump()
        if now != then and load_id < gone.load_id:
            raise ContractBroken(
                f"load {load_id} before it does something else than then under the dataset file as it "
                "is now"
            )
        if now != then:
            loads[load_id] = {name: now[name] - then[name] for name in COUNTED}
        for child, counts in done.children.items():
            was, is_now = of_children.get((load_id, child), {}), counts.model_dump()
            changed = {n: is_now[n] - was.get(n, 0) for n in COUNTED}
            if was and any(changed.values()):
                children[load_id, child] = changed
    return Recounted(loads, children)


def _delete_rows(cursor: Cursor, spec: DatasetSpec, load_id: int) -> tuple[Restored, Recounted]:
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {} = %s").format(target(spec), sql.Identifier(LOAD_ID)),
        (load_id,),
    )
    return Restored(deleted=cursor.rowcount), Recounted()


def _transaction(
    engine: Engine,
    spec: DatasetSpec,
    order: Order,
    loads: Sequence[int],
    restore: Callable[[Cursor], tuple[Restored, Recounted]],
    on_step: OnStep,
) -> Unloaded:
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            if done := _taken(cursor, spec, order, loads):
                return done
            on_step("locked")
            restored, recounted = restore(cursor)
            on_step("restored")
            return _finish(connection, cursor, spec, order, restored, recounted, on_step)
    except CommitUnknown:
        raise _lost(spec, order) from None


def _taken(
    cursor: Cursor, spec: DatasetSpec, order: Order, loads: Sequence[int]
) -> Unloaded | None:
    """Own the table from now on; return what was done if somebody else has just done it."""
    try:
        take_over(cursor, spec, f"unload by {order.actor}", loads)
    except LoadConflict:
        if done := find_unload(cursor, spec, order.load_id):
            return done
        raise
    return None


def _finish(
    connection: Connection,
    cursor: Cursor,
    spec: DatasetSpec,
    order: Order,
    restored: Restored,
    recounted: Recounted,
    on_step: OnStep,
) -> Unloaded:
    done = account_for(cursor, spec, order, restored, recounted)
    on_step("recorded")
    commit(connection)
    on_step("committed")
    log.info("unload.done", dataset=spec.name, load_id=order.load_id, deleted=restored.deleted)
    return done


def _lost(spec: DatasetSpec, order: Order) -> WarehouseUnavailable:
    return WarehouseUnavailable(
        f"{spec.name}: the connection was lost while load {order.load_id} was taken back",
        "run the command again; it says whether it was done",
    )
