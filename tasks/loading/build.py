"""Builds an index of a table that is in use: beside the loads, without locking it."""

from __future__ import annotations

import time

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.loading.queries import query
from tasks.loading.schema import TableIndex, target
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, WarehouseUnavailable
from tasks.model.names import name_beside, short_hash

TURN_SECONDS = 3600
ASK_AGAIN_SECONDS = 0.2
MAX_ROUNDS = 5


def build_index(engine: Engine, spec: DatasetSpec, index: TableIndex) -> bool:
    """Build an index unless it is there; what a killed build left behind is dropped first.

    Returns:
        Was it built by this call?

    Raises:
        ContractBroken: It is unique, and the table has a value twice.
        WarehouseUnavailable: Other builds left it no turn.
    """
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        raise classify(error) from None
    connection: Connection = pooled.dbapi_connection  # type: ignore[assignment]
    try:
        connection.autocommit = True  # CONCURRENTLY works outside of transactions only
        with connection.cursor() as cursor:
            return _build_alone(cursor, spec, index)
    except Exception as error:
        raise classify(error) from None
    finally:
        pooled.invalidate()  # its settings and its lock go with it
        pooled.close()


def _build_alone(cursor: Cursor, spec: DatasetSpec, index: TableIndex) -> bool:
    # Building waits for every older transaction of the database, other datasets' loads included.
    cursor.execute("SET lock_timeout = 0")
    _wait_for_other_builds(cursor)
    cursor.execute(query("index_is_valid"), {"index": f"{spec.schema_name}.{index.name}"})
    row = cursor.fetchone()
    if row and row[0]:
        return False
    cursor.execute(query("is_partitioned"), {"table": spec.load.table})
    if cursor.fetchone() == (True,):
        _build_over_partitions(cursor, spec, index, there=bool(row))
    else:
        if row:
            cursor.execute(_drop(spec.schema_name, index.name))
        _build_one(cursor, (spec.schema_name, spec.table_name), index)
    cursor.execute(sql.SQL("ANALYZE {}").format(target(spec)))
    return True


def _build_one(cursor: Cursor, table: tuple[str, str], index: TableIndex) -> None:
    try:
        cursor.execute(index.create(table, concurrently=True))
    except psycopg2.errors.UniqueViolation:
        # Even unfinished it would go on to refuse rows.
        cursor.execute(_drop(table[0], index.name))
        raise ContractBroken(
            f"{'.'.join(table)}: unique index {index.name} cannot be built, there is a value twice",
            "remove the rows that are too many, or take 'unique' from load.indexes",
        ) from None


def _build_over_partitions(
    cursor: Cursor, spec: DatasetSpec, index: TableIndex, *, there: bool
) -> None:
    """Build the index of each partition by itself: CONCURRENTLY does not work on all at once.

    That of the whole table is valid once every partition has its own; a partition that a load makes
    meanwhile gets one with it.
    """
    parent = sql.Identifier(spec.schema_name, index.name)
    if not there:
        cursor.execute(index.create((spec.schema_name, spec.table_name), only=True))
    for _ in range(MAX_ROUNDS):
        names = {"table": spec.load.table, "index": f"{spec.schema_name}.{index.name}"}
        cursor.execute(query("partitions_without_index"), names)
        partitions = cursor.fetchall()
        if not partitions:
            return
        for schema, partition in partitions:
            name = name_beside(partition, f"x{short_hash(index.name)}")
            cursor.execute(_drop(schema, name))  # of a build that was killed
            _build_one(cursor, (schema, partition), index.named(name))
            cursor.execute(
                sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
                    parent, sql.Identifier(schema, name)
                )
            )
    raise WarehouseUnavailable(
        f"{spec.load.table}: partitions come faster than index {index.name} is built"
    )


def _drop(schema: str, name: str) -> sql.Composed:
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name))


def _wait_for_other_builds(cursor: Cursor) -> None:
    """Make this the only build of the database: two at once wait for each other, and deadlock.

    By asking again and again: one long statement that waits is a transaction that a build waits for.
    """
    deadline = time.monotonic() + TURN_SECONDS
    while time.monotonic() < deadline:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended('etl:index', 0))")
        if cursor.fetchone() == (True,):
            return
        time.sleep(ASK_AGAIN_SECONDS)
    raise WarehouseUnavailable(f"warehouse: no turn to build an index within {TURN_SECONDS} s")
