"""One dataset: plan its partitions, take each through the stages, and account for every row."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import reduce
from typing import TypeVar

import structlog
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from flows.partition import (
    DatasetRun,
    Prepared,
    load_together,
    prepare_partition,
    run_partition,
)
from tasks.datasets import Catalog
from tasks.environments import environment_catalog, load_environment
from tasks.ingestion.ingest import plan
from tasks.loading.load import build_index, count_rows, open_run
from tasks.lookups.look_up import snapshot_lookups
from tasks.model.classify import classify, is_of_database, raised_in
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.load import ReplaceLoad
from tasks.model.replay import ReplayRequest
from tasks.model.run import (
    DatasetReport,
    LoadReceipt,
    LoadStatus,
    Outcome,
    Partition,
    PartitionFailure,
    RowCounts,
    RunReport,
    RunRequest,
)
from tasks.replay.replay import plan_refused
from tasks.reporting import progress
from tasks.reporting.events import Event, RunCompleted, RunFailed, RunStarted, emit, shortened
from tasks.reporting.logs import ensure_logs
from tasks.reporting.report import ProgressArtifact, publish_report
from tasks.stages import run_name, sweep_scratch
from tasks.stopping import in_threads, stop_asked, stoppable

Result = TypeVar("Result")

log = structlog.get_logger("dpp.flows")
log = structlog.get_logger("dpp.flows")


class DatasetParameters(BaseModel):
    """Which dataset to run."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(description="Name of the dataset, as in its file.")
    refresh: bool = Field(False, description="Load again what was loaded before.")


def _name_run() -> str:
    given = flow_run.get_parameters()["parameters"]
    return run_name(DatasetParameters.model_validate(given).dataset)


@flow(name="dataset", flow_run_name=_name_run, persist_result=False)
def dataset(parameters: DatasetParameters) -> State[DatasetReport]:
    """Load what is new in one dataset's source into its table.

    Running it again is always safe: partitions that are in the ledger are not touched.
    """
    return run_and_report(parameters.dataset, RunRequest(refresh=parameters.refresh))


def run_and_report(name: str, request: RunRequest) -> State[DatasetReport]:
    """Run one dataset as a flow run does, and tell how it went."""
    ensure_logs()
    environment = load_environment()
    catalog = environment_catalog(environment)
    started = datetime.now(UTC)
    report = stoppable(
        lambda: run_dataset(environment, catalog, catalog[name], request), environment.stop_seconds
    )
    run_report = RunReport(
        environment=environment.name,
        run=_run_name(),
        datasets=(report,),
        started_at=started,
        seconds=report.seconds,
    )
    if flow_run.get_parent_flow_run_id() is None:  # else the parent reports for all its datasets
        publish_report(run_report)
    if report.outcome is Outcome.FAILED:
        return Failed(message=_summary(report), data=report)
    return Completed(message=_summary(report), data=report)


def run_dataset(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, request: RunRequest
) -> DatasetReport:
    """Run one dataset and return its report; a failure is part of the report."""
    told = {"environment": environment.name, "dataset": spec.name}
    told |= {"run": _run_name(), "purpose": request.purpose}
    emit(RunStarted.model_validate(told))
    report = _run_dataset(environment, catalog, spec, request)
    emit(_ended(told, report))
    return report


def _ended(told: dict[str, str], report: DatasetReport) -> Event:
    """Return the event of the end of a run."""
    same = ("partitions", "partitions_loaded", "partitions_already_loaded", "counts", "seconds")
    values = {**told, **{name: getattr(report, name) for name in same}}
    if report.outcome is not Outcome.FAILED:
        return RunCompleted.model_validate(values)
    first = report.failures[0]
    return RunFailed.model_validate(
        {
            **values,
            "failures": len(report.failures),
            "stage": first.stage,
            "error": first.error,
            "kind": first.kind,
            "message": shortened(first.message),
        }
    )


def _run_dataset(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, request: RunRequest
) -> DatasetReport:
    started = time.monotonic()
    sweep_scratch(environment)
    results: list[LoadReceipt | PartitionFailure] = []
    partitions: list[Partition] = []
    table_rows: int | None = None
    try:
        fence, state = open_run(environment, spec, _run_name(), request.purpose)
        partitions = (
            plan_refused(environment, spec, request)
            if isinstance(request, ReplayRequest)
            else plan(environment, spec, state, request, _run_id())
        )
        progress.planned(spec.name, len(partitions))
        if partitions:
            run = DatasetRun(
                environment=environment,
                spec=spec,
                lookups=catalog.lookups_of(spec),
                snapshots=snapshot_lookups(
                    environment, spec, catalog.lookups_of(spec), _run_name()
                ),
                run=_run_name(),
                fence=fence,
                purpose=request.purpose,
            )
            most = request.max_parallel or environment.concurrency
            together = isinstance(spec.load, ReplaceLoad) and request.purpose != "replay"
            work = _run_together if together else _run_each
            results = work(run, partitions, most)
        if stop_asked():
            return _stopped(_report(spec, partitions, results, None, time.monotonic() - started))
        table_rows = count_rows(environment, spec)
        if (spec.load.index or spec.load.indexes) and table_rows is not None:
            build_index(environment, spec)
    except Exception as error:  # becomes the dataset's failure, for the report and the exit code
        results.append(_dataset_failure(spec, error))
    return _report(spec, partitions, results, table_rows, time.monotonic() - started)


