"""Finds the refused rows that are meant, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.resolutions import (
    QuarantineLoad,
    Resolution,
    quarantine_loads,
    resolutions_of,
)
from tasks.model.errors import ConfigError
from tasks.model.replay import ReasonRows, RowId, Selection, spans
from tasks.refused import KeptRow, kept_rows


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """A refused row: as the lake has it, with what the ledger knows of its load and its fate."""

    load: QuarantineLoad
    kept: KeptRow
    resolution: Resolution | None

    @property
    def row_id(self) -> str:
        """Its name."""
        return str(RowId(load_id=self.load.load_id, row=self.kept.row))

    def document(self, raw: str | None) -> dict[str, Any]:
        """Return all that is known of it, for scripts.

        Args:
            raw: The original values as they may be shown.
        """
        kept, load = self.kept, self.load
        return {
            "id": self.row_id,
            "dataset": load.dataset,
            "run": load.run,
            "partition": load.partition,
            "fingerprint": load.fingerprint,
            "source_uri": kept.source_uri,
            "source_row": kept.source_row,
            "stage": kept.stage,
            "rule": kept.rule,
            "column": kept.column,
            "message": kept.message,
            "failures": kept.failures,
            "raw": raw,
            "config_hash": load.config_hash,
            "first_seen": load.first_seen.isoformat(),
            "times_replayed": load.times_replayed,
            "resolution": self.resolution.model_dump(mode="json") if self.resolution else None,
        }


def selected_rows(
    engine: Engine, lake: Lake, dataset: str, selection: Selection
) -> Iterator[SelectedRow]:
    """Yield the refused rows of a dataset that are meant, by load and then in the order of its files.

    They are items of a child table if the selection names one.

    Raises:
        ConfigError: A row is named that the dataset has not.
    """
    child = selection.child
    loads = quarantine_loads(engine, dataset, child)
    ids = selection.row_ids
    _check_ids(f"{dataset}.{child}" if child else dataset, loads, ids)
    for load in loads:
        if not _is_meant(load, selection, ids):
            continue
        resolved = resolutions_of(engine, load.load_id, child) if load.resolved else {}
        named = {row for load_id, row in ids if load_id == load.load_id}

        def wanted(
            row: int, resolved: dict[int, Resolution] = resolved, named: set[int] = named
        ) -> bool:
            return (selection.resolved_too or row not in resolved) and (not ids or row in named)

        for kept in kept_rows(lake, load.manifest_key, wanted, child):
            if selection.rule not in (None, kept.rule):
                continue
            if selection.column not in (None, kept.column):
                continue
            yield SelectedRow(load, kept, resolved.get(kept.row))


def _is_meant(load: QuarantineLoad, selection: Selection, ids: frozenset[tuple[int, int]]) -> bool:
    if selection.load_id not in (None, load.load_id):
        return False
    if selection.seen_before is not None and load.first_seen >= selection.seen_before:
        return False
    if ids and load.load_id not in {load_id for load_id, _ in ids}:
        return False
    return selection.resolved_too or load.resolved < load.rows


def _check_ids(dataset: str, loads: list[QuarantineLoad], ids: frozenset[tuple[int, int]]) -> None:
    rows = {load.load_id: load.rows for load in loads}
    for load_id, row in sorted(ids):
        if not 1 <= row <= rows.get(load_id, 0):
            raise ConfigError(
                f"{dataset}: row {load_id}-{row} is not in its quarantine",
                f"dpp quarantine show {dataset} --all lists those that are",
            )


def reasons_of(rows: Iterable[KeptRow]) -> tuple[ReasonRows, ...]:
    """Return rows of one load, in order, as spans by reason."""
    found: dict[tuple[str, str, str | None], list[int]] = {}
    for kept in rows:
        found.setdefault((kept.stage, kept.rule, kept.column), []).append(kept.row)
    return tuple(
        ReasonRows(stage=stage, rule=rule, column=column, spans=spans(numbers))
        for (stage, rule, column), numbers in found.items()
    )
