"""The stage as a Prefect task: ``transform``, once a partition."""

from __future__ import annotations

from prefect import task

from tasks.connections import Connections
from tasks.lake import manifest_key
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.stages import RETRY, StageCache, Work, stage_context
from tasks.transformation.execute import (
    STAGE,
    STAGE_VERSION,
    transform_partition,
    transformation_identity,
)


def transformation_work(
    environment: Environment,
    spec: DatasetSpec,
    partition: Partition,
    raw: Manifest,
    snapshots: dict[str, LakeFile],
    run: str,
) -> Work:
    """Name the transformation of one partition."""
    identity = transformation_identity(spec, raw, snapshots)
    return Work(
        environment=environment.name,
        dataset=spec.name,
        fingerprint=raw.fingerprint,
        identity=identity,
        manifest_key=manifest_key(STAGE, spec.name, raw.fingerprint, identity),
        run=run,
        label=partition.label,
    )


@task(
    name="transform",
    task_run_name="transform {work.label}",
    cache_policy=StageCache(stage=STAGE, version=STAGE_VERSION),
    persist_result=True,
    result_serializer="json",
    **RETRY,
)
def transform(
    work: Work,
    environment: Environment,
    spec: DatasetSpec,
    raw: Manifest,
    snapshots: dict[str, LakeFile],
) -> Manifest:
    """Clean, cast, enrich, check and deduplicate one partition."""
    connections = Connections(environment)
    lake = connections.lake()
    with stage_context(STAGE, work, environment) as scratch:
        return transform_partition(
            spec,
            raw,
            snapshots,
            lake,
            scratch,
            memory_bytes=environment.memory_budget // environment.concurrency,
            deadline_seconds=environment.stage_timeout,
            protection=connections.protection(spec),
        )
