"""Delimited text, read as text: every value as the file says it, or the row refused with a reason."""

from __future__ import annotations

import csv
import io
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, PlanLimits, RawBatch, Reject
from tasks.ingestion.streams import QuoteCounter, open_stream
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.source import CsvFormat

MAX_HEADER_BYTES = 1 << 20


def read_csv(
    raw: BinaryIO, uri: str, declared: CsvFormat, limits: PlanLimits, expected_columns: int
) -> Iterator[RawBatch]:
    """Stream a file of delimited text.

    Args:
        raw: Its bytes, compressed or not.
        uri: Its name, for provenance and messages.
        declared: Its format.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.

    Raises:
        ContractBroken: The header cannot be the declared one.
        SourceRejected: The file is damaged, or a quote is never closed.
    """
    stream = open_stream(raw, uri, declared.encoding)
    first = b""
    if declared.header is None:
        names, first = _read_header(stream, uri, declared)
        if not names:
            return
        _check_header(names, uri, declared, expected_columns)
    else:
        names = list(declared.header)
    watched = QuoteCounter(stream, first, declared.quote.encode())
    refused = _RefusedRows(uri)
    rows = _Rows(uri, refused, limits)
    last_row_spans_lines = False
    try:
        for batch in _open(watched, names, declared, limits, refused):
            last_row_spans_lines = _last_row_spans_lines(batch)
            yield rows.convert(batch)
    except pa.ArrowInvalid as error:
        raise SourceRejected(f"{uri}: {_reason(error, limits)}") from None
    if watched.quotes % 2 and (last_row_spans_lines or refused.last_spans_lines):
        raise SourceRejected(
            f"{uri}: a quote is opened and never closed; the last record runs over several lines",
            "correct the file; nothing of it was loaded",
        )
    if left := rows.rest():
        yield left


def _read_header(stream: BinaryIO, uri: str, declared: CsvFormat) -> tuple[list[str], bytes]:
    """Return the names in the first line, and the bytes read beyond it."""
    line = stream.readline(MAX_HEADER_BYTES)
    if not line.strip():
        return [], b""
    rest = b""
    if b"\r" in line.rstrip(b"\r\n"):  # line ends are CR only
        line, _, rest = line.partition(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise SourceRejected(f"{uri}: header is not UTF-8 at byte {error.start}") from None
    parsed = csv.reader(
        io.StringIO(text.rstrip("\r\n")), delimiter=declared.delimiter, quotechar=declared.quote
    )
    return next(parsed, []), rest


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
    """Rows that have too many or too few fields, as the parser meets them."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.numbers: list[int] = []
        self.last_spans_lines = False
        self._waiting: list[Reject] = []

    def handle(self, row: pacsv.InvalidRow) -> str:
        number = row.number if row.number is not None else -1
        self.numbers.append(number)
        self.last_spans_lines = "\n" in (row.text or "")
        self._waiting.append(
            Reject(
                self._uri,
                number,
                "ragged_row",
                f"expected {row.expected_columns} columns, found {row.actual_columns}",
                row.text or "",
            )
        )
        return "skip"

    def take(self) -> tuple[Reject, ...]:
        taken = tuple(self._waiting)
        self._waiting.clear()
        return taken


def _open(
    stream: QuoteCounter,
    names: Sequence[str],
    declared: CsvFormat,
    limits: PlanLimits,
    refused: _RefusedRows,
) -> Iterator[pa.RecordBatch]:
    buffered = io.BufferedReader(stream, 1 << 20)
    if not buffered.peek(1):
        return
    reader = pacsv.open_csv(
        pa.PythonFile(cast(BinaryIO, buffered), mode="r"),
        read_options=pacsv.ReadOptions(
            use_threads=False,  # rows are numbered only when they are parsed one after the other
            block_size=limits.batch_bytes,
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
            check_utf8=False,
            column_types=dict.fromkeys(names, pa.binary()),
            null_values=list(declared.null_values),
            strings_can_be_null=bool(declared.null_values),
            quoted_strings_can_be_null=False,
        ),
    )
    yield from reader


def _last_row_spans_lines(batch: pa.RecordBatch) -> bool:
    if not batch.num_rows:
        return False
    last = batch.slice(batch.num_rows - 1, 1)
    return any(b"\n" in (column[0].as_py() or b"") for column in last.columns)


def _reason(error: pa.ArrowInvalid, limits: PlanLimits) -> str:
    text = str(error).splitlines()[0]
    if "straddling" in text:
        return f"a record is longer than {limits.batch_bytes} bytes, or a quote is never closed"
    return text.removeprefix("CSV parse error: ")[:200]


class _Rows:
    """Numbers the rows of a file, and refuses values that are no text or too long."""

    def __init__(self, uri: str, refused: _RefusedRows, limits: PlanLimits) -> None:
        self._uri = uri
        self._refused = refused
        self._limits = limits
        self._last = 0

    def convert(self, batch: pa.RecordBatch) -> RawBatch:
        """Turn a batch of bytes into one of text."""
        numbers = self._number(batch.num_rows)
        bad: dict[int, tuple[str, str]] = {}
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            _find_long(name, column, self._limits.max_value_bytes, bad)
            columns.append(_as_text(name, column, bad))
        texts = pa.record_batch(
            [
                *columns,
                pa.repeat(self._uri, batch.num_rows),
                pa.array(numbers, pa.int64()),
            ],
            names=[*batch.schema.names, SOURCE_URI, SOURCE_ROW],
        )
        rejects = self._refused.take()
        if bad:
            rejects += tuple(
                self._reject(batch, row, numbers[row], *bad[row]) for row in sorted(bad)
            )
            texts = texts.filter(pa.array([row not in bad for row in range(batch.num_rows)]))
        return RawBatch(texts, rejects)

    def rest(self) -> RawBatch | None:
        """Return what was refused after the last good row."""
        rejects = self._refused.take()
        return RawBatch(None, rejects) if rejects else None

    def _number(self, rows: int) -> range | list[int]:
        """Number the good rows of a batch, leaving out the numbers of the refused ones."""
        refused = self._refused.numbers
        start = self._last + 1
        if not refused or refused[-1] < start:
            self._last += rows
            return range(start, start + rows)
        numbers: list[int] = []
        number = start
        position = bisect_left(refused, start)
        while len(numbers) < rows:
            if position < len(refused) and refused[position] == number:
                position += 1
            else:
                numbers.append(number)
            number += 1
        self._last = number - 1
        return numbers

    def _reject(
        self, batch: pa.RecordBatch, row: int, number: int, rule: str, message: str
    ) -> Reject:
        raw = ", ".join(
            f"{name}={(column[row].as_py() or b'')[:200]!r}"
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        )
        return Reject(self._uri, number, rule, message, raw)


def _find_long(name: str, column: pa.Array, most: int, bad: dict[int, tuple[str, str]]) -> None:
    if (pc.max(pc.binary_length(column)).as_py() or 0) <= most:
        return
    for row in pc.indices_nonzero(pc.greater(pc.binary_length(column), most)).to_pylist():
        bad.setdefault(row, ("value_too_long", f"{name} is longer than {most} bytes"))


def _as_text(name: str, column: pa.Array, bad: dict[int, tuple[str, str]]) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        pass
    texts: list[str | None] = []
    for row, value in enumerate(column.to_pylist()):
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError as error:
            texts.append(None)
            bad.setdefault(row, ("encoding", f"{name} is not UTF-8 at its byte {error.start}"))
    return pa.array(texts, pa.string())
