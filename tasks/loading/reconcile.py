"""Proves that every row is accounted for: ledger, lake and warehouse, seen in one snapshot.

The names of the invariants are those of ``docs/architecture.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.companion import companion_exists
from tasks.loading.evolution import MAX_COLUMNS
from tasks.loading.lake_checks import lake_checks
from tasks.loading.ledger import session
from tasks.loading.modes.merge import TOMBSTONES, remembers_deletions, revived_statement
from tasks.loading.modes.scd2 import broken_versions_statement
from tasks.loading.queries import query
from tasks.loading.resolutions import resolution_checks
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.model.dataset import DatasetSpec
from tasks.model.load import Scd2Load

__all__ = ["Check", "reconcile"]

ROOMY_COLUMNS = MAX_COLUMNS * 9 // 10
"""From here on a load that adds columns may soon be refused."""


def reconcile(engine: Engine, lake: Lake, spec: DatasetSpec, retention_days: int) -> list[Check]:
    """Check every invariant of one dataset.

    Args:
        engine: The warehouse; it is read in one REPEATABLE READ snapshot.
        lake: The lake.
        spec: The dataset.
        retention_days: Files of loads older than this may be gone.
    """
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("ledger_rows"), {"dataset": spec.name})
        rows = [LedgerRow(*row) for row in cursor.fetchall()]
        checks = [*_ledger_checks(spec, rows), *_target_checks(cursor, spec, rows)]
        cursor.execute(query("quarantine_per_load"), {"dataset": spec.name})
        summary = dict(cursor.fetchall())
        checks += resolution_checks(cursor, spec)
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    retained = [row for row in rows if row.loaded_at >= oldest]
    return [*checks, *lake_checks(lake, spec, retained), *_quarantine_checks(spec, rows, summary)]


def _ledger_checks(spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    read = sum(row.read for row in rows)
    accounted = sum(row.accounted for row in rows)
    yield check(spec, "I1", "read = loaded + deduplicated + quarantined", read, accounted)
    unbalanced = [
        f"load {row.load_id}: {row.accounted} of {row.read}"
        for row in rows
        if row.read != row.accounted
    ]
    yield check(spec, "I1", "the same of every load", "none broken", shown(unbalanced))
    fingerprints = {row.fingerprint for row in rows}
    yield check(spec, "I4", "no partition was loaded twice", len(rows), len(fingerprints))


def _target_checks(cursor: Cursor, spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    if not existing_columns(cursor, spec):
        if rows:
            yield check(spec, "I6", f"table {spec.load.table} is there", True, False)
        return
    table = target(spec)
    count = _number(cursor, sql.SQL("SELECT count(*) FROM {}").format(table))
    retired = _retired(cursor, spec)
    there = sum(row.inserted + row.restored - row.deleted for row in rows)
    there -= sum(retired.values())
    yield check(spec, "I6", "rows inserted + restored - deleted = rows in the table", there, count)
    strangers = _number(
        cursor,
        sql.SQL(
            "SELECT count(*) FROM {} t WHERE NOT EXISTS ("
            "SELECT 1 FROM etl.loads l WHERE l.load_id = t.{} AND l.dataset = %s)"
        ).format(table, sql.Identifier(LOAD_ID)),
        spec.name,
    )
    yield check(spec, "I7", "every row leads to its load", 0, strangers)
    yield check(
        spec,
        "I6",
        "no load has more rows in the table than it wrote",
        "none broken",
        shown(_overfull(cursor, spec, rows, retired)),
    )
    yield _headroom(cursor, spec)
    # An index can be broken where the rows are not: count by the rows themselves.
    if spec.table_key:
        keys = sql.SQL(", ").join(map(sql.Identifier, spec.table_key))
        distinct = _number(
            cursor,
            sql.SQL(
                "SELECT count(*) FROM (SELECT DISTINCT {} FROM {} WHERE num_nulls({}) = 0) d"
            ).format(keys, table, keys),
        )
        yield check(spec, "I8", "every key is there once, and whole", count, distinct)
    if remembers_deletions(spec) and companion_exists(cursor, TOMBSTONES, spec):
        revived = _number(cursor, revived_statement(spec))
        yield check(spec, "I10", "no row is older than the deletion of its key", 0, revived)
    if isinstance(spec.load, Scd2Load):
        broken = _number(cursor, broken_versions_statement(spec, spec.load))
        yield check(spec, "I10", "versions of a key follow each other", 0, broken)


def _retired(cursor: Cursor, spec: DatasetSpec) -> dict[int, int]:
    """Return how many rows of each load retention took away."""
    cursor.execute(query("rows_retired"), {"dataset": spec.name})
    return dict(cursor.fetchall())


def _headroom(cursor: Cursor, spec: DatasetSpec) -> Check:
    """Check that the table can take more columns, as far as that is not for want of dropped ones."""
    cursor.execute(query("column_slots"), {"table": spec.load.table})
    used = int((cursor.fetchone() or (0,))[0])
    most = max(ROOMY_COLUMNS, len(existing_columns(cursor, spec)))
    statement = f"at most {most} of {MAX_COLUMNS} column numbers are used up"
    return check(spec, "I14", statement, most, max(used, most))


def _overfull(
    cursor: Cursor, spec: DatasetSpec, rows: list[LedgerRow], retired: dict[int, int]
) -> list[str]:
    """Name the loads whose rows in the table are more than they wrote; of append, or fewer.

    Merging takes rows from a load, when a later one changes them; nothing adds rows to one. What
    retention took away counts as if it were there.
    """
    cursor.execute(
        sql.SQL("SELECT {0}, count(*) FROM {1} GROUP BY {0}").format(
            sql.Identifier(LOAD_ID), target(spec)
        )
    )
    found: Counter[int] = Counter(dict(cursor.fetchall()))
    found.update(retired)
    return [
        f"load {row.load_id}: {found.get(row.load_id, 0)} rows, wrote {row.written}"
        for row in rows
        if found.get(row.load_id, 0) > row.written
        or (spec.load.mode == "append" and found.get(row.load_id, 0) != row.written)
    ]


def _number(cursor: Cursor, statement: sql.Composed, *arguments: str) -> int:
    cursor.execute(statement, arguments or None)
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def _quarantine_checks(
    spec: DatasetSpec, rows: list[LedgerRow], summary: dict[int, int]
) -> Iterator[Check]:
    different = [
        f"load {row.load_id}: {summary.get(row.load_id, 0)} instead of {row.quarantined}"
        for row in rows
        if summary.get(row.load_id, 0) != row.quarantined
    ]
    yield check(
        spec, "I5", "reasons of quarantine add up to the ledger", "none broken", shown(different)
    )
