"""What is done with refused rows, as Prefect tasks; a replay is planned here, and the stages do it."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.connections import Connections
from tasks.loading.ledger import ensure_ledger
from tasks.loading.resolutions import quarantine_reasons
from tasks.model.child_dataset import quarantined
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.partition import Partition
from tasks.model.replay import ReplayRequest, Selection
from tasks.protection import UNPROTECTED
from tasks.replay.discard import discard_rows, rows_to_discard
from tasks.replay.export import write_export
from tasks.replay.plan import plan_replay
from tasks.replay.select import selected_rows
from tasks.reporting.report import publish_quarantine
from tasks.stages import RETRY

log = structlog.get_logger("dpp.replay")


@task(name="plan_replay", task_run_name="replay {spec.name}", cache_policy=NO_CACHE, **RETRY)
def plan_refused(
    environment: Environment, spec: DatasetSpec, request: ReplayRequest
) -> list[Partition]:
    """Cut the refused rows that are meant into partitions."""
    with Connections(environment) as connections:
        protection = connections.protection(spec)
        engine, lake = connections.warehouse(), connections.lake()
        plan = plan_replay(engine, lake, spec, request, protection)
    log.info(
        "replay.planned",
        dataset=spec.name,
        partitions=len(plan.partitions),
        unreadable=plan.unreadable,
        resolved=plan.resolved,
    )
    return plan.partitions


@task(name="discard", task_run_name="discard {spec.name}", cache_policy=NO_CACHE, **RETRY)
def discard_refused(
    environment: Environment, spec: DatasetSpec, selection: Selection, reason: str, by: str
) -> int:
    """Leave refused rows out for good; return how many."""
    with Connections(environment) as connections:
        engine = connections.warehouse()
        ensure_ledger(engine)
        rows = rows_to_discard(engine, connections.lake(), spec.name, selection)
        discard_rows(engine, rows, reason, by, selection.child)
    return sum(reason_rows.count for _, reasons in rows for reason_rows in reasons)


@task(name="export", task_run_name="export {spec.name}", cache_policy=NO_CACHE, **RETRY)
def export_refused(
    environment: Environment, spec: DatasetSpec, selection: Selection
) -> tuple[int, str]:
    """Write refused rows as a CSV file into the lake; return how many, and its key.

    Protected values stay protected: to reveal them takes a person at a terminal.
    """
    refused = quarantined(spec, selection.child)
    with Connections(environment) as connections, tempfile.TemporaryDirectory() as scratch:
        engine, lake = connections.warehouse(), connections.lake()
        ensure_ledger(engine)
        path = Path(scratch) / "export.csv"
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            count = write_export(
                file,
                refused,
                lambda: selected_rows(engine, lake, spec.name, selection),
                UNPROTECTED,
                reveal=False,
            )
        key = f"exports/{refused.name}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}.csv"
        lake.put_file(path, key)
    return count, key


@task(name="count", task_run_name="count {spec.name}", cache_policy=NO_CACHE, **RETRY)
def count_refused(environment: Environment, spec: DatasetSpec, selection: Selection) -> int:
    """Publish the open rows by load and reason as an artifact; return how many there are."""
    with Connections(environment) as connections:
        engine = connections.warehouse()
        ensure_ledger(engine)
        reasons = [
            reason
            for reason in quarantine_reasons(engine, spec.name, selection.child)
            if reason.open
            and selection.rule in (None, reason.rule)
            and selection.column in (None, reason.column)
            and selection.load_id in (None, reason.load_id)
            and (selection.seen_before is None or reason.first_seen < selection.seen_before)
        ]
    publish_quarantine(
        quarantined(spec, selection.child).name,
        [
            {
                "dataset": reason.dataset,
                "load": reason.load_id,
                "rule": reason.rule,
                "column": reason.column,
                "open": reason.open,
                "replayed": reason.replayed,
                "discarded": reason.discarded,
                "first seen": f"{reason.first_seen:%Y-%m-%d %H:%M}",
                "why": reason.message,
                "first at": f"{reason.source_uri} row {reason.source_row}",
            }
            for reason in reasons
        ],
    )
    return sum(reason.open for reason in reasons)
