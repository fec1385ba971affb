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
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import LoadConflict
from tasks.model.partition import Partition
from tasks.model.replay import ReasonRows, replay_of
from tasks.model.value import Value

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


def quarantine_loads(
    engine: Engine, dataset: str | None = None, child: str | None = None
) -> list[QuarantineLoad]:
    """Return the loads that refused rows, or items of a child of the dataset, the oldest first."""
    names = list(QuarantineLoad.model_fields)
    kind = "child_quarantine_loads" if child else "quarantine_loads"
    return [
        QuarantineLoad(**dict(zip(names, row, strict=True)))
        for row in _rows(engine, kind, {"dataset": dataset, "child": child})
    ]


def quarantine_reasons(
    engine: Engine, dataset: str | None = None, child: str | None = None
) -> list[QuarantineReasons]:
    """Return the refused rows by load and reason, and the refused items of child tables.

    Args:
        engine: The warehouse.
        dataset: Only of this dataset, and of its children.
        child: Only items of this child of it.
    """
    names = list(QuarantineReasons.model_fields)
    kinds = ("child_quarantine",) if child else ("quarantine_reasons", "child_quarantine")
    return [
        QuarantineReasons(**dict(zip(names, row, strict=True)))
        for kind in kinds
        for row in _rows(engine, kind, {"dataset": dataset, "child": child})
    ]


def rows_read(engine: Engine) -> dict[str, int]:
    """Return how many rows each dataset's source gave."""
    return dict(_rows(engine, "rows_read", {}))


def resolutions_of(engine: Engine, load_id: int, child: str | None = None) -> dict[int, Resolution]:
    """Return what became of the refused rows of a load, or items of a child, by their numbers."""
    names = list(Resolution.model_fields)
    return {
        row[0]: Resolution(**dict(zip(names, row[1:], strict=True)))
        for row in _rows(engine, "resolutions_of_load", {"load_id": load_id, "child": child or ""})
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
            "child": replay.child or "",
        },
    )
    _resolve(
        cursor,
        replay.load_id,
        replay.child,
        replay.reasons,
        {"resolution": "replayed", "reason": None, "by": run, "replay": load_id},
    )


def discard(
    engine: Engine,
    rows: Iterable[tuple[int, tuple[ReasonRows, ...]]],
    reason: str,
    by: str,
    child: str | None = None,
) -> None:
    """Resolve refused rows by leaving them out for good; all of them, or none.

    Args:
        engine: The warehouse.
        rows: The rows, by load.
        reason: Why, for those who ask later.
        by: Who does it.
        child: Are they items of this child table?

    Raises:
        LoadConflict: One of them was resolved meanwhile.
    """
    how = {"resolution": "discarded", "reason": reason, "by": by, "replay": None}
    with session(engine) as connection, connection.cursor() as cursor:
        for load_id, reasons in rows:
            _resolve(cursor, load_id, child, reasons, how)


def _resolve(
    cursor: Cursor,
    load_id: int,
    child: str | None,
    reasons: Iterable[ReasonRows],
    how: dict[str, Any],
) -> None:
    spans = [
        {
            **how,
            "load_id": load_id,
            "child": child or "",
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


def resolution_checks(
    cursor: Cursor, spec: DatasetSpec, child: str | None = None
) -> Iterator[Check]:
    """Check that what is resolved was refused, and that replays read what they resolved.

    Args:
        cursor: In a snapshot of the warehouse.
        spec: The dataset; of a child its parents' name is before the point.
        child: Name of the child whose items are meant.
    """
    of_child = "child_" if child else ""
    asked = {"dataset": spec.name.split(".")[0], "child": child}
    cursor.execute(query(f"{of_child}resolutions_beyond_quarantine"), asked)
    beyond = [f"load {row[0]}" for row in cursor.fetchall()]
    yield check(spec, "I5", "what is resolved was refused", "none broken", shown(beyond))
    cursor.execute(query(f"{of_child}replays_out_of_balance"), asked)
    different = [f"load {row[0]}: {row[2]} instead of {row[1]}" for row in cursor.fetchall()]
    statement = "every replayed row was read once by its replay"
    yield check(spec, "I5", statement, "none broken", shown(different))
