"""Hands delimited text to the parser in whole records, and sets those aside that it would get wrong.

The parser (pyarrow) accepts text after a closing quote and drops the quote, takes the end of the file
for the end of an open quote, and stops for good at a record that is longer than its block or that is
no UTF-8. Here every block ends where a record ends, and a record of these kinds is replaced by a marker
that the parser refuses as ragged, so that the record keeps its number among the others.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import BinaryIO
from uuid import uuid4

import numpy as np

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.provenance import RAW_SHOWN
from tasks.model.errors import SourceRejected
from tasks.model.source import CsvFormat


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record that the parser must not see."""

    rule: str
    message: str
    raw: str


class Grammar:
    """Regular expressions for the records of one format."""

    def __init__(self, declared: CsvFormat) -> None:
        quote = re.escape(declared.quote.encode())
        delimiter = re.escape(declared.delimiter.encode())
        closed = rb'"(?:[^"]++|"")*+"'.replace(b'"', quote)
        plain = rb'(?!")[^,\r\n]*+'.replace(b'"', quote).replace(b",", delimiter)
        after = rb"[^,\r\n]*+".replace(b",", delimiter)
        loose = b"(?:" + closed + after + b"|" + plain + b")"
        strict = b"(?:" + closed + b"|" + plain + b")"
        self.quote, self.delimiter = declared.quote.encode(), declared.delimiter.encode()
        self.record = re.compile(loose + b"(?:" + delimiter + loose + rb")*+(\r\n|\n|\r|\Z)")
        """A record as the parser sees it; its group is the line end."""
        self.strict_record = re.compile(
            strict + b"(?:" + delimiter + strict + rb")*+(?:\r\n|\n|\r|\Z)"
        )
        self.fields = re.compile(b"(?:" + loose + delimiter + b")*+")
        self.closed = re.compile(closed)

    def field_state(self, unfinished: bytes) -> bytes:
        """Return a short beginning of a record that leaves a reader in the same state as a long one."""
        matched = self.fields.match(unfinished)
        last = unfinished[matched.end() if matched else 0 :]
        begin = b"x" + self.delimiter
        if not last:
            return begin
        if not last.startswith(self.quote):
            return begin + b"x"
        if self.closed.fullmatch(last):  # the next byte tells whether it is the end of the field
            return begin + self.quote * 2
        return begin + (b"x" if self.closed.match(last) else self.quote)


