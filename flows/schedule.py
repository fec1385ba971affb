"""All datasets of a schedule, in the order of their dependencies."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.dataset import DatasetParameters, dataset
from flows.outcome import failed, report_of
from tasks.catalog import Catalog
from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.model.dataset import DatasetSpec
from tasks.model.report import DatasetReport, Outcome, RunReport
from tasks.reporting.logs import ensure_logs
from tasks.reporting.report import publish_report


class ScheduleParameters(BaseModel):
    """Which datasets of the schedule to run."""

    model_config = ConfigDict(extra="forbid")

    only: list[str] = Field(
        default_factory=list, description="Run these datasets of the schedule; all without it."
    )


def run_schedule(schedule: str, parameters: ScheduleParameters) -> State[RunReport]:
    """Run the datasets of a schedule one after the other.

    A dataset that fails does not stop the others; only those that look it up are skipped, because
    they would be loaded with holes. The run then ends failed, and says which.
    """
    ensure_logs()
    forget_blocks()
    environment = load_environment()
    catalog = environment_catalog(environment)
    started, clock = datetime.now(UTC), time.monotonic()
    reports: list[DatasetReport] = []
    for spec in _chosen(catalog, schedule, parameters):
        lacking = {
            report.dataset for report in reports if report.outcome is not Outcome.SUCCEEDED
        } & set(spec.dependencies)
        reports.append(_skipped(spec, lacking) if lacking else _run(spec))
    report = RunReport(
        environment=environment.name,
        run=str(flow_run.get_name() or "local"),
        datasets=tuple(reports),
        started_at=started,
        seconds=time.monotonic() - clock,
    )
    publish_report(report)
    if report.succeeded:
        return Completed(message=_summary(report), data=report)
    return failed(_summary(report), report)


def _chosen(catalog: Catalog, schedule: str, parameters: ScheduleParameters) -> list[DatasetSpec]:
    specs = catalog.scheduled(schedule)
    for name in parameters.only:
        catalog[name]  # an unknown name is an error, never an empty run
    return [spec for spec in specs if not parameters.only or spec.name in parameters.only]


def _run(spec: DatasetSpec) -> DatasetReport:
    state = dataset(DatasetParameters(dataset=spec.name), return_state=True)
    return report_of(state, DatasetReport)


def _skipped(spec: DatasetSpec, lacking: set[str]) -> DatasetReport:
    return DatasetReport(
        dataset=spec.name,
        table=spec.load.table,
        outcome=Outcome.SKIPPED,
        skipped_because=f"it looks up {', '.join(sorted(lacking))}, which failed",
    )


def _summary(report: RunReport) -> str:
    parts = []
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SKIPPED):
        names = [entry.dataset for entry in report.datasets if entry.outcome is outcome]
        if names:
            parts.append(f"{outcome}: {', '.join(names)}")
    return "; ".join(parts) or "no dataset has this schedule"
