"""One shard of a run that is split: some of its partitions, in a process of its own."""

from __future__ import annotations

import time

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.outcome import failed
from flows.partition import DatasetRun, run_partition, stopped
from tasks.catalog import Catalog
from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.model.account import Account
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.report import DatasetReport
from tasks.reporting.logs import ensure_logs
from tasks.reporting.report import ProgressArtifact
from tasks.sharding.shard import report_shard, take_work
from tasks.stages import sweep_scratch
from tasks.stopping import in_threads, stop_asked, stoppable


class ShardParameters(BaseModel):
    """Which shard. A run of the dataset starts it; nobody needs to do it by hand."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(description="Name of the dataset, as in its file.")
    work: str = Field(description="Key of its work in the lake.")


@flow(name="shard", persist_result=False)  # its run names it
def shard(parameters: ShardParameters) -> State[DatasetReport]:
    """Load some of the partitions of a dataset's run, which started this and reports for it.

    Running it again is always safe: partitions that are in the ledger are not touched, and a run that
    a newer one took the dataset over from publishes nothing.
    """
    ensure_logs()
    forget_blocks()
    environment = load_environment()
    catalog = environment_catalog(environment)
    spec = catalog[parameters.dataset]
    report = stoppable(
        lambda: run_shard(environment, catalog, spec, parameters.work), environment.stop_seconds
    )
    report_shard(environment, parameters.work, str(flow_run.get_id()), report)
    text = f"{report.partitions_loaded} of {report.partitions} partitions"
    if report.failures:
        first = report.failures[0]
        text = f"{report.partitions_failed} failed, first {first.label}: {first.message}; {text}"
        return failed(text, report)
    return Completed(message=text, data=report)


def run_shard(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, key: str
) -> DatasetReport:
    """Load the partitions of a shard; those that its run has loaded before count as loaded by it."""
    started = time.monotonic()
    sweep_scratch(environment)
    work, loaded_before = take_work(environment, spec, key)
    run = DatasetRun(
        environment=environment,
        spec=spec,
        lookups=catalog.lookups_of(spec),
        snapshots=work.snapshots,
        run=work.run,
        fence=work.fence,
        purpose=work.purpose,
    )
    account = Account()
    for receipt in loaded_before:
        account.add(receipt)
    known = {receipt.fingerprint for receipt in loaded_before}
    left = [partition for partition in work.partitions if partition.fingerprint not in known]
    artifact = ProgressArtifact(f"{spec.name}-shard", len(work.partitions), len(known))
    for result in in_threads(lambda partition: run_partition(run, partition), left, work.most):
        account.add(result)
        artifact.advance()
    if stop_asked():
        account.add(stopped(spec, len(work.partitions), account))
    seconds = time.monotonic() - started
    return account.report(spec.name, spec.load.table, len(work.partitions), None, seconds)
