"""Finds where large texts can be cut: between two records, as the reader of the text sees them."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.csv_grammar import Grammar, grammar_of
from tasks.ingestion.csv_guard import RecordGuard
from tasks.ingestion.csv_header import MAX_HEADER_BYTES, read_beginning
from tasks.ingestion.streams import open_stream
from tasks.model.formats import CsvFormat

OpenRange = Callable[[int, int], BinaryIO]
"""Opens the bytes from one position up to another of an object, in the version that was listed."""

LINE_SEARCH_BYTES = 64 << 10
_CR, _LF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """A place between two records.

    Attributes:
        at: Its byte in the object.
        records: How many records are before it; None if nobody has counted.
    """

    at: int
    records: int | None


class CsvScan:
    """Reads a delimited text once, to tell where its records end.

    Quotes are followed by the guard that the reader itself uses: where a block of the guard ends,
    a record ends for the reader too.

    Args:
        open_range: Opens the object.
        size: Its bytes.
        uri: Its name.
        declared: Its format.
        limits: Bounds of blocks and values; cuts are about ``batch_bytes`` apart.

    Raises:
        ContractBroken: The header cannot be read.
        SourceRejected: The header cannot be read.
    """

    def __init__(
        self, open_range: OpenRange, size: int, uri: str, declared: CsvFormat, limits: PlanLimits
    ) -> None:
        self._open = open_range
        self._uri = uri
        self._limits = limits
        with open_range(0, min(size, 2 * MAX_HEADER_BYTES)) as raw:
            begin = raw.read()
        stream = open_stream(io.BytesIO(begin), uri, declared.encoding)
        beginning = read_beginning(stream, uri, declared, grammar_of(declared), expected=0)
        self.header = beginning.position
        """Bytes before the first record."""
        if begin.startswith(codecs.BOM_UTF8):
            self.header += len(codecs.BOM_UTF8)
        self._grammar = grammar_of(declared, len(beginning.names))

    def cuts(self, start: int, end: int, records: int) -> Iterator[Cut]:
        """Yield the places between ``start``, which is one, and ``end``; the last one is the end.

        Args:
            start: Where to begin, at the beginning of a record.
            end: Where to end.
            records: How many records are before ``start``.

        Raises:
            SourceRejected: A quote is never closed.
        """
        start = max(start, self.header)
        with self._open(start, end) as raw:
            guard = RecordGuard(raw, b"", self._uri, self._grammar, self._limits, start)
            for block in guard.blocks():
                records += count_records(block.original, self._grammar)
                yield Cut(guard.end, records)


def count_records(block: bytes, grammar: Grammar) -> int:
    """Count whole records as the parser numbers them.

    Args:
        block: What the guard hands to the parser.
        grammar: The format.
    """
    if any(mark and mark in block for mark in (grammar.escape, grammar.comment)):
        return sum(1 for _ in grammar.records(block))
    octets = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((octets == _LF) | (octets == _CR))
    if grammar.quote and grammar.quote in block:
        marks = np.flatnonzero(octets == grammar.quote[0])
        if len(marks) % 2 or not _between_fields(octets, marks, grammar):
            return sum(1 for _ in grammar.records(block))
        ends = ends[np.searchsorted(marks, ends) % 2 == 0]
    if not len(ends):
        return 1 if block else 0
    follows_cr = np.zeros(len(ends), np.bool_)
    follows_cr[1:] = (ends[1:] == ends[:-1] + 1) & (octets[ends[:-1]] == _CR)
    line_feed_of_two = follows_cr & (octets[ends] == _LF)
    closers = ends[~line_feed_of_two]
    unfinished = int(ends[-1] != len(block) - 1)
    if grammar.counts_empty_lines:
        return len(closers) + unfinished
    # A line is empty when it begins where it ends: right behind the end of the one before.
    before = np.concatenate(([-1], ends[:-1]))[~line_feed_of_two]
    return int(np.count_nonzero(closers - before > 1)) + unfinished


def _between_fields(octets: NDArray[np.uint8], marks: NDArray[np.intp], grammar: Grammar) -> bool:
    """Tell whether all quotes open or close a field, so that counting them tells what is inside."""
    around = np.zeros(256, np.bool_)
    around[list(grammar.delimiter + grammar.quote + b"\r\n")] = True
    before, after = marks[::2] - 1, marks[1::2] + 1
    before, after = before[before >= 0], after[after < len(octets)]
    return bool(around[octets[before]].all() and around[octets[after]].all())


def line_cuts(open_range: OpenRange, start: int, end: int, step: int) -> Iterator[Cut]:
    """Yield a place behind a line feed about every ``step`` bytes; the last one is the end."""
    at = start
    while at + step < end:
        found = _behind_line_feed(open_range, at + step, end)
        if found >= end:
            break
        yield Cut(found, None)
        at = found
    yield Cut(end, None)


def _behind_line_feed(open_range: OpenRange, start: int, end: int) -> int:
    """Return the first place from ``start`` on that has a line feed before it, at most ``end``."""
    at = start - 1
    while at < end:
        with open_range(at, min(at + LINE_SEARCH_BYTES, end)) as raw:
            piece = raw.read()
        found = piece.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(piece)
    return end
