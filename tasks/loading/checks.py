"""What a check of an invariant says, and the ledger rows that checks look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.model.dataset import DatasetSpec
from tasks.model.run import Value

SHOWN = 3
"""Differences that are named; the others are counted."""

REMEDIES = {
    "I1": "the ledger was changed by hand: restore it from a backup",
    "I2": "restore the lake's files from a backup; the rows in the table are not touched by this",
    "I4": "the ledger was changed by hand: restore it from a backup",
    "I5": "the quarantine was changed by hand: restore it from a backup",
    "I6": "rows were added to or deleted from the table by hand: restore it, or drop the table and "
    "the dataset's ledger rows and run again",
    "I7": "rows were written by somebody else: delete those whose _load_id is not in etl.loads",
    "I8": "the primary key was dropped or its index is damaged: REINDEX, then check again",
    "I10": "rows were written by somebody else, or the companion table in schema etl was changed by "
    "hand: restore both, or drop the table and the dataset's ledger rows and run again",
    "I14": "columns that were dropped count for ever: copy the table into a new one, which forgets "
    "them",
    "I9": "resolutions were changed by hand: restore etl.quarantine_resolutions from a backup",
}


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

    @property
    def written(self) -> int:
        """Rows of the table that this load wrote."""
        return self.inserted + self.updated + self.restored

    @property
    def passed(self) -> int:
        """Clean rows of the load."""
        return self.inserted + self.updated + self.unchanged

    @property
    def accounted(self) -> int:
        """Rows that are somewhere; as many as were read, or the ledger is wrong."""
        return self.passed + self.deduplicated + self.quarantined


def check(
    spec: DatasetSpec, invariant: str, statement: str, expected: object, found: object
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
        remedy=None if holds else REMEDIES[invariant],
    )


def shown(differences: Sequence[str]) -> str:
    """Return the first differences, and the number of all."""
    if not differences:
        return "none broken"
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return f"{len(differences)} broken: {'; '.join(differences[:SHOWN])}{more}"
