"""Transactions that only read, and see one state of the database from begin to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tasks.ingestion.database.postgres_columns import SETTINGS
from tasks.ingestion.database.reflected import MYSQL
from tasks.model.errors import SourceUnavailable

MYSQL_SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    # Its TIMESTAMPs are shown in the session's zone.
    "SET SESSION time_zone = '+00:00', net_write_timeout = 600",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)


class SnapshotGone(SourceUnavailable):
    """The shared snapshot that a partition was to be read in is no more."""


@contextmanager
def reading(engine: sa.Engine, snapshot: str | None = None) -> Iterator[sa.Connection]:
    """Open a transaction that only reads; it ends, and its connection with it, on an error.

    Args:
        engine: The source.
        snapshot: Name of an exported snapshot of PostgreSQL to read in.

    Raises:
        SnapshotGone: The snapshot is no more.
    """
    with engine.connect() as opened:
        connection = opened
        dialect = connection.dialect.name
        try:
            if dialect == "postgresql":
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                if snapshot is not None:
                    _adopt(connection, snapshot)
                for name, value in SETTINGS.items():
                    connection.execute(sa.select(sa.func.set_config(name, value, sa.true())))
            elif dialect in MYSQL:
                for statement in MYSQL_SESSION:
                    connection.exec_driver_sql(statement)
            yield connection
        except BaseException:
            connection.invalidate()
            raise
        connection.rollback()


def _adopt(connection: sa.Connection, snapshot: str) -> None:
    try:
        connection.execute(sa.text("SET TRANSACTION SNAPSHOT :name").bindparams(name=snapshot))
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "pgcode", None) in ("22023", "42704", "55000"):
            raise SnapshotGone("the shared snapshot is gone") from None
        raise
