"""A DuckDB session that keeps within its memory, its files and its time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from tasks.model.errors import CapacityExhausted, ContractBroken, StageTimeout
from tasks.transformation.sql import literals

INTERRUPTED_EVERY_SECONDS = 0.1
MEMORY_OF_A_THREAD = 64 << 20
"""With less each, threads would only make each other spill."""
ITEMS_BYTES = 64 << 20
"""What a list of a million items takes while it is taken apart."""
_lock = threading.Lock()
_threads_taken: list[int] = []


@contextmanager
def duckdb_session(
    files: Sequence[str], scratch: Path, memory_bytes: int, deadline_seconds: float | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a session that can read the given files and nothing else, and spills to scratch.

    Args:
        files: The only files that SQL of this session can open.
        scratch: Folder for spilled data.
        memory_bytes: Hard limit of the buffer manager.
        deadline_seconds: After this many seconds a running query is interrupted.

    Raises:
        StageTimeout: The time is up.
        CapacityExhausted: The memory limit cannot be kept, or the disk is full.
        ContractBroken: A query fails on the data.
    """
    with _share_of_cores(memory_bytes // MEMORY_OF_A_THREAD) as threads:
        yield from _session(files, scratch, memory_bytes, deadline_seconds, threads)


@dataclass(frozen=True, slots=True)
class Session:
    """What the sessions of a partition have: a folder, and bounds of memory and time."""

    scratch: Path
    memory_bytes: int
    deadline_seconds: float | None

    @contextmanager
    def open_beside_items(self, files: Sequence[str]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a session that can read these files, and spares what taking lists apart needs."""
        spared = min(ITEMS_BYTES, self.memory_bytes // 3)
        with duckdb_session(
            files, self.scratch, self.memory_bytes - spared, self.deadline_seconds
        ) as connection:
            yield connection


@contextmanager
def _share_of_cores(most: int) -> Iterator[int]:
    """Say how many threads a session gets: the cores that no other session of the process has.

    A partition that is alone takes all of them; of those side by side each has at least one, and
    keeps what it began with.

    Args:
        most: Threads that its memory suffices for.
    """
    with _lock:
        threads = max(1, min(most, (os.cpu_count() or 1) - sum(_threads_taken)))
        _threads_taken.append(threads)
    try:
        yield threads
    finally:
        with _lock:
            _threads_taken.remove(threads)


def _session(
    files: Sequence[str],
    scratch: Path,
    memory_bytes: int,
    deadline_seconds: float | None,
    threads: int,
) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{memory_bytes // 1000}KB",
            "threads": threads,
            "temp_directory": str(scratch / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_paths = [{literals(files)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    try:
        with _interrupted_after(connection, deadline_seconds):
            yield connection
    except duckdb.InterruptException:
        raise StageTimeout(
            f"transformation did not end within {deadline_seconds:.0f} s",
            "raise stage_timeout or lower partition_bytes",
        ) from None
    except duckdb.OutOfMemoryException:
        raise CapacityExhausted(
            f"transformation does not fit into {memory_bytes >> 20} MB",
            "raise memory_budget or lower partition_bytes",
        ) from None
    except duckdb.IOException as error:
        raise CapacityExhausted(f"transformation: {_kind(error)} in {scratch}") from None
    except duckdb.Error as error:
        # The text of a DuckDB error can quote a value of the data; its kind cannot.
        raise ContractBroken(f"transformation failed on the data: {_kind(error)}") from None
    finally:
        connection.close()


@contextmanager
def _interrupted_after(
    connection: duckdb.DuckDBPyConnection, seconds: float | None
) -> Iterator[None]:
    """Interrupt every query that runs after some seconds, until the block is left."""
    if seconds is None:
        yield
        return
    left = threading.Event()

    def interrupt() -> None:
        is_over = left.wait(seconds)
        while not is_over:  # again and again, since between two queries nothing is interrupted
            connection.interrupt()
            is_over = left.wait(INTERRUPTED_EVERY_SECONDS)

    thread = threading.Thread(target=interrupt, name="deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _kind(error: duckdb.Error) -> str:
    return type(error).__name__.removesuffix("Exception")


def stream(
    connection: duckdb.DuckDBPyConnection, sql: str, rows_per_batch: int
) -> Iterator[pa.RecordBatch]:
    """Run a query and yield its result in record batches, never whole.

    One batch is made ahead, in a thread, while the caller works on the one before it. Until the end
    of the result the session is not free for another query.
    """
    reader = connection.sql(sql).to_arrow_reader(rows_per_batch)
    with ThreadPoolExecutor(1, "query") as thread:
        try:
            following = thread.submit(next, reader, None)
            while (batch := following.result()) is not None:
                following = thread.submit(next, reader, None)
                yield batch
        except BaseException:
            connection.interrupt()  # else leaving would wait for a batch that nobody wants
            raise


def column_types(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> dict[str, str]:
    """Return the DuckDB type of each column of some Parquet files read together."""
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_parquet([{literals(files)}], union_by_name = true)"
    ).fetchall()
    return {str(row[0]): str(row[1]) for row in described}
