"""What is known of the past of a dataset: its loads with their clean files, and what retention took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.checks import LedgerRow
from tasks.loading.partitions import in_range
from tasks.loading.queries import query
from tasks.loading.ranges import Range
from tasks.loading.reapply import (
    Done,
    PastLoad,
    Reapplied,
    Retired,
    published_together,
)
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.load import MergeLoad
from tasks.model.manifest import Manifest

FOLDED = ("append", "insert_only", "merge")
"""Modes whose loads are applied again outside of PostgreSQL, from hashes of their rows alone."""


@dataclass(frozen=True, slots=True)
class Past:
    """The past of a dataset.

    Attributes:
        loads: Its loads, in the order of their ids.
        retired: What retention took away, in its order.
    """

    loads: tuple[PastLoad, ...]
    retired: tuple[Retired, ...] = ()

    def without(self, load_id: int) -> Past:
        """Return the past as if a load had never been."""
        return Past(tuple(load for load in self.loads if load.row.load_id != load_id), self.retired)


def is_folded(spec: DatasetSpec, *, retired: bool) -> bool:
    """Tell whether hashes of rows are enough to say what a table must hold."""
    deletes = isinstance(spec.load, MergeLoad) and spec.load.delete is not None
    return spec.load.mode in FOLDED and not (deletes or spec.children or retired)


def past_of(
    cursor: Cursor,
    spec: DatasetSpec,
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
) -> Past:
    """Return the past of a dataset.

    Args:
        cursor: In a session of the warehouse.
        spec: The dataset.
        rows: Its ledger.
        clean: The manifests of the loads whose clean files are all intact.

    Raises:
        ContractBroken: It is not known whole; the message says what is missing.
    """
    if lost := [row.load_id for row in rows if row.load_id not in clean]:
        raise ContractBroken(
            f"{spec.name}: clean files of {len(lost)} loads are gone from the lake, the first of "
            f"load {lost[0]}",
            "restore them from a backup",
        )
    cursor.execute(query("replay_loads"), {"dataset": spec.name})
    replays = {row[0] for row in cursor.fetchall()}
    loads = [PastLoad(row, clean[row.load_id], row.load_id in replays) for row in rows]
    return Past(tuple(loads), tuple(_retired(cursor, spec)))


def _retired(cursor: Cursor, spec: DatasetSpec) -> Iterator[Retired]:
    cursor.execute(query("retirements"), {"dataset": spec.name})
    for after_load, begin, end, rows in cursor.fetchall():
        if after_load is None or spec.load.partition_by is None:
            raise ContractBroken(
                f"{spec.name}: the ledger does not say between which loads retention took rows away",
                "they were taken by an older version, or by another dataset file",
            )
        low = None if begin is None else datetime.fromisoformat(begin)
        condition = in_range(spec, Range(low, datetime.fromisoformat(end)))
        yield Retired(int(after_load), condition, int(rows))


def apply_past(reapplied: Reapplied, spec: DatasetSpec, past: Past) -> dict[int, Done]:
    """Apply all of a past again; return what each load did."""
    done: dict[int, Done] = {}
    waiting = list(past.retired)
    for group in published_together(spec, past.loads):
        first = group[0].row.load_id
        while waiting and waiting[0].after_load < first:
            reapplied.retire(waiting.pop(0))
        done |= reapplied.apply(group)
    for retired in waiting:
        reapplied.retire(retired)
    return done
