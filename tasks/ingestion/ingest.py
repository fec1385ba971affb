"""The stage as Prefect tasks: ``plan`` once a run, ``ingest`` once a partition."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.connections import Connections
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.replay import ReplayConnector
from tasks.ingestion.http.guard import BreakerChange, Tell, tell_nobody
from tasks.ingestion.planning import plan_partitions
from tasks.ingestion.read import STAGE, STAGE_VERSION, ingest_partition, ingestion_identity
from tasks.ingestion.registry import connector_for
from tasks.lake import manifest_key
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition
from tasks.model.replay import replay_of
from tasks.model.request import RunRequest, SourceState
from tasks.reporting.events import breaker_event, emit
from tasks.stages import RETRY, StageCache, Work, scratch_root, stage_context


def limits_of(environment: Environment) -> PlanLimits:
    """Return how an environment cuts sources into partitions."""
    return PlanLimits(partition_bytes=environment.partition_bytes)


def breaker_events(environment: Environment) -> Tell:
    """Return what tells Prefect of changes of the circuit breakers of hosts."""

    def tell(change: BreakerChange) -> None:
        emit(breaker_event(environment.name, change.host, str(change.change)))

    return tell


def ingestion_work(
    environment: Environment, spec: DatasetSpec, partition: Partition, run: str
) -> Work:
    """Name the ingestion of one partition."""
    identity = ingestion_identity(spec)
    fingerprint = partition.fingerprint
    return Work(
        environment=environment.name,
        dataset=spec.name,
        fingerprint=fingerprint,
        identity=identity,
        manifest_key=manifest_key(STAGE, spec.name, fingerprint, identity),
        run=run,
        label=partition.label,
    )


@task(name="plan", task_run_name="plan {spec.name}", cache_policy=NO_CACHE, **RETRY)
def plan(
    environment: Environment,
    spec: DatasetSpec,
    state: SourceState,
    request: RunRequest,
    run_id: str,
) -> list[Partition]:
    """List the source, compare with the ledger, and cut what is asked for into partitions."""
    with Connections(environment) as connections:
        connector = planning_connector(environment, spec, connections, breaker_events(environment))
        return plan_partitions(connector, spec, state, request, run_id)


def planning_connector(
    environment: Environment,
    spec: DatasetSpec,
    connections: Connections,
    tell: Tell = tell_nobody,
) -> Connector:
    """Return the connector that plans a dataset's partitions."""
    limits, scratch = limits_of(environment), scratch_root(environment)
    return connector_for(spec, connections, limits, scratch, tell)


@task(
    name="ingest",
    task_run_name="ingest {work.label}",
    cache_policy=StageCache(stage=STAGE, version=STAGE_VERSION),
    persist_result=True,
    result_serializer="json",
    **RETRY,
)
def ingest(
    work: Work, environment: Environment, spec: DatasetSpec, partition: Partition
) -> Manifest:
    """Copy one partition into the raw zone as the source says it."""
    with (
        Connections(environment) as connections,
        stage_context(STAGE, work, environment) as scratch,
    ):
        limits = limits_of(environment)
        protection = connections.protection(spec)
        connector = (
            ReplayConnector(spec, connections.lake(), scratch, protection)
            if replay_of(partition)
            else connector_for(spec, connections, limits, scratch, breaker_events(environment))
        )
        return ingest_partition(
            connector,
            partition,
            spec,
            connections.lake(),
            scratch,
            deadline_seconds=environment.stage_timeout,
            protection=protection,
        )
