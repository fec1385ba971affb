"""Takes lists apart: each item becomes a raw row, as ingestion would have made one of a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.json_records import KnownKeys, RefusedRecordError, parse_json, record_texts
from tasks.json_tokens import items, split_record, split_together, token_columns
from tasks.model.child_dataset import PARENT
from tasks.model.children import POSITION
from tasks.model.json_path import ITEM
from tasks.quarantine import RefusedRow

ITEMS_AT_ONCE = 20_000
BYTES_AT_ONCE = 4 << 20
_RESERVED = ("_source_uri", "_source_row", POSITION, ITEM)
_NULL = b"null"

Part = tuple[dict[str, pa.Array], list[int]]
"""Columns of some items, and the places of these among those that are taken together."""


class ItemWriter:
    """Writes the items of lists into Parquet files; a new file begins when a new key comes.

    Args:
        stem: Path of the files, without what tells them apart.
        keys: Are items objects, whose keys become columns?
        whole: Is there a column with the whole item?
        refuse: Is given the items that cannot be taken apart.
    """

    def __init__(
        self,
        stem: Path,
        *,
        keys: bool,
        whole: bool,
        refuse: Callable[[list[RefusedRow]], None],
    ) -> None:
        self._stem = stem
        self._keys = keys
        self._whole = whole
        self._refuse = refuse
        self._known = KnownKeys("these items", _check_reserved)
        self._writer: pq.ParquetWriter | None = None
        self.paths: list[str] = []
        self.rows = 0
        """Items so far, refused ones included."""

    def __enter__(self) -> ItemWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def add(self, parents: pa.RecordBatch, lists: pa.Array) -> None:
        """Take apart the lists of some rows.

        Args:
            parents: What each item of a row's list carries: origin, and key of the row.
            lists: The list of each row as JSON; NULL has no items.
        """
        contents: list[bytes] = []
        rows: list[int] = []
        places: list[int] = []
        size = 0
        for row, text in enumerate(lists):
            token = text.as_py()
            if token is None:
                continue
            for place, content in enumerate(items(token.encode()), 1):
                contents.append(content)
                rows.append(row)
                places.append(place)
                size += len(content)
                if len(contents) >= ITEMS_AT_ONCE or size >= BYTES_AT_ONCE:
                    self.add_items(parents, contents, rows, places)
                    contents, rows, places, size = [], [], [], 0
        if contents:
            self.add_items(parents, contents, rows, places)

    def append(self, batch: pa.RecordBatch) -> None:
        """Add raw items that are taken apart already."""
        self.rows += batch.num_rows
        self._append(batch)

    def add_items(
        self,
        parents: pa.RecordBatch,
        contents: Sequence[bytes],
        rows: Sequence[int],
        places: Sequence[int],
    ) -> None:
        """Take some items apart.

        Args:
            parents: What the items carry, as for ``add``.
            contents: The items.
            rows: The row of ``parents`` that each belongs to.
            places: The place of each in its list.
        """
        self.rows += len(contents)
        refused: dict[int, RefusedRecordError] = {}
        parts: list[Part] = [({}, list(range(len(contents))))]
        if self._keys:
            parts = self._together(contents) or self._one_by_one(contents, refused)
        if refused:
            self._refuse(
                [
                    _refused_row(parents, rows[n], places[n], contents[n], refused[n])
                    for n in refused
                ]
            )
        kept = [number for _, numbers in parts for number in numbers]
        if not kept:
            return
        columns = {
            name: pa.concat_arrays(
                [part.get(name, pa.nulls(len(some), pa.string())) for part, some in parts]
            )
            for name in self._known.names
        }
        if len(parts) > 1:
            order = pa.array(np.argsort(np.array(kept)))
            columns = {name: column.take(order) for name, column in columns.items()}
            kept.sort()
        origin = parents.take(pa.array([rows[number] for number in kept], pa.int64()))
        made: dict[str, Any] = dict(zip(origin.schema.names, origin.columns, strict=True))
        made[POSITION] = pa.array([places[number] for number in kept], pa.int64())
        if self._whole:
            made[ITEM] = pa.array([contents[number].decode() for number in kept], pa.string())
        self._append(pa.record_batch(made | columns))

    def _together(self, contents: Sequence[bytes]) -> list[Part] | None:
        """Take objects apart together, which is faster; None if each must be looked at."""
        groups = split_together(contents)
        try:
            for group in groups or ():
                self._known.learn(group.names)
        except RefusedRecordError:
            return None
        if groups is None:
            return None
        parts: list[Part] = []
        for group in groups:
            columns = token_columns([group.tokens], len(group.names))
            parts.append((dict(zip(group.names, columns, strict=True)), group.positions))
        return parts

    def _one_by_one(
        self, contents: Sequence[bytes], refused: dict[int, RefusedRecordError]
    ) -> list[Part]:
        texts: list[dict[str, str | None]] = []
        numbers = []
        for number, content in enumerate(contents):
            try:
                record = split_record(content)
                if record is None:
                    record = record_texts(parse_json(content.decode()))
                self._known.learn(tuple(record))
            except RefusedRecordError as error:
                refused[number] = error
            except (ValueError, RecursionError):
                refused[number] = RefusedRecordError("nesting", "nested too deeply")
            else:
                texts.append(record)
                numbers.append(number)
        columns = {
            name: pa.array([text.get(name) for text in texts], pa.string())
            for name in self._known.names
        }
        return [(columns, numbers)]

    def _append(self, batch: pa.RecordBatch) -> None:
        if self._writer is None or self._writer.schema != batch.schema:
            self.close()
            path = Path(f"{self._stem}-{len(self.paths)}.parquet")
            self._writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            self.paths.append(str(path))
        self._writer.write_batch(batch)


def _refused_row(
    parents: pa.RecordBatch, row: int, place: int, content: bytes, error: RefusedRecordError
) -> RefusedRow:
    message = f"item {place}: {error}"
    values = {
        name: _text(parents.column(name)[row])
        for name in parents.schema.names
        if name.startswith(PARENT)
    }
    values |= {POSITION: place, ITEM: content.decode()}
    return RefusedRow(
        source_uri=parents.column("_source_uri")[row].as_py(),
        source_row=parents.column("_source_row")[row].as_py(),
        rule=error.rule,
        column=None,
        message=str(error),
        failures=message,
        raw=json.dumps(values, ensure_ascii=False, separators=(",", ":")),
    )


def _text(value: pa.Scalar) -> Any:
    """Return a value of the parent as refused rows have it: numbers as such, others as texts."""
    plain = value.as_py()
    if plain is None or isinstance(plain, str | int):
        return plain
    return plain.hex() if isinstance(plain, bytes) else value.cast(pa.string()).as_py()


def _check_reserved(names: Sequence[str]) -> None:
    for name in names:
        fold = name.casefold()
        if fold in _RESERVED or fold.startswith(PARENT):
            raise RefusedRecordError("reserved_key", f"key {name!r} is a name of the product")
