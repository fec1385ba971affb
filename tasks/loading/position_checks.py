"""I9: positions of the source never go back or into the future, and rows are as new as is stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.schema import existing_columns, target
from tasks.model.dataset import DatasetSpec
from tasks.model.gates import Freshness
from tasks.model.lookup import span

CLOCK_SKEW = timedelta(minutes=5)
"""The source's clock may be ahead of the warehouse's by this much."""
EASTERNMOST = timedelta(hours=14)
"""A time without a zone may be the local time of a place this far east."""
_READ: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}
"""How positions that JSON has no type for are written."""


def position_checks(
    cursor: Cursor, spec: DatasetSpec, rows: Sequence[LedgerRow]
) -> Iterator[Check]:
    """Check the positions that loads left, and the age of the newest row.

    Args:
        cursor: In a snapshot of the warehouse.
        spec: The dataset.
        rows: Its ledger.
    """
    back = list(_gone_back(rows))
    statement = "positions of the source never go back"
    yield check(spec, "I9", statement, "none broken", shown(back), back)
    ahead = list(_in_the_future(rows))
    statement = "no position of the source is in the future"
    yield check(spec, "I9", statement, "none broken", shown(ahead), ahead)
    for gate in spec.quality.gates:
        if isinstance(gate, Freshness):
            yield from _lag(cursor, spec, gate)


def position(value: Any) -> Any:
    """Return a position as a value that has an order; None for what has none, such as a token."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        read = _READ.get(kind)
        return read(text) if read else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _gone_back(rows: Sequence[LedgerRow]) -> Iterator[str]:
    """Name the loads that left a smaller position than one before."""
    newest: dict[tuple[str, type], tuple[Any, int]] = {}
    for row in rows:
        for name, written in row.source_state.items():
            value = position(written)
            if value is None:
                continue
            of_kind = (name, float if isinstance(value, int) else type(value))
            before = newest.get(of_kind)
            if before and value < before[0]:
                yield f"load {row.load_id}: {name} {value}, load {before[1]} was at {before[0]}"
            else:
                newest[of_kind] = (value, row.load_id)


def _in_the_future(rows: Sequence[LedgerRow]) -> Iterator[str]:
    """Name the loads whose position is later than the moment at which they were loaded."""
    for row in rows:
        for name, written in row.source_state.items():
            value = position(written)
            limit = row.loaded_at.astimezone(UTC) + CLOCK_SKEW
            if isinstance(value, datetime):
                moment = value if value.tzinfo else value.replace(tzinfo=UTC) - EASTERNMOST
                is_ahead = moment > limit
            elif isinstance(value, date):
                is_ahead = value > (limit + EASTERNMOST).date()
            else:
                continue
            if is_ahead:
                yield f"load {row.load_id}: {name} {value}, loaded {row.loaded_at:%Y-%m-%d %H:%M}"


def _lag(cursor: Cursor, spec: DatasetSpec, gate: Freshness) -> Iterator[Check]:
    """Check the age of the newest row in the table against what the dataset states of a partition."""
    name, allowed = gate.freshness.column, span(gate.freshness.max_age)
    if name not in existing_columns(cursor, spec):
        return
    # A time without a zone is one of UTC.
    cursor.execute("SET LOCAL TimeZone = 'UTC'")
    newest = sql.SQL("SELECT now() - max({})::timestamptz FROM {}")
    cursor.execute(newest.format(sql.Identifier(name), target(spec)))
    row = cursor.fetchone()
    if row is None or row[0] is None:
        return
    statement = f"the newest {name} is at most {gate.freshness.max_age} old"
    late = row[0] > allowed
    found = f"{row[0].days} days, {row[0].seconds // 3600} hours" if late else "it is"
    remedy = "the source gives nothing new, or nothing was run: dpp run, and dpp status"
    yield check(spec, "I9", statement, "it is", found, (), remedy)
