"""Rows of the ledger's schema that are past their retention, and tables that need a VACUUM."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.audit import EVERY_DATASET, record
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.value import Value
from tasks.retention.plan import Erased

PROFILES_KEPT = 400
"""The last ones of a dataset stay whatever their age: learned checks compare with them."""
OLD_ROWS = {
    "profiles": "etl.profiles",
    "gate failures that were overcome": "etl.gate_failures",
}
ANSWERS = "answers of APIs, and their hosts"
STATEMENTS = {"profiles": "old_profiles", "gate failures that were overcome": "old_gate_failures"}


def old_rows(engine: Engine, spec: DatasetSpec, since: datetime) -> list[Erased]:
    """Count the rows about a dataset that are old and that nothing needs."""
    return _of_dataset(engine, spec, since, None)


def erase_rows(engine: Engine, spec: DatasetSpec, since: datetime, actor: str) -> list[Erased]:
    """Delete these rows, in one transaction with a line of the audit."""
    return _of_dataset(engine, spec, since, actor)


def _of_dataset(
    engine: Engine, spec: DatasetSpec, since: datetime, actor: str | None
) -> list[Erased]:
    given = {"dataset": spec.name, "since": since, "kept": PROFILES_KEPT}
    found: list[Erased] = []
    with session(engine, read_only=actor is None) as connection, connection.cursor() as cursor:
        for what, statement in STATEMENTS.items():
            choice = sql.SQL(query(statement).rstrip().rstrip(";"))
            table = sql.Identifier(*OLD_ROWS[what].split("."))
            if actor is None:
                cursor.execute(sql.SQL("SELECT ctid FROM ({}) AS old").format(choice), given)
            else:
                cursor.execute(
                    sql.SQL("DELETE FROM {} WHERE ctid IN ({})").format(table, choice), given
                )
            if cursor.rowcount:
                found.append(Erased(dataset=spec.name, what=what, count=cursor.rowcount))
        if found and actor is not None:
            record(
                cursor,
                spec.name,
                "erase rows",
                actor=actor,
                reason=f"older than {since:%Y-%m-%d}, and needed by nothing",
                details={one.what: one.count for one in found},
            )
    return found


def old_answers(engine: Engine, since: datetime) -> int:
    """Count what APIs answered and what is known of hosts that nobody asked since."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        return _one(cursor, "count_answers", since)


def erase_answers(engine: Engine, since: datetime, actor: str, also: Mapping[str, Any]) -> int:
    """Delete them, in one transaction with a line of the audit.

    Args:
        engine: The warehouse, with a ledger.
        since: Who asked before, asked long ago.
        actor: Who does it.
        also: What goes with them when this has committed, for the same line.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        count = _one(cursor, "erase_answers", since)
        record(
            cursor,
            EVERY_DATASET,
            "erase what is shared",
            actor=actor,
            reason=f"older than {since:%Y-%m-%d}",
            details={ANSWERS: count, **also},
        )
        return count


def _one(cursor: Cursor, statement: str, since: datetime) -> int:
    cursor.execute(query(statement), {"since": since})
    row = cursor.fetchone()
    return int(row[0]) if row else 0


class VacuumHint(Value):
    """A table that autovacuum does not keep up with."""

    table: str
    dead_rows: int
    live_rows: int
    transactions: int
    """Age of its oldest transaction id; PostgreSQL stops writing at about 2,100 million."""

    @property
    def advice(self) -> str:
        """What a person can do."""
        share = 100 * self.dead_rows // max(self.dead_rows + self.live_rows, 1)
        return (
            f"{self.table}: {self.dead_rows:,} dead rows ({share} %), oldest transaction "
            f"{self.transactions:,} ago; VACUUM (ANALYZE) {self.table}"
        )


def vacuum_hints(engine: Engine, tables: list[str]) -> list[VacuumHint]:
    """Return the tables that need a VACUUM, those of the ledger included."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("vacuum_hints"), {"tables": tables})
        return [
            VacuumHint(table=row[0], dead_rows=row[1], live_rows=row[2], transactions=row[3])
            for row in cursor
        ]
