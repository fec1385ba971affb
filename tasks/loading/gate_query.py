"""Gates that are a query of the user's: it is opened as a cursor, read a little, and rolled back.

A query is opened by the server, which takes one SELECT and nothing else; so neither a second
statement nor a function can change anything that a transaction can undo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from psycopg2.extensions import new_type, register_type

from tasks.loading.evidence import EVIDENCE_ROWS, shortened
from tasks.loading.queries import query
from tasks.model.classify import classify
from tasks.model.errors import ConfigError
from tasks.model.gates import FailedGate, Gate, NoRows
from tasks.model.lookup import span
from tasks.protection import MASK

_REFUSED_BEFORE_READING = ("0A", "25", "3F", "42")
"""SQLSTATE classes of a query that can never be asked: no SELECT, a write, an unknown name."""


@dataclass(frozen=True, slots=True)
class StagedView:
    """The view with the staged rows that a query may read.

    Attributes:
        dataset: Name of the dataset.
        oid: Of the view, in the catalog of PostgreSQL.
        names: Its columns.
        hidden: Those whose values are not kept as evidence.
    """

    dataset: str
    oid: int
    names: Sequence[str]
    hidden: frozenset[str]


def ask_query(outer: Cursor, view: StagedView, gate: NoRows) -> FailedGate | None:
    """Return how a gate fails whose query must give no rows, None if it holds.

    Args:
        outer: In the transaction of the load, which is left as it was.
        view: The staged rows.
        gate: The gate.

    Raises:
        ConfigError: Its query is none that can be asked.
    """
    milliseconds = round(span(gate.timeout).total_seconds() * 1000)
    # A cursor of its own: how it gives values is changed below.
    with outer.connection.cursor() as cursor:
        cursor.execute("SAVEPOINT gate")
        cursor.execute("SET LOCAL statement_timeout = %s", (milliseconds,))
        try:
            _open(cursor, gate.sql)
            names, shown = _described(cursor, view)
            cursor.execute(query("fetch_from_gate"), {"most": EVIDENCE_ROWS + 1})
            rows = cursor.fetchall()
        except psycopg2.Error as error:
            found = _query_failure(view.dataset, gate, error)
            cursor.execute("ROLLBACK TO SAVEPOINT gate")
            return FailedGate(gate.label, found)
        cursor.execute("ROLLBACK TO SAVEPOINT gate")
    if not rows:
        return None
    number = f"more than {EVIDENCE_ROWS}" if len(rows) > EVIDENCE_ROWS else str(len(rows))
    evidence = tuple(
        {
            name: shortened(value) if show else MASK
            for name, value, show in zip(names, row, shown, strict=True)
        }
        for row in rows[:EVIDENCE_ROWS]
    )
    return FailedGate(gate.label, f"its query gives {number} rows, allowed is none", evidence)


def _described(cursor: Cursor, view: StagedView) -> tuple[list[str], list[bool]]:
    """Return the result's columns, and which may be kept; values will come as their texts.

    Where a column is personal only columns of the staged rows are, unchanged: of anything that
    is computed nobody knows what is in it.
    """
    cursor.execute(query("describe_gate"))
    described = cursor.description or ()
    kinds = tuple({column.type_code for column in described})
    register_type(new_type(kinds, "TEXT", lambda value, _: value), cursor)
    return [column.name for column in described], [
        not view.hidden
        or (
            column.table_oid == view.oid
            and bool(column.table_column)
            and view.names[column.table_column - 1] not in view.hidden
        )
        for column in described
    ]


def _query_failure(dataset: str, gate: NoRows, error: psycopg2.Error) -> str:
    """Say what an error of the user's query means; what is none of it is raised."""
    refuse_query(dataset, gate, error)
    if isinstance(error, psycopg2.errors.QueryCanceled):
        return f"its query gave no answer within {gate.timeout}"
    if isinstance(error, psycopg2.DataError):
        return f"its query ended with {type(error).__name__}"
    raise error


def refuse_query(dataset: str, gate: Gate, error: psycopg2.Error) -> None:
    """Raise what is the user's mistake in what a gate asks; other errors are left to the caller.

    Raises:
        ConfigError: The query can never be asked.
    """
    if (error.pgcode or "").startswith(_REFUSED_BEFORE_READING):
        raise ConfigError(
            f"{dataset}: quality.gates: {gate.label}: "
            f"{classify(error).message.removeprefix('warehouse: ')}",
            "a gate is one SELECT that changes nothing; it knows the columns of 'staged', and "
            "tables by schema.table",
        ) from None


def _open(cursor: Cursor, text: str) -> None:
    """Open the cursor ``gate`` for a query.

    By the server's own OPEN … FOR EXECUTE: it refuses a text of two statements, and whatever is no
    query.
    """
    body = sql.SQL(
        "DECLARE c refcursor := 'gate'; BEGIN OPEN c NO SCROLL FOR EXECUTE {}; END"
    ).format(sql.Literal(text))
    cursor.execute(sql.SQL("DO {}").format(sql.Literal(body.as_string(cursor))))
