"""What a check of an invariant says, and the ledger rows that checks look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.model.dataset import DatasetSpec
from tasks.model.report import RowCounts
from tasks.model.value import Value

SHOWN = 3
"""Differences that are named; the others are counted."""

REMEDIES = {
    "I1": "the ledger was changed by hand: restore it from a backup",
    "I2": "restore the lake's files from a backup; the rows in the table are not touched by this",
    "I3": "the ledger was changed by hand: restore it from a backup",
    "I4": "the ledger was changed by hand: restore it from a backup",
    "I5": "the quarantine, or what is resolved of it, was changed by hand: restore it from a backup",
    "I6": "rows were added to or deleted from the table by hand: dpp reconcile --repair",
    "I7": "rows were written by somebody else, or their ledger row is gone: dpp reconcile --repair",
    "I8": "the primary key was dropped, its index is damaged, or rows were changed by hand: REINDEX, "
    "then dpp reconcile --repair",
    "I9": "a position of the source went back: look at etl.loads.source_state, and load what lies "
    "between with dpp backfill",
    "I10": "etl.datasets was changed by hand: restore it; until then two runs may publish at once",
    "I11": "dpp reconcile --repair loads the rows that differ again, from the lake",
    "I12": "run the dataset; it builds its search index, and builds a broken one again",
    "I14": "alter the table as dpp check says; a table that is short of column numbers has to be "
    "copied into a new one",
    "I17": "the rows of a load are made or published in another way than then: was the code or the "
    "ledger changed? Keep the lake files, and report it",
    "I16": "etl.audit was changed by hand: compare it with a backup, and find out by whom",
}


class PartitionSums(Value):
    """Rows of one load on two sides, with checksums that do not depend on their order."""

    load_id: int
    label: str
    expected_rows: int
    expected_checksum: int
    found_rows: int
    found_checksum: int


class Check(Value):
    """One invariant of one dataset, and whether it holds."""

    invariant: str
    dataset: str
    statement: str
    expected: str
    found: str
    holds: bool
    remedy: str | None = None
    """What to do about it; none where it holds."""
    differences: tuple[str, ...] = ()
    """Every difference that was found, as far as they are listed; never a value marked ``pii``."""
    partitions: tuple[PartitionSums, ...] = ()
    """What was compared, load by load; the lake's side is the expected one."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One load, as the query ``ledger_rows`` gives it."""

    load_id: int
    fingerprint: str
    label: str
    target: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    deduplicated: int
    quarantined: int
    deleted: int
    restored: int
    manifest_key: str
    manifest_digest: str
    config_hash: str
    loaded_at: datetime
    run: str
    rows_staged: int | None
    deletes_up_to: int | None
    source_state: dict[str, Any]
    slice: dict[str, Any] | None = None
    refresh: str | None = None

    @property
    def written(self) -> int:
        """Rows of the table that this load wrote."""
        return self.inserted + self.updated + self.restored

    @property
    def counts(self) -> RowCounts:
        """What this load did."""
        return RowCounts(
            read=self.read,
            inserted=self.inserted,
            updated=self.updated,
            unchanged=self.unchanged,
            deduplicated=self.deduplicated,
            quarantined=self.quarantined,
            deleted=self.deleted,
            restored=self.restored,
        )

    @property
    def passed(self) -> int:
        """Clean rows of the load."""
        return self.inserted + self.updated + self.unchanged

    @property
    def accounted(self) -> int:
        """Rows that are somewhere; as many as were read, or the ledger is wrong."""
        return self.passed + self.deduplicated + self.quarantined


def check(
    spec: DatasetSpec,
    invariant: str,
    statement: str,
    expected: object,
    found: object,
    differences: Sequence[str] = (),
    remedy: str | None = None,
) -> Check:
    """Return the verdict: what was found must be what was expected."""
    holds = expected == found
    return Check(
        invariant=invariant,
        dataset=spec.name,
        statement=statement,
        expected=str(expected),
        found=str(found),
        holds=holds,
        remedy=None if holds else remedy or REMEDIES[invariant],
        differences=() if holds else tuple(differences),
    )


def shown(differences: Sequence[str]) -> str:
    """Return the first differences, and the number of all."""
    if not differences:
        return "none broken"
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return f"{len(differences)} broken: {'; '.join(differences[:SHOWN])}{more}"
