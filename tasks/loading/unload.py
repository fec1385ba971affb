"""Takes one load back, in one transaction: what it had replaced is restored from the lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2.extras
import structlog
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.audit import record
from tasks.loading.checks import LedgerRow
from tasks.loading.commit import commit
from tasks.loading.content import KEYED, table_values
from tasks.loading.content_checks import History, history_of
from tasks.loading.expected import Expected, expected_content, fetch_into
from tasks.loading.lake_checks import intact_loads
from tasks.loading.ledger import session
from tasks.loading.queries import query
from tasks.loading.reconcile import ledger_rows
from tasks.loading.restore import Restored, restore_rows, send_affected, take_over
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import (
    CommitUnknown,
    ConfigError,
    ContractBroken,
    LoadConflict,
    WarehouseUnavailable,
)
from tasks.model.run import Value

log = structlog.get_logger("dpp.loading")
OnStep = Callable[[str], None]


class Unloaded(Value):
    """What taking a load back did.

    ``already`` is True if it had been done before; nothing was done now.
    """

    dataset: str
    load_id: int
    rows_deleted: int
    """Rows of the table that are gone, or have another version now."""
    rows_restored: int
    """Rows whose version before was put in their place."""
    excluded: bool
    """Is the load's part of the source left alone by later runs?"""
    read_again: bool = False
    """Does the next run load it again? Not where later loads moved a position in the source on."""
    was_replay: bool = False
    """Were its rows some that were refused before? They wait in quarantine again."""
    already: bool = False
    unloaded_at: datetime | None = None
    unloaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    load_id: int
    actor: str
    reason: str
    exclude: bool
    read_again: bool
    was_replay: bool


def unload(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    load_id: int,
    *,
    actor: str,
    reason: str,
    exclude: bool = False,
    on_step: OnStep = lambda _step: None,
) -> Unloaded:
    """Take a load back, as if it had never been; safe to call again after any failure.

    Rows that it inserted go, rows that it updated get the version that they would have without it.
    Later loads count what they then did. The ledger row moves to ``etl.unloads``, and the reasons of
    its refused rows with it.

    Args:
        engine: The warehouse.
        lake: The lake; it has the versions before.
        spec: The dataset.
        load_id: The load.
        actor: Who does it, for the audit.
        reason: Why.
        exclude: Leave its part of the source alone from now on; else the next run loads it again.
        on_step: Is told the name of each step as it is reached.

    Raises:
        ConfigError: The dataset has no such load, or no reason is given.
        ContractBroken: It cannot be taken back; the message says why.
        LoadConflict: A load was committed meanwhile; nothing was changed.
    """
    if not reason.strip():
        raise ConfigError("taking a load back needs a reason", 'e.g. --reason "wrong file"')
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if done := _find(cursor, spec, load_id):
            return done
        rows = ledger_rows(cursor, spec)
        row = next((row for row in rows if row.load_id == load_id), None)
        if row is None:
            raise ConfigError(
                f"{spec.name} has no load {load_id}", "dpp trace and dpp reconcile name the loads"
            )
        _check_replays(cursor, spec, load_id)
        has_table = bool(existing_columns(cursor, spec))
        cursor.execute(query("is_replay"), {"load_id": load_id})
        was_replay = bool(cursor.fetchone())
    moved_on = row.source_state and any(o.source_state for o in rows if o.load_id > load_id)
    order = _Order(
        load_id,
        actor,
        reason.strip(),
        exclude,
        read_again=not (exclude or was_replay or moved_on),
        was_replay=was_replay,
    )
    clean = intact_loads(lake, rows) if spec.table_key else {}
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        history = history_of(cursor, spec, rows, clean)
    _check_history(spec, row, rows, history, has_table=has_table)
    loads = [one.load_id for one in rows]
    if not spec.table_key:
        return _transaction(engine, spec, order, loads, _delete_rows, {}, on_step)
    with expected_content(engine, lake, history.layout, history.loads) as expected:
        recounted = _without(expected, load_id)
        on_step("expected")

        def restore(cursor: Cursor, _spec: DatasetSpec, _load_id: int) -> Restored:
            _find_differences(cursor, spec, expected)
            return restore_rows(cursor, spec, expected, history.loads)

        return _transaction(engine, spec, order, loads, restore, recounted, on_step)


def _find(cursor: Cursor, spec: DatasetSpec, load_id: int) -> Unloaded | None:
    cursor.execute(query("find_unload"), {"dataset": spec.name, "load_id": load_id})
    row = cursor.fetchone()
    if row is None:
        return None
    return Unloaded(
        dataset=spec.name,
        load_id=load_id,
        unloaded_at=row[0],
        unloaded_by=row[1],
        rows_deleted=row[2],
        rows_restored=row[3],
        excluded=row[4],
        already=True,
    )


def _check_replays(cursor: Cursor, spec: DatasetSpec, load_id: int) -> None:
    cursor.execute(query("replays_of"), {"load_id": load_id})
    replays = [str(row[0]) for row in cursor.fetchall()]
    if replays:
        raise ContractBroken(
            f"{spec.name}: rows that load {load_id} refused were replayed by load {', '.join(replays)}",
            f"take that back first: dpp unload {spec.name} --load {replays[-1]}",
        )


