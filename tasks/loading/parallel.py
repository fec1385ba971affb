"""Large partitions are copied over several connections at once, into one staging table.

A temporary table belongs to one session. So the rows go into an unlogged table of the schema
``etl``, which the load transaction sees as its staging table through a view. Nothing of it is
published before the transaction says so. The table is of this attempt alone, and the transaction
holds a lock in its name: where that lock is free, nobody needs the table any more, and whoever
comes by drops it.
"""

from __future__ import annotations

import os
import queue
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import structlog
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from tasks.loading.audit import EVERY_DATASET, record
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.loading.staging import (
    STAGING,
    RowGroup,
    analyze_staging,
    batches_of,
    copy_rows,
    row_groups,
    staging_columns,
)
from tasks.model.errors import WarehouseRejected

PARALLEL_ROWS = 2_000_000
"""A partition of fewer rows is copied in seconds, and others are copied beside it."""
MOST_COPIES = 4
PREFIX = "staging_"
log = structlog.get_logger("dpp.loading")


def copies_at_once(engine: Engine, rows: int) -> int:
    """Return over how many connections the rows of a partition are copied: one if it is small."""
    if rows < PARALLEL_ROWS or not isinstance(engine.pool, QueuePool):
        return 1
    free = engine.pool.size() - engine.pool.checkedout()  # none is waited for: that could deadlock
    return max(1, min(MOST_COPIES, os.cpu_count() or 1, free + 1))


def copy_in_parallel(
    engine: Engine,
    cursor: Cursor,
    paths: Sequence[Path],
    schema: pa.Schema,
    copies: int,
    on_first: Callable[[], None],
) -> int | None:
    """Copy clean files over several connections, and let the transaction see them as staged.

    Args:
        engine: Where the other connections come from.
        cursor: In the load transaction; it copies too.
        paths: The clean files.
        schema: How their rows are staged.
        copies: Connections, this one included.
        on_first: Called when the first bytes are on their way.

    Returns:
        The number of rows that the server says it took; None if the role may not create the table,
        and the rows have to be staged as those of a small partition are.
    """
    drop_left_tables(engine)
    name = f"{PREFIX}{uuid.uuid4().hex[:16]}"
    cursor.execute(query("hold_staging"), {"name": name})
    try:
        _create(engine, name, schema)
    except WarehouseRejected:
        log.warning("loading.parallel_refused", remedy="GRANT CREATE ON SCHEMA etl")
        return None
    groups: queue.Queue[RowGroup] = queue.Queue()
    for group in row_groups(paths):
        groups.put(group)
    table = sql.Identifier("etl", name)
    with ThreadPoolExecutor(copies - 1, "copy") as pool:
        others = [
            pool.submit(_copy_beside, engine, table, groups, schema) for _ in range(copies - 1)
        ]
        try:
            rows = copy_rows(cursor, table, schema, _batches(groups, schema), on_first)
        except BaseException:
            with suppress(queue.Empty):  # the others find nothing more to do
                while True:
                    groups.get_nowait()
            raise
        rows += sum(other.result() for other in others)
    cursor.execute(
        sql.SQL("CREATE TEMPORARY VIEW {} AS SELECT * FROM {}").format(
            sql.Identifier(STAGING), table
        )
    )
    analyze_staging(cursor, table)
    return rows


def end_staging(cursor: Cursor) -> None:
    """Let go of rows that were copied in parallel: the view would outlive the transaction."""
    cursor.execute(query("staging_kind"))
    if cursor.fetchone() == ("v",):
        cursor.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier("pg_temp", STAGING)))


def drop_left_tables(engine: Engine, actor: str | None = None) -> int:
    """Drop staging tables that no transaction holds: of loads that ended, in whatever way.

    Args:
        engine: The warehouse.
        actor: Who does it, for a line of the audit in the transaction of each; none without it: a
            load that drops its own.

    Returns:
        How many were dropped.
    """
    dropped = 0
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(query("staging_tables"))
        names = [str(row[0]) for row in cursor.fetchall()]
    for name in names:
        with session(engine) as connection, connection.cursor() as cursor:
            cursor.execute(query("take_staging"), {"name": name})
            if cursor.fetchone() == (True,):
                cursor.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("etl", name))
                )
                dropped += 1
                if actor is not None:
                    record(
                        cursor,
                        EVERY_DATASET,
                        "drop staging table",
                        actor=actor,
                        reason="its load is gone",
                        details={"table": name},
                    )
    return dropped


def _create(engine: Engine, name: str, schema: pa.Schema) -> None:
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(
                sql.Identifier("etl", name), staging_columns(schema)
            )
        )


def _copy_beside(
    engine: Engine, table: sql.Identifier, groups: queue.Queue[RowGroup], schema: pa.Schema
) -> int:
    """Copy row groups in a transaction of its own, until none is left."""
    with session(engine) as connection, connection.cursor() as cursor:
        return copy_rows(cursor, table, schema, _batches(groups, schema), lambda: None)


def _batches(groups: queue.Queue[RowGroup], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            group = groups.get_nowait()
        except queue.Empty:
            return
        yield from batches_of(group, schema)
