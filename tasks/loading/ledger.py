"""The ledger: it is made and brought up to date here, and a run opens it to own a dataset."""

from __future__ import annotations

import hashlib

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.queries import ledger_schema, query
from tasks.loading.session import one_row, session
from tasks.model.errors import LoadConflict
from tasks.model.request import Purpose

LEDGER_LOCK = 0x6574_6C5F_6C65_6467  # "etl_ledg"
LEDGER_COMMENT = "The ledger of data-processing-pipeline, version"


def ensure_ledger(engine: Engine) -> None:
    """Create the schema ``etl`` and its tables, unless they are there.

    A role that may not create anything can load once an administrator has called this.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        if _is_current(cursor):
            return
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
        # Reading the catalog makes the session take notice of what was committed while it waited;
        # from its cache alone, CREATE … IF NOT EXISTS would create again, and fail.
        cursor.execute(query("schema_exists"), {"schema": "etl"})
        # Whoever was before us has made it; to alter it again would wait for every load under way.
        if _is_current(cursor):
            return
        cursor.execute(ledger_schema())
        cursor.execute(ledger_comment())


def ledger_comment() -> str:
    """Return the DDL of the comment that tells the version of the ledger."""
    return f"COMMENT ON SCHEMA etl IS '{LEDGER_COMMENT} {_ledger_version()}'"


def ledger_is_current(engine: Engine) -> bool:
    """Tell whether the ledger is there, and has all that this version of the product needs."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        return _is_current(cursor)


def _is_current(cursor: Cursor) -> bool:
    cursor.execute(query("ledger_version"))
    return str(one_row(cursor)[0]).endswith(_ledger_version())


def _ledger_version() -> str:
    return hashlib.sha256(ledger_schema().encode()).hexdigest()[:12]


def ledger_exists(engine: Engine) -> bool:
    """Tell whether anything was ever loaded into this warehouse."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('etl.loads') IS NOT NULL")
        return bool(one_row(cursor)[0])


def open_dataset(engine: Engine, dataset: str, run: str, purpose: Purpose = "run") -> int:
    """Make a run the owner of a dataset; return the fence under which it may publish.

    A backfill and a live run own it side by side, and so do any number of runs for single objects;
    the lock of the table orders what they publish.
    """
    how = "join_dataset" if purpose == "objects" else "open_dataset"
    with session(engine) as connection, connection.cursor() as cursor:
        refuse_while_rebuilt(cursor, dataset)
        cursor.execute(query(how), {"dataset": dataset, "run": run, "purpose": purpose})
        return int(one_row(cursor)[0])


def refuse_while_rebuilt(cursor: Cursor, dataset: str) -> None:
    """Refuse to work on a dataset that is being made again from the lake.

    Raises:
        LoadConflict: It is.
    """
    cursor.execute(query("rebuild_of"), {"dataset": dataset})
    if row := cursor.fetchone():
        raise LoadConflict(
            f"{dataset}: its tables are being made again from the lake, by {row[0]} since "
            f"{row[1]:%Y-%m-%d %H:%M}",
            f"wait for it; if it was interrupted: dpp rebuild {dataset}",
        )
