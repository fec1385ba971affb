"""What a run that goes on finds in the ledger: whose the dataset is, and what was loaded already."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.manifest import QuarantineReason
from tasks.model.report import LoadReceipt, LoadStatus, RowCounts
from tasks.model.request import Purpose


def current_fence(engine: Engine, dataset: str, purpose: Purpose) -> int:
    """Return the fence under which runs of a purpose may publish now; 0 if there was none yet."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("current_fence"), {"dataset": dataset, "purpose": purpose})
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def receipts_of_run(
    engine: Engine, dataset: str, run: str, fingerprints: Sequence[str]
) -> list[LoadReceipt]:
    """Return the receipts of those partitions that a run has loaded.

    Args:
        engine: The warehouse.
        dataset: Name of the dataset.
        run: Name of the run.
        fingerprints: Partitions that are asked about.
    """
    wanted = {"dataset": dataset, "run": run, "fingerprints": list(fingerprints)}
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("reasons_of_run"), wanted)
        reasons: dict[int, list[QuarantineReason]] = {}
        for load_id, stage, rule, column, rows, message, uri, row in cursor:
            reason = QuarantineReason(
                stage=stage,
                rule=rule,
                column=column,
                rows=rows,
                message=message,
                source_uri=uri,
                source_row=row,
            )
            reasons.setdefault(load_id, []).append(reason)
        cursor.execute(query("loads_of_run"), wanted)
        return [
            LoadReceipt(
                dataset=dataset,
                fingerprint=fingerprint,
                load_id=load_id,
                status=LoadStatus.LOADED,
                counts=RowCounts.of(counts),
                reasons=tuple(reasons.get(load_id, ())),
                seconds=seconds,
            )
            for load_id, fingerprint, seconds, *counts in cursor
        ]
