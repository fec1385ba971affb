"""Plans a replay: which refused rows go through the stages again, and with which values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.resolutions import QuarantineLoad
from tasks.model.child_dataset import PARENT, quarantined
from tasks.model.children import POSITION
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.partition import Partition
from tasks.model.replay import ReplayRequest, ReplaySlice
from tasks.protection import Protection
from tasks.refused import KeptRow, store_corrections
from tasks.replay.export import Correction, read_export, source_columns
from tasks.replay.select import SelectedRow, reasons_of, selected_rows

PARTITION_ROWS = 20_000
"""Rows of a partition: what is lost when its process is killed, and what its corrections hold."""


@dataclass(slots=True)
class ReplayPlan:
    """What a replay would do.

    Attributes:
        partitions: The work.
        unreadable: Rows without columns, which only a correction can bring back.
        resolved: Corrected rows that are resolved already, as after a replay that was repeated.
    """

    partitions: list[Partition] = field(default_factory=list)
    unreadable: int = 0
    resolved: int = 0


@dataclass(slots=True)
class _Chunk:
    load: QuarantineLoad
    rows: list[KeptRow] = field(default_factory=list)
    corrected: list[tuple[int, Mapping[str, str | None]]] = field(default_factory=list)


class _Planner:
    def __init__(
        self,
        lake: Lake,
        spec: DatasetSpec,
        corrections: Mapping[str, Correction] | None,
        protection: Protection,
        partition_rows: int,
        child: str | None,
    ) -> None:
        self._lake = lake
        self._spec = quarantined(spec, child)
        self._dataset, self._child = spec.name, child
        self._corrections = corrections
        self._protection = protection
        self._most = partition_rows
        self._chunk: _Chunk | None = None
        self.plan = ReplayPlan()

    def add(self, row: SelectedRow) -> None:
        correction = self._corrections.get(row.row_id) if self._corrections is not None else None
        if row.resolution is not None:
            self.plan.resolved += 1
            return
        values = self._corrected(row, correction) if correction else None
        if values is None and not row.kept.is_row:
            self.plan.unreadable += 1
            return
        chunk = self._chunk
        if chunk is None or chunk.load != row.load or len(chunk.rows) >= self._most:
            self.finish()
            self._chunk = chunk = _Chunk(row.load)
        chunk.rows.append(row.kept)
        if values is not None:
            chunk.corrected.append((row.kept.row, values))

    def _corrected(self, row: SelectedRow, correction: Correction) -> dict[str, str | None] | None:
        """Return the values of a corrected row; None for a row without columns that has none yet.

        A protected cell that was left as it was shown keeps what it stands for.
        """
        shown = row.kept.values(row.kept.raw)
        if shown is None:
            filled = any(value is not None for value in correction.values.values())
            return dict(correction.values) if filled else None
        raw = self._protection.reveal(row.kept.raw, row.kept.sealed)
        original = row.kept.values(raw) or {}
        changed = {
            name: value for name, value in correction.values.items() if value != shown.get(name)
        }
        self._check_parent(correction, changed)
        return original | changed

    def _check_parent(self, correction: Correction, changed: Mapping[str, str | None]) -> None:
        """Refuse to move an item to another parent: its version there is not known."""
        moved = [name for name in changed if name == POSITION or name.startswith(PARENT)]
        if self._child and moved:
            raise ConfigError(
                f"{self._spec.name}: row {correction.row} in line {correction.line}: {moved[0]} was "
                "changed, which says where the item belongs",
                f"leave {PARENT}… and {POSITION} as they were exported",
            )

    def finish(self) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        corrections = (
            store_corrections(self._lake, self._spec, chunk.corrected, self._protection)
            if chunk.corrected
            else None
        )
        replay = ReplaySlice(
            load_id=chunk.load.load_id,
            manifest_key=chunk.load.manifest_key,
            reasons=reasons_of(chunk.rows),
            corrections=corrections,
            first_seen=chunk.load.first_seen,
            times_replayed=chunk.load.times_replayed + 1,
            child=self._child,
        )
        self.plan.partitions.append(replay.partition(self._dataset))


def plan_replay(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    request: ReplayRequest,
    protection: Protection,
    partition_rows: int = PARTITION_ROWS,
) -> ReplayPlan:
    """Plan the replay of the rows that are meant and still open.

    Args:
        engine: The warehouse; it knows what is resolved.
        lake: It has the rows.
        spec: The dataset, as its file is today.
        request: Which rows; with a corrected export only those in it.
        protection: Opens the columns marked ``pii``.
        partition_rows: Most rows of a partition.

    Raises:
        ConfigError: The corrected export names what is not there.
    """
    corrections = _corrections(lake, spec, request)
    selection = request.selection
    if corrections is not None:
        if selection.rows:
            corrections = {row: corrections[row] for row in selection.rows if row in corrections}
        selection = selection.model_copy(update={"rows": tuple(corrections), "resolved_too": True})
        if not corrections:
            return ReplayPlan()
    child = selection.child
    refused = quarantined(spec, child)
    if child:
        protection = protection.of_dataset(refused)
    planner = _Planner(lake, spec, corrections, protection, partition_rows, child)
    columns: set[str] = set()
    for row in selected_rows(engine, lake, spec.name, selection):
        if corrections is not None:
            columns.update(row.kept.values(row.kept.raw) or ())
        planner.add(row)
    _check_columns(refused, request, corrections, columns)
    planner.finish()
    return planner.plan


def _corrections(
    lake: Lake, spec: DatasetSpec, request: ReplayRequest
) -> dict[str, Correction] | None:
    if request.corrections is None:
        return None
    content = lake.get(request.corrections)
    name = request.corrections_name or request.corrections
    if content is None:
        raise ConfigError(
            f"{spec.name}: the lake has no file {request.corrections}",
            "upload the corrected export there, or use: dpp quarantine replay --from FILE",
        )
    return {str(found.row): found for found in read_export(content, name)}


def _check_columns(
    spec: DatasetSpec,
    request: ReplayRequest,
    corrections: Mapping[str, Correction] | None,
    found: set[str],
) -> None:
    """Refuse a column that neither the dataset nor a row has: a typo would lose what is in it."""
    known = {*source_columns(spec), *found}
    for correction in (corrections or {}).values():
        for name, value in correction.values.items():
            if name not in known and value is not None:
                raise ConfigError(
                    f"{request.corrections_name or request.corrections} line 1: column {name!r} "
                    f"is not one of {spec.name}",
                    f"its columns are {', '.join(sorted(known))}",
                )
