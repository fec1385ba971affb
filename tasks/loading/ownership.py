"""May this load still be published? Asked under the lock of its table, so that the answer holds."""

from __future__ import annotations

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.job import Load
from tasks.loading.queries import query
from tasks.model.errors import LoadConflict, PlanOutdated
from tasks.model.partition import Partition, SourceItem


def check_ownership(cursor: Cursor, load: Load) -> None:
    """Make sure that the dataset is this run's, and that its objects are still what is to be loaded.

    Raises:
        LoadConflict: A newer run owns the dataset.
        PlanOutdated: Another run loaded some of the objects, or newer versions of them.
    """
    _check_fence(cursor, load)
    if meanwhile := loaded_meanwhile(cursor, load.partition):
        raise PlanOutdated(
            f"{load.spec.name}: {meanwhile[0].uri} was loaded by another run meanwhile",
            "nothing of the partition was published; run again, what is left of it is loaded then",
        )


def _check_fence(cursor: Cursor, load: Load) -> None:
    """Make sure that no newer run owns the dataset, and that none will before the transaction ends."""
    cursor.execute(query("read_fence"), {"dataset": load.spec.name, "purpose": load.purpose})
    row = cursor.fetchone()
    if row is None or row[0] != load.fence:
        owner = row[1] if row else "nobody"
        raise LoadConflict(
            f"{load.spec.name}: run {owner} took the dataset over from run {load.run}",
            "nothing was published by this run; the newer one goes on",
        )


def loaded_meanwhile(cursor: Cursor, partition: Partition) -> list[SourceItem]:
    """Return the items of a partition that other runs loaded since it was planned.

    That is an item itself, or another version of its object: the one that was loaded later is the
    newer one, and must not be overwritten by this one.
    """
    if partition.planned_after is None or not partition.items:
        return []
    items = partition.items
    cursor.execute(
        query("loaded_meanwhile"),
        {
            "dataset": partition.dataset,
            "uris": [item.uri for item in items],
            "versions": [item.version for item in items],
            "parts": [str(item.part or "") for item in items],
            "planned_after": partition.planned_after,
        },
    )
    return [items[number - 1] for (number,) in cursor]
