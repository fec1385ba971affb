"""Lines of fixed width, read as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.csv_grammar import last_line_end, line_ends
from tasks.ingestion.provenance import check_names, shown_bytes, with_origin
from tasks.ingestion.streams import open_stream
from tasks.ingestion.utf8 import is_utf8
from tasks.model.formats import FixedWidthFormat

_LINE_END = re.compile(rb"\r\n|\n|\r")
_TRIM = {"both": pc.utf8_trim, "left": pc.utf8_ltrim, "right": pc.utf8_rtrim}


def read_fixed_width(
    raw: BinaryIO, uri: str, declared: FixedWidthFormat, limits: PlanLimits
) -> Iterator[RawBatch]:
    """Stream a file of lines with fields of fixed width.

    Args:
        raw: Its bytes, compressed or not.
        uri: Its name, for provenance and messages.
        declared: Its format.
        limits: Bounds of batches and values.

    Raises:
        SourceRejected: The file is damaged.
    """
    names = [column.name for column in declared.columns]
    check_names(names, uri)
    lines = _Lines(uri, declared)
    for block in _blocks(open_stream(raw, uri, declared.encoding, limits), limits):
        yield lines.convert(block)


def _blocks(stream: BinaryIO, limits: PlanLimits) -> Iterator[bytes]:
    """Yield whole lines, about a block of them at a time; of a line that is too long, its beginning."""
    longest = limits.max_value_bytes + limits.batch_bytes
    pending = b""
    cut = False
    while piece := stream.read(limits.batch_bytes):
        buffer = pending + piece
        end = last_line_end(buffer, len(buffer))
        if end:
            yield buffer[:end]
        pending = buffer[end:]
        cut = cut and not end
        if len(pending) > longest or cut:
            # Its length is wrong in any case; so much is kept that it stays wrong, and can be shown.
            pending, cut = pending[:longest], True
    if pending:
        yield pending


class _Lines:
    """Cuts lines into fields, and refuses those of another length."""

    def __init__(self, uri: str, declared: FixedWidthFormat) -> None:
        self._uri = uri
        self._declared = declared
        self._line = 0
        self._row = 0

    def convert(self, block: bytes) -> RawBatch:
        """Make a batch of some whole lines."""
        lines = _LINE_END.split(block)
        if not lines[-1]:
            lines.pop()
        first, self._line = self._line, self._line + max(line_ends(block), len(lines))
        numbers: Sequence[int] = range(first + 1, first + len(lines) + 1)
        if first < self._declared.skip_lines or b"" in lines:
            kept = [
                (number, line)
                for number, line in zip(numbers, lines, strict=True)
                if line and number > self._declared.skip_lines
            ]
            numbers, lines = [number for number, _ in kept], [line for _, line in kept]
        refused: dict[int, tuple[str, str]] = {}
        known = lines
        if not is_utf8(block):
            for position, line in enumerate(lines):
                if not is_utf8(line):
                    refused[position] = ("encoding", "not text in the declared encoding")
            known = [b"" if position in refused else line for position, line in enumerate(lines)]
        texts = pa.array(known, pa.binary()).cast(pa.string())
        lengths = pc.utf8_length(texts)
        wrong = pc.not_equal(lengths, self._declared.line_length)
        for position in pc.indices_nonzero(wrong).to_pylist():
            message = f"expected {self._declared.line_length} characters, found {lengths[position]}"
            refused.setdefault(position, ("line_length", message))
        rows = range(self._row + 1, self._row + len(lines) + 1)
        self._row += len(lines)
        names = [column.name for column in self._declared.columns]
        made = with_origin(names, self._fields(texts), self._uri, rows)
        rejects = tuple(
            Reject(
                self._uri,
                rows[position],
                rule,
                f"line {numbers[position]}: {message}",
                shown_bytes(lines[position]),
            )
            for position, (rule, message) in sorted(refused.items())
        )
        return RawBatch(made.filter(pc.invert(wrong)) if rejects else made, rejects)

    def _fields(self, texts: pa.Array) -> list[pa.Array]:
        fields = []
        nulls = pa.array(self._declared.null_values, pa.string())
        for start, stop in self._declared.spans:
            field = pc.utf8_slice_codeunits(texts, start=start, stop=stop)
            if self._declared.trim != "none":
                field = _TRIM[self._declared.trim](field, characters=" ")
            if len(nulls):
                field = pc.if_else(pc.is_in(field, value_set=nulls), None, field)
            fields.append(field)
        return fields
