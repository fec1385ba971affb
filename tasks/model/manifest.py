"""Manifests: the lake files that one stage hands to the next, and an account of every row."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tasks.model.columns import ColumnSpec
from tasks.model.profile import Profile
from tasks.model.value import Value, json_digest


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
        return json_digest(self.model_dump(mode="json", exclude=unset))
