"""The column that holds the words of each row: added, or replaced by another, beside the loads."""

from __future__ import annotations

import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tasks.loading.queries import query
from tasks.loading.schema import target
from tasks.loading.search_sql import (
    NEXT,
    SEARCH,
    column_signature,
    fill_function,
    trigger_statements,
)
from tasks.model.dataset import DatasetSpec
from tasks.model.search import SearchIndex

BLOCKS_AT_ONCE = 500
"""4 MB of the table: a load that waits for its turn meanwhile waits for about a second."""
LOCK_SECONDS = 5
log = structlog.get_logger("dpp.loading")


def fill_next_column(
    connection: Connection, cursor: Cursor, spec: DatasetSpec, index: SearchIndex
) -> bool:
    """Fill a column beside the one that is there, unless that one is as declared.

    Rows are filled in pieces, each in a short transaction that takes its turn with the loads; a
    trigger fills those that are written from now on. A killed call is taken up where it ended.

    Returns:
        Whether there is a filled column ``_search_next`` that has to take its place.
    """
    wanted = column_signature(index)
    there = _columns(cursor, spec)
    if there.get(SEARCH) == wanted:
        if NEXT in there:  # of a declaration that was taken back
            _together(cursor, [*_without_next(spec), _drop_column(spec, NEXT)])
        return False
    if there.get(NEXT) != wanted:
        started: list[sql.Composable] = [
            *_without_next(spec),
            _drop_column(spec, NEXT),
            sql.SQL("ALTER TABLE {} ADD COLUMN {} tsvector").format(
                target(spec), sql.Identifier(NEXT)
            ),
            *trigger_statements(spec, index, NEXT, connection),
            _comment(spec, NEXT, wanted),
        ]
        _together(cursor, started)
    _fill(cursor, spec)
    return True


def column_statements(
    connection: Connection, spec: DatasetSpec, index: SearchIndex
) -> list[sql.Composable]:
    """Return the statements that put the filled column in its place; only names are changed."""
    return [
        sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(SEARCH), target(spec)),
        _drop_column(spec, SEARCH),
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            target(spec), sql.Identifier(NEXT), sql.Identifier(SEARCH)
        ),
        *trigger_statements(spec, index, SEARCH, connection),
        *_without_next(spec),
    ]


def _columns(cursor: Cursor, spec: DatasetSpec) -> dict[str, str | None]:
    cursor.execute(query("search_columns"), {"table": spec.load.table})
    return {str(name): comment for name, comment in cursor.fetchall()}


def _fill(cursor: Cursor, spec: DatasetSpec) -> None:
    cursor.execute(query("table_blocks"), {"table": spec.load.table})
    row = cursor.fetchone()
    blocks = int(row[0]) if row else 0
    log.info("index.filling", blocks=blocks)
    for first in range(0, blocks, BLOCKS_AT_ONCE):
        span = sql.SQL("ctid >= {}::tid AND ctid < {}::tid").format(
            sql.Literal(f"({first},0)"), sql.Literal(f"({first + BLOCKS_AT_ONCE},0)")
        )
        # The trigger computes the value, here as for any other writer. Rows written meanwhile are
        # in blocks that are not asked for, or filled already.
        piece = sql.SQL("UPDATE {table} SET {column} = NULL WHERE {span} AND {column} IS NULL")
        _together(
            cursor,
            [piece.format(table=target(spec), column=sql.Identifier(NEXT), span=span)],
            turn=spec.load.table,
        )


def _together(cursor: Cursor, statements: list[sql.Composable], turn: str | None = None) -> None:
    """Execute statements in one transaction: in its turn among those that publish, or altering."""
    cursor.execute("BEGIN")
    try:
        if turn:
            cursor.execute(query("wait_for_turn"), {"table": turn})
        else:
            limit_lock_wait(cursor)
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")
    except BaseException:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK")
        raise


def limit_lock_wait(cursor: Cursor) -> None:
    """Let what alters the table give up soon: everybody else queues behind it while it waits."""
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_SECONDS}s",))


def _without_next(spec: DatasetSpec) -> list[sql.Composable]:
    return [
        sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(NEXT), target(spec)),
        sql.SQL("DROP FUNCTION IF EXISTS {}()").format(fill_function(spec, NEXT)),
    ]


def _drop_column(spec: DatasetSpec, name: str) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
        target(spec), sql.Identifier(name)
    )


def _comment(spec: DatasetSpec, column: str, text: str) -> sql.Composed:
    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(spec.schema_name, spec.table_name, column), sql.Literal(text)
    )
