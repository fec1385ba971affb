"""The events of the begin and the end of a dataset's run."""

from __future__ import annotations

from tasks.model.report import DatasetReport, Outcome
from tasks.model.request import Purpose
from tasks.reporting.events import (
    Event,
    RunCompleted,
    RunFailed,
    RunStarted,
    emit,
    never_raises,
    shortened,
)


@never_raises
def tell_of_begin(environment: str, dataset: str, run: str, purpose: Purpose) -> None:
    """Tell Prefect that a run of a dataset begins."""
    emit(RunStarted(environment=environment, dataset=dataset, run=run, purpose=purpose))


@never_raises
def tell_of_end(environment: str, report: DatasetReport, run: str, purpose: Purpose) -> None:
    """Tell Prefect what a run of a dataset did."""
    emit(_ended(environment, report, run, purpose))


def _ended(environment: str, report: DatasetReport, run: str, purpose: Purpose) -> Event:
    same = ("dataset", "partitions", "partitions_loaded", "partitions_already_loaded", "seconds")
    values = {name: getattr(report, name) for name in same}
    values |= {"environment": environment, "run": run, "purpose": purpose, "counts": report.counts}
    if report.outcome is not Outcome.FAILED:
        return RunCompleted.model_validate(values)
    first = report.failures[0]
    return RunFailed.model_validate(
        {
            **values,
            "failures": report.partitions_failed,
            "stage": first.stage,
            "error": first.error,
            "kind": first.kind,
            "message": shortened(first.message),
        }
    )
