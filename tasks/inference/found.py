"""What is known of a source before its columns are guessed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.inference.columns import Guess
from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, RawBatch, Reject


@dataclass(slots=True)
class Sample:
    """The first rows of a source.

    Attributes:
        table: Them, with their origin; None if there is no row.
        rejects: Records among them that cannot be read.
        whole: The source has no further rows.
    """

    table: pa.Table | None
    rejects: list[Reject]
    whole: bool

    @property
    def columns(self) -> list[str]:
        """Names of the source's columns."""
        names = self.table.column_names if self.table is not None else []
        return [name for name in names if name not in (SOURCE_URI, SOURCE_ROW)]

    @property
    def rows(self) -> int:
        """Rows that could be read."""
        return self.table.num_rows if self.table is not None else 0


@dataclass(slots=True)
class Found:
    """A source and a sample of it.

    Attributes:
        source: What the dataset file says under ``source:``, as plain values.
        sample: Its first rows.
        doubts: What was not certain of the source: key of ``source`` or its format → why.
        types: Columns whose type the source knows.
        key: Its primary key, if it says so.
        reads_all: Each run reads all of it again, so that appending would double it.
        notes: What else the author should know.
    """

    source: dict[str, Any]
    sample: Sample
    doubts: dict[str, str] = field(default_factory=dict)
    types: dict[str, Guess] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    reads_all: bool = False
    notes: list[str] = field(default_factory=list)


def take(batches: Iterable[RawBatch], rows: int) -> Sample:
    """Read so many rows, and no more batches than it takes."""
    found: list[pa.Table] = []
    rejects: list[Reject] = []
    left = rows
    iterator = iter(batches)
    with closing(iterator):  # type: ignore[type-var]
        for raw in iterator:
            rejects += raw.rejects
            if raw.batch is not None and raw.batch.num_rows:
                found.append(pa.Table.from_batches([raw.batch.slice(0, left)]))
                left -= found[-1].num_rows
            if left <= 0 or len(rejects) >= rows:
                return Sample(_joined(found), rejects, whole=False)
    return Sample(_joined(found), rejects, whole=True)


def together(samples: list[Sample], *, whole: bool) -> Sample:
    """Join the samples of several files."""
    tables = [sample.table for sample in samples if sample.table is not None]
    rejects = [reject for sample in samples for reject in sample.rejects]
    return Sample(_joined(tables), rejects, whole and all(sample.whole for sample in samples))


def _joined(tables: list[pa.Table]) -> pa.Table | None:
    return pa.concat_tables(tables, promote_options="permissive") if tables else None
