"""What the ledger keeps of a load that is taken back: its row moves, later loads are counted anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.audit import record
from tasks.loading.queries import query
from tasks.loading.restore import Restored
from tasks.model.dataset import DatasetSpec
from tasks.model.value import Value

COUNTED = ("inserted", "updated", "unchanged", "deleted", "restored")


@dataclass(frozen=True, slots=True)
class Recounted:
    """By how much the counts of other loads change.

    Attributes:
        loads: Of their rows, by load.
        children: Of items of child tables, by load and child.
    """

    loads: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    children: Mapping[tuple[int, str], Mapping[str, int]] = field(default_factory=dict)


class Unloaded(Value):
    """What taking a load back did.

    ``already`` is True if it had been done before; nothing was done now.
    """

    dataset: str
    load_id: int
    rows_deleted: int
    """Rows of the table that are gone, or have another version now."""
    rows_restored: int
    """Rows whose version before was put in their place."""
    excluded: bool
    """Is the load's part of the source left alone by later runs?"""
    read_again: bool = False
    """Does the next run load it again? Not where later loads moved a position in the source on."""
    was_replay: bool = False
    """Were its rows some that were refused before? They wait in quarantine again."""
    already: bool = False
    unloaded_at: datetime | None = None
    unloaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        load_id: The load.
        actor: Who asks.
        reason: Why.
        exclude: Is its part of the source to be left alone?
        read_again: Will the next run read it again?
        was_replay: Is it a replay of refused rows?
    """

    load_id: int
    actor: str
    reason: str
    exclude: bool
    read_again: bool
    was_replay: bool


def find_unload(cursor: Cursor, spec: DatasetSpec, load_id: int) -> Unloaded | None:
    """Return what taking a load back did, if it was done before."""
    cursor.execute(query("find_unload"), {"dataset": spec.name, "load_id": load_id})
    row = cursor.fetchone()
    if row is None:
        return None
    return Unloaded(
        dataset=spec.name,
        load_id=load_id,
        unloaded_at=row[0],
        unloaded_by=row[1],
        rows_deleted=row[2],
        rows_restored=row[3],
        excluded=row[4],
        already=True,
    )


def account_for(
    cursor: Cursor,
    spec: DatasetSpec,
    order: Order,
    restored: Restored,
    recounted: Recounted,
) -> Unloaded:
    """Move the ledger row, count anew what later loads did, and write the audit."""
    nothing = dict.fromkeys(COUNTED, 0)
    for load_id, counts in recounted.loads.items():
        cursor.execute(query("recount_load"), {"load_id": load_id, **nothing, **counts})
    for (load_id, child), counts in recounted.children.items():
        named = {"load_id": load_id, "child": child}
        cursor.execute(query("recount_child"), {**named, **nothing, **counts})
    changes: dict[str, Any] = {
        str(load_id): dict(counts) for load_id, counts in recounted.loads.items()
    }
    cursor.execute(
        query("keep_unload"),
        {
            "load_id": order.load_id,
            "excluded": order.exclude,
            "by": order.actor,
            "reason": order.reason,
            "deleted": restored.deleted,
            "restored": restored.inserted,
            "recounted": psycopg2.extras.Json(changes),
        },
    )
    cursor.execute(query("forget_load"), {"load_id": order.load_id})
    details = {
        "deleted": restored.deleted,
        "restored": restored.inserted,
        "excluded": order.exclude,
        "recounted": changes,
    }
    record(
        cursor,
        spec.name,
        "unload",
        actor=order.actor,
        reason=order.reason,
        load_id=order.load_id,
        details=details,
    )
    return Unloaded(
        dataset=spec.name,
        load_id=order.load_id,
        rows_deleted=restored.deleted,
        rows_restored=restored.inserted,
        excluded=order.exclude,
        read_again=order.read_again,
        was_replay=order.was_replay,
    )
