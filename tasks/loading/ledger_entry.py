"""The entry of one load in the ledger: whether it is there, its id, its row, objects and reasons."""

from __future__ import annotations

from typing import Any

import psycopg2.errors
import psycopg2.extras
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.queries import query
from tasks.loading.session import one_row
from tasks.loading.staging import STAGING
from tasks.model.errors import LoadConflict
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition
from tasks.model.report import LoadReceipt, LoadStatus, RowCounts

ITEMS_AT_ONCE = 1000


def find_load(cursor: Cursor, partition: Partition) -> LoadReceipt | None:
    """Return the receipt of a partition that is in the ledger, None if it is not."""
    cursor.execute(
        query("find_load"),
        {"dataset": partition.dataset, "fingerprint": partition.fingerprint},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    load_id, *counts, seconds = row
    return LoadReceipt(
        dataset=partition.dataset,
        fingerprint=partition.fingerprint,
        load_id=load_id,
        status=LoadStatus.ALREADY_LOADED,
        counts=RowCounts.of(counts),
        seconds=seconds,
    )


def next_load_id(cursor: Cursor) -> int:
    """Reserve the id of a load."""
    cursor.execute(query("next_load_id"))
    return int(one_row(cursor)[0])


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
    if not one_row(cursor)[0]:
        return None
    staging = sql.Identifier("pg_temp", STAGING)
    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(staging))
    return int(one_row(cursor)[0])
