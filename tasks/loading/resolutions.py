"""What became of refused rows: replayed or discarded, each of them once, and proof of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import psycopg2.errors
import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.checks import Check, check, shown
from tasks.loading.ledger import session
from tasks.loading.queries import query
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import LoadConflict
from tasks.model.replay import ReasonRows, replay_of
from tasks.model.run import Partition, Value

SPANS_AT_ONCE = 500


class QuarantineLoad(Value):
    """A load that refused rows; all of them share what it says."""

    dataset: str
    load_id: int
    run: str
    partition: str
    fingerprint: str
    config_hash: str
    manifest_key: str
    first_seen: datetime
    times_replayed: int
    rows: int
    resolved: int


class QuarantineReasons(Value):
    """Refused rows of one load and reason."""

    dataset: str
    load_id: int
    stage: str
    rule: str
    column: str | None
    message: str
    source_uri: str
    source_row: int
    first_seen: datetime
    rows: int
    replayed: int
    discarded: int

    @property
    def open(self) -> int:
        """Rows that wait for somebody."""
        return self.rows - self.replayed - self.discarded


class Resolution(Value):
    """What became of one refused row."""

    resolution: str
    reason: str | None
    resolved_by: str
    resolved_at: datetime
    replay_load_id: int | None


def quarantine_loads(engine: Engine, dataset: str | None = None) -> list[QuarantineLoad]:
    """Return the loads that refused rows, the oldest first."""
    names = list(QuarantineLoad.model_fields)
    return [
        QuarantineLoad(**dict(zip(names, row, strict=True)))
        for row in _rows(engine, "quarantine_loads", {"dataset": dataset})
    ]


def quarantine_reasons(engine: Engine, dataset: str | None = None) -> list[QuarantineReasons]:
    """Return the refused rows by load and reason, and the refused items of child tables."""
    names = list(QuarantineReasons.model_fields)
    return [
        QuarantineReasons(**dict(zip(names, row, strict=True)))
        for kind in ("quarantine_reasons", "child_quarantine")
        for row in _rows(engine, kind, {"dataset": dataset})
    ]


def rows_read(engine: Engine) -> dict[str, int]:
    """Return how many rows each dataset's source gave."""
    return dict(_rows(engine, "rows_read", {}))


def resolutions_of(engine: Engine, load_id: int) -> dict[int, Resolution]:
    """Return what became of the refused rows of a load, by their numbers."""
    names = list(Resolution.model_fields)
    return {
        row[0]: Resolution(**dict(zip(names, row[1:], strict=True)))
        for row in _rows(engine, "resolutions_of_load", {"load_id": load_id})
    }


def _rows(engine: Engine, name: str, arguments: dict[str, Any]) -> list[Any]:
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query(name), arguments)
        return list(cursor.fetchall())


def mark_replayed(cursor: Cursor, partition: Partition, load_id: int, run: str) -> None:
    """Mark the rows of a replay as resolved, in the transaction that publishes them.

    Raises:
        LoadConflict: One of them is resolved already; nothing is published.
    """
    replay = replay_of(partition)
    if replay is None:
        return
    cursor.execute(
        query("insert_replay"),
        {
            "load_id": load_id,
            "origin": replay.load_id,
            "first_seen": replay.first_seen,
            "times_replayed": replay.times_replayed,
        },
    )
    _resolve(
        cursor,
        replay.load_id,
        replay.reasons,
        {"resolution": "replayed", "reason": None, "by": run, "replay": load_id},
    )


def discard(
    engine: Engine, rows: Iterable[tuple[int, tuple[ReasonRows, ...]]], reason: str, by: str
) -> None:
    """Resolve refused rows by leaving them out for good; all of them, or none.

    Args:
        engine: The warehouse.
        rows: The rows, by load.
        reason: Why, for those who ask later.
        by: Who does it.

    Raises:
        LoadConflict: One of them was resolved meanwhile.
    """
    how = {"resolution": "discarded", "reason": reason, "by": by, "replay": None}
    with session(engine) as connection, connection.cursor() as cursor:
        for load_id, reasons in rows:
            _resolve(cursor, load_id, reasons, how)


def _resolve(
    cursor: Cursor, load_id: int, reasons: Iterable[ReasonRows], how: dict[str, Any]
) -> None:
    spans = [
        {
            **how,
            "load_id": load_id,
            "stage": reason.stage,
            "rule": reason.rule,
            "column": reason.column,
            "first": first,
            "last": last,
        }
        for reason in reasons
        for first, last in reason.spans
    ]
    try:
        psycopg2.extras.execute_batch(cursor, query("resolve_span"), spans, SPANS_AT_ONCE)
    except psycopg2.errors.UniqueViolation:
        raise LoadConflict(
            f"a refused row of load {load_id} was replayed or discarded by somebody else meanwhile",
            "nothing was done with these rows by this run; run again for those that are left",
        ) from None


def resolution_checks(cursor: Cursor, spec: DatasetSpec) -> Iterator[Check]:
    """Check that what is resolved was refused, and that replays read what they resolved."""
    cursor.execute(query("resolutions_beyond_quarantine"), {"dataset": spec.name})
    beyond = [f"load {row[0]}" for row in cursor.fetchall()]
    yield check(spec, "I5", "what is resolved was refused", "none broken", shown(beyond))
    cursor.execute(query("replays_out_of_balance"), {"dataset": spec.name})
    different = [f"load {row[0]}: {row[2]} instead of {row[1]}" for row in cursor.fetchall()]
    statement = "every replayed row was read once by its replay"
    yield check(spec, "I5", statement, "none broken", shown(different))
