"""Gathers JSON records into record batches, and keeps what is refused with its text and number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.provenance import RAW_SHOWN, check_names, with_origin
from tasks.ingestion.utf8 import first_bad_byte, is_utf8
from tasks.json_records import Flattener, KnownKeys, RefusedRecordError, parse_json, record_texts
from tasks.json_tokens import Group, split_record, split_together, token_columns
from tasks.model.formats import Flatten

BATCH_ROWS = 20_000
BATCH_CELLS = 4_000_000
MOST_SHAPES = 32
"""Flat records with one of so many lists of keys are built column by column, others row by row."""


class RecordBatcher:
    """Gathers records into batches; columns are those of all records so far.

    Args:
        uri: Where the records are, for provenance.
        limits: Bounds of values.
        first_row: Number of the first record.
        flatten: Which nested objects become columns of their own.
    """

    def __init__(
        self, uri: str, limits: PlanLimits, first_row: int = 1, flatten: Flatten | None = None
    ) -> None:
        self._uri = uri
        self._limits = limits
        self._next = first_row
        self._flattener = Flattener(flatten) if flatten else None
        self._keys = KnownKeys("this source", lambda names: check_names(names, uri))
        self._tokens: dict[tuple[str, ...], tuple[list[bytes], list[int]]] = {}
        self._texts: tuple[list[dict[str, str | None]], list[int]] = ([], [])
        self._rejects: list[Reject] = []
        self._rows = 0
        self._bytes = 0

    def add(self, parsed: Any, raw: str | None = None) -> RawBatch | None:
        """Take one parsed record; return a batch when enough have come together."""
        try:
            self._add_texts(record_texts(parsed, self._flattener))
        except RefusedRecordError as error:
            self.refuse(error.rule, str(error), raw if raw is not None else repr(parsed))
        except RecursionError:
            self.refuse("nesting", "nested too deeply", raw or "")
        return next(self._full(), None)

    def add_texts(self, contents: Sequence[bytes]) -> Iterator[RawBatch]:
        """Take the texts of some records; faster than one by one."""
        block = b"".join(contents)
        if contents and len(block) <= self._limits.max_value_bytes and is_utf8(block):
            groups = split_together(contents, self._flattener)
            if groups is not None and self._add_groups(groups):
                yield from self._full()
                return
        for content in contents:
            yield from self.add_text(content)

    def add_text(self, content: bytes) -> Iterator[RawBatch]:
        """Take the text of one record."""
        most = self._limits.max_value_bytes
        if len(content) > most:
            shown = content[:RAW_SHOWN].decode(errors="backslashreplace")
            self.refuse("value_too_long", f"longer than {most} bytes", shown)
        elif not is_utf8(content):
            shown = content.decode(errors="backslashreplace")
            self.refuse("encoding", f"not UTF-8 at its byte {first_bad_byte(content)}", shown)
        else:
            self._add_record(content)
        yield from self._full()

    def _add_record(self, content: bytes) -> None:
        texts = split_record(content, self._flattener)
        try:
            if texts is None:
                texts = record_texts(parse_json(content.decode()), self._flattener)
            self._add_texts(texts)
        except RefusedRecordError as error:
            self.refuse(error.rule, str(error), content.decode())
        except RecursionError:
            self.refuse("nesting", "nested too deeply", content.decode())
        except ValueError as error:
            self.refuse("invalid_json", str(error), content.decode())

    def refuse(self, rule: str, message: str, raw: str) -> None:
        """Count a record that is not kept."""
        # A lone surrogate cannot be stored as it is; its escape can.
        kept = raw[:RAW_SHOWN].rstrip("\r\n").encode("utf-8", "backslashreplace").decode()
        self._rejects.append(Reject(self._uri, self._next, rule, message, kept))
        self._bytes += len(kept)
        self._next += 1

    def _add_groups(self, groups: Sequence[Group]) -> bool:
        """Take records that were taken apart together; False if each must be looked at."""
        shapes = self._tokens.keys() | {group.names for group in groups}
        if len(shapes) > MOST_SHAPES:
            return False
        try:
            for group in groups:
                self._keys.learn(group.names)
        except RefusedRecordError:
            return False
        rows = 0
        for group in groups:
            tokens, numbers = self._tokens.setdefault(group.names, ([], []))
            tokens.append(group.tokens)
            numbers += [self._next + position for position in group.positions]
            rows += len(group.positions)
            self._bytes += len(group.tokens)
        self._next += rows
        self._rows += rows
        return True

    def _add_texts(self, row: dict[str, str | None]) -> None:
        size = sum(len(value) for value in row.values() if value)
        if size > self._limits.max_value_bytes:
            message = f"longer than {self._limits.max_value_bytes}"
            raise RefusedRecordError("value_too_long", message)
        self._keys.learn(row)
        self._texts[0].append(row)
        self._texts[1].append(self._next)
        self._next += 1
        self._rows += 1
        self._bytes += size

    def _full(self) -> Iterator[RawBatch]:
        """Yield what has come together if it is enough for a batch."""
        if (
            self._rows >= BATCH_ROWS
            or self._bytes >= self._limits.batch_bytes
            or self._rows * len(self._keys.names) >= BATCH_CELLS
        ) and (made := self.flush()):
            yield made

    def flush(self) -> RawBatch | None:
        """Return what has come together, None if it is nothing."""
        if not self._rows and not self._rejects:
            return None
        made = RawBatch(self._batch() if self._rows else None, tuple(self._rejects))
        self._tokens, self._texts, self._rejects = {}, ([], []), []
        self._rows = self._bytes = 0
        return made

    def _batch(self) -> pa.RecordBatch:
        parts: list[tuple[dict[str, pa.Array], list[int]]] = []
        for names, (tokens, numbers) in self._tokens.items():
            columns = token_columns(tokens, len(names))
            parts.append((dict(zip(names, columns, strict=True)), numbers))
        rows, numbers = self._texts
        if rows:
            texts = {
                n: pa.array([row.get(n) for row in rows], pa.string()) for n in self._keys.names
            }
            parts.append((texts, numbers))
        numbers = [number for part in parts for number in part[1]]
        made = [
            pa.concat_arrays(
                [
                    part[name] if name in part else pa.nulls(len(some), pa.string())
                    for part, some in parts
                ]
            )
            for name in self._keys.names
        ]
        if len(parts) > 1:
            order = pa.array(np.argsort(np.array(numbers)))
            made, numbers = [column.take(order) for column in made], sorted(numbers)
        return with_origin(list(self._keys.names), made, self._uri, numbers)
