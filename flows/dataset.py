"""One dataset: plan its partitions, take each through the stages, and account for every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.dask_cluster import run_on_dask
from flows.fan_out import Fan
from flows.outcome import failed
from flows.partition import (
    DatasetRun,
    Prepared,
    load_together,
    prepare_partition,
    run_partition,
    stopped,
)
from tasks.catalog import Catalog
from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.ingestion.ingest import plan
from tasks.loading.load import build_index, close_run, count_rows, open_run
from tasks.lookups.look_up import snapshot_lookups
from tasks.model.account import Account
from tasks.model.classify import classify, is_of_database, raised_in
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.load import ReplaceLoad
from tasks.model.partition import Partition
from tasks.model.replay import ReplayRequest
from tasks.model.report import DatasetReport, LoadReceipt, Outcome, PartitionFailure, RunReport
from tasks.model.request import RunRequest
from tasks.model.shard import ShardWork, parallel, shard_above
from tasks.replay.replay import plan_refused
from tasks.reporting import progress
from tasks.reporting.logs import ensure_logs
from tasks.reporting.report import ProgressArtifact, publish_report
from tasks.reporting.run_events import tell_of_begin, tell_of_end
from tasks.sharding.shard import find_fan_out, split
from tasks.stages import as_is, run_name, sweep_scratch
from tasks.stopping import in_threads, stop_asked, stoppable

Result = TypeVar("Result")

log = structlog.get_logger("dpp.flows")


class DatasetParameters(BaseModel):
    """Which dataset to run."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(description="Name of the dataset, as in its file.")
    objects: list[str] = Field(
        default_factory=list,
        description="Only these objects or files of the source, e.g. those that have just landed; all "
        "that is new, if none is named.",
    )
    refresh: bool = Field(False, description="Load again what was loaded before.")


def _name_run() -> str:
    given = flow_run.get_parameters()["parameters"]
    return run_name(DatasetParameters.model_validate(given).dataset)


@flow(name="dataset", flow_run_name=_name_run, persist_result=False)
def dataset(parameters: DatasetParameters) -> State[DatasetReport]:
    """Load what is new in one dataset's source into its table.

    Running it again is always safe: partitions that are in the ledger are not touched.
    """
    return run_and_report(
        parameters.dataset,
        RunRequest(objects=tuple(parameters.objects), refresh=parameters.refresh),
    )


def run_and_report(name: str, request: RunRequest) -> State[DatasetReport]:
    """Run one dataset as a flow run does, and tell how it went."""
    ensure_logs()
    forget_blocks()
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
        return failed(_summary(report), report)
    return Completed(message=_summary(report), data=report)


def run_dataset(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, request: RunRequest
) -> DatasetReport:
    """Run one dataset and return its report; a failure is part of the report."""
    tell_of_begin(environment.name, spec.name, _run_name(), request.purpose)
    report = _run_dataset(environment, catalog, spec, request)
    if not stop_asked():  # else it has not ended: the run goes on elsewhere
        tell_of_end(environment.name, report, _run_name(), request.purpose)
    return report


def _run_dataset(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, request: RunRequest
) -> DatasetReport:
    started = time.monotonic()
    sweep_scratch(environment)
    account = Account()
    partitions = 0
    table_rows: int | None = None
    try:
        partitions = _load(environment, catalog, spec, request, account)
        if not stop_asked():
            close_run(environment)
            table_rows = count_rows(environment, spec)
            if (spec.load.index or spec.load.indexes) and table_rows is not None:
                build_index(environment, spec)
    except Exception as error:  # becomes the dataset's failure, for the report and the exit code
        account.add(_dataset_failure(spec, error))
    if stop_asked():
        account.add(stopped(spec, partitions, account))
    seconds = time.monotonic() - started
    return account.report(spec.name, spec.load.table, partitions, table_rows, seconds)


def _load(
    environment: Environment,
    catalog: Catalog,
    spec: DatasetSpec,
    request: RunRequest,
    account: Account,
) -> int:
    """Plan what is asked for and load it; return the number of partitions."""
    most = shard_above(environment, spec, request)
    fan_out = find_fan_out(environment, spec, request, _run_id()) if most else None
    if fan_out is None:
        fence, state = open_run(environment, spec, _run_name(), request.purpose)
        partitions = (
            plan_refused(environment, spec, request)
            if isinstance(request, ReplayRequest)
            else plan(environment, spec, state, request, _run_id())
        )
        progress.planned(spec.name, len(partitions))
        if not partitions:
            return 0
        lookups = catalog.lookups_of(spec)
        run = DatasetRun(
            environment=environment,
            spec=spec,
            lookups=lookups,
            snapshots=snapshot_lookups(environment, spec, lookups, _run_name()),
            run=_run_name(),
            fence=fence,
            purpose=request.purpose,
        )
        if most is None or len(partitions) <= most:
            _work_on(run, partitions, request, account)
            return len(partitions)
        whole = _whole(run, request)
        fan_out = split(environment, spec, whole, as_is(partitions), most, _run_id())
        del partitions  # what is kept of them is in the lake
    shards, _ = parallel(environment, request)
    if environment.task_runner == "dask":
        run_on_dask(environment, spec.name, fan_out, shards, account)
    else:
        Fan(environment, spec.name, _run_id(), fan_out, shards, account).run()
    return fan_out.partitions


def _whole(run: DatasetRun, request: RunRequest) -> ShardWork:
    """Return what the shards of a run have in common."""
    _, partitions_at_a_time = parallel(run.environment, request)
    return ShardWork(
        dataset=run.spec.name,
        run=run.run,
        fence=run.fence,
        purpose=run.purpose,
        config_hash=run.spec.config_hash,
        most=partitions_at_a_time,
        snapshots=run.snapshots,
        partitions=(),
    )


def _work_on(
    run: DatasetRun, partitions: list[Partition], request: RunRequest, account: Account
) -> None:
    """Load the partitions in this process."""
    most = request.max_parallel or run.environment.concurrency
    if not (isinstance(run.spec.load, ReplaceLoad) and request.purpose != "replay"):
        # One that fails does not stop the others.
        for result in _in_threads(run, run_partition, partitions, most):
            account.add(result)
        return
    # Publish all of them at once; none, if one of them fails.
    made = list(_in_threads(run, prepare_partition, partitions, most))
    failures = [one for one in made if isinstance(one, PartitionFailure)]
    prepared = {
        one.partition.fingerprint: one for one in made if not isinstance(one, PartitionFailure)
    }
    whole = not (failures or stop_asked())
    in_order = [prepared[partition.fingerprint] for partition in partitions] if whole else []
    for result in load_together(run, in_order) if whole else failures:
        account.add(result)


def _in_threads(
    run: DatasetRun,
    work: Callable[[DatasetRun, Partition], Result],
    partitions: list[Partition],
    most: int,
) -> Iterator[Result]:
    """Do some work on each partition, and tell how far it is; the results are in no order."""
    artifact = ProgressArtifact(run.spec.name, len(partitions))
    for result in in_threads(lambda partition: work(run, partition), partitions, most):
        progress.advanced(run.spec.name, 1, _rows_read(result))
        artifact.advance()
        yield result


def _rows_read(result: object) -> int:
    if isinstance(result, LoadReceipt):
        return result.counts.read
    return result.manifest.rows_read if isinstance(result, Prepared) else 0


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
        text = f"{report.partitions_failed} failed, first {first.label}: {first.message}; {text}"
    return text


def _run_id() -> str:
    return str(flow_run.get_id() or _run_name())


def _run_name() -> str:
    return str(flow_run.get_name() or "local")
