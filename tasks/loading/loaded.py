"""The partitions that were loaded, as the ledger keeps them, so that they can be read again."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.checks import LedgerRow
from tasks.loading.queries import query
from tasks.model.dataset import DatasetSpec
from tasks.model.partition import Partition, SourceItem


@dataclass(frozen=True, slots=True)
class Loaded:
    """One load, and what of the source it stands for.

    Attributes:
        row: Its ledger row.
        items: Its objects, as (uri, version) or (uri, version, part); none that a later load took over.
        is_replay: Were its rows some that were refused before?
    """

    row: LedgerRow
    items: frozenset[tuple[str, ...]]
    is_replay: bool

    def partition(self, dataset: str, items: tuple[SourceItem, ...]) -> Partition | None:
        """Return the partition that was loaded; None if the ledger does not say it whole.

        Args:
            dataset: Name of the dataset.
            items: Its objects, as the source lists them.
        """
        found = Partition(
            dataset=dataset,
            label=self.row.label,
            items=items,
            slice=self.row.slice or {},
            deletes_up_to=self.row.deletes_up_to,
            refresh=self.row.refresh,
        )
        return found if found.fingerprint == self.row.fingerprint else None


def loaded_partitions(cursor: Cursor, spec: DatasetSpec) -> list[Loaded]:
    """Return all loads of a dataset, in the order of their ids."""
    cursor.execute(query("loaded_items"), {"dataset": spec.name})
    items: dict[int, set[tuple[str, ...]]] = {}
    for load_id, uri, version, part in cursor.fetchall():
        identity = (uri, version, part) if part else (uri, version)
        items.setdefault(load_id, set()).add(identity)
    cursor.execute(query("replay_loads"), {"dataset": spec.name})
    replays = {row[0] for row in cursor.fetchall()}
    cursor.execute(query("ledger_rows"), {"dataset": spec.name})
    rows = [LedgerRow(*row) for row in cursor.fetchall()]
    return [
        Loaded(row, frozenset(items.get(row.load_id, ())), row.load_id in replays) for row in rows
    ]
