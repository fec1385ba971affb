"""A sample of the clean rows, taken as they are written: reading them again would cost more than it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SAMPLE_ROWS = 10_000
"""Rows of the sample, about, if there are as many; at most twice as many are kept."""
SAMPLE_CELLS = 300_000
"""Values of the sample, about: of more than 30 columns fewer rows are kept."""
MAX_TEXT = 64
"""Characters that are kept of a value."""


class RowSample:
    """Keeps rows at random, each with the same probability, and the same ones of the same rows.

    All rows are kept until there are too many; from then on half of them are dropped, and of those
    that follow half as many are taken.
    """

    def __init__(self) -> None:
        self._dice = np.random.default_rng(1)
        self._share = 1.0
        self._kept: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at the next rows."""
        if self._share < 1.0:
            batch = self._some(batch, self._share)
        self._kept.append(_shortened(batch))
        self._rows += batch.num_rows
        limit = 2 * max(min(SAMPLE_ROWS, SAMPLE_CELLS // batch.num_columns), 1)
        while self._rows > limit:
            self._share /= 2
            self._kept = [self._some(kept, 0.5) for kept in self._kept]
            self._rows = sum(kept.num_rows for kept in self._kept)

    def _some(self, batch: pa.RecordBatch, share: float) -> pa.RecordBatch:
        return batch.take(pa.array(np.flatnonzero(self._dice.random(batch.num_rows) < share)))

    def table(self) -> pa.Table:
        """Return the rows that were kept; some must have been added."""
        return pa.Table.from_batches(self._kept)


def _shortened(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pc.utf8_slice_codeunits(column, 0, MAX_TEXT)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
