"""What gates refused: kept in the warehouse, in a transaction of its own."""

from __future__ import annotations

from datetime import datetime

import psycopg2.extras
import structlog
from sqlalchemy import Engine

from tasks.loading.job import Load
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.errors import GateFailed, PipelineError
from tasks.model.gates import FailedGate
from tasks.model.value import Value

log = structlog.get_logger("dpp.loading")


def record_gate_failure(engine: Engine, load: Load, error: GateFailed) -> None:
    """Keep what gates found, some of the rows, and where all of them are.

    That it cannot be kept is logged, and hides nothing of the failure itself.
    """
    common = {
        "dataset": load.spec.name,
        "fingerprint": load.partition.fingerprint,
        "label": load.partition.label,
        "run": load.run,
        "target": load.spec.load.table,
        "rows": load.manifest.rows,
        "manifest_key": load.manifest_key,
        "files": psycopg2.extras.Json([file.key for file in load.manifest.files]),
        "config_hash": load.spec.config_hash,
    }
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            for failed in error.failed or (FailedGate("load", error.message),):
                cursor.execute(
                    query("record_gate_failure"),
                    {
                        **common,
                        "gate": failed.gate,
                        "found": failed.found,
                        "evidence": psycopg2.extras.Json(list(failed.evidence)),
                    },
                )
    except PipelineError as why:
        log.warning("loading.gate_failure_not_kept", error=str(why))


class OpenGateFailure(Value):
    """The last partition of a dataset that a gate refused, and that was not loaded since."""

    dataset: str
    target: str
    label: str
    gate: str
    found: str
    run: str
    failed_at: datetime
    manifest_key: str
    open: int
    """Failed gates of all such partitions."""


def open_gate_failures(engine: Engine) -> dict[str, OpenGateFailure]:
    """Return what waits at a gate, by dataset; nothing from a ledger that is older than gates."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('etl.gate_failures') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return {}
        cursor.execute(query("open_gate_failures"))
        names = list(OpenGateFailure.model_fields)
        return {
            row[0]: OpenGateFailure(**dict(zip(names, row, strict=True)))
            for row in cursor.fetchall()
        }
