"""The ledger: what was loaded, and who may load; it says whether a partition is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg2.errors
import psycopg2.extras
import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.loading.queries import ledger_schema, query
from tasks.loading.staging import STAGING
from tasks.model.classify import classify, raised_in
from tasks.model.errors import LoadConflict, PipelineError
from tasks.model.run import (
    LoadReceipt,
    LoadStatus,
    Manifest,
    Partition,
    Purpose,
    RowCounts,
    SourceState,
    Value,
)

LEDGER_LOCK = 0x6574_6C5F_6C65_6467  # "etl_ledg"
ITEMS_AT_ONCE = 1000
LEDGER_COMMENT = "The ledger of data-processing-pipeline, version"

log = structlog.get_logger("dpp.loading")


@contextmanager
def session(engine: Engine, *, read_only: bool = False) -> Iterator[Connection]:
    """Borrow a connection for one transaction: committed at the end, rolled back on an error.

    Raises:
        PipelineError: What any database error means, without a value of a row in its text.
    """
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        raise classify(error) from None
    raw: Connection = pooled.dbapi_connection  # type: ignore[assignment]
    try:
        if read_only:
            raw.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield raw
        raw.commit()
    except Exception as error:
        if not isinstance(error, PipelineError):
            log.debug("warehouse.failed", error=type(error).__name__, raised_in=raised_in(error))
        raise classify(error) from None  # one of ours stays what it is
    finally:
        if not _returned_clean(raw, read_only=read_only):
            pooled.invalidate()
        pooled.close()


def _returned_clean(raw: Connection, *, read_only: bool) -> bool:
    """End what is left of a transaction; tell whether the connection can be used again."""
    try:
        raw.rollback()
        if read_only:
            raw.set_session(isolation_level="DEFAULT", readonly=False)
    except psycopg2.Error:
        return False  # the connection is gone, and the transaction with it
    return not raw.closed


def ensure_ledger(engine: Engine) -> None:
    """Create the schema ``etl`` and its tables, unless they are there.

    A role that may not create anything can load once an administrator has called this.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        if _is_current(cursor):
            return
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
        # Reading the catalog makes the session take notice of what was committed while it waited;
        # from its cache alone, CREATE … IF NOT EXISTS would create again, and fail.
        cursor.execute(query("schema_exists"), {"schema": "etl"})
        # Whoever was before us has made it; to alter it again would wait for every load under way.
        if _is_current(cursor):
            return
        cursor.execute(ledger_schema())
        cursor.execute(ledger_comment())


def ledger_comment() -> str:
    """Return the DDL of the comment that tells the version of the ledger."""
    return f"COMMENT ON SCHEMA etl IS '{LEDGER_COMMENT} {_ledger_version()}'"


def ledger_is_current(engine: Engine) -> bool:
    """Tell whether the ledger is there, and has all that this version of the product needs."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        return _is_current(cursor)


def _is_current(cursor: Cursor) -> bool:
    cursor.execute(query("ledger_version"))
    return str(_one(cursor)[0]).endswith(_ledger_version())


def _ledger_version() -> str:
    return hashlib.sha256(ledger_schema().encode()).hexdigest()[:12]


def ledger_exists(engine: Engine) -> bool:
    """Tell whether anything was ever loaded into this warehouse."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('etl.loads') IS NOT NULL")
        return bool(_one(cursor)[0])


def open_dataset(engine: Engine, dataset: str, run: str, purpose: Purpose = "run") -> int:
    """Make a run the owner of a dataset; return the fence under which it may publish.

    A backfill and a live run own it side by side, and so do any number of runs for single objects;
    the lock of the table orders what they publish.
    """
    how = "join_dataset" if purpose == "objects" else "open_dataset"
    with session(engine) as connection, connection.cursor() as cursor:
        refuse_while_rebuilt(cursor, dataset)
        cursor.execute(query(how), {"dataset": dataset, "run": run, "purpose": purpose})
        return int(_one(cursor)[0])


def refuse_while_rebuilt(cursor: Cursor, dataset: str) -> None:
    """Refuse to work on a dataset that is being made again from the lake.

    Raises:
        LoadConflict: It is.
    """
    cursor.execute(query("rebuild_of"), {"dataset": dataset})
    if row := cursor.fetchone():
        raise LoadConflict(
            f"{dataset}: its tables are being made again from the lake, by {row[0]} since "
            f"{row[1]:%Y-%m-%d %H:%M}",
            f"wait for it; if it was interrupted: dpp rebuild {dataset}",
        )


def source_state(engine: Engine, dataset: str) -> SourceState:
    """Return what the ledger knows of a dataset's source."""
    key = {"dataset": dataset}
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("committed_items"), key)
        found = [(str(uri), str(version), str(part)) for uri, version, part in cursor]
        cursor.execute(query("committed_fingerprints"), key)
        fingerprints = frozenset(str(row[0]) for row in cursor)
        cursor.execute(query("latest_state"), key)
        latest = cursor.fetchone()
        last = last_load(cursor, dataset) or None
    return SourceState(
        items=frozenset((uri, version) for uri, version, part in found if not part),
        parts=frozenset(item for item in found if item[2]),
        fingerprints=fingerprints,
        latest=latest[0] if latest else {},
        last_load=last,
    )


