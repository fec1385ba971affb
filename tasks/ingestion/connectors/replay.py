"""Reads refused rows back, as a connector reads a source: the stages see no difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from blocks.lake import Lake
from tasks.ingestion.connector import RawBatch, Reject
from tasks.ingestion.provenance import with_origin
from tasks.model.child_dataset import quarantined
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.partition import Partition
from tasks.model.replay import replay_of
from tasks.model.request import SourceState
from tasks.protection import Protection
from tasks.refused import BATCH_ROWS, KeptRow, kept_rows, read_corrections

Row = tuple[KeptRow, dict[str, str | None]]


class ReplayConnector:
    """Gives the original values of refused rows, or the corrected ones, with the original origin.

    Values are texts, whatever the source's types were: casts read them as they read a CSV file.

    Args:
        spec: The dataset.
        lake: Where refused rows and corrections are.
        scratch: Folder for files that are fetched.
        protection: Opens the columns marked ``pii``.
    """

    def __init__(
        self, spec: DatasetSpec, lake: Lake, scratch: Path, protection: Protection
    ) -> None:
        self._spec = spec
        self._lake = lake
        self._scratch = scratch
        self._protection = protection

    def plan(self, state: SourceState) -> list[Partition]:  # noqa: ARG002
        """Return nothing: replays are planned from the ledger."""
        return []

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the rows of a replay."""
        replay = replay_of(partition)
        assert replay is not None, "only replays come here"
        wanted = frozenset(replay.rows)
        declared = quarantined(self._spec, replay.child).source_columns
        corrected = (
            read_corrections(self._lake, replay.corrections, self._protection, self._scratch)
            if replay.corrections
            else {}
        )
        pending: list[Row] = []
        rejects: list[Reject] = []
        found = 0
        for kept in kept_rows(self._lake, replay.manifest_key, wanted.__contains__, replay.child):
            found += 1
            raw = self._protection.reveal(kept.raw, kept.sealed)
            values = corrected.get(kept.row) or kept.values(raw)
            if values is None:
                rejects.append(_unreadable(kept, raw))
            else:
                pending.append((kept, values))
            if len(pending) + len(rejects) >= BATCH_ROWS:
                yield RawBatch(_batch(pending, declared), tuple(rejects))
                pending, rejects = [], []
        if found != len(wanted):
            raise ContractBroken(
                f"{len(wanted)} refused rows of load {replay.load_id} are to be replayed, "
                f"{found} are in the lake",
                "this must never happen; keep the lake files and report it",
            )
        yield RawBatch(_batch(pending, declared), tuple(rejects))


def _batch(rows: list[Row], declared: Sequence[str]) -> pa.RecordBatch | None:
    if not rows:
        return None
    # A column that no row has a value for is left out, unless it is declared: it may be one
    # that today's contract does not allow, and which says nothing.
    said = {name for _, values in rows for name, value in values.items() if value is not None}
    others = sorted(said.difference(declared))
    known = {name for _, values in rows for name in values}
    names = [*(name for name in dict.fromkeys(declared) if name in known), *others]
    columns = [pa.array([values.get(name) for _, values in rows], pa.string()) for name in names]
    uris = pa.array([kept.source_uri for kept, _ in rows], pa.string())
    return with_origin(names, columns, uris, [kept.source_row for kept, _ in rows])


def _unreadable(kept: KeptRow, raw: str | None) -> Reject:
    return Reject(kept.source_uri, kept.source_row, kept.rule, kept.message, raw or "")