def _check_history(
    spec: DatasetSpec,
    row: LedgerRow,
    rows: Sequence[LedgerRow],
    history: History,
    *,
    has_table: bool,
) -> None:
    """Refuse what cannot be undone exactly."""
    refusal = history.refusal
    if not has_table:
        refusal = f"table {spec.load.table} is gone"
    elif spec.children:
        refusal = "it has child tables, whose rows would lose their parents"
    elif refusal is None and spec.table_key:
        if any(one.deletes_up_to is not None for one in rows):
            refusal = "rows of it were deleted because they were gone from the source"
        elif row.load_id in history.unknown:
            refusal = "its clean files are gone from the lake"
        elif history.unknown and (row.updated or row.unchanged):
            refusal = (
                f"what it replaced may be of load {history.unknown[0]}, whose files are gone from the "
                "lake"
            )
    if refusal:
        raise ContractBroken(
            f"{spec.name}: load {row.load_id} cannot be taken back: {refusal}",
            "nothing was changed; load what the source has today: dpp run --refresh, or dpp backfill",
        )


def _without(expected: Expected, load_id: int) -> dict[int, dict[str, int]]:
    """Apply all loads but one; return by how much the others' counts change."""
    connection = expected.connection
    connection.execute("CREATE TABLE affected AS SELECT k FROM versions WHERE load = ?", [load_id])
    before = _counts(expected)
    expected.forget(load_id)
    expected.fold()
    after = _counts(expected)
    changed = {
        load: {name: after[load][name] - counts[name] for name in counts}
        for load, counts in before.items()
        if load in after and after[load] != counts
    }
    return {load: counts for load, counts in changed.items() if load != load_id}


def _counts(expected: Expected) -> dict[int, dict[str, int]]:
    """Return what each load did with the affected keys."""
    found = expected.connection.execute(expected.counting("affected")).fetchall()
    return {
        int(load): {"inserted": int(new), "updated": int(changed), "unchanged": int(same)}
        for load, new, changed, same in found
    }


def _find_differences(cursor: Cursor, spec: DatasetSpec, expected: Expected) -> None:
    """Compare the affected rows of the table with what they are without the load."""
    layout, connection = expected.layout, expected.connection
    affected = send_affected(cursor, expected, "SELECT k FROM affected")
    values = table_values([column.name for column in layout.columns])
    statement = sql.SQL(
        "SELECT {key}, {order}, t.{load}, {row} FROM {table} t WHERE {key}::uuid IN "
        "(SELECT k FROM {affected})"
    ).format(
        key=layout.key_hash(values),
        order=layout.order_of(values),
        load=sql.Identifier(LOAD_ID),
        row=layout.row_hash(values),
        table=target(spec),
        affected=affected,
    )
    connection.execute("DELETE FROM actual")
    fetch_into(cursor, statement, connection, "actual", layout.order, expected.scratch)
    connection.execute("DELETE FROM expected WHERE k NOT IN (SELECT k FROM affected)")
    connection.execute("CREATE OR REPLACE TABLE differing AS SELECT DISTINCT load FROM expected")
    connection.execute(f"CREATE OR REPLACE TABLE differences AS {KEYED}")


def _delete_rows(cursor: Cursor, spec: DatasetSpec, load_id: int) -> Restored:
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {} = %s").format(target(spec), sql.Identifier(LOAD_ID)),
        (load_id,),
    )
    return Restored(deleted=cursor.rowcount)


def _transaction(
    engine: Engine,
    spec: DatasetSpec,
    order: _Order,
    loads: Sequence[int],
    restore: Callable[[Cursor, DatasetSpec, int], Restored],
    recounted: Mapping[int, Mapping[str, int]],
    on_step: OnStep,
) -> Unloaded:
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            try:
                take_over(cursor, spec, f"unload by {order.actor}", loads)
            except LoadConflict:
                if done := _find(cursor, spec, order.load_id):
                    return done  # somebody else has just done it
                raise
            on_step("locked")
            restored = restore(cursor, spec, order.load_id)
            on_step("restored")
            done = _account(cursor, spec, order, restored, recounted)
            on_step("recorded")
            commit(connection)
    except CommitUnknown:
        raise WarehouseUnavailable(
            f"{spec.name}: the connection was lost while load {order.load_id} was taken back",
            "run the command again; it says whether it was done",
        ) from None
    on_step("committed")
    log.info("unload.done", dataset=spec.name, load_id=order.load_id, deleted=restored.deleted)
    return done


def _account(
    cursor: Cursor,
    spec: DatasetSpec,
    order: _Order,
    restored: Restored,
    recounted: Mapping[int, Mapping[str, int]],
) -> Unloaded:
    """Move the ledger row, count anew what later loads did, and write the audit."""
    for load_id, counts in recounted.items():
        cursor.execute(query("recount_load"), {"load_id": load_id, **counts})
    changes: dict[str, Any] = {str(load_id): dict(counts) for load_id, counts in recounted.items()}
    cursor.execute(
        query("keep_unload"),
        {
            "load_id": order.load_id,
            "excluded": order.exclude,
            "by": order.actor,
            "reason": order.reason,
            "deleted": restored.deleted,
            "restored": restored.inserted,
            "recounted": psycopg2.extras.Json(changes),
        },
    )
    cursor.execute(query("forget_load"), {"load_id": order.load_id})
    details = {
        "deleted": restored.deleted,
        "restored": restored.inserted,
        "excluded": order.exclude,
        "recounted": changes,
    }
    record(
        cursor,
        spec,
        "unload",
        actor=order.actor,
        reason=order.reason,
        load_id=order.load_id,
        details=details,
    )
    return Unloaded(
        dataset=spec.name,
        load_id=order.load_id,
        rows_deleted=restored.deleted,
        rows_restored=restored.inserted,
        excluded=order.exclude,
        read_again=order.read_again,
        was_replay=order.was_replay,
    )