def _run_each(
    run: DatasetRun, partitions: list[Partition], most: int
) -> list[LoadReceipt | PartitionFailure]:
    """Take each partition through all stages; one that fails does not stop the others."""
    return _in_threads(run, run_partition, partitions, most)


def _run_together(
    run: DatasetRun, partitions: list[Partition], most: int
) -> list[LoadReceipt | PartitionFailure]:
    """Prepare every partition, and publish all of them at once; none, if one of them fails."""
    made = _in_threads(run, prepare_partition, partitions, most)
    failures = [one for one in made if isinstance(one, PartitionFailure)]
    if failures or stop_asked():
        return [*failures]
    prepared = {
        one.partition.fingerprint: one for one in made if not isinstance(one, PartitionFailure)
    }
    return load_together(run, [prepared[partition.fingerprint] for partition in partitions])


def _in_threads(
    run: DatasetRun,
    work: Callable[[DatasetRun, Partition], Result],
    partitions: list[Partition],
    most: int,
) -> list[Result]:
    """Do some work on each partition, and tell how far it is; the results are in no order."""
    artifact = ProgressArtifact(run.spec.name, len(partitions))
    results: list[Result] = []
    for result in in_threads(lambda partition: work(run, partition), partitions, most):
        results.append(result)
        progress.advanced(run.spec.name, 1, _rows_read(result))
        artifact.advance()
    return results


def _rows_read(result: object) -> int:
    if isinstance(result, LoadReceipt):
        return result.counts.read
    return result.manifest.rows_read if isinstance(result, Prepared) else 0


def _report(
    spec: DatasetSpec,
    partitions: list[Partition],
    results: list[LoadReceipt | PartitionFailure],
    table_rows: int | None,
    seconds: float,
) -> DatasetReport:
    receipts = [result for result in results if isinstance(result, LoadReceipt)]
    failures = [result for result in results if isinstance(result, PartitionFailure)]
    loaded = [receipt for receipt in receipts if receipt.status is LoadStatus.LOADED]
    return DatasetReport(
        dataset=spec.name,
        table=spec.load.table,
        outcome=Outcome.FAILED if failures else Outcome.SUCCEEDED,
        partitions=len(partitions),
        partitions_loaded=len(loaded),
        partitions_already_loaded=len(receipts) - len(loaded),
        counts=reduce(RowCounts.__add__, (receipt.counts for receipt in loaded), RowCounts()),
        table_rows=table_rows,
        children=_children(loaded),
        reasons=tuple(reason for receipt in loaded for reason in receipt.reasons),
        findings=(
            *(finding for receipt in loaded for finding in receipt.findings),
            *(finding for failure in failures for finding in failure.findings),
        ),
        warnings=tuple(warning for receipt in loaded for warning in receipt.warnings),
        failures=tuple(failures),
        seconds=seconds,
    )


def _stopped(report: DatasetReport) -> DatasetReport:
    """Say how far a run was that is to stop; the flow run's state says that it was."""
    log.warning(
        "run.stopped",
        dataset=report.dataset,
        partitions=report.partitions,
        loaded=report.partitions_loaded,
        remedy="run it again: it goes on with the partitions that are left",
    )
    return report


def _children(loaded: list[LoadReceipt]) -> dict[str, RowCounts]:
    """Add up what the loads did to each child table."""
    counts: dict[str, RowCounts] = {}
    for receipt in loaded:
        for name, of_child in receipt.children.items():
            counts[name] = counts.get(name, RowCounts()) + of_child
    return counts


def _dataset_failure(spec: DatasetSpec, error: Exception) -> PartitionFailure:
    known = classify(error, "warehouse" if is_of_database(error) else spec.name)
    log.debug("dataset.failed", error=str(known), raised_in=raised_in(error))
    return PartitionFailure(
        label=spec.name,
        fingerprint="",
        stage="plan",
        error=type(known).__name__,
        message=str(known),
        kind=known.kind,
        exit_code=known.exit_code,
    )


def _summary(report: DatasetReport) -> str:
    counts = report.counts
    text = (
        f"{report.partitions_loaded} of {report.partitions} partitions, {counts.read} rows read: "
        f"{counts.inserted} inserted, {counts.updated} updated, {counts.unchanged} unchanged, "
        f"{counts.deduplicated} deduplicated, {counts.quarantined} quarantined"
        + (f"; {counts.deleted} deleted" if counts.deleted else "")
    )
    if report.failures:
        first = report.failures[0]
        text = f"{len(report.failures)} failed, first {first.label}: {first.message}; {text}"
    return text


def _run_id() -> str:
    return str(flow_run.get_id() or _run_name())


def _run_name() -> str:
    return str(flow_run.get_name() or "local")
