"""The report of a run, as artifacts in the Prefect UI."""

from __future__ import annotations

import re
import time
from typing import Any

import structlog
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.model.report import DatasetReport, RunReport
from tasks.reporting.anomalies import publish_findings

MAX_REASONS = 50
TELL_SECONDS = 2.0
_NOT_IN_A_KEY = re.compile(r"[^a-z0-9]+")
log = structlog.get_logger("dpp.reporting")


def publish_report(report: RunReport) -> None:
    """Write a run's report as artifacts: a row per dataset, and the reasons of quarantine.

    What is shown are names, counts and rules, never a value of a row. A report that cannot be
    published is logged, and does not fail the run: the rows are in the warehouse by then.
    """
    key = _key(report.run)
    try:
        create_table_artifact(
            key=f"report-{key}",
            table=[_row(entry) for entry in report.datasets],
            description=f"**{report.run}** in {report.environment}, {report.seconds:.1f} s. "
            "Each row that was read is inserted, updated, unchanged, deduplicated or quarantined.",
        )
        reasons = [
            {
                "dataset": entry.dataset,
                "rule": reason.rule,
                "column": reason.column,
                "rows": reason.rows,
                "why": reason.message,
                "first seen at": f"{reason.source_uri} row {reason.source_row}",
            }
            for entry in report.datasets
            for reason in entry.reasons
        ]
        warnings = [
            {
                "dataset": entry.dataset,
                "rule": warning.rule,
                "column": warning.column,
                "rows": warning.rows,
                "why": warning.message,
                "first seen at": f"{warning.source_uri} row {warning.source_row}",
            }
            for entry in report.datasets
            for warning in entry.warnings
        ]
        if warnings:
            create_table_artifact(
                key=f"warnings-{key}",
                table=warnings[:MAX_REASONS],
                description="Rows that broke a rule that only warns. They were loaded.",
            )
        publish_findings(report, key)
        if reasons:
            create_table_artifact(
                key=f"quarantine-{key}",
                table=reasons[:MAX_REASONS],
                description="Rows that broke a rule. They are kept: `dpp quarantine list`.",
            )
    except Exception as error:  # the report is information; correctness never depends on it
        log.warning("report.not_published", error=type(error).__name__)


def publish_quarantine(dataset: str, reasons: list[dict[str, Any]]) -> None:
    """Write the open rows of a dataset's quarantine as an artifact: rules and counts, no values."""
    try:
        create_table_artifact(
            key=f"quarantine-{_key(dataset)}",
            table=reasons[:MAX_REASONS],
            description=f"Rows of **{dataset}** that wait for somebody, by load and rule.",
        )
    except Exception as error:  # information only, as above
        log.warning("report.not_published", error=type(error).__name__)


def _row(entry: DatasetReport) -> dict[str, Any]:
    counts = entry.counts
    return {
        "dataset": entry.dataset,
        "outcome": str(entry.outcome),
        "partitions": f"{entry.partitions_loaded}/{entry.partitions}",
        "read": counts.read,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "deduplicated": counts.deduplicated,
        "quarantined": counts.quarantined,
        "deleted": counts.deleted,
        "balanced": "✓" if counts.balanced else "✗",
        "table rows": entry.table_rows,
        "seconds": round(entry.seconds, 1),
        "rows/s": entry.rows_per_second,
        "problem": entry.skipped_because or (entry.failures[0].message if entry.failures else ""),
    }


def _key(name: str) -> str:
    return _NOT_IN_A_KEY.sub("-", name.lower()).strip("-") or "run"


class ProgressArtifact:
    """A bar in the UI that follows the partitions of one dataset."""

    def __init__(self, dataset: str, partitions: int, done: int = 0) -> None:
        self._total = max(partitions, 1)
        self._done = done
        self._shown = 0
        self._told = 0.0
        self._id: Any = None
        try:
            self._id = create_progress_artifact(
                progress=0.0,
                key=f"progress-{_key(dataset)}",
                description=f"Partitions of {dataset}",
            )
        except Exception as error:  # information only, as above
            log.warning("progress.not_shown", error=type(error).__name__)

    def advance(self) -> None:
        """Count one more partition; the server is told every other second, and at the end."""
        self._done += 1
        percent = 100 * self._done // self._total
        now = time.monotonic()
        soon = now - self._told < TELL_SECONDS and self._done < self._total
        if self._id is None or percent == self._shown or soon:
            return
        self._shown, self._told = percent, now
        try:
            update_progress_artifact(self._id, progress=float(percent))
        except Exception as error:  # information only, as above
            log.warning("progress.not_shown", error=type(error).__name__)
            self._id = None
