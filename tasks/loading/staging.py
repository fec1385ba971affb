"""Copies clean Parquet into a temporary table: binary ``COPY``, fed by a thread that encodes.

Binary COPY does not convert: where the widths of two types agree, it writes garbage without an
error. So the staging table is always made from the Arrow schema of the file, never from the target,
and its rows are cast in SQL when they are merged.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pgpq
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.model.errors import ContractBroken

STAGING = "etl_staging"
COPY_BYTES = 1 << 20
QUEUED_CHUNKS = 4
PUT_SECONDS = 0.2
_END = b""


def staged_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a clean file that are staged: all but its provenance."""
    return [name for name in schema.names if not name.startswith("_")]


def encodable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cast the few types that the encoder lacks, without changing a value.

    Raises:
        ContractBroken: A timestamp would lose nanoseconds.
    """
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        target = _encodable_type(column.type)
        try:
            columns.append(column if target is None else column.cast(target))
        except pa.ArrowInvalid:
            raise ContractBroken(
                f"column {name}: a {column.type} does not fit into {target} without a loss"
            ) from None
    return pa.record_batch(columns, names=batch.schema.names)


def _encodable_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(kind) and kind.unit != "us":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return pa.date32() if pa.types.is_date64(kind) else None


def create_staging(cursor: Cursor, schema: pa.Schema) -> None:
    """Create the temporary table for batches of a schema; it goes with the transaction."""
    encoded = pgpq.ArrowToPostgresBinaryEncoder(schema).schema().columns
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_staging_type(field, column)))
        for field, column in zip(schema, encoded, strict=True)
    )
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
            sql.Identifier(STAGING), columns
        )
    )


def _staging_type(field: pa.Field, encoded: Any) -> str:
    """Return the type of a staging column: the encoder's own, so that the bytes are what they say.

    The encoder writes an instant as it writes a naive timestamp, and calls both TIMESTAMP. Their
    binary forms are equal, and only TIMESTAMPTZ keeps the instant whatever the session's zone is.
    """
    if pa.types.is_timestamp(field.type) and field.type.tz is not None:
        return "TIMESTAMPTZ"
    return str(encoded.data_type.ddl())


def copy_into_staging(
    cursor: Cursor, schema: pa.Schema, batches: Iterator[pa.RecordBatch], on_first: Callable[[], None]
) -> int:
    """Copy batches into the staging table.

    Args:
        cursor: In the transaction that made the table.
        schema: Schema of the batches.
        batches: What to copy; read and encoded in a thread of its own.
        on_first: Called when the first chunk is handed to the server.

    Returns:
        The number of rows that the server says it took.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)").format(
        sql.Identifier("pg_temp", STAGING), sql.SQL(", ").join(map(sql.Identifier, schema.names))
    )
    with _EncodedStream(schema, batches, on_first) as stream:
        cursor.copy_expert(statement.as_string(cursor), stream, size=COPY_BYTES)
        stream.raise_producer_error()
    return int(cursor.rowcount)


class _EncodedStream(io.RawIOBase):
    """The binary COPY stream of some batches, made ahead by a thread.

    ``read`` never returns empty bytes before the end: to COPY that would be the end of the data.
    """

    def __init__(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], on_first: Callable[[], None]
    ) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(QUEUED_CHUNKS)
        self._encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
        self._batches = batches
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._left = memoryview(b"")
        self._ended = False
        self._on_first: Callable[[], None] | None = on_first
        self._thread = threading.Thread(target=self._produce, name="copy-encoder", daemon=True)

    def __enter__(self) -> _EncodedStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def raise_producer_error(self) -> None:
        """Raise what ended the thread, if it did not end by itself."""
        if self._error is not None:
            raise self._error

    def _produce(self) -> None:
        try:
            self._put(self._encoder.write_header())
            for batch in self._batches:
                if self._stopped.is_set():
                    return
                self._put(self._encoder.write_batch(batch))
            self._put(self._encoder.finish())
        except BaseException as error:  # handed to the thread that copies, and raised there
            self._error = error
        finally:
            self._put_anything(_END)

    def _put(self, chunk: bytes) -> None:
        if chunk:
            self._put_anything(chunk)

    def _put_anything(self, chunk: bytes) -> None:
        while not self._stopped.is_set():
            try:
                return self._chunks.put(chunk, timeout=PUT_SECONDS)
            except queue.Full:
                continue

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; empty only at the end."""
        if not self._left and not self._ended:
            chunk = self._chunks.get()
            self._ended = chunk == _END
            if self._ended and self._error is not None:
                raise self._error  # ends the COPY with an error, so that the server keeps nothing
            self._left = memoryview(chunk)
            if self._on_first is not None:
                self._on_first()
                self._on_first = None
        taken = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(taken) :]
        return bytes(taken)


def clean_batches(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read clean files row group by row group; reading a file whole would buffer all of it."""
    for path in paths:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(row_groups=[group], columns=list(columns)):
                yield encodable(batch)
