"""What flows through a run: partitions, manifests, receipts and reports. Small, frozen, JSON."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field, model_validator

from tasks.model.anomaly import Finding
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import canonical_json
from tasks.model.errors import ErrorKind
from tasks.model.profile import Profile

Purpose = Literal["run", "objects", "backfill", "replay"]


class Value(BaseModel):
    """Base of what stages hand to each other: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(Value):
    """A span of a large object, half open; it begins and ends between two records.

    ``str()`` of it is its identity. The other fields only help to read it.
    """

    unit: Literal["bytes", "row groups"]
    start: int
    end: int
    of: int
    """The object's bytes, or its row groups."""
    first_row: int | None = None
    """Number of its first record in the object; None when only a reader of all of it would know."""
    header: int = 0
    """Bytes at the object's beginning that name the columns of all its parts."""

    def __str__(self) -> str:
        return f"{self.unit} {self.start}-{self.end}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that a text of the ledger stands for."""
        unit, _, numbers = text.rpartition(" ")
        start, end, of = (int(number) for number in re.split("[-/]", numbers))
        return cls.model_validate({"unit": unit, "start": start, "end": end, "of": of})


class SourceItem(Value):
    """One object or file of a source, or a part of one, pinned to the version that was listed."""

    uri: str
    version: str
    """What changes when the content changes: an ETag with the size, or a SHA-256."""
    bytes: int = 0
    part: Part | None = None
    """None: all of it."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from others."""
        return (self.uri, self.version, *([str(self.part)] if self.part else []))

    @property
    def origin(self) -> str:
        """What its rows say about where they are from.

        It names the part where rows are counted from the beginning of the part, not of the object.
        """
        if self.part is None or self.part.first_row is not None:
            return self.uri
        return f"{self.uri}#{self.part.unit}={self.part.start}-{self.part.end}"


class Partition(Value):
    """The unit of work: an immutable description of a slice of the source."""

    dataset: str
    label: str
    """For people: which slice this is."""
    items: tuple[SourceItem, ...] = ()
    slice: dict[str, Any] = Field(default_factory=dict)
    """For sources without objects: the window, the range or the query."""
    state: dict[str, Any] = Field(default_factory=dict)
    """Where the next plan goes on once this partition is committed."""
    deletes_up_to: int | None = None
    """Set where the slice is the keys of all rows: the last load whose rows it may delete."""
    refresh: str | None = None
    """Id of the run that asked for it again although it was loaded; None otherwise."""
    planned_after: int | None = None
    """Id of the last load that the plan knew of, 0 for none; its items must not be loaded by others
    meanwhile. None where that cannot be, or does not matter."""

    @property
    def bytes(self) -> int:
        """Size of the slice in the source, in bytes, as far as the source says it."""
        return sum(item.bytes for item in self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the dataset's name and the content of the slice, not over the dataset file."""
        identity: dict[str, Any] = {
            "dataset": self.dataset,
            "items": sorted(item.identity for item in self.items),
            "slice": self.slice,
        }
        if self.refresh is not None:
            identity["refresh"] = self.refresh
        return hashlib.sha256(canonical_json(identity)).hexdigest()


class Window(Value):
    """A span of the source's own time, half open: ``start <= t < end``. A backfill asks for one."""

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"the window ends at {self.end}, not after its start {self.start}")
        return self


class RunRequest(Value):
    """What a run of a dataset is asked for; what is new, if nothing is said."""

    window: Window | None = None
    """A backfill: what is missing in this span."""
    objects: tuple[str, ...] = ()
    """Only these objects or files of the source, as it names them; all, if none is named."""
    refresh: bool = False
    """Load again what was loaded before."""
    max_parallel: int | None = Field(None, ge=1)
    """Most partitions at a time; as the environment says, if not given."""

    @property
    def purpose(self) -> Purpose:
        """Which runs take a dataset over from each other.

        A backfill goes on beside live runs; runs for some objects go on beside all others.
        """
        if self.objects:
            return "objects"
        return "run" if self.window is None else "backfill"

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if self.objects and self.window is not None:
            raise ValueError("give either objects or a window")
        return self


class SourceState(Value):
    """What the ledger knows of a dataset's source when a run is planned."""

    items: frozenset[tuple[str, str]] = frozenset()
    """(uri, version) of every object that was committed whole."""
    parts: frozenset[tuple[str, str, str]] = frozenset()
    """(uri, version, part) of every committed part of an object."""
    fingerprints: frozenset[str] = frozenset()
    """Fingerprints of every committed partition."""
    latest: dict[str, Any] = Field(default_factory=dict)
    """``state`` of the partition that was committed last."""
    last_load: int | None = None
    """Id of the last load; None if there was none."""
    window: Window | None = None
    """Plan only what is missing in this span, and leave ``latest`` as it is; None in a daily run."""
    objects: tuple[str, ...] = ()
    """Plan only these objects or files; all, if none is named."""


