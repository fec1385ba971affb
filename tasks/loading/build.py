"""Builds indexes of a table that is in use: beside the loads, without locking it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

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
from tasks.model.names import named_within_limit, short_hash

TURN_SECONDS = 3600
ASK_AGAIN_SECONDS = 0.2
BUILD_MEMORY = "256MB"
MAX_ROUNDS = 5


@contextmanager
def building(engine: Engine) -> Iterator[Connection]:
    """Give a connection outside of transactions, to the only build of the database."""
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        raise classify(error) from None
    connection: Connection = pooled.dbapi_connection  # type: ignore[assignment]
    try:
        connection.autocommit = True  # CONCURRENTLY works outside of transactions only
        with connection.cursor() as cursor:
            # Building waits for every older transaction of the database, other datasets' loads
            # included, and takes as long as the table is large.
            cursor.execute("SET lock_timeout = 0; SET statement_timeout = 0")
            cursor.execute("SELECT set_config('maintenance_work_mem', %s, false)", (BUILD_MEMORY,))
            _wait_for_other_builds(cursor)
        yield connection
    except Exception as error:
        raise classify(error) from None  # one of ours stays what it is
    finally:
        pooled.invalidate()  # its settings and its lock go with it
        pooled.close()


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


def create_index(cursor: Cursor, spec: DatasetSpec, index: TableIndex) -> None:
    """Build an index of the dataset's table.

    Of a partitioned table CONCURRENTLY does not work on all at once: that of each partition is built
    by itself, and that of the whole table is valid once every partition has one. A partition that a
    load makes meanwhile gets its own with it. A build that was killed is taken up.

    Args:
        cursor: Of ``building``.
        spec: The dataset.
        index: What is built; of a table without partitions nothing of that name must be there.

    Raises:
        ContractBroken: It is unique, and the table has a value twice.
        WarehouseUnavailable: Partitions come faster than they can be indexed.
    """
    if not _is_partitioned(cursor, spec):
        _create(cursor, (spec.schema_name, spec.table_name), index)
        return
    whole = f"{spec.schema_name}.{index.name}"
    cursor.execute(query("relation_exists"), {"name": whole})
    if cursor.fetchone() != (True,):
        cursor.execute(index.create((spec.schema_name, spec.table_name), only=True))
    for _ in range(MAX_ROUNDS):
        names = {"table": spec.load.table, "index": whole}
        cursor.execute(query("partitions_without_index"), names)
        partitions = cursor.fetchall()
        if not partitions:
            return
        for schema, partition in partitions:
            name = named_within_limit(partition, f"x{short_hash(index.name)}")
            cursor.execute(_drop(schema, name, concurrently=True))  # of a build that was killed
            _create(cursor, (schema, partition), index.named(name))
            cursor.execute(
                sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
                    sql.Identifier(spec.schema_name, index.name), sql.Identifier(schema, name)
                )
            )
    raise WarehouseUnavailable(
        f"{spec.load.table}: partitions come faster than index {index.name} is built"
    )


def drop_index(cursor: Cursor, spec: DatasetSpec, name: str) -> None:
    """Drop an index of the dataset's table, if it is there."""
    concurrently = not _is_partitioned(cursor, spec)
    cursor.execute(_drop(spec.schema_name, name, concurrently=concurrently))


def build_indexes(engine: Engine, spec: DatasetSpec, indexes: list[TableIndex]) -> list[str]:
    """Build those of some indexes that are not there, or not finished; return their names."""
    if not indexes:
        return []
    built = []
    with building(engine) as connection, connection.cursor() as cursor:
        for index in indexes:
            cursor.execute(query("indexes"), {"table": spec.load.table})
            there = {str(name): bool(is_valid) for name, is_valid, _ in cursor.fetchall()}
            if there.get(index.name):
                continue  # another run was faster
            if index.name in there and not _is_partitioned(cursor, spec):
                drop_index(cursor, spec, index.name)
            create_index(cursor, spec, index)
            built.append(index.name)
        if built:
            cursor.execute(sql.SQL("ANALYZE {}").format(target(spec)))
    return built


def _create(cursor: Cursor, table: tuple[str, str], index: TableIndex) -> None:
    try:
        cursor.execute(index.create(table, concurrently=True))
    except psycopg2.errors.UniqueViolation:
        # Even unfinished it would go on to refuse rows.
        cursor.execute(_drop(table[0], index.name, concurrently=True))
        raise ContractBroken(
            f"{'.'.join(table)}: unique index {index.name} cannot be built, there is a value twice",
            "remove the rows that are too many, or take 'unique' from load.indexes",
        ) from None


def _drop(schema: str, name: str, *, concurrently: bool) -> sql.Composed:
    beside = sql.SQL("CONCURRENTLY " if concurrently else "")
    return sql.SQL("DROP INDEX {}IF EXISTS {}").format(beside, sql.Identifier(schema, name))


def _is_partitioned(cursor: Cursor, spec: DatasetSpec) -> bool:
    cursor.execute(query("is_partitioned"), {"table": spec.load.table})
    return cursor.fetchone() == (True,)
