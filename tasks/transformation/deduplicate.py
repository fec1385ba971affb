"""Deduplication: of the rows of one key the newest stays.

Most keys occur once. A first look at nothing but the keys finds the hashes that occur more than
once; rows with any other hash go straight on. The few that are left, the contenders, wait in a file
until all of them are known, and are ranked by their keys, not by the hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import duckdb
import numpy as np
import pyarrow as pa

from tasks.model.dataset import DatasetSpec
from tasks.model.rules import ordered_column
from tasks.transformation.session import stream
from tasks.transformation.sql import identifier

REPEATED = "repeated"
_CONTENDERS, _POSITION = "contenders", "_contender"
_ORIGIN = ("_source_uri", "_source_row")
WINNERS_AT_ONCE = 100_000


def find_repeated(spec: DatasetSpec, parts: Sequence[str], base: str) -> str:
    """Return the statement that keeps the hashes of keys which occur more than once.

    Refused rows are counted too: what they are is not known yet, and a contender too many does no
    harm.

    Args:
        spec: The dataset.
        parts: The parts of the query that make the columns of the key.
        base: The part that has them.
    """
    keys = ", ".join(map(identifier, spec.row_key))
    return (
        f"CREATE OR REPLACE TEMP TABLE {REPEATED} AS WITH {', '.join(parts)}\n"
        f"SELECT _key_hash FROM (SELECT hash({keys}) AS _key_hash FROM {base})\n"
        "GROUP BY _key_hash HAVING count(*) > 1"
    )


def may_repeat(spec: DatasetSpec) -> str:
    """Return SQL that tells whether other rows may have the key of this one."""
    keys = ", ".join(map(identifier, spec.row_key))
    return f"hash({keys}) IN (SELECT _key_hash FROM {REPEATED})"


def rank_contenders(spec: DatasetSpec) -> str:
    """Return the query of the positions of the contenders that stay."""
    keys = ", ".join(map(identifier, spec.row_key))
    newest = f"{identifier(spec.cursor)} DESC NULLS LAST, " if spec.cursor else ""
    ties = "".join(f"{_ordered(order)}, " for order in spec.tie_break)
    origin = ", ".join(f"{name} DESC" for name in _ORIGIN)
    return (
        f"SELECT {_POSITION} FROM (\n  SELECT {_POSITION}, row_number() OVER (\n"
        f"    PARTITION BY {keys}\n    ORDER BY {newest}{ties}{origin}) AS _rank\n"
        f"  FROM {_CONTENDERS}\n) WHERE _rank = 1"
    )


def _ordered(order: str) -> str:
    name, descending = ordered_column(order)
    return f"{identifier(name)}{' DESC' if descending else ''} NULLS LAST"


def _ranked_by(spec: DatasetSpec) -> list[str]:
    ties = [ordered_column(order)[0] for order in spec.tie_break]
    cursor = [spec.cursor] if spec.cursor else []
    return list(dict.fromkeys([*spec.row_key, *cursor, *ties, *_ORIGIN]))


class Contenders:
    """Clean rows whose key may be there again, in a file until all of them are known.

    Args:
        spec: The dataset.
        path: The file; it is made with the first row.

    Attributes:
        dropped: Rows that did not stay, when all that do were given back.
    """

    def __init__(self, spec: DatasetSpec, path: Path) -> None:
        self._spec = spec
        self._path = path
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._rows = 0
        self.dropped = 0

    def __enter__(self) -> Contenders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Put rows aside."""
        if not batch.num_rows:
            return
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema, options=options)
        self._writer.write_batch(batch)
        self._rows += batch.num_rows

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def resolve(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """Yield the rows that stay, in batches.

        Args:
            connection: A session in which no query runs.
        """
        self._close()
        if not self._rows:
            return
        stays = self._winners(connection)
        position = 0
        for batch in self._read():
            chosen = stays[position : position + batch.num_rows]
            position += batch.num_rows
            yield batch.filter(pa.array(chosen))
        self.dropped = self._rows - int(stays.sum())

    def _winners(self, connection: duckdb.DuckDBPyConnection) -> np.ndarray:
        """Tell of each contender whether it stays; only the columns that decide are looked at."""
        names = _ranked_by(self._spec)
        schema = pa.schema([self._schema().field(name) for name in names])
        schema = schema.append(pa.field(_POSITION, pa.int64()))
        reader = pa.RecordBatchReader.from_batches(schema, self._numbered(names, schema))
        connection.register(_CONTENDERS, reader)
        stays = np.zeros(self._rows, bool)
        for batch in stream(connection, rank_contenders(self._spec), WINNERS_AT_ONCE):
            stays[batch.column(0).to_numpy()] = True
        connection.unregister(_CONTENDERS)
        return stays

    def _numbered(self, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        position = 0
        for batch in self._read():
            numbers = pa.array(np.arange(position, position + batch.num_rows))
            position += batch.num_rows
            columns = [*(batch.column(name) for name in names), numbers]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _schema(self) -> pa.Schema:
        with pa.ipc.open_stream(str(self._path)) as reader:
            return reader.schema

    def _read(self) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader
