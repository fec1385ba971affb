"""Delimited text, read as text: every value as the file says it, or the row refused with a reason."""

from __future__ import annotations

import codecs
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from tasks.ingestion.arrow import whole
from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.csv_grammar import Grammar, grammar_of, line_ends
from tasks.ingestion.csv_guard import Block, RecordGuard
from tasks.ingestion.csv_header import read_beginning
from tasks.ingestion.provenance import check_names, long_values, shown_bytes, with_origin
from tasks.ingestion.streams import open_stream
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.formats import CsvFormat
from tasks.model.partition import Part

PARSERS = 2
"""Blocks that are parsed at the same time, while the caller writes the ones before."""
SURE_RAGGED_ROWS = 2
"""So many rows, all of another number of fields than the header, are no accident."""


def read_csv(
    raw: BinaryIO,
    uri: str,
    declared: CsvFormat,
    limits: PlanLimits,
    expected_columns: int,
    *,
    part: Part | None = None,
    header: bytes = b"",
) -> Iterator[RawBatch]:
    """Stream a file of delimited text, or a part of it.

    Args:
        raw: Its bytes, compressed or not; of a part, the bytes of the part.
        uri: Its name, for provenance and messages.
        declared: Its format.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.
        part: The part of it that is read, None for all of it.
        header: The beginning of the file, of a part that is not the first one.

    Raises:
        ContractBroken: The header cannot be the declared one, or no row fits it.
        SourceRejected: The file is damaged, or a quote is never closed.
    """
    later = part if part and part.start else None
    stream = open_stream(io.BytesIO(header) if later else raw, uri, declared.encoding, limits)
    begin = read_beginning(stream, uri, declared, grammar_of(declared), expected_columns)
    if not begin.names:
        return
    check_names(begin.names, uri)
    grammar = grammar_of(declared, len(begin.names))
    if later:  # the middle of a text may begin like another encoding or a compressed file
        guard = RecordGuard(raw, b"", uri, grammar, limits, later.start)
        rows = _Rows(uri, grammar, limits, 0, later)
    else:
        guard = RecordGuard(stream, begin.rest, uri, grammar, limits, begin.position, begin.lines)
        rows = _Rows(uri, grammar, limits, begin.lines)
    parser = parser_of(tuple(begin.names), declared)
    try:
        for block, parsed in _parsed_blocks(parser, guard.blocks()):
            yield rows.convert(block, parsed)
    except pa.ArrowInvalid:
        # Its message would show a row.
        raise SourceRejected(f"{uri}: cannot be parsed as delimited text") from None
    if part is None:
        rows.check_any_row_fits(len(begin.names))


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed block; ``ragged`` are (number among its records, fields), starting at 1."""

    batch: pa.RecordBatch
    ragged: list[tuple[int, int]]
    lines: int


class Parser:
    """Turns blocks into record batches of text."""

    def __init__(self, names: Sequence[str], declared: CsvFormat, grammar: Grammar) -> None:
        self._names = list(names)
        self._schema = pa.schema([(name, pa.string()) for name in names])
        self._quote = declared.quote or False
        self._delimiter = declared.delimiter
        self._escape = declared.escape or False
        nulls = grammar.null_words(declared)
        self._convert = pacsv.ConvertOptions(
            check_utf8=False,  # the guard has checked it
            column_types=dict.fromkeys(names, pa.string()),
            null_values=nulls,
            strings_can_be_null=bool(nulls),
            quoted_strings_can_be_null=False,
        )

    def parse(self, block: Block) -> Parsed:
        """Parse one block."""
        ragged: list[tuple[int, int]] = []

        def refuse(row: pacsv.InvalidRow) -> str:
            ragged.append((row.number, row.actual_columns))
            return "skip"

        lines = line_ends(block.original) + block.lines_lost
        only_ends = block.text.isspace() and not block.text.strip(b"\r\n")
        if not block.text or (only_ends and len(self._names) > 1):
            return Parsed(pa.RecordBatch.from_pylist([], schema=self._schema), ragged, lines)
        text = block.text
        if text.startswith(codecs.BOM_UTF8):  # the parser takes one off each block
            text = codecs.BOM_UTF8 + text
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(
                use_threads=False,  # rows are numbered only when they are parsed one after the other
                block_size=len(text) + 1,
                column_names=self._names,
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._quote,
                escape_char=self._escape,
                newlines_in_values=True,
                ignore_empty_lines=len(self._names) > 1,
                invalid_row_handler=refuse,
            ),
            convert_options=self._convert,
        )
        columns = [whole(column) for column in table.columns]
        return Parsed(pa.record_batch(columns, schema=self._schema), ragged, lines)


@lru_cache(maxsize=64)
def parser_of(names: tuple[str, ...], declared: CsvFormat) -> Parser:
    """Return the parser of a format; it is made once, however many objects there are."""
    return Parser(names, declared, grammar_of(declared, len(names)))


def _parsed_blocks(parser: Parser, blocks: Iterator[Block]) -> Iterator[tuple[Block, Parsed]]:
    """Yield the blocks in their order, each parsed."""
    first, second = next(blocks, None), next(blocks, None)
    if first is None:
        return
    if second is None:  # thousands of small objects would start thousands of threads
        yield first, parser.parse(first)
        return
    with ThreadPoolExecutor(PARSERS, "csv") as pool:
        waiting: deque[tuple[Block, Future[Parsed]]] = deque()
        for block in chain((first, second), blocks):
            waiting.append((block, pool.submit(parser.parse, block)))
            if len(waiting) > PARSERS:
                ready, parsed = waiting.popleft()
                yield ready, parsed.result()
        for ready, parsed in waiting:
            yield ready, parsed.result()


class _Rows:
    """Numbers the rows and lines of a file, and tells what is wrong with the refused ones."""

    def __init__(
        self, uri: str, grammar: Grammar, limits: PlanLimits, line: int, part: Part | None = None
    ) -> None:
        self.uri = uri
        self._grammar = grammar
        self._most = limits.max_value_bytes
        self._line = line
        self._last = (part.first_row or 1) - 1 if part else 0
        self._after = f" after byte {part.start}" if part else ""
        self._good = 0
        self._refused = 0
        self._ragged = 0

    def convert(self, block: Block, parsed: Parsed) -> RawBatch:
        """Give the rows of a block their numbers, without those that are refused."""
        batch, names = parsed.batch, parsed.batch.schema.names
        total = batch.num_rows + len(parsed.ragged) + len(block.aside)
        numbers = np.arange(self._last + 1, self._last + total + 1)
        refused: dict[int, tuple[str, str]] = {}
        if block.aside:
            refused = {number: (a.rule, a.message) for number, a in block.aside.items()}
            numbers = np.delete(numbers, [number - 1 for number in block.aside])
        if parsed.ragged:
            for number, fields in parsed.ragged:
                message = f"expected {len(names)} fields, found {fields}"
                refused[int(numbers[number - 1]) - self._last] = ("ragged_row", message)
            numbers = np.delete(numbers, [number - 1 for number, _ in parsed.ragged])
        made = with_origin(names, batch.columns, self.uri, numbers)
        if long := self._long(batch):
            for row, message in long.items():
                refused[int(numbers[row]) - self._last] = ("value_too_long", message)
            made = made.filter(pa.array([row not in long for row in range(batch.num_rows)]))
        rejects = tuple(self._rejects(block, refused)) if refused else ()
        self._last += total
        self._line += parsed.lines
        self._good += made.num_rows
        self._refused += len(refused)
        self._ragged += len(parsed.ragged)
        return RawBatch(made, rejects)

    def check_any_row_fits(self, columns: int) -> None:
        """Refuse a file of which every row has another number of fields than the header.

        Raises:
            ContractBroken: It is so.
        """
        if not self._good and self._ragged == self._refused >= SURE_RAGGED_ROWS:
            raise ContractBroken(
                f"{self.uri}: none of its {self._ragged} rows has the {columns} fields of the header",
                "is the header the one of this file? Its columns cannot be told apart",
            )

    def _long(self, batch: pa.RecordBatch) -> dict[int, str]:
        found: dict[int, str] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for row in long_values(column, self._most):
                found.setdefault(row, f"{name} is longer than {self._most} bytes")
        return found

    def _rejects(self, block: Block, refused: dict[int, tuple[str, str]]) -> Iterator[Reject]:
        """Tell of the refused records, each with its line and its text in the file."""
        line, counted = self._line + 1, 0
        for number, (start, end) in enumerate(self._grammar.records(block.original), 1):
            if number not in refused:
                continue
            line += line_ends(block.original[counted:start])
            if block.lines_lost and counted == 0 < start:
                line += block.lines_lost
            counted = start
            aside = block.aside.get(number)
            raw = aside.raw if aside else block.original[start:end]
            rule, message = refused[number]
            where = f"line {line}{self._after}"
            text = shown_bytes(raw)
            yield Reject(self.uri, self._last + number, rule, f"{where}: {message}", text)
