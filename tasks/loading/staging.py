"""Copies clean Parquet into a temporary table: binary ``COPY``, fed by a thread that encodes.

The staging table is made from the Arrow schema of the files, never from the target (see
``encoding``); its rows are cast in SQL when they are merged.
"""

from __future__ import annotations

import io
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pgpq
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.encoding import encodable, staging_types
from tasks.loading.listed import listed
from tasks.model.errors import ContractBroken

STAGING = "etl_staging"
COPY_BYTES = 1 << 20
BATCH_BYTES = 1 << 19
"""About how much is read, encoded and queued at once: little, because the encoder holds the GIL, so
that nothing is sent meanwhile, and because the server waits for the first batch."""
BATCH_ROWS = 65_536
QUEUED_CHUNKS = 4
STATISTICS_TARGET = 10
"""Asks ANALYZE for a sample of 3,000 rows. Of its usual 30,000 it takes as long as a quarter of the
copy, and the planner needs to know how many rows and values there are, not which are frequent."""
PUT_SECONDS = 0.2
_END = b""


def create_staging(cursor: Cursor, schema: pa.Schema, table: str = STAGING) -> None:
    """Create the temporary table for batches of a schema; it goes with the transaction."""
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
            sql.Identifier(table), staging_columns(schema)
        )
    )


def staging_columns(schema: pa.Schema) -> sql.Composed:
    """Return the columns of a staging table for batches of a schema."""
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in zip(schema.names, staging_types(schema), strict=True)
    )


def analyze_staging(cursor: Cursor, table: sql.Identifier) -> None:
    """Have the planner know what was staged; the table is read a few times, and then gone."""
    cursor.execute(
        sql.SQL(
            "SET LOCAL default_statistics_target = {}; ANALYZE {}; "
            "SET LOCAL default_statistics_target TO DEFAULT"
        ).format(sql.Literal(STATISTICS_TARGET), table)
    )


def copy_into_staging(
    cursor: Cursor,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    on_first: Callable[[], None],
    table: str = STAGING,
) -> int:
    """Copy batches into the temporary staging table; the arguments are those of ``copy_rows``."""
    return copy_rows(cursor, sql.Identifier("pg_temp", table), schema, batches, on_first)


def copy_rows(
    cursor: Cursor,
    table: sql.Identifier,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    on_first: Callable[[], None],
) -> int:
    """Copy batches into a table that was made for their schema.

    Args:
        cursor: In a transaction that sees the table.
        table: Its columns are those of ``staging_columns``.
        schema: Schema of the batches.
        batches: What to copy; read and encoded in a thread of its own.
        on_first: Called when the first chunk is handed to the server.
        table: The staging table.

    Returns:
        The number of rows that the server says it took.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)").format(
        table, listed(schema.names)
    )
    with (
        _Refusal(cursor.connection.fileno()) as refusal,
        _EncodedStream(schema, batches, on_first, refusal.is_there) as stream,
    ):
        try:
            cursor.copy_expert(statement.as_string(cursor), stream, size=COPY_BYTES)
        except psycopg2.Error:
            stream.raise_own_error()  # what the server says then is only an echo of it
            raise
    return int(cursor.rowcount)


class _Refusal:
    """Sees that the server has refused the data, while there is still some to send.

    The driver reads the server's answer when all is sent. It is there long before, as a message
    that begins with an E; of an encrypted connection the beginning cannot be seen.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def __enter__(self) -> _Refusal:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def is_there(self) -> bool:
        """Look at the first byte that the server has sent, without taking it."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"E"
        except OSError:  # nothing is there, or the connection is gone, which the driver will tell
            return False


class _CopyAbandoned(Exception):
    """Ends a COPY from this side. It has no text: the driver sends that to the server's log."""


class _EncodedStream(io.RawIOBase):
    """The binary COPY stream of some batches, made ahead by a thread.

    ``read`` never returns empty bytes before the end: to COPY that would be the end of the data.
    """

    def __init__(
        self,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        on_first: Callable[[], None],
        is_refused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(QUEUED_CHUNKS)
        self._encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
        self._batches = batches
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._left: bytes | memoryview = b""
        self._ended = False
        self._on_first: Callable[[], None] | None = on_first
        self._is_refused = is_refused
        self._thread = threading.Thread(target=self._produce, name="copy-encoder", daemon=True)

    def __enter__(self) -> _EncodedStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def raise_own_error(self) -> None:
        """Raise what ended the stream on this side, if anything did."""
        if isinstance(self._error, Exception):
            raise self._error from None
        if self._error is not None:  # a panic of the encoder is no Exception
            raise ContractBroken(f"the encoder failed: {type(self._error).__name__}") from None

    def _produce(self) -> None:
        try:
            self._put(self._encoder.write_header())
            for batch in self._batches:
                if self._stopped.is_set():
                    return
                self._put(self._encoder.write_batch(batch))
            self._put(self._encoder.finish())
        except BaseException as error:
            self._error = error
        finally:
            self._put_until_stopped(_END)

    def _put(self, chunk: bytes) -> None:
        if chunk:
            self._put_until_stopped(chunk)

    def _put_until_stopped(self, chunk: bytes) -> None:
        while not self._stopped.is_set():
            try:
                self._chunks.put(chunk, timeout=PUT_SECONDS)
            except queue.Full:
                continue
            return

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; empty only at the end."""
        if not self._left and not self._ended:
            self._next_chunk()
        left, self._left = self._left, b""
        if 0 <= size < len(left):
            whole = memoryview(left)
            left, self._left = whole[:size], whole[size:]
        return bytes(left)  # no copy of a chunk that is taken whole

    def _next_chunk(self) -> None:
        chunk = self._chunks.get()
        self._ended = chunk == _END
        if self._ended and self._error is not None:
            raise _CopyAbandoned  # ends the COPY with an error, so that the server keeps nothing
        if self._is_refused():
            raise _CopyAbandoned  # there is no use in sending the rest
        self._left = chunk
        if self._on_first is not None:
            on_first, self._on_first = self._on_first, None
            try:
                on_first()
            except BaseException as error:
                self._error = error
                raise _CopyAbandoned from None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """What is read of a file at a time: reading it whole would buffer all of it."""

    path: Path
    number: int


def row_groups(paths: Sequence[Path]) -> list[RowGroup]:
    """Return the row groups of clean files, in their order."""
    return [
        RowGroup(path, number)
        for path in paths
        for number in range(pq.read_metadata(path).num_row_groups)
    ]


def clean_batches(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read clean files in pieces of bounded size, in a schema of ``staged_schema``."""
    for group in row_groups(paths):
        yield from batches_of(group, schema)


def batches_of(group: RowGroup, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read one row group in pieces of bounded size, in a schema of ``staged_schema``."""
    with pq.ParquetFile(group.path) as file:
        names = [name for name in schema.names if name in file.schema_arrow.names]
        rows = _rows_of_a_batch(file.metadata.row_group(group.number))
        for batch in file.iter_batches(rows, row_groups=[group.number], columns=names):
            yield from _pieces(encodable(batch, schema))


def _rows_of_a_batch(group: pq.RowGroupMetaData) -> int:
    """Return how many rows of a row group are read at once, from its size before compression."""
    row_bytes = group.total_byte_size / group.num_rows if group.num_rows else 0
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(row_bytes, 1))))


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch that is larger than the file's metadata let expect: its texts repeat."""
    pieces = max(1, -(-batch.nbytes // BATCH_BYTES))
    rows = max(1, -(-batch.num_rows // pieces))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
