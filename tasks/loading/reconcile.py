"""Proves that every row is accounted for: ledger, lake and warehouse, seen in one snapshot.

The names of the invariants are those of ``docs/architecture.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import broken_file, read_manifest
from tasks.loading.ledger import session
from tasks.loading.queries import query
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.model.dataset import DatasetSpec
from tasks.model.run import Manifest, Value

SHOWN = 3
"""Differences that are named; the others are counted."""


class Check(Value):
    """One invariant of one dataset, and whether it holds."""

    invariant: str
    dataset: str
    statement: str
    expected: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class _LedgerRow:
    load_id: int
    fingerprint: str
    label: str
    target: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    deduplicated: int
    quarantined: int
    manifest_key: str
    manifest_digest: str
    config_hash: str
    loaded_at: datetime

    @property
    def passed(self) -> int:
        return self.inserted + self.updated + self.unchanged


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
        rows = [_LedgerRow(*row) for row in cursor.fetchall()]
        checks = [*_ledger_checks(spec, rows), *_target_checks(cursor, spec, rows)]
        cursor.execute(query("quarantine_per_load"), {"dataset": spec.name})
        summary = dict(cursor.fetchall())
    oldest = datetime.now(UTC) - timedelta(days=retention_days)
    retained = [row for row in rows if row.loaded_at >= oldest]
    return [*checks, *_lake_checks(lake, spec, retained), *_quarantine_checks(spec, rows, summary)]


def _check(
    spec: DatasetSpec, invariant: str, statement: str, expected: object, found: object
) -> Check:
    return Check(
        invariant=invariant,
        dataset=spec.name,
        statement=statement,
        expected=str(expected),
        found=str(found),
        holds=expected == found,
    )


def _ledger_checks(spec: DatasetSpec, rows: list[_LedgerRow]) -> Iterator[Check]:
    read = sum(row.read for row in rows)
    accounted = sum(row.passed + row.deduplicated + row.quarantined for row in rows)
    yield _check(spec, "I1", "read = loaded + deduplicated + quarantined", read, accounted)
    yield _check(
        spec, "I4", "no partition was loaded twice", len(rows), len({r.fingerprint for r in rows})
    )


def _target_checks(cursor: Cursor, spec: DatasetSpec, rows: list[_LedgerRow]) -> Iterator[Check]:
    if not existing_columns(cursor, spec):
        if rows:
            yield _check(spec, "I6", f"table {spec.load.table} is there", True, False)
        return
    table = target(spec)
    count = _number(cursor, sql.SQL("SELECT count(*) FROM {}").format(table))
    inserted = sum(row.inserted for row in rows)
    yield _check(spec, "I6", "rows inserted = rows in the table", inserted, count)
    strangers = _number(
        cursor,
        sql.SQL(
            "SELECT count(*) FROM {} t WHERE NOT EXISTS ("
            "SELECT 1 FROM etl.loads l WHERE l.load_id = t.{} AND l.dataset = %s)"
        ).format(table, sql.Identifier(LOAD_ID)),
        spec.name,
    )
    yield _check(spec, "I7", "every row leads to its load", 0, strangers)
    # An index can be broken where the rows are not: count by the rows themselves.
    if spec.key and spec.load.mode == "merge":
        keys = sql.SQL(", ").join(map(sql.Identifier, spec.key))
        distinct = _number(
            cursor,
            sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {} FROM {}) d").format(keys, table),
        )
        yield _check(spec, "I8", "every key is there once", count, distinct)


def _number(cursor: Cursor, statement: sql.Composed, *arguments: Any) -> int:
    cursor.execute(statement, arguments or None)
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def _lake_checks(lake: Lake, spec: DatasetSpec, rows: list[_LedgerRow]) -> Iterator[Check]:
    manifests: list[tuple[_LedgerRow, Manifest]] = []
    broken: list[str] = []
    for row in rows:
        manifest = read_manifest(lake, row.manifest_key)
        if manifest is None:
            broken.append(f"{row.manifest_key}: missing")
        elif manifest.digest != row.manifest_digest:
            broken.append(f"{row.manifest_key}: is not the one that was loaded")
        else:
            manifests.append((row, manifest))
    yield _check(spec, "I2", "every load has its manifest", "none broken", _shown(broken))
    damaged = [
        f"{file.key}: {damage}"
        for _, manifest in manifests
        for file in (*manifest.files, *manifest.quarantine)
        if (damage := broken_file(lake, file))
    ]
    yield _check(spec, "I2", "every lake file is as it was written", "none broken", _shown(damaged))
    yield _check(
        spec,
        "I2",
        "rows in the manifests = rows in the ledger",
        sum(row.read for row, _ in manifests),
        sum(manifest.rows_read for _, manifest in manifests),
    )
    yield _check(
        spec,
        "I5",
        "rows in quarantine files = rows in the ledger",
        sum(row.quarantined for row, _ in manifests),
        sum(file.rows for _, manifest in manifests for file in manifest.quarantine),
    )


def _quarantine_checks(
    spec: DatasetSpec, rows: list[_LedgerRow], summary: dict[int, int]
) -> Iterator[Check]:
    different = [
        f"load {row.load_id}: {summary.get(row.load_id, 0)} instead of {row.quarantined}"
        for row in rows
        if summary.get(row.load_id, 0) != row.quarantined
    ]
    yield _check(
        spec, "I5", "reasons of quarantine add up to the ledger", "none broken", _shown(different)
    )


def _shown(differences: list[str]) -> str:
    if not differences:
        return "none broken"
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return f"{len(differences)} broken: {'; '.join(differences[:SHOWN])}{more}"
