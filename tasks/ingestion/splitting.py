"""Splits large objects into parts: Parquet by row groups, text between two records.

Each record is in exactly one part. Parts that were committed stay as they are: of an object that is
loaded in part the gaps are planned, whatever size partitions have by now.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingestion.archives import EMPTY_ZIP, ZIP_MAGIC
from tasks.ingestion.compression import codec_of
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.ranged_file import RangedFile
from tasks.ingestion.record_ends import CsvScan, Cut, OpenRange, line_cuts
from tasks.model.errors import ConfigError, ContractBroken, SourceRejected
from tasks.model.formats import CsvFormat, Format, JsonLinesFormat, ParquetFormat
from tasks.model.partition import Part, SourceItem
from tasks.model.request import SourceState

OpenItem = Callable[[SourceItem, int, int], BinaryIO]
"""Opens the bytes from one position up to another of an item."""
Span = tuple[int, int]


def missing_parts(
    items: Iterable[SourceItem],
    state: SourceState,
    declared: Format,
    limits: PlanLimits,
    open_item: OpenItem,
) -> Iterator[SourceItem]:
    """Yield items as they are, large ones as parts; without the parts that are committed.

    Args:
        items: Objects that were not committed whole.
        state: What the ledger knows.
        declared: Their format.
        limits: How large a part should be.
        open_item: Opens an item.

    Raises:
        ConfigError: An object was loaded in part, in another format.
    """
    committed: dict[tuple[str, str], list[Part]] = defaultdict(list)
    for uri, version, text in state.parts:
        committed[uri, version].append(Part.parse(text))
    for item in items:
        done = committed.get((item.uri, item.version), [])
        if not done and item.bytes <= limits.partition_bytes:
            yield item
            continue
        yield from _Split(item, declared, limits, open_item).missing(done)


def gaps(done: Iterable[Span], end: int) -> list[Span]:
    """Return the spans of ``0 … end`` that are not in the given ones."""
    found, at = [], 0
    for start, stop in sorted(done):
        if start > at:
            found.append((at, start))
        at = max(at, stop)
    return [*found, (at, end)] if at < end else found


class _Split:
    """One large object."""

    def __init__(
        self, item: SourceItem, declared: Format, limits: PlanLimits, open_item: OpenItem
    ) -> None:
        self._item = item
        self._declared = declared
        # The ends of blocks are where a text can be cut.
        self._limits = replace(limits, batch_bytes=min(limits.batch_bytes, limits.partition_bytes))
        self._unit = "row groups" if isinstance(declared, ParquetFormat) else "bytes"
        self._open: OpenRange = lambda start, end: open_item(item, start, end)

    def missing(self, done: Sequence[Part]) -> Iterator[SourceItem]:
        """Yield what is not committed of the object."""
        if any(part.unit != self._unit for part in done):
            raise ConfigError(
                f"{self._item.uri}: was loaded in part, in another format than now",
                "declare the format that it was loaded with until it is loaded to its end",
            )
        spans = [(part.start, part.end) for part in done]
        if done and not gaps(spans, done[0].of):
            return
        try:
            parts = list(self._parts(spans))
        except (ContractBroken, SourceRejected):
            if done:
                raise
            parts = []  # its reader will say what is wrong with it
        if done and not parts:
            raise ConfigError(
                f"{self._item.uri}: was loaded in part, and cannot be split as it is declared now",
                "declare the format that it was loaded with until it is loaded to its end",
            )
        yield from parts if done or len(parts) > 1 else [self._item]

    def _parts(self, done: Sequence[Span]) -> Iterator[SourceItem]:
        if isinstance(self._declared, ParquetFormat):
            yield from self._row_groups(done)
        elif not isinstance(self._declared, CsvFormat | JsonLinesFormat):
            return  # nobody can tell where a record begins in the middle of it
        elif not self._is_plain_text(self._declared):
            return
        elif isinstance(self._declared, CsvFormat) and self._declared.newlines_in_values:
            yield from self._scanned(self._declared, done)
        else:
            yield from self._lines(done)

    def _is_plain_text(self, declared: CsvFormat | JsonLinesFormat) -> bool:
        with self._open(0, min(8, self._item.bytes)) as raw:
            begin = raw.read(8)
        packed = (ZIP_MAGIC, EMPTY_ZIP, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        plain = codec_of(begin) is None and not begin.startswith(packed)
        return plain and codecs.lookup(declared.encoding).name in ("utf-8", "ascii")

    def _lines(self, done: Sequence[Span]) -> Iterator[SourceItem]:
        """Cut behind line feeds, which are found by small reads; nobody counts the records."""
        header = 0
        if isinstance(self._declared, CsvFormat):
            scan = CsvScan(
                self._open, self._item.bytes, self._item.uri, self._declared, self._limits
            )
            header = scan.header
        for start, end in gaps(done, self._item.bytes):
            step = self._step(end - start)
            cuts = line_cuts(self._open, max(start, header), end, step)
            yield from self._gathered(cuts, start, step, header, 0 if start == 0 else None)

    def _scanned(self, declared: CsvFormat, done: Sequence[Span]) -> Iterator[SourceItem]:
        """Cut where the reader sees a record end; count the records on the way."""
        scan = CsvScan(self._open, self._item.bytes, self._item.uri, declared, self._limits)
        missing = gaps(done, self._item.bytes)
        records = 0
        for start, end in sorted([*missing, *done]):
            if start >= missing[-1][1]:
                break
            cuts = list(scan.cuts(start, end, records))
            if (start, end) in missing:
                step = self._step(end - start)
                yield from self._gathered(cuts, start, step, scan.header, records)
            records = (cuts[-1].records or 0) if cuts else records

    def _step(self, size: int) -> int:
        """Return the size of parts of equal size, none larger than a partition should be."""
        return -(-size // -(-size // self._limits.partition_bytes))

    def _gathered(
        self, cuts: Iterable[Cut], start: int, step: int, header: int, records: int | None
    ) -> Iterator[SourceItem]:
        """Make parts of about ``step`` bytes between cuts."""
        at, last = start, Cut(start, records)
        for cut in cuts:
            if last.at > at and cut.at - at > step:
                yield self._text_part(at, last.at, records, header)
                at, records = last.at, last.records
            last = cut
        if last.at > at:
            yield self._text_part(at, last.at, records, header)

    def _text_part(self, start: int, end: int, records: int | None, header: int) -> SourceItem:
        part = Part(
            unit="bytes",
            start=start,
            end=end,
            of=self._item.bytes,
            first_row=None if records is None else records + 1,
            header=header,
        )
        return self._item.model_copy(update={"part": part, "bytes": end - start})

    def _row_groups(self, done: Sequence[Span]) -> Iterator[SourceItem]:
        """Gather row groups to parts of about the size of a partition."""
        try:
            file = pa.PythonFile(RangedFile(self._open, self._item.bytes), mode="r")
            footer = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return  # its reader will say what is wrong with it
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        plain = sum(group.total_byte_size for group in groups) or 1
        sizes = [self._item.bytes * group.total_byte_size // plain for group in groups]
        rows = [0]
        for group in groups:
            rows.append(rows[-1] + group.num_rows)
        for start, end in gaps(done, len(groups)):
            at, size = start, 0
            for number in range(start, end):
                if number > at and size + sizes[number] > self._limits.partition_bytes:
                    yield self._group_part(at, number, size, rows, len(groups))
                    at, size = number, 0
                size += sizes[number]
            yield self._group_part(at, end, size, rows, len(groups))

    def _group_part(
        self, start: int, end: int, size: int, rows: Sequence[int], groups: int
    ) -> SourceItem:
        part = Part(unit="row groups", start=start, end=end, of=groups, first_row=rows[start] + 1)
        return self._item.model_copy(update={"part": part, "bytes": size})
