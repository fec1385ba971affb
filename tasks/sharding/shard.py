"""Sharding as Prefect tasks: ``find_fan_out`` and ``split`` by a run, ``take_work`` by a shard."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.connections import Connections
from tasks.loading.ledger import ensure_ledger
from tasks.loading.resume import current_fence, receipts_of_run
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError
from tasks.model.partition import Partition
from tasks.model.report import DatasetReport, LoadReceipt
from tasks.model.request import RunRequest
from tasks.model.shard import FanOut, ShardWork, cut
from tasks.sharding.handover import (
    read_fan_out,
    read_report,
    read_work,
    write_fan_out,
    write_report,
    write_work,
)
from tasks.stages import RETRY


@task(name="find_fan_out", task_run_name="shards of {spec.name}", cache_policy=NO_CACHE, **RETRY)
def find_fan_out(
    environment: Environment, spec: DatasetSpec, request: RunRequest, run_id: str
) -> FanOut | None:
    """Return how this run was split when it was started before, if it still owns the dataset.

    Under another dataset file the run is planned anew.
    """
    connections = Connections(environment)
    engine = connections.warehouse()
    ensure_ledger(engine)
    fence = current_fence(engine, spec.name, request.purpose)
    found = read_fan_out(connections.lake(), spec.name, run_id, fence)
    return found if found and found.config_hash == spec.config_hash else None


@task(name="split", task_run_name="split {spec.name}", cache_policy=NO_CACHE, **RETRY)
def split(
    environment: Environment,
    spec: DatasetSpec,
    whole: ShardWork,
    partitions: list[Partition],
    most: int,
    run_id: str,
) -> FanOut:
    """Cut the partitions of a run into shards, and put what each of them does into the lake.

    Args:
        environment: The settings.
        spec: The dataset.
        whole: What all shards have in common; without partitions.
        partitions: Those of the run.
        most: Partitions of a shard.
        run_id: Id of the flow run.
    """
    lake = Connections(environment).lake()
    shards = tuple(
        write_work(lake, whole.model_copy(update={"partitions": tuple(some)}))
        for some in cut(partitions, most)
    )
    fan_out = FanOut(
        fence=whole.fence,
        config_hash=whole.config_hash,
        partitions=len(partitions),
        shards=shards,
    )
    write_fan_out(lake, spec.name, run_id, fan_out)
    return fan_out


@task(name="take_work", task_run_name="work of a shard", cache_policy=NO_CACHE, **RETRY)
def take_work(
    environment: Environment, spec: DatasetSpec, key: str
) -> tuple[ShardWork, list[LoadReceipt]]:
    """Return what a shard does, and what of it its run has loaded before: by an earlier attempt.

    Raises:
        ConfigError: The work is not there, or of another dataset file than this process has.
    """
    connections = Connections(environment)
    work = read_work(connections.lake(), key)
    if work.config_hash != spec.config_hash:
        raise ConfigError(
            f"{spec.name}: the run was planned under another dataset file than this shard has",
            "deploy one version everywhere, and run the dataset again",
        )
    wanted = [partition.fingerprint for partition in work.partitions]
    return work, receipts_of_run(connections.warehouse(), spec.name, work.run, wanted)


def report_shard(environment: Environment, work: str, run_id: str, report: DatasetReport) -> None:
    """Put the report of a shard where the run that started it reads it."""
    write_report(Connections(environment).lake(), work, run_id, report)


def shard_report(environment: Environment, work: str, run_id: str) -> DatasetReport | None:
    """Return the report of a shard; None if it did not come to give one."""
    return read_report(Connections(environment).lake(), work, run_id)
