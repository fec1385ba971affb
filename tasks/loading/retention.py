"""Drops partitions that are too old, and writes down how many rows of which loads went with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import psycopg2.errors
import psycopg2.extras
import structlog
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.audit import record
from tasks.loading.commit import wait_for_turn
from tasks.loading.partitions import (
    TablePartition,
    current_time,
    in_range,
    partitions_of,
)
from tasks.loading.queries import query
from tasks.loading.ranges import Range, oldest_kept
from tasks.loading.schema import LOAD_ID
from tasks.loading.search_column import limit_lock_wait
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, WarehouseUnavailable
from tasks.model.value import Value

ATTEMPTS = 5
PAUSE_SECONDS = 2.0

log = structlog.get_logger("dpp.loading")


class Dropped(Value):
    """What retention took away."""

    partition: str
    rows: int
    whole: bool
    """Was it the whole partition, or rows of the default partition?"""


def old_partitions(engine: Engine, spec: DatasetSpec) -> list[str]:
    """Return the names of the partitions that retention would drop now, the oldest first."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cutoff = _cutoff(cursor, spec)
        return [] if cutoff is None else [one.name for one in _old(cursor, spec, cutoff)]


def drop_old(
    engine: Engine,
    spec: DatasetSpec,
    run: str,
    *,
    on_step: Callable[[str], None] = lambda _step: None,
) -> list[Dropped]:
    """Drop the partitions in which all is older than the retention, each in its own transaction.

    No load publishes into the table meanwhile, and what is dropped is written into ``etl.retention``
    with it: after a crash at any moment it is either there or accounted for. Readers wait for an
    instant; where they do not make way within some seconds, we let them and try again.

    Args:
        engine: The warehouse.
        spec: The dataset; nothing happens unless it declares a retention.
        run: Who does it, for the record.
        on_step: Is told ``counted`` and ``dropped`` before each commit.

    Raises:
        WarehouseUnavailable: The table was in use all the time; what is left is dropped next time.
    """
    dropped = []
    for name in old_partitions(engine, spec):
        found = _patiently(lambda name=name: _drop(engine, spec, name, run, on_step))  # type: ignore[misc]
        if found:
            dropped.append(found)
    if found := _patiently(lambda: _empty_default(engine, spec, run)):
        dropped.append(found)
    return dropped


def _patiently(work: Callable[[], Dropped | None]) -> Dropped | None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except WarehouseUnavailable:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS * attempt)
    raise AssertionError("the last attempt returns or raises")


def _cutoff(cursor: Cursor, spec: DatasetSpec) -> datetime | None:
    by = spec.load.partition_by
    if by is None or by.kept is None:
        return None
    now = current_time(cursor, spec)
    assert now is not None, "a retention is of times"
    return oldest_kept(now, by.kept)


def _old(cursor: Cursor, spec: DatasetSpec, cutoff: datetime) -> list[TablePartition]:
    found = [
        (one.range.upper, one)
        for one in partitions_of(cursor, spec)
        if one.range and isinstance(one.range.upper, datetime) and one.range.upper <= cutoff
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _drop(
    engine: Engine, spec: DatasetSpec, name: str, run: str, on_step: Callable[[str], None]
) -> Dropped | None:
    with session(engine) as connection, connection.cursor() as cursor:
        wait_for_turn(cursor, spec.load.table)
        cutoff = _cutoff(cursor, spec)
        assert cutoff is not None, "it was old before"
        # Asked again: somebody else may have dropped it while we waited.
        one = next((each for each in _old(cursor, spec, cutoff) if each.name == name), None)
        if one is None:
            return None
        partition = sql.Identifier(one.schema, one.name)
        limit_lock_wait(cursor)
        # Who reads may go on reading while we count.
        cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(partition))
        cursor.execute(
            sql.SQL("SELECT {0}, count(*) FROM {1} GROUP BY {0}").format(
                sql.Identifier(LOAD_ID), partition
            )
        )
        rows = _record(cursor, spec, one, dict(cursor.fetchall()), run)
        on_step("counted")
        try:
            cursor.execute(sql.SQL("DROP TABLE {}").format(partition))
        except psycopg2.errors.DependentObjectsStillExist:
            raise ConfigError(
                f"{spec.name}: partition {name} is too old, and a view or another table needs it",
                "drop what needs it, or make it need the whole table; then run dpp maintain again",
            ) from None
        _audit(cursor, spec, "drop partition", name, rows, run)
        on_step("dropped")
    log.info("retention.dropped", table=spec.load.table, partition=name, rows=rows)
    return Dropped(partition=name, rows=rows, whole=True)


def _empty_default(engine: Engine, spec: DatasetSpec, run: str) -> Dropped | None:
    """Delete what is too old of the default partition."""
    by = spec.load.partition_by
    if by is None or by.kept is None or by.outside != "default":
        return None
    with session(engine) as connection, connection.cursor() as cursor:
        wait_for_turn(cursor, spec.load.table)
        cutoff = _cutoff(cursor, spec)
        one = next((each for each in partitions_of(cursor, spec) if each.range is None), None)
        if cutoff is None or one is None:
            return None
        old = Range(None, cutoff.replace(hour=0, minute=0, second=0, microsecond=0))
        cursor.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM {} WHERE {} RETURNING {load_id}) "
                "SELECT {load_id}, count(*) FROM gone GROUP BY {load_id}"
            ).format(
                sql.Identifier(one.schema, one.name),
                in_range(spec, old),
                load_id=sql.Identifier(LOAD_ID),
            )
        )
        found = dict(cursor.fetchall())
        if not found:
            return None
        deleted = TablePartition(one.schema, one.name, old)
        rows = _record(cursor, spec, deleted, found, run)
        _audit(cursor, spec, "delete old rows", one.name, rows, run)
    log.info("retention.deleted", table=spec.load.table, partition=one.name, rows=rows)
    return Dropped(partition=one.name, rows=rows, whole=False)


def _record(
    cursor: Cursor, spec: DatasetSpec, one: TablePartition, rows: dict[int, int], run: str
) -> int:
    assert one.range is not None
    total = sum(rows.values())
    cursor.execute(
        query("insert_retention"),
        {
            "dataset": spec.name,
            "target": spec.load.table,
            "partition": one.name,
            "range_from": None if one.range.lower is None else str(one.range.lower),
            "range_to": str(one.range.upper),
            "rows": total,
            "rows_by_load": psycopg2.extras.Json({str(load): n for load, n in rows.items()}),
            "run": run,
        },
    )
    return total


def _audit(
    cursor: Cursor, spec: DatasetSpec, action: str, partition: str, rows: int, run: str
) -> None:
    """Write a line of the audit, the last thing in the transaction: others wait to write theirs."""
    record(
        cursor,
        spec.name,
        action,
        actor=run,
        reason="past the retention of the table",
        details={"table": spec.load.table, "partition": partition, "rows": rows},
    )
