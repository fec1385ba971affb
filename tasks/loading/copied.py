"""What the lake's copy of a ledger says, and how it is written into a ledger again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from blocks.lake import Lake
from tasks.loading.checks import LedgerRow
from tasks.loading.copies import AUDIT, folder_of
from tasks.loading.listed import listed
from tasks.loading.queries import query


@dataclass(frozen=True, slots=True)
class CopiedRows:
    """One document of the lake: as it is written, and read."""

    text: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, lake: Lake, key: str) -> CopiedRows:
        """Read a document; one that is not there says nothing."""
        text = (lake.get(key) or b"{}").decode()
        return cls(text, json.loads(text))


def ledger_row(row: Mapping[str, Any]) -> LedgerRow:
    """Return a copied row of ``etl.loads``."""
    return LedgerRow(
        load_id=row["load_id"],
        fingerprint=row["fingerprint"],
        label=row["label"],
        target=row["target"],
        read=row["rows_read"],
        inserted=row["rows_inserted"],
        updated=row["rows_updated"],
        unchanged=row["rows_unchanged"],
        deduplicated=row["rows_deduplicated"],
        quarantined=row["rows_quarantined"],
        deleted=row["rows_deleted"],
        restored=row["rows_restored"],
        manifest_key=row["manifest_key"],
        manifest_digest=row["manifest_digest"],
        config_hash=row["config_hash"],
        loaded_at=datetime.fromisoformat(row["loaded_at"]),
        run=row["run"],
        rows_staged=row["rows_staged"],
        deletes_up_to=row["deletes_up_to"],
        source_state=row["source_state"],
        slice=row.get("slice"),
        refresh=row.get("refresh"),
    )


def restore(cursor: Cursor, table: str, copy: CopiedRows) -> None:
    """Write the rows of one table of the ledger, as the copy has them."""
    name = sql.Identifier("etl", table)
    cursor.execute(query("plain_columns"), {"table": f"etl.{table}"})
    names = listed([row[0] for row in cursor.fetchall()])
    cursor.execute(
        sql.SQL(
            "INSERT INTO {name} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM "
            "jsonb_populate_recordset(NULL::{name}, nullif(%s::jsonb -> %s, 'null')) "
            "ON CONFLICT DO NOTHING"
        ).format(name=name, names=names),
        (copy.text, table),
    )


def restore_audit(cursor: Cursor, lake: Lake, identity: str) -> None:
    """Write the audit as it was, with all its lines; unless it was begun anew."""
    cursor.execute(query("audit_is_empty"))
    if cursor.fetchone() != (True,):
        return
    keys = lake.keys(folder_of(AUDIT, identity))
    for key in sorted(keys, key=lambda one: int(one.rpartition("-")[2].removesuffix(".json"))):
        restore(cursor, "audit", CopiedRows.read(lake, key))
    cursor.execute(query("restore_audit_head"))
    cursor.execute(query("advance_ids"), {"loads": 1})
