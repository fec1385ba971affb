"""JSON records, read without a detour through floats: numbers keep the digits they were written with.

Every field of a record becomes text: a string as it is, a number by its digits, true and false as
words, null and a missing field as NULL, objects and lists as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, PlanLimits, RawBatch, Reject
from tasks.ingestion.streams import open_stream
from tasks.model.run import Part

BATCH_ROWS = 20_000
MOST_ZEROS = 400
"""A number with a larger exponent is left as it is written; no column can hold it."""
RAW_SHOWN = 10_000
"""Characters of a refused record that are kept."""


class _Digits(str):
    """A number by its digits."""

    __slots__ = ()


def _digits(text: str) -> _Digits:
    """Write a number without its exponent: ``1e3`` is 1000, digit by digit, in every JSON reader."""
    if "e" in text or "E" in text:
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and abs(exponent) <= MOST_ZEROS:
            return _Digits(format(number, "f"))
    return _Digits(text)


@dataclass(frozen=True, slots=True)
class _Flaw:
    """A part of a record for which the record is refused."""

    rule: str
    message: str


class _RefusedError(ValueError):
    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        return _Flaw("duplicate_key", f"key {twice!r} is there twice")
    return made


def _constant(text: str) -> _Flaw:
    return _Flaw("not_a_number", f"{text} is no JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_digits, parse_int=_Digits, parse_constant=_constant
)


def parse_json(text: str) -> Any:
    """Parse a JSON document so that ``record_texts`` can take its records apart.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record_texts(record: Any) -> dict[str, str | None]:
    """Return the fields of a parsed record as text.

    Raises:
        ValueError: The record is refused; the error's ``rule`` says which rule it breaks.
    """
    if isinstance(record, _Flaw):
        raise _RefusedError(record.rule, record.message)
    if not isinstance(record, dict):
        raise _RefusedError("not_an_object", "a record must be a JSON object")
    return {name: _field(value) for name, value in record.items()}


def _field(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = str(value)
        _check_surrogates(text)
        return text
    return _json(value)


def _json(value: Any) -> str:
    """Write a parsed value as JSON again, numbers by their digits."""
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(name)}:{_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, _Flaw):
        raise _RefusedError(value.rule, value.message)
    text = json.dumps(value, ensure_ascii=False)
    _check_surrogates(text)
    return text


def _check_surrogates(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _RefusedError(
                "lone_surrogate", "half of a surrogate pair is no character"
            ) from None


class RecordBatcher:
    """Gathers records into batches; columns are those of all records so far.

    Args:
        uri: Where the records are, for provenance.
        limits: Bounds of values.
        first_row: Number of the first record.
    """

    def __init__(self, uri: str, limits: PlanLimits, first_row: int = 1) -> None:
        self._uri = uri
        self._limits = limits
        self._next = first_row
        self._names: dict[str, None] = {}
        self._rows: list[dict[str, str | None]] = []
        self._numbers: list[int] = []
        self._rejects: list[Reject] = []
        self._bytes = 0

    def add(self, parsed: Any, raw: str | None = None) -> RawBatch | None:
        """Take one parsed record; return a batch when enough have come together."""
        number = self._next
        self._next += 1
        try:
            row = record_texts(parsed)
            size = sum(len(value) for value in row.values() if value)
            if size > self._limits.max_value_bytes:
                raise _RefusedError("value_too_long", f"longer than {self._limits.max_value_bytes}")
        except _RefusedError as error:
            self._refuse(number, error.rule, str(error), raw if raw is not None else repr(parsed))
        except RecursionError:
            self._refuse(number, "nesting", "nested too deeply", raw or "")
        else:
            self._names.update(dict.fromkeys(row))
            self._rows.append(row)
            self._numbers.append(number)
            self._bytes += size
        if len(self._rows) >= BATCH_ROWS or self._bytes >= self._limits.batch_bytes:
            return self.flush()
        return None

    def refuse(self, rule: str, message: str, raw: str) -> None:
        """Count a record that could not even be parsed."""
        self._refuse(self._next, rule, message, raw)
        self._next += 1

    def _refuse(self, number: int, rule: str, message: str, raw: str) -> None:
        # A lone surrogate cannot be stored as it is; its escape can.
        kept = raw[:RAW_SHOWN].encode("utf-8", "backslashreplace").decode()
        self._rejects.append(Reject(self._uri, number, rule, message, kept))

    def flush(self) -> RawBatch | None:
        """Return what has come together, None if it is nothing."""
        if not self._rows and not self._rejects:
            return None
        batch = None
        if self._rows:
            columns = [
                pa.array([row.get(name) for row in self._rows], pa.string()) for name in self._names
            ]
            batch = pa.record_batch(
                [
                    *columns,
                    pa.repeat(self._uri, len(self._rows)),
                    pa.array(self._numbers, pa.int64()),
                ],
                names=[*self._names, SOURCE_URI, SOURCE_ROW],
            )
        made = RawBatch(batch, tuple(self._rejects))
        self._rows, self._numbers, self._rejects, self._bytes = [], [], [], 0
        return made


def read_json_lines(
    raw: BinaryIO, uri: str, limits: PlanLimits, part: Part | None = None
) -> Iterator[RawBatch]:
    """Stream a file of one JSON object a line, or a part of it; empty lines are no records.

    Raises:
        SourceRejected: The file is damaged.
    """
    batcher = RecordBatcher(uri, limits, (part and part.first_row) or 1)
    # The middle of a text may begin like another encoding or a compressed file.
    stream = raw if part and part.start else open_stream(raw, uri)
    for line in _lines(stream, limits.max_value_bytes):
        if not line.strip():
            continue
        made = _add_line(batcher, line, limits)
        if made:
            yield made
    if left := batcher.flush():
        yield left


def _add_line(batcher: RecordBatcher, line: bytes, limits: PlanLimits) -> RawBatch | None:
    if len(line) > limits.max_value_bytes:
        shown = line[:RAW_SHOWN].decode(errors="backslashreplace")
        batcher.refuse("value_too_long", f"longer than {limits.max_value_bytes} bytes", shown)
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        shown = line.decode(errors="backslashreplace")
        batcher.refuse("encoding", f"not UTF-8 at its byte {error.start}", shown)
        return None
    try:
        parsed = parse_json(text)
    except ValueError as error:
        batcher.refuse("invalid_json", str(error), text)
        return None
    return batcher.add(parsed, text)


def _lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Split at line feeds only: U+2028 and its like are part of a JSON string.

    Of a line longer than allowed only the beginning is kept.
    """
    while line := stream.readline(most + 1):
        if not line.endswith(b"\n") and len(line) > most:
            while (more := stream.readline(1 << 20)) and not more.endswith(b"\n"):
                continue
        yield line


def records_at(body: Any, path: str | None) -> Iterable[Any] | None:
    """Return the list of records at a dotted path of a parsed body, None if there is none."""
    for part in path.split(".") if path else ():
        if not isinstance(body, dict) or part not in body:
            return None
        body = body[part]
    return body if isinstance(body, list) else None
