"""The two moments of a load that others may be in the way of: its turn, and its COMMIT."""

from __future__ import annotations

import time

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.loading import ledger_entry
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.classify import classify
from tasks.model.errors import CommitUnknown, ErrorKind, WarehouseUnavailable
from tasks.model.partition import Partition
from tasks.model.report import LoadReceipt

ASK_ATTEMPTS = 5
ASK_SECONDS = 1.0

log = structlog.get_logger("dpp.loading")


def wait_for_turn(cursor: Cursor, table: str) -> None:
    """Wait until no other load publishes into the table; held until the transaction ends."""
    cursor.execute(query("wait_for_turn"), {"table": f"etl:{table}"})


def commit(connection: Connection) -> None:
    """Commit.

    Raises:
        CommitUnknown: The connection was lost; only the ledger knows whether it was committed.
        PipelineError: The server refused; nothing was committed.
    """
    try:
        connection.commit()
    except psycopg2.Error as error:
        known = classify(error)
        if known.kind is not ErrorKind.TRANSIENT:
            raise known from None
        raise CommitUnknown(f"COMMIT: {known.message}") from None


def ask_ledger(engine: Engine, table: str, partition: Partition, mine: LoadReceipt) -> LoadReceipt:
    """Find out what became of a COMMIT whose answer was lost; it is never simply tried again.

    The question is asked when it is our turn to publish: then the lost session is over, whether it
    committed or not, and the answer is final.

    Args:
        engine: The warehouse.
        table: Target of the load.
        partition: What was loaded.
        mine: The receipt of the load, should it have been committed.

    Returns:
        ``mine``, or the receipt of another run that loaded the partition.

    Raises:
        WarehouseUnavailable: It was not committed, or nobody answers; it is safe to load again.
    """
    log.warning("loading.commit_unknown")
    receipt = _found_after_turn(engine, table, partition)
    if receipt is None:
        raise WarehouseUnavailable(
            f"{partition.dataset}: the connection was lost, and the partition was not committed"
        )
    log.info("loading.commit_found", load_id=receipt.load_id)
    return mine if receipt.load_id == mine.load_id else receipt


def _found_after_turn(engine: Engine, table: str, partition: Partition) -> LoadReceipt | None:
    attempt = 0
    while True:
        try:
            with session(engine) as connection, connection.cursor() as cursor:
                wait_for_turn(cursor, table)
                return ledger_entry.find_load(cursor, partition)
        except WarehouseUnavailable:
            attempt += 1
            if attempt == ASK_ATTEMPTS:
                raise
            time.sleep(ASK_SECONDS * 2 ** (attempt - 1))
