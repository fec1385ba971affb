"""Cuts delimited text into blocks of whole records, and sets aside what the parser would get wrong.

The parser (pyarrow) accepts text after a closing quote and drops the quote, takes the end of the file
for the end of an open quote, and stops for good at a record that is no UTF-8. Here every block ends
where a record ends, and records of these kinds are kept from it, with their number in the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.csv_grammar import Grammar, last_line_end, line_ends
from tasks.ingestion.provenance import RAW_SHOWN
from tasks.ingestion.utf8 import is_utf8
from tasks.model.errors import SourceRejected


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record that the parser must not see."""

    rule: str
    message: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole records.

    Attributes:
        text: They, for the parser.
        original: They, as the object has them: with comments and what is set aside.
        aside: By their number in the block, starting at 1, the records that are not in ``text``.
        lines_lost: Lines of its first record that are not even in ``original``, which is too long.
    """

    text: bytes
    original: bytes
    aside: dict[int, SetAside] = field(default_factory=dict)
    lines_lost: int = 0


class RecordGuard:
    """Cuts a text into blocks.

    Args:
        source: The text.
        first: Bytes that were read from it already.
        uri: Its name.
        grammar: Its format.
        limits: Bounds of blocks and values.
        position: Where ``first`` begins in the text.
        line: Lines before that.
    """

    def __init__(
        self,
        source: BinaryIO,
        first: bytes,
        uri: str,
        grammar: Grammar,
        limits: PlanLimits,
        position: int = 0,
        line: int = 0,
    ) -> None:
        self._source = source
        self._pending = first
        self._uri = uri
        self._grammar = grammar
        self._block = limits.batch_bytes
        self._longest = limits.max_value_bytes + limits.batch_bytes
        self._position = position
        self.end = position
        """Where in the text the records end that were handed out so far."""
        self.line = line
        """Lines before the first block."""
        self._too_long: bytes | None = None
        self._lines_lost = 0
        self._ended = False
        around = np.zeros(256, np.bool_)
        around[list(grammar.delimiter + grammar.quote + b"\r\n")] = True
        self._around = around

    def blocks(self) -> Iterator[Block]:
        """Yield the whole records, about a block of them at a time."""
        while not self._ended:
            piece = self._source.read(self._block)
            self._ended = not piece
            block, rest = self._whole_records(piece)
            end = len(self._pending) + len(piece) - len(rest)
            self._position += end
            self.end = self._position
            self._pending = rest
            if len(self._pending) > self._longest:
                self._shorten()
            if block.original:
                yield block

    def _whole_records(self, piece: bytes) -> tuple[Block, bytes]:
        """Return the whole records of what is pending and the bytes after it, and what is left."""
        # Most blocks end with a line of the new bytes: then these are copied once.
        cut = len(piece) if self._ended else last_line_end(piece, len(piece))
        buffer = b"".join((self._pending, memoryview(piece)[:cut] if cut else piece))
        left = piece[cut:] if cut else b""
        end = None if self._too_long is not None else self._regular(buffer, whole=bool(cut))
        if end is not None:
            text = buffer[:end]
            if is_utf8(text):
                return Block(text, text), buffer[end:] + left
        buffer += left
        block, end = self._irregular(buffer)
        return block, buffer[end:]

    def _regular(self, buffer: bytes, *, whole: bool) -> int | None:
        """Return where the last whole record ends, None if it must be looked for one by one."""
        quote, grammar = self._grammar.quote, self._grammar
        if any(mark and mark in buffer for mark in (grammar.escape, grammar.comment)):
            return None
        end = len(buffer) if self._ended or whole else last_line_end(buffer, len(buffer))
        if not quote or quote not in buffer:
            return end
        octets = np.frombuffer(buffer, np.uint8)
        marks = np.flatnonzero(octets == quote[0])
        count = int(np.searchsorted(marks, end))
        while count % 2:  # the end found is inside a quoted field
            if self._ended:
                return None
            end = last_line_end(buffer, int(marks[count - 1]))
            count = int(np.searchsorted(marks, end))
        before, after = marks[:count:2] - 1, marks[1:count:2] + 1
        before, after = before[before >= 0], after[after < len(buffer)]
        good = self._around[octets[before]].all() and self._around[octets[after]].all()
        return end if good else None

    def _irregular(self, buffer: bytes) -> tuple[Block, int]:
        """Take the buffer apart record by record; return the whole ones, and where they end."""
        made: list[bytes] = []
        aside: dict[int, SetAside] = {}
        number = end = 0
        while end < len(buffer):
            following = self._following(buffer, end)
            if following is None:
                break
            record = buffer[end:following]
            commented = self._too_long is None and self._grammar.comment_end(buffer, end)
            end = following
            if commented:
                continue
            if not record.strip(b"\r\n") and not self._grammar.counts_empty_lines:
                continue
            number += 1
            if refused := self._refusal(record):
                aside[number] = refused
            else:
                made.append(self._grammar.with_null_token(record))
        lost, self._lines_lost = (self._lines_lost, 0) if end else (0, self._lines_lost)
        return Block(b"".join(made), buffer[:end], aside, lost), end

    def _following(self, buffer: bytes, start: int) -> int | None:
        """Return where the record or comment at ``start`` ends, None if that is not there yet."""
        if self._too_long is None:
            comment = self._grammar.comment_end(buffer, start)
            if comment is not None:
                whole = self._ended or buffer[comment - 1 : comment] == b"\n"
                return comment if whole or comment < len(buffer) else None
        found = self._grammar.record.match(buffer, start)
        if found is None:
            if self._ended:
                raise SourceRejected(
                    f"{self._uri}: the record at byte {self._position + start} opens a quote that "
                    "is never closed",
                    "correct the file; nothing of it was loaded",
                )
            return None
        may_go_on = not found[1] or (found[1] == b"\r" and found.end() == len(buffer))
        return None if may_go_on and not self._ended else found.end()

    def _refusal(self, record: bytes) -> SetAside | None:
        """Return why the parser must not see a record, None if it may."""
        if self._too_long is not None:
            raw, self._too_long = self._too_long, None
            return SetAside("value_too_long", f"longer than {self._longest} bytes", raw)
        quote = self._grammar.quote
        if quote and quote in record and not self._grammar.strict_record.fullmatch(record):
            return SetAside("quote", "a field goes on after its closing quote", record)
        if not record.isascii():
            try:
                record.decode()
            except UnicodeDecodeError as error:
                return SetAside("encoding", f"not text at its byte {error.start}", record)
        return None

    def _shorten(self) -> None:
        """Keep only the beginning of a record that is too long, and what its rest needs."""
        if self._too_long is None:
            self._too_long = self._pending[:RAW_SHOWN]
        kept = self._grammar.field_state(self._pending)
        self._lines_lost += line_ends(self._pending)
        self._position += len(self._pending) - len(kept)
        self._pending = kept