class RecordGuard:
    """A file for the parser.

    Args:
        source: The text.
        first: Bytes that were read from it already.
        uri: Its name.
        grammar: Its format.
        limits: Bounds of blocks and values.
        columns: Number of fields of a good record.
        position: Where ``first`` begins in the text.
    """

    closed = False

    def __init__(
        self,
        source: BinaryIO,
        first: bytes,
        uri: str,
        grammar: Grammar,
        limits: PlanLimits,
        columns: int,
        position: int = 0,
    ) -> None:
        self._source = source
        self._pending = first
        self._uri = uri
        self._grammar = grammar
        self._block = limits.batch_bytes
        self._longest = limits.max_value_bytes + limits.batch_bytes
        self._ragged = grammar.delimiter if columns == 1 else b""
        self._token = uuid4().hex.encode()
        self._position = position
        self._too_long: bytes | None = None
        self._ended = False
        self._begun = False
        self._set_aside: dict[int, SetAside] = {}
        self._markers = 0
        around = np.zeros(256, np.bool_)
        around[list(grammar.delimiter + grammar.quote + b"\r\n")] = True
        self._around = around

    @property
    def position(self) -> int:
        """Where in the text the records end that were handed out so far."""
        return self._position

    @property
    def largest_block(self) -> int:
        """Most bytes that one ``read`` returns."""
        return self._longest + self._block

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def close(self) -> None:
        """Do nothing: whoever opened the source closes it."""

    def read(self, _size: int = -1) -> bytes:
        """Return the next whole records, about a block of them; nothing at the end."""
        while not self._ended:
            piece = self._source.read(self._block)
            self._ended = not piece
            buffer = self._pending + piece
            end = None if self._too_long is not None else self._regular(buffer)
            made = buffer[:end] if end is not None else None
            if end is None or made is None or not _is_text(made):
                made, end = self._irregular(buffer)
            self._position += end
            self._pending = buffer[end:]
            if len(self._pending) > self._longest:
                self._shorten()
            if made:
                return self._whole(made)
        return b""

    def _whole(self, block: bytes) -> bytes:
        """Return a block; the parser takes a byte order mark off the first one, if it has one."""
        first, self._begun = not self._begun, True
        return codecs.BOM_UTF8 + block if first and block.startswith(codecs.BOM_UTF8) else block

    def claim(self, text: str) -> SetAside | None:
        """Return the record that a marker stands for, None if the text is no marker."""
        token = self._token.decode()
        if not text.startswith(token):
            return None
        return self._set_aside.pop(int(text[len(token) :].rstrip(self._ragged.decode() or None)))

    def _regular(self, buffer: bytes) -> int | None:
        """Return where the last whole record ends, None if quotes are not where they should be."""
        quote = self._grammar.quote
        if quote not in buffer:
            return len(buffer) if self._ended else _line_end(buffer, len(buffer))
        octets = np.frombuffer(buffer, np.uint8)
        marks = np.flatnonzero(octets == quote[0])
        end = len(buffer) if self._ended else _line_end(buffer, len(buffer))
        count = int(np.searchsorted(marks, end))
        while count % 2:  # the end found is inside a quoted field
            if self._ended:
                return None
            end = _line_end(buffer, int(marks[count - 1]))
            count = int(np.searchsorted(marks, end))
        before, after = marks[:count:2] - 1, marks[1:count:2] + 1
        before, after = before[before >= 0], after[after < len(buffer)]
        good = self._around[octets[before]].all() and self._around[octets[after]].all()
        return end if good else None

    def _irregular(self, buffer: bytes) -> tuple[bytes, int]:
        """Take the buffer apart record by record; return the whole ones, and where they end."""
        made: list[bytes] = []
        end = 0
        while end < len(buffer):
            found = self._grammar.record.match(buffer, end)
            if found is None:
                if self._ended:
                    raise SourceRejected(
                        f"{self._uri}: the record at byte {self._position + end} opens a quote that "
                        "is never closed",
                        "correct the file; nothing of it was loaded",
                    )
                break
            may_go_on = not found[1] or (found[1] == b"\r" and found.end() == len(buffer))
            if may_go_on and not self._ended:
                break
            made.append(self._checked(found[0]))
            end = found.end()
        return b"".join(made), end

    def _checked(self, record: bytes) -> bytes:
        """Return a record, or the marker that stands for it."""
        if self._too_long is not None:
            raw, self._too_long = self._too_long, None
            return self._mark("value_too_long", f"longer than {self._longest} bytes", raw)
        if not self._grammar.strict_record.fullmatch(record):
            return self._mark("quote", "a field goes on after its closing quote", record)
        try:
            record.decode()
        except UnicodeDecodeError as error:
            return self._mark("encoding", f"not UTF-8 at its byte {error.start}", record)
        return record

    def _mark(self, rule: str, message: str, raw: bytes) -> bytes:
        number = self._markers
        self._markers += 1
        kept = raw.rstrip(b"\r\n")[:RAW_SHOWN].decode(errors="backslashreplace")
        self._set_aside[number] = SetAside(rule, message, kept)
        return self._token + str(number).encode() + self._ragged + b"\n"

    def _shorten(self) -> None:
        """Keep only the beginning of a record that is too long, and what its rest needs."""
        if self._too_long is None:
            self._too_long = self._pending[:RAW_SHOWN]
        kept = self._grammar.field_state(self._pending)
        self._position += len(self._pending) - len(kept)
        self._pending = kept


def _line_end(buffer: bytes, before: int) -> int:
    """Return the position after the last line end, 0 if there is none."""
    feed = buffer.rfind(b"\n", 0, before)
    # A CR at the very end may be half of CR LF.
    single = buffer.rfind(b"\r", feed + 1, min(before, len(buffer) - 1))
    return max(feed, single) + 1


def _is_text(content: bytes) -> bool:
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