class LakeFile(Value):
    """One file of the lake, named after its content."""

    key: str
    rows: int
    bytes: int
    sha256: str


class QuarantineReason(Value):
    """How many rows of a partition one rule refused, with the first of them as an example."""

    stage: Literal["ingestion", "transformation"]
    rule: str
    column: str | None
    rows: int
    message: str
    source_uri: str
    source_row: int


class ChildManifest(Value):
    """The items of one child table: where the clean ones are, and an account of all of them."""

    files: tuple[LakeFile, ...] = ()
    quarantine: tuple[LakeFile, ...] = ()
    rows_read: int = 0
    """Items of the rows that were kept."""
    rows_deduplicated: int = 0
    rows_quarantined: int = 0
    reasons: tuple[QuarantineReason, ...] = ()
    warnings: tuple[QuarantineReason, ...] = ()
    columns_added: tuple[str, ...] = ()
    column_types: dict[str, ColumnSpec] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Items that go on to the next stage."""
        return sum(file.rows for file in self.files)

    @model_validator(mode="after")
    def _every_item_is_accounted_for(self) -> Self:
        accounted = self.rows + self.rows_deduplicated + self.rows_quarantined
        if self.rows_read != accounted:
            raise ValueError(f"{self.rows_read} items read but {accounted} accounted for")
        if sum(file.rows for file in self.quarantine) != self.rows_quarantined:
            raise ValueError("quarantine files do not hold the quarantined items")
        return self


class Manifest(Value):
    """What one stage hands to the next: where the rows are, and an account of all of them."""

    stage: Literal["ingestion", "transformation"]
    dataset: str
    fingerprint: str
    config_hash: str
    files: tuple[LakeFile, ...]
    """The rows that go on to the next stage."""
    quarantine: tuple[LakeFile, ...]
    """The rows that were refused so far, by this stage and those before it."""
    rows_read: int
    """Rows that the source gave."""
    rows_deduplicated: int
    rows_quarantined: int
    reasons: tuple[QuarantineReason, ...] = ()
    warnings: tuple[QuarantineReason, ...] = ()
    """Rows that broke a rule that only warns; they are among those that go on."""
    columns_added: tuple[str, ...] = ()
    """Source columns beyond the dataset file, kept under ``contract: evolve``."""
    column_types: dict[str, ColumnSpec] = Field(default_factory=dict)
    """Types of these columns, and of declared ones that had to be widened for the data."""
    state: dict[str, Any] = Field(default_factory=dict)
    """What ingestion learned of where the next plan goes on; it overrides the partition's."""
    profile: Profile | None = None
    """What the clean rows look like; of the transformation only."""
    children: dict[str, ChildManifest] = Field(default_factory=dict)
    """The items of child tables, which have accounts of their own."""
    child: str | None = None
    """The child table whose refused items the raw rows are, in a replay of such."""
    created_at: datetime
    seconds: float

    @property
    def all_files(self) -> tuple[LakeFile, ...]:
        """Every file of the lake that it names."""
        children = self.children.values()
        return (
            *self.files,
            *self.quarantine,
            *(file for child in children for file in (*child.files, *child.quarantine)),
        )

    @property
    def rows(self) -> int:
        """Rows that go on to the next stage."""
        return sum(file.rows for file in self.files)

    @model_validator(mode="after")
    def _every_row_is_accounted_for(self) -> Self:
        accounted = self.rows + self.rows_deduplicated + self.rows_quarantined
        if self.rows_read != accounted:
            raise ValueError(
                f"{self.dataset}: {self.rows_read} rows read but {accounted} accounted for "
                f"({self.rows} passed, {self.rows_deduplicated} deduplicated, "
                f"{self.rows_quarantined} quarantined)"
            )
        if sum(file.rows for file in self.quarantine) != self.rows_quarantined:
            raise ValueError(f"{self.dataset}: quarantine files do not hold the quarantined rows")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest; the ledger keeps it."""
        # Manifests that were made before there were these fields keep their digest.
        unset = {name for name in ("profile", "children", "child") if not getattr(self, name)}
        return hashlib.sha256(
            canonical_json(self.model_dump(mode="json", exclude=unset))
        ).hexdigest()


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
