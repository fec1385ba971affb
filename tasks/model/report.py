"""What came of it: receipts of loads, and the reports of datasets and of whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field, computed_field

from tasks.model.anomaly import Finding
from tasks.model.errors import ErrorKind
from tasks.model.manifest import QuarantineReason
from tasks.model.value import Value


class RowCounts(Value):
    """An account of rows; ``read`` must equal the sum of the others down to ``quarantined``."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deduplicated: int = 0
    quarantined: int = 0
    deleted: int = 0
    """Rows of the target table that are gone; no row was read for them."""
    restored: int = 0
    """Rows that are in the target table again; no row was read for them."""

    @classmethod
    def of(cls, numbers: Sequence[int]) -> RowCounts:
        """Return the account that the ledger has: its columns, in the order of the fields here."""
        return cls(**dict(zip(cls.model_fields, numbers, strict=True)))

    @property
    def loaded(self) -> int:
        """Rows that are in the target table, whether or not they changed it."""
        return self.inserted + self.updated + self.unchanged

    @property
    def changed(self) -> int:
        """Rows of the target table that this load wrote."""
        return self.inserted + self.updated

    @property
    def balanced(self) -> bool:
        """True when every row read is loaded, deduplicated or quarantined."""
        return self.read == self.loaded + self.deduplicated + self.quarantined

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in RowCounts.model_fields}
        )


class LoadStatus(StrEnum):
    """How a load ended."""

    LOADED = "loaded"
    ALREADY_LOADED = "already loaded"


class SchemaChange(Value):
    """What a load altered in its table."""

    column: str
    from_type: str | None
    """None if the column was not there."""
    to_type: str
    kind: Literal["column added", "type widened", "null allowed"]


class LoadReceipt(Value):
    """What the load of one partition did."""

    dataset: str
    fingerprint: str
    load_id: int
    status: LoadStatus
    counts: RowCounts
    reasons: tuple[QuarantineReason, ...] = ()
    findings: tuple[Finding, ...] = ()
    """What is unusual about the partition."""
    warnings: tuple[QuarantineReason, ...] = ()
    schema_changes: tuple[SchemaChange, ...] = ()
    children: dict[str, RowCounts] = Field(default_factory=dict)
    """What was done to each child table."""
    seconds: float


class PartitionFailure(Value):
    """A partition that was not loaded, and why."""

    label: str
    fingerprint: str
    stage: str
    error: str
    """Class of the error."""
    message: str
    kind: ErrorKind
    exit_code: int
    findings: tuple[Finding, ...] = ()
    """What was so unusual that the partition was not published."""


class Outcome(StrEnum):
    """How a dataset's run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class DatasetReport(Value):
    """One dataset's part of a run."""

    dataset: str
    table: str
    outcome: Outcome
    partitions: int = 0
    partitions_loaded: int = 0
    partitions_already_loaded: int = 0
    """Planned partitions that turned out to be in the ledger when they were to be published."""
    partitions_failed: int = 0
    """``failures`` has the first of them."""
    counts: RowCounts = Field(default_factory=RowCounts)
    table_rows: int | None = None
    """Rows of the target table after the run."""
    children: dict[str, RowCounts] = Field(default_factory=dict)
    """What was done to each child table."""
    reasons: tuple[QuarantineReason, ...] = ()
    findings: tuple[Finding, ...] = ()
    warnings: tuple[QuarantineReason, ...] = ()
    failures: tuple[PartitionFailure, ...] = ()
    skipped_because: str | None = None
    seconds: float = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rows_per_second(self) -> int:
        """Rows read per second of the dataset's whole run."""
        return round(self.counts.read / self.seconds) if self.seconds else 0


class RunReport(Value):
    """A whole run, for people and for scripts (``--json``)."""

    environment: str
    run: str
    datasets: tuple[DatasetReport, ...]
    started_at: datetime
    seconds: float

    @property
    def succeeded(self) -> bool:
        """True when every dataset succeeded."""
        return all(report.outcome is Outcome.SUCCEEDED for report in self.datasets)

    @property
    def failures(self) -> tuple[PartitionFailure, ...]:
        """Every failure of every dataset."""
        return tuple(failure for report in self.datasets for failure in report.failures)
