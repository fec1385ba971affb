"""Files of one JSON document with a list of records, read item by item, however long the list is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.json_cursor import LIST, OBJECT, JsonCursor, TooLong
from tasks.ingestion.provenance import RAW_SHOWN
from tasks.ingestion.streams import open_stream
from tasks.model.errors import SourceRejected
from tasks.model.formats import JsonArrayFormat
from tasks.model.json_path import Every, RecordsPath, Step, parse_records_path

TOGETHER_BYTES = 128 << 10
"""Records of about this size are taken apart together."""
MOST_MEMBERS = 1_000_000
"""An object whose values are the records may have this many; their keys must be remembered."""


def read_json_document(
    raw: BinaryIO, uri: str, limits: PlanLimits, declared: JsonArrayFormat
) -> Iterator[RawBatch]:
    """Stream the records of a JSON document.

    Args:
        raw: Its bytes, compressed or not.
        uri: Its name, for provenance and messages.
        limits: Bounds of batches and values.
        declared: Its format.

    Raises:
        SourceRejected: It is damaged, ends too early or goes on after its end, or has no records at the
            declared path.
    """
    stream = open_stream(raw, uri, declared.encoding, limits)
    cursor = JsonCursor(stream, uri, limits.max_value_bytes, RAW_SHOWN)
    batcher = RecordBatcher(uri, limits, flatten=declared.flatten)
    pending: list[bytes] = []
    size = 0
    for record in _Selection(cursor, uri, parse_records_path(declared.records)).records():
        if isinstance(record, TooLong):
            yield from batcher.add_texts(pending)
            shown = record.beginning.decode(errors="backslashreplace")
            batcher.refuse("value_too_long", f"longer than {limits.max_value_bytes} bytes", shown)
            pending, size = [], 0
            continue
        pending.append(record)
        size += len(record)
        if size >= TOGETHER_BYTES:
            yield from batcher.add_texts(pending)
            pending, size = [], 0
    yield from batcher.add_texts(pending)
    if left := batcher.flush():
        yield left


def taken_apart(
    content: bytes, uri: str, path: str | None, most: int
) -> tuple[list[bytes], bytes] | None:
    """Return the texts of a document's records, and the document with an empty list in their place.

    Args:
        content: A document that is known to be JSON.
        uri: Its name.
        path: Where the records are; see ``parse_records_path``.
        most: Longest record, in bytes.

    Returns:
        None if the records are not in one list, or one is too long: then the document is to be parsed.
    """
    cursor = JsonCursor(io.BytesIO(content), uri, most, RAW_SHOWN)
    selection = _Selection(cursor, uri, parse_records_path(path))
    texts: list[bytes] = []
    try:
        for record in selection.records():
            if isinstance(record, TooLong):
                return None
            texts.append(record)
    except SourceRejected:
        return None
    if len(selection.lists) != 1:
        return None
    [(start, end)] = selection.lists
    return texts, content[:start] + b"[]" + content[end:]


class _Selection:
    """The values at a path of a document."""

    def __init__(self, cursor: JsonCursor, uri: str, path: RecordsPath) -> None:
        self._cursor = cursor
        self._uri = uri
        self._path = path
        self._is_there = False
        self.lists: list[tuple[int, int]] = []
        """Where the lists begin and end whose items are the records."""

    def records(self) -> Iterator[bytes | TooLong]:
        yield from self._at(self._path.steps)
        self._cursor.end()
        if not self._is_there:
            raise SourceRejected(
                f"{self._uri}: no list of records at {self._path.where}",
                "say in 'format.records' where it is, e.g. records: data.items",
            )

    def _at(self, steps: tuple[Step, ...]) -> Iterator[bytes | TooLong]:
        if not steps:
            yield self._cursor.value()
            return
        begins, step = self._cursor.peek(), steps[0]
        if isinstance(step, Every):
            self._is_there |= begins == LIST or (begins == OBJECT and step is Every.VALUE)
        if begins == LIST and not isinstance(step, str):
            yield from self._of_list(steps)
        elif begins == OBJECT and (isinstance(step, str) or step is Every.VALUE):
            yield from self._of_object(steps)
        else:
            self._cursor.skip()

    def _of_list(self, steps: tuple[Step, ...]) -> Iterator[bytes | TooLong]:
        step, rest = steps[0], steps[1:]
        if isinstance(step, Every) and not rest:  # the records themselves: no generator for each
            start = self._cursor.position
            yield from self._cursor.values()
            self.lists.append((start, self._cursor.position))
            return
        for number, _ in enumerate(self._cursor.items()):
            if isinstance(step, Every) or number == step:
                yield from self._at(rest)
            else:
                self._cursor.skip()

    def _of_object(self, steps: tuple[Step, ...]) -> Iterator[bytes | TooLong]:
        step, rest = steps[0], steps[1:]
        seen: set[str] = set()
        for key in self._cursor.members():
            if step is not Every.VALUE and key != step:
                self._cursor.skip()
                continue
            if key in seen:
                raise SourceRejected(
                    f"{self._uri}: key {key!r} is there twice on the way to {self._path.where}"
                )
            seen.add(key)
            if len(seen) > MOST_MEMBERS:
                raise SourceRejected(
                    f"{self._uri}: more than {MOST_MEMBERS} members at {self._path.where}",
                    "have it delivered as a list",
                )
            yield from self._at(rest)
