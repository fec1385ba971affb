"""A connection for one transaction, whose errors say what they mean, and rows of its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2.errors
import psycopg2.extras
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.model.classify import classify, raised_in
from tasks.model.errors import PipelineError

log = structlog.get_logger("dpp.loading")


@contextmanager
def session(engine: Engine, *, read_only: bool = False) -> Iterator[Connection]:
    """Borrow a connection for one transaction: committed at the end, rolled back on an error.

    Raises:
        PipelineError: What any database error means, without a value of a row in its text.
    """
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        raise classify(error) from None
    raw: Connection = pooled.dbapi_connection  # type: ignore[assignment]
    try:
        if read_only:
            raw.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield raw
        raw.commit()
    except Exception as error:
        if not isinstance(error, PipelineError):
            log.debug("warehouse.failed", error=type(error).__name__, raised_in=raised_in(error))
        raise classify(error) from None  # one of ours stays what it is
    finally:
        if not _returned_clean(raw, read_only=read_only):
            pooled.invalidate()
        pooled.close()


def _returned_clean(raw: Connection, *, read_only: bool) -> bool:
    """End what is left of a transaction; tell whether the connection can be used again."""
    try:
        raw.rollback()
        if read_only:
            raw.set_session(isolation_level="DEFAULT", readonly=False)
    except psycopg2.Error:
        return False  # the connection is gone, and the transaction with it
    return not raw.closed


def one_row(cursor: Cursor) -> tuple[Any, ...]:
    """Return the row of a statement that always gives one."""
    row = cursor.fetchone()
    assert row is not None, "the query always gives a row"
    return row
