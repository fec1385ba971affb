"""What a load writes about itself, in the transaction of its rows: the receipt in five tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading import ledger_entry
from tasks.loading.evolution import record_changes
from tasks.loading.job import Load, OnStep
from tasks.loading.profiles import insert_profile
from tasks.loading.resolutions import mark_replayed
from tasks.model.anomaly import Finding
from tasks.model.manifest import ChildManifest, Manifest
from tasks.model.report import LoadReceipt, LoadStatus, RowCounts, SchemaChange


@dataclass(frozen=True, slots=True)
class Changes:
    """What a load did to its table, in rows.

    Attributes:
        inserted: Staged rows that are new in the table.
        updated: Staged rows that replaced the values of one that was there.
        deleted: Rows of the table that are gone.
        restored: Rows that are in the table again though no row was read for them now.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    restored: int = 0


def receipt_of(
    load: Load,
    load_id: int,
    changes: Changes,
    *,
    findings: tuple[Finding, ...],
    schema_changes: tuple[SchemaChange, ...],
    seconds: float,
    children: Mapping[str, RowCounts] = MappingProxyType({}),
) -> LoadReceipt:
    """Return the receipt of a load."""
    manifest = load.manifest
    return LoadReceipt(
        dataset=load.spec.name,
        fingerprint=load.partition.fingerprint,
        load_id=load_id,
        status=LoadStatus.LOADED,
        counts=counts_of(manifest, changes),
        reasons=manifest.reasons,
        findings=findings,
        schema_changes=schema_changes,
        children=dict(children),
        warnings=manifest.warnings,
        seconds=seconds,
    )


def counts_of(manifest: Manifest | ChildManifest, changes: Changes) -> RowCounts:
    """Return the account of a load; clean rows that changed nothing are counted as unchanged."""
    return RowCounts(
        read=manifest.rows_read,
        inserted=changes.inserted,
        updated=changes.updated,
        unchanged=manifest.rows - changes.inserted - changes.updated,
        deduplicated=manifest.rows_deduplicated,
        quarantined=manifest.rows_quarantined,
        deleted=changes.deleted,
        restored=changes.restored,
    )


def write_account(cursor: Cursor, load: Load, receipt: LoadReceipt, on_step: OnStep) -> None:
    """Write the ledger row and what belongs to it.

    Raises:
        LoadConflict: Something of it was loaded, or resolved, by somebody else meanwhile.
    """
    manifest, load_id = load.manifest, receipt.load_id
    state = load.partition.state | manifest.state
    partition = load.partition.model_copy(update={"state": state})
    ledger_entry.insert_load(cursor, _ledger_row(load, receipt), partition)
    record_changes(cursor, load.spec, load_id, receipt.schema_changes)
    on_step("ledger_written")
    ledger_entry.insert_quarantine(cursor, load_id, manifest)
    if load.is_described:
        insert_profile(cursor, load_id, load.spec, manifest, receipt.findings)
    mark_replayed(cursor, load.partition, load_id, load.run)
    on_step("quarantine_written")


def _ledger_row(load: Load, receipt: LoadReceipt) -> dict[str, object]:
    return {
        "load_id": receipt.load_id,
        "dataset": load.spec.name,
        "fingerprint": receipt.fingerprint,
        "label": load.partition.label,
        "run": load.run,
        "target": load.spec.load.table,
        "manifest_key": load.manifest_key,
        "manifest_digest": load.manifest.digest,
        "config_hash": load.spec.config_hash,
        "code_version": load.code_version,
        "source_bytes": load.partition.bytes or None,
        "seconds": receipt.seconds,
        **receipt.counts.model_dump(),
    }
