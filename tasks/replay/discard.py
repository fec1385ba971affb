"""Leaves refused rows out for good, with the reason."""

from __future__ import annotations

from itertools import groupby

from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.resolutions import discard
from tasks.model.errors import ConfigError
from tasks.model.replay import ReasonRows, Selection
from tasks.replay.select import reasons_of, selected_rows

Discarded = list[tuple[int, tuple[ReasonRows, ...]]]


def rows_to_discard(engine: Engine, lake: Lake, dataset: str, selection: Selection) -> Discarded:
    """Return the open rows that are meant, by load."""
    rows = selected_rows(engine, lake, dataset, selection)
    return [
        (load_id, reasons_of(row.kept for row in of_load))
        for load_id, of_load in groupby(rows, lambda row: row.load.load_id)
    ]


def discard_rows(
    engine: Engine, rows: Discarded, reason: str, by: str, child: str | None = None
) -> None:
    """Mark rows, or items of a child table, as discarded; all of them, or none.

    Raises:
        ConfigError: There is no reason.
        LoadConflict: One of them was resolved meanwhile.
    """
    if not reason.strip():
        raise ConfigError("a discard needs a reason", 'e.g. --reason "test data of the vendor"')
    discard(engine, rows, reason.strip(), by, child)
