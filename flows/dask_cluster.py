"""A run that is split, on a Dask cluster: its shards are tasks that the workers of the cluster take."""

from __future__ import annotations

import time
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.shard import run_shard
from tasks.environments import environment_catalog, load_environment
from tasks.model.account import Account
from tasks.model.classify import classify
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError
from tasks.model.report import DatasetReport, PartitionFailure
from tasks.model.shard import FanOut
from tasks.reporting import progress
from tasks.reporting.logs import ensure_logs
from tasks.reporting.report import ProgressArtifact
from tasks.stopping import given_up, in_threads

RETRIES = 2
POLL_SECONDS = 0.1
CONNECT_SECONDS = 10


@task(
    name="shard",
    task_run_name="shard {number} of {of}",
    cache_policy=NO_CACHE,  # the ledger knows what was loaded
    retries=RETRIES,
)
def shard_on_worker(dataset: str, work: str, number: int, of: int) -> DatasetReport:  # noqa: ARG001
    """Load the partitions of a shard, in a worker of the cluster."""
    ensure_logs()
    environment = load_environment()
    catalog = environment_catalog(environment)
    return run_shard(environment, catalog, catalog[dataset], work)


def run_on_dask(
    environment: Environment, dataset: str, fan_out: FanOut, most: int, account: Account
) -> None:
    """Take all shards of a run to their end on the cluster, a few at a time.

    Raises:
        ConfigError: prefect-dask is not installed, or there is no address, or nobody answers there.
    """
    shards = list(enumerate(fan_out.shards, start=1))
    artifact = ProgressArtifact(dataset, len(shards))
    with _runner(environment) as cluster:

        def one(shard: tuple[int, str]) -> DatasetReport | PartitionFailure:
            number, work = shard
            asked = {"dataset": dataset, "work": work, "number": number, "of": len(shards)}
            return _result(cluster.submit(shard_on_worker, parameters=asked), number, len(shards))

        for result in in_threads(one, shards, most):
            if isinstance(result, DatasetReport):
                account.add_report(result)
                progress.advanced(dataset, result.partitions, result.counts.read)
            else:
                account.add(result)
            artifact.advance()


def _runner(environment: Environment) -> Any:
    address = environment.dask_address
    if not address:
        raise ConfigError(
            "task_runner is dask, and dask_address is not set",
            "export DPP_DASK_ADDRESS=tcp://scheduler:8786, or use task_runner: threads",
        )
    try:
        import distributed
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise ConfigError(
            "task_runner is dask, and prefect-dask is not installed",
            "pip install 'data-processing-pipeline[dask]', or use task_runner: threads",
        ) from None
    try:
        connect: Any = distributed.Client
        connect(address, timeout=CONNECT_SECONDS, set_as_default=False).close()
    except OSError:
        raise ConfigError(
            f"no Dask scheduler answers at {address}", "start it, or correct dask_address"
        ) from None
    return DaskTaskRunner(address=address)


def _result(future: Any, number: int, of: int) -> DatasetReport | PartitionFailure:
    """Wait for a shard; a failure is returned, so that the others go on."""
    on_cluster = future.wrapped_future
    while not on_cluster.done():
        if given_up():
            on_cluster.cancel()
            break
        time.sleep(POLL_SECONDS)
    try:
        result = future.result(raise_on_failure=False)
    except Exception as error:  # a worker that died, again and again; or the run is to stop
        result = error
    if isinstance(result, DatasetReport):
        return result
    known = classify(result if isinstance(result, Exception) else RuntimeError(str(result)), "dask")
    return PartitionFailure(
        label=f"shard {number} of {of}",
        fingerprint="",
        stage="shard",
        error=type(known).__name__,
        message=f"shard {number} of {of} on Dask: {known}",
        kind=known.kind,
        exit_code=known.exit_code,
    )
