"""Delimited text, read as text: every value as the file says it, or the row refused with a reason."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.csv_guard import Grammar, RecordGuard
from tasks.ingestion.provenance import RAW_SHOWN, check_names, with_origin
from tasks.ingestion.streams import open_stream
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.run import Part
from tasks.model.source import CsvFormat

MAX_HEADER_BYTES = 1 << 20


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
    """Stream a file of delimited text.

    Args:
        raw: Its bytes, compressed or not; of a part, the bytes of the part.
        uri: Its name, for provenance and messages.
        declared: Its format.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.
        part: The part of it that is read, None for all of it.
        header: What names the columns of a part that is not the first one.

    Raises:
        ContractBroken: The header cannot be the declared one.
        SourceRejected: The file is damaged, or a quote is never closed.
    """
    later = part is not None and part.start > 0
    # The middle of a text may begin like another encoding or a compressed file.
    stream = raw if later else open_stream(raw, uri, declared.encoding)
    grammar = Grammar(declared)
    first, position = b"", part.start if part else 0
    if declared.header is None:
        named = open_stream(io.BytesIO(header), uri, declared.encoding) if later else stream
        names, first, read = read_header(named, uri, declared, grammar)
        position += 0 if later else read
        if not names:
            return
        _check_header(names, uri, declared, expected_columns)
    else:
        names = list(declared.header)
    check_names(names, uri)
    guard = RecordGuard(stream, first, uri, grammar, limits, len(names), position)
    before = (part.first_row or 1) - 1 if part else 0
    refused = _RefusedRows(uri, guard, before)
    rows = _Rows(uri, refused, limits, before)
    try:
        for batch in _open(guard, names, declared, refused):
            yield rows.convert(batch)
    except pa.ArrowInvalid:
        # Its message would show a row.
        raise SourceRejected(f"{uri}: cannot be parsed as delimited text") from None
    if left := rows.rest():
        yield left


def read_header(
    stream: BinaryIO, uri: str, declared: CsvFormat, grammar: Grammar
) -> tuple[list[str], bytes, int]:
    """Return the names in the first line that is not empty, what was read beyond it, and where."""
    read = b""
    total = 0
    while True:
        line = stream.readline(MAX_HEADER_BYTES)
        total += len(line)
        read = (read + line).lstrip(b"\r\n")
        found = grammar.record.match(read)
        if found and (found[1] or not line):
            if found[0].strip() or not line:
                break
            read = read[found.end() :]
        elif not line:
            raise SourceRejected(f"{uri}: the header opens a quote that is never closed")
        if len(read) > MAX_HEADER_BYTES:
            raise ContractBroken(f"{uri}: the header is longer than {MAX_HEADER_BYTES} bytes")
    try:
        text = found[0].decode()
    except UnicodeDecodeError as error:
        raise SourceRejected(f"{uri}: header is not UTF-8 at byte {error.start}") from None
    if "\0" in text:
        raise ContractBroken(f"{uri}: NUL in the header; is the encoding UTF-16?")
    parsed = csv.reader(
        io.StringIO(text.rstrip("\r\n"), newline=""),
        delimiter=declared.delimiter,
        quotechar=declared.quote,
    )
    rest = read[found.end() :]
    return next(parsed, []), rest, total - len(rest)


def _check_header(names: list[str], uri: str, declared: CsvFormat, expected: int) -> None:
    if len(names) == 1 and expected > 1:
        other = next((d for d in ";\t|," if d in names[0] and d != declared.delimiter), None)
        hint = f"; is the delimiter {other!r}?" if other else ""
        raise ContractBroken(f"{uri}: found 1 column, expected {expected}{hint}")
    if "" in names:
        raise ContractBroken(f"{uri}: column {names.index('') + 1} of the header has no name")
    folded = Counter(name.casefold() for name in names)
    twice = [name for name in names if folded[name.casefold()] > 1]
    if twice:
        raise ContractBroken(f"{uri}: column names that are not different: {', '.join(twice)}")


class _RefusedRows:
    """Rows that have too many or too few fields, as the parser meets them; and those set aside."""

    def __init__(self, uri: str, guard: RecordGuard, before: int) -> None:
        self._uri = uri
        self._guard = guard
        self._before = before
        self.numbers: deque[int] = deque()
        self._waiting: list[Reject] = []

    def handle(self, row: pacsv.InvalidRow) -> str:
        number = self._before + row.number if row.number is not None else -1
        self.numbers.append(number)
        text = row.text or ""
        if aside := self._guard.claim(text):
            refusal = Reject(self._uri, number, aside.rule, aside.message, aside.raw)
        else:
            message = f"expected {row.expected_columns} columns, found {row.actual_columns}"
            refusal = Reject(self._uri, number, "ragged_row", message, text[:RAW_SHOWN])
        self._waiting.append(refusal)
        return "skip"

    def take(self) -> tuple[Reject, ...]:
        taken, self._waiting = tuple(self._waiting), []
        return taken


def _open(
    guard: RecordGuard, names: Sequence[str], declared: CsvFormat, refused: _RefusedRows
) -> Iterator[pa.RecordBatch]:
    try:
        reader = pacsv.open_csv(
            pa.PythonFile(cast(BinaryIO, guard), mode="r"),
            read_options=pacsv.ReadOptions(
                use_threads=False,  # rows are numbered only when they are parsed one after the other
                block_size=guard.largest_block,
                column_names=list(names),
                encoding="utf8",
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=declared.delimiter,
                quote_char=declared.quote,
                newlines_in_values=True,
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=refused.handle,
            ),
            convert_options=pacsv.ConvertOptions(
                check_utf8=False,  # the guard has checked it
                column_types=dict.fromkeys(names, pa.string()),
                null_values=list(declared.null_values),
                strings_can_be_null=bool(declared.null_values),
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return
        raise
    yield from reader


class _Rows:
    """Numbers the rows of a file, and refuses values that are too long."""

    def __init__(self, uri: str, refused: _RefusedRows, limits: PlanLimits, before: int) -> None:
        self._uri = uri
        self._refused = refused
        self._most = limits.max_value_bytes
        self._last = before

    def convert(self, batch: pa.RecordBatch) -> RawBatch:
        """Give the rows of a batch their numbers, without those that are refused."""
        numbers = self._number(batch.num_rows)
        names = batch.schema.names
        long: dict[int, str] = {}
        for name, column in zip(names, batch.columns, strict=True):
            for row in long_values(column, self._most):
                long.setdefault(row, f"{name} is longer than {self._most} bytes")
        made = with_origin(names, batch.columns, self._uri, numbers)
        rejects = self._refused.take()
        if long:
            rejects += tuple(
                Reject(self._uri, numbers[row], "value_too_long", long[row], shown(batch, row))
                for row in sorted(long)
            )
            made = made.filter(pa.array([row not in long for row in range(batch.num_rows)]))
        return RawBatch(made, rejects)

    def rest(self) -> RawBatch | None:
        """Return what was refused after the last good row."""
        rejects = self._refused.take()
        return RawBatch(None, rejects) if rejects else None

    def _number(self, rows: int) -> Sequence[int]:
        """Number the good rows of a batch, leaving out the numbers of the refused ones."""
        refused = self._refused.numbers
        if not refused or refused[0] > self._last + rows:
            self._last += rows
            return range(self._last - rows + 1, self._last + 1)
        numbers: list[int] = []
        while len(numbers) < rows:
            self._last += 1
            if refused and refused[0] == self._last:
                refused.popleft()
            else:
                numbers.append(self._last)
        return numbers


def long_values(column: pa.Array, most: int) -> list[int]:
    """Return the rows whose text or bytes are longer than ``most`` bytes."""
    if column.nbytes <= most:
        return []
    found: list[int] = pc.indices_nonzero(pc.greater(pc.binary_length(column), most)).to_pylist()
    return found


def shown(batch: pa.RecordBatch, row: int) -> str:
    """Return a row as JSON, each value cut to what is kept of it."""
    values = {
        name: None if (text := column[row].as_py()) is None else str(text)[:RAW_SHOWN]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return json.dumps(values, ensure_ascii=False)
