"""Locks that others hold: waited for in turns, and named when they do not go away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.queries import query
from tasks.loading.query_text import without_literals
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import WarehouseUnavailable

FIRST_WAIT_SECONDS = 2.0
"""Of the first turn; each is twice as long as the one before."""
LONGEST_WAIT_SECONDS = 15.0
PAUSE = 0.1
"""Share of a turn for which nothing is waited for afterwards: who queued up behind us goes on then."""
NAMED_HOLDERS = 3
T = TypeVar("T")

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A session that holds a lock which is in our way.

    Attributes:
        pid: Its process on the server; None for a prepared transaction.
        application: What it calls itself.
        state: ``active``, ``idle in transaction`` …
        seconds: Age of its transaction.
        query: Its last query, without the values in it; None if we may not see it.
    """

    pid: int | None
    application: str
    state: str
    seconds: float
    query: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return "a prepared transaction (see pg_prepared_xacts)"
        said = self.query or "its query is shown to members of pg_read_all_stats only"
        return (
            f"pid {self.pid} (application {self.application!r}, {self.state}, "
            f"transaction open for {self.seconds:.0f} s): {said}"
        )


def patiently(cursor: Cursor, spec: DatasetSpec, action: Callable[[], T]) -> T:
    """Do something for which a lock on a dataset's table is needed, in turns within ``lock_timeout``.

    A long wait in the lock queue would hold up everybody who comes later, readers too; so it is left
    and joined again. Nothing that was done before in the transaction is lost.

    Args:
        cursor: In the transaction of the load.
        spec: Its dataset.
        action: What to do; it is undone and done again when a lock cannot be had.

    Raises:
        WarehouseUnavailable: The lock was not to be had; it names who holds it.
    """
    table = spec.load.table
    cursor.execute(query("lock_timeout"))
    row = cursor.fetchone()
    patience = (row[0] if row else 0) / 1000
    started, turn = time.monotonic(), FIRST_WAIT_SECONDS
    while True:
        left = patience - (time.monotonic() - started) if patience else turn
        wait = max(0.001, min(turn, left))
        cursor.execute("SAVEPOINT patiently")
        cursor.execute(query("set_lock_timeout"), {"value": f"{round(wait * 1000)}ms"})
        try:
            done = action()
        except LockNotAvailable:
            cursor.execute("ROLLBACK TO SAVEPOINT patiently")
        else:
            cursor.execute(query("set_lock_timeout"), {"value": f"{round(patience * 1000)}ms"})
            cursor.execute("RELEASE SAVEPOINT patiently")
            return done
        holders = lock_holders(cursor, table)
        waited = time.monotonic() - started
        log.warning("loading.table_locked", table=table, seconds=waited, by=list(map(str, holders)))
        if patience and waited >= patience:
            raise _locked(spec.name, table, waited, holders)
        time.sleep(min(turn * PAUSE * random.uniform(0.5, 1.5), max(0.0, patience - waited)))  # noqa: S311
        turn = min(turn * 2, LONGEST_WAIT_SECONDS)


def lock_holders(cursor: Cursor, table: str) -> list[LockHolder]:
    """Return the sessions that hold locks on a table or its indexes, those in our way first."""
    cursor.execute(query("lock_holders"), {"table": table, "most": NAMED_HOLDERS})
    return [
        LockHolder(pid, application, state, seconds, shown and without_literals(shown))
        for pid, application, state, seconds, shown in cursor.fetchall()
    ]


def _locked(
    dataset: str, table: str, waited: float, holders: Sequence[LockHolder]
) -> WarehouseUnavailable:
    by = "; ".join(map(str, holders)) or "somebody who is gone by now"
    pids = [holder.pid for holder in holders if holder.pid is not None]
    end = f", or end it: SELECT pg_terminate_backend({pids[0]})" if pids else ""
    return WarehouseUnavailable(
        f"{dataset}: {table} was locked for {waited:.0f} s by {by}",
        f"nothing was published; let that transaction end{end}; how long it is waited for is "
        "lock_timeout of the warehouse block",
    )
