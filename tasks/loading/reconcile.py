"""Proves that every row is accounted for: ledger, lake and warehouse, seen in one snapshot.

The names of the invariants are those of ``docs/architecture.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.audit import audit_checks
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.child_checks import child_checks, child_manifest_checks
from tasks.loading.content_checks import content_checks
from tasks.loading.lake_checks import examine_lake
from tasks.loading.position_checks import position_checks
from tasks.loading.queries import query
from tasks.loading.reapply import NO_LOOKUPS
from tasks.loading.resolutions import resolution_checks
from tasks.loading.session import session
from tasks.loading.table_checks import table_checks
from tasks.model.dataset import DatasetSpec, LookedUp

__all__ = ["Check", "reconcile"]

SNAPSHOT_IDLE = "1h"
"""How long the snapshot may be silent while the lake is read; it holds no lock that others wait for."""


def reconcile(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    retention_days: int,
    lookups: Mapping[str, LookedUp] = NO_LOOKUPS,
) -> list[Check]:
    """Check every invariant of one dataset.

    Args:
        engine: The warehouse; it is read in one REPEATABLE READ snapshot.
        lake: The lake.
        spec: The dataset.
        retention_days: Files of loads older than this may be gone.
        lookups: What the dataset looks up; they give the types of columns.
    """
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (SNAPSHOT_IDLE,)
        )
        rows = ledger_rows(cursor, spec)
        cursor.execute(query("quarantine_per_load"), {"dataset": spec.name})
        summary = dict(cursor.fetchall())
        checks = [
            *_ledger_checks(spec, rows),
            *position_checks(cursor, spec, rows),
            *_run_checks(cursor, spec, rows),
            *table_checks(cursor, spec, rows),
            *resolution_checks(cursor, spec),
            *audit_checks(cursor, spec),
            *child_checks(cursor, spec),
        ]
        retained = {row.load_id for row in rows if row.loaded_at >= oldest}
        kept = [row for row in rows if row.load_id in retained]
        checks += child_manifest_checks(cursor, lake, spec, kept)
        state = examine_lake(lake, spec, rows, retained)
        checks += [*state.checks, *_quarantine_checks(spec, rows, summary)]
        checks += content_checks(cursor, engine, lake, spec, lookups, rows, state.clean, retained)
    return checks


def ledger_rows(cursor: Cursor, spec: DatasetSpec) -> list[LedgerRow]:
    """Return the ledger of a dataset."""
    cursor.execute(query("ledger_rows"), {"dataset": spec.name})
    return [LedgerRow(*row) for row in cursor.fetchall()]


def _ledger_checks(spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    read = sum(row.read for row in rows)
    accounted = sum(row.accounted for row in rows)
    yield check(spec, "I1", "read = loaded + deduplicated + quarantined", read, accounted)
    unbalanced = [
        f"load {row.load_id}: {row.accounted} of {row.read}"
        for row in rows
        if row.read != row.accounted
    ]
    statement = "the same of every load"
    yield check(spec, "I1", statement, "none broken", shown(unbalanced), unbalanced)
    lost = [
        f"load {row.load_id}: {row.rows_staged} of {row.passed}"
        for row in rows
        if row.rows_staged not in (None, row.passed)
    ]
    statement = "rows taken by COPY = rows loaded"
    yield check(spec, "I3", statement, "none broken", shown(lost), lost)
    fingerprints = {row.fingerprint for row in rows}
    yield check(spec, "I4", "no partition was loaded twice", len(rows), len(fingerprints))


def _run_checks(cursor: Cursor, spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    cursor.execute(query("fences"), {"dataset": spec.name})
    row = cursor.fetchone()
    raised = int(row[0]) if row else 0
    runs = len({row.run for row in rows})
    found = "raised by every run" if raised >= runs else f"raised {raised} times by {runs} runs"
    yield check(spec, "I10", "the fence was raised by every run", "raised by every run", found)


def _quarantine_checks(
    spec: DatasetSpec, rows: list[LedgerRow], summary: dict[int, int]
) -> Iterator[Check]:
    different = [
        f"load {row.load_id}: {summary.get(row.load_id, 0)} instead of {row.quarantined}"
        for row in rows
        if summary.get(row.load_id, 0) != row.quarantined
    ]
    statement = "reasons of quarantine add up to the ledger"
    yield check(spec, "I5", statement, "none broken", shown(different), different)
