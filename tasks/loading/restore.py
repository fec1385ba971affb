"""Makes rows of a table as the lake says, in one transaction; no other row is rewritten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.canonical import duckdb_row
from tasks.loading.commit import wait_for_turn
from tasks.loading.content import table_values
from tasks.loading.encoding import encodable, staged_schema
from tasks.loading.expected import Expected, LoadFiles
from tasks.loading.listed import listed
from tasks.loading.queries import query
from tasks.loading.schema import LOAD_ID, TargetColumn, existing_columns, staged_value, target
from tasks.loading.staging import BATCH_ROWS, STAGING, copy_into_staging, create_staging
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, LoadConflict

KEYS = "etl_keys"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done to a table.

    Attributes:
        deleted: Rows that were taken out.
        inserted: Rows that were put in, in their place or anew.
    """

    deleted: int = 0
    inserted: int = 0


def take_over(cursor: Cursor, spec: DatasetSpec, by: str, loads: Sequence[int]) -> None:
    """Keep everybody else from changing the table until the transaction ends.

    Loads that are under way wait, and then find that the fence was raised. Others who write into the
    table wait too.

    Args:
        cursor: In the transaction.
        spec: The dataset.
        by: Name for those who ask who did it.
        loads: The ledger that all that follows is based on.

    Raises:
        LoadConflict: A load was committed meanwhile.
    """
    cursor.execute(
        "SELECT set_config('application_name', %s, true)", (f"etl/{spec.name}/{by}"[:63],)
    )
    wait_for_turn(cursor, spec.load.table)
    cursor.execute(query("raise_fences"), {"dataset": spec.name, "run": by})
    cursor.execute(query("ledger_rows"), {"dataset": spec.name})
    if [row[0] for row in cursor.fetchall()] != list(loads):
        raise LoadConflict(
            f"{spec.name}: a load was committed meanwhile", "nothing was changed; try again"
        )
    for table in (spec, *child_tables(spec).values()):
        if existing_columns(cursor, table):
            cursor.execute(
                sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(target(table))
            )


def restore_rows(
    cursor: Cursor, spec: DatasetSpec, expected: Expected, loads: Sequence[LoadFiles]
) -> Restored:
    """Make the rows in the session's table ``differences`` as they must be.

    Args:
        cursor: In a transaction that owns the table.
        spec: The dataset; its table has a key.
        expected: What the table must hold.
        loads: All loads whose files are there.

    Raises:
        ContractBroken: The lake cannot give a row.
    """
    _send_keys(cursor, expected, "SELECT DISTINCT k FROM differences WHERE found_load IS NOT NULL")
    values = table_values([column.name for column in expected.layout.key])
    cursor.execute(
        sql.SQL("DELETE FROM {} t WHERE {}::uuid IN (SELECT k FROM {})").format(
            target(spec), expected.layout.key_hash(values), sql.Identifier("pg_temp", KEYS)
        )
    )
    deleted = cursor.rowcount
    inserted = 0
    wanted = dict(
        expected.connection.execute(
            "SELECT expected_load, count(DISTINCT k) FROM differences "
            "WHERE expected_load IS NOT NULL GROUP BY ALL"
        ).fetchall()
    )
    for load in loads:
        if load.load_id in wanted:
            rows = _insert(cursor, spec, expected, load, wanted_only=True)
            if rows != wanted[load.load_id]:
                raise ContractBroken(
                    f"{spec.name}: {wanted[load.load_id]} rows of load {load.load_id} are to be "
                    f"restored, the lake gave {rows}",
                    "nothing was changed; dpp reconcile says what the lake lacks",
                )
            inserted += rows
    return Restored(deleted, inserted)


def replace_loads(
    cursor: Cursor,
    spec: DatasetSpec,
    expected: Expected,
    loads: Sequence[LoadFiles],
    different: Sequence[int],
) -> Restored:
    """Load the rows of some loads again; for tables without a key, in which rows are not told apart."""
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(target(spec), sql.Identifier(LOAD_ID)),
        (list(different),),
    )
    deleted = cursor.rowcount
    inserted = sum(
        _insert(cursor, spec, expected, load, wanted_only=False)
        for load in loads
        if load.load_id in different
    )
    return Restored(deleted, inserted)


def send_affected(cursor: Cursor, expected: Expected, select: str) -> sql.Identifier:
    """Make hashes of keys known to the server; return the temporary table that has them."""
    _send_keys(cursor, expected, select)
    return sql.Identifier("pg_temp", KEYS)


def _send_keys(cursor: Cursor, expected: Expected, select: str) -> None:
    path = expected.scratch / "keys.csv"
    expected.connection.execute(f"COPY ({select}) TO '{path}' (FORMAT csv, HEADER false)")
    table = sql.Identifier("pg_temp", KEYS)
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} (k uuid) ON COMMIT DROP").format(sql.Identifier(KEYS))
    )
    with path.open("rb") as file:
        copy = sql.SQL("COPY {} FROM STDIN WITH (FORMAT csv)").format(table)
        cursor.copy_expert(copy.as_string(cursor), file)
    cursor.execute(sql.SQL("ANALYZE {}").format(table))


def _insert(
    cursor: Cursor, spec: DatasetSpec, expected: Expected, load: LoadFiles, *, wanted_only: bool
) -> int:
    """Put rows of a load into the table, by the casts of a load; return how many."""
    rows = 0
    for file in load.files:
        path = expected.lake.local_path(file.key, expected.scratch)
        picked = _picked(expected, path, load.load_id) if wanted_only else None
        if picked is not None and not len(picked):
            continue
        schema = staged_schema(pq.read_schema(path))
        cursor.execute(
            sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("pg_temp", STAGING))
        )
        create_staging(cursor, schema)
        copy_into_staging(cursor, schema, _batches(path, schema, picked), lambda: None)
        there = existing_columns(cursor, spec)
        columns = [TargetColumn(name, there[name].type) for name in schema.names if name in there]
        cursor.execute(
            sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, {} FROM {}").format(
                target(spec),
                listed([column.name for column in columns]),
                sql.Identifier(LOAD_ID),
                sql.SQL(", ").join(staged_value(column) for column in columns),
                sql.Literal(load.load_id),
                sql.Identifier("pg_temp", STAGING),
            )
        )
        rows += cursor.rowcount
    return rows


def _picked(expected: Expected, path: Path, load_id: int) -> np.ndarray:
    """Return the numbers of the file's rows that are to be restored."""
    held = expected.types_of(path)
    key = expected.layout.key
    text = duckdb_row(key, [held.get(column.name) for column in key])
    if text is None:
        raise ContractBroken(
            f"rows cannot be restored by a key of {', '.join(column.type for column in key)}",
            "nothing was changed; load the dataset again into an empty table",
        )
    found = expected.connection.execute(
        f"SELECT file_row_number FROM read_parquet(?, file_row_number = true) WHERE md5({text})::UUID "
        "IN (SELECT k FROM differences WHERE expected_load = ?) ORDER BY 1",
        [str(path), load_id],
    ).fetchnumpy()
    return np.asarray(found["file_row_number"])


def _batches(path: Path, schema: pa.Schema, picked: np.ndarray | None) -> Iterator[pa.RecordBatch]:
    """Read rows of a file in the types in which it was written; all of them if none are picked."""
    first = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=schema.names):
            last = first + batch.num_rows
            if picked is not None:
                inside = picked[(picked >= first) & (picked < last)] - first
                batch = batch.take(pa.array(inside, pa.int64()))  # noqa: PLW2901
            if batch.num_rows:
                yield encodable(batch, schema)
            first = last