def last_load(cursor: Cursor, dataset: str) -> int:
    """Return the id of a dataset's last load, 0 if there was none."""
    cursor.execute(query("last_load"), {"dataset": dataset})
    return int(_one(cursor)[0] or 0)


def find_load(cursor: Cursor, partition: Partition) -> LoadReceipt | None:
    """Return the receipt of a partition that is in the ledger, None if it is not."""
    cursor.execute(
        query("find_load"),
        {"dataset": partition.dataset, "fingerprint": partition.fingerprint},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    return LoadReceipt(
        dataset=partition.dataset,
        fingerprint=partition.fingerprint,
        load_id=row[0],
        status=LoadStatus.ALREADY_LOADED,
        counts=RowCounts(
            read=row[1],
            inserted=row[2],
            updated=row[3],
            unchanged=row[4],
            deduplicated=row[5],
            quarantined=row[6],
            deleted=row[7],
            restored=row[8],
        ),
        seconds=row[9],
    )


def next_load_id(cursor: Cursor) -> int:
    """Reserve the id of a load."""
    cursor.execute(query("next_load_id"))
    return int(_one(cursor)[0])


def insert_quarantine(cursor: Cursor, load_id: int, manifest: Manifest) -> None:
    """Write the refused rows of a partition, by reason."""
    if manifest.reasons:
        psycopg2.extras.execute_values(
            cursor,
            query("insert_quarantine"),
            [
                (
                    load_id,
                    reason.stage,
                    reason.rule,
                    reason.column,
                    reason.rows,
                    reason.message,
                    reason.source_uri,
                    reason.source_row,
                )
                for reason in manifest.reasons
            ],
        )


def insert_load(cursor: Cursor, row: dict[str, Any], partition: Partition) -> None:
    """Write the ledger row of a load, and the objects it stands for.

    Raises:
        LoadConflict: One of the objects was loaded with another partition.
    """
    state = psycopg2.extras.Json(partition.state)
    marks = {
        "source_state": state,
        "staged": _staged_rows(cursor),
        "deletes_up_to": partition.deletes_up_to,
        "slice": psycopg2.extras.Json(partition.slice),
        "refresh": partition.refresh,
    }
    cursor.execute(query("insert_load"), {**row, **marks})
    items = [
        (partition.dataset, item.uri, item.version, str(item.part or ""), row["load_id"])
        for item in partition.items
    ]
    if not items:
        return
    try:
        statement = "replace_source_items" if partition.refresh else "insert_source_items"
        psycopg2.extras.execute_values(cursor, query(statement), items, page_size=ITEMS_AT_ONCE)
    except psycopg2.errors.UniqueViolation:
        raise LoadConflict(
            f"{partition.dataset}: an object of {partition.label} was loaded with another partition",
            "nothing was published; run again, so that it is planned anew",
        ) from None


def _staged_rows(cursor: Cursor) -> int | None:
    """Count the rows that this transaction has staged, so that it can be checked again later.

    None if it has staged none: it had no rows, or they were staged before.
    """
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (f"pg_temp.{STAGING}",))
    if not _one(cursor)[0]:
        return None
    staging = sql.Identifier("pg_temp", STAGING)
    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(staging))
    return int(_one(cursor)[0])


class LoadSizes(Value):
    """How large the loads of a dataset were so far."""

    loads: int
    rows: int
    rows_of_bytes: int
    """Rows of the loads whose bytes are known."""
    bytes: int

    def expected_rows(self, partition: Partition) -> int | None:
        """Estimate the rows of a partition; None if nothing like it was ever loaded."""
        if partition.bytes and self.bytes:
            return round(self.rows_of_bytes * partition.bytes / self.bytes)
        return round(self.rows / self.loads) if self.loads else None


def load_sizes(engine: Engine, dataset: str) -> LoadSizes:
    """Return how large the loads of a dataset were."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("load_sizes"), {"dataset": dataset})
        names = list(LoadSizes.model_fields)
        return LoadSizes(**dict(zip(names, _one(cursor), strict=True)))


class DatasetStatus(Value):
    """What one dataset holds according to the ledger."""

    dataset: str
    target: str
    loads: int
    counts: RowCounts
    loaded_at: datetime
    run: str
    configurations: int
    """Number of different dataset files that its loads were made with."""
    config_hash: str
    """The one of the last load."""


def status(engine: Engine) -> list[DatasetStatus]:
    """Return what each dataset holds."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("status"))
        return [
            DatasetStatus(
                dataset=row[0],
                target=row[1],
                loads=row[2],
                counts=RowCounts(
                    read=row[3],
                    inserted=row[4],
                    updated=row[5],
                    unchanged=row[6],
                    deduplicated=row[7],
                    quarantined=row[8],
                    deleted=row[9],
                    restored=row[10],
                ),
                loaded_at=row[11],
                run=row[12],
                configurations=row[13],
                config_hash=row[14],
            )
            for row in cursor
        ]


def quarantine_manifests(engine: Engine, dataset: str) -> list[str]:
    """Return the manifests that name the quarantine files of a dataset."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("quarantine_manifests"), {"dataset": dataset})
        return [str(row[0]) for row in cursor]


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None, "the query always gives a row"
    return row
