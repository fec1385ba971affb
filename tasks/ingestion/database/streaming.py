"""Rows of any database through a cursor on the server, in batches whose size follows their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.database.columns import Column
from tasks.ingestion.database.values import batch_of, too_long, value_columns

FIRST_ROWS = 500
MOST_ROWS = 20_000


def stream_rows(
    connection: sa.Connection, query: sa.Select[Any], columns: Sequence[Column], uri: str,
    limits: PlanLimits,
) -> Iterator[RawBatch]:  # fmt: skip
    """Stream the rows of a query.

    Args:
        connection: A connection in the transaction to read in.
        query: What to read.
        columns: Its columns.
        uri: Where the rows come from.
        limits: Bounds of batches and values.
    """
    names = [column.name for column in columns]
    result = connection.execution_options(stream_results=True, max_row_buffer=1).execute(query)
    first, asked = 1, FIRST_ROWS
    try:
        while rows := result.fetchmany(asked):
            values = list(zip(*rows, strict=True))
            arrays, flaws = value_columns(columns, values)
            refused = {
                "type": flaws,
                "value_too_long": too_long(names, arrays, limits.max_value_bytes),
            }
            yield batch_of(names, arrays, uri, first, refused, values)
            first += len(rows)
            size = sum(array.nbytes for array in arrays) // len(rows) + 1
            asked = max(1, min(limits.batch_bytes // size, asked * 4, MOST_ROWS))
    except BaseException:
        # Closing a cursor of MySQL in order would first receive all that is left of the result.
        cursor: Any = result.cursor
        connection.invalidate()
        if hasattr(cursor, "connection"):
            cursor.connection = None  # it would do so, too, when it is collected
        raise
    result.close()
