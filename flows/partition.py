"""One partition: ingestion, transformation, loading."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

import structlog

from tasks.ingestion.ingest import ingest, ingestion_work
from tasks.loading.load import load
from tasks.lookups.look_up import ask_apis
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.environment import Environment
from tasks.model.errors import (
    CapacityExhausted,
    ConfigError,
    CredentialsRejected,
    GateFailed,
    LoadConflict,
)
from tasks.model.run import LakeFile, LoadReceipt, Partition, PartitionFailure, Purpose
from tasks.stages import refreshed_if_broken
from tasks.transformation.transform import transform, transformation_work

HOPELESS = (CredentialsRejected, LoadConflict, ConfigError, CapacityExhausted)
"""Errors that every other partition would meet too: the rest of the run is called off."""

log = structlog.get_logger("dpp.flows")


@dataclass(frozen=True)
class DatasetRun:
    """What all partitions of a dataset's run share.

    Attributes:
        environment: The settings.
        spec: The dataset.
        lookups: What it looks up, by name.
        snapshots: The rows of these, as taken at the start of the run; those of APIs come later.
        run: Name of the run.
        fence: Number under which this run may publish.
        purpose: Among which runs the fence decides.
        called_off: Set when going on is of no use.
    """

    environment: Environment
    spec: DatasetSpec
    lookups: dict[str, LookedUp]
    snapshots: dict[str, LakeFile]
    run: str
    fence: int
    purpose: Purpose
    called_off: Event = field(default_factory=Event)


def run_partition(dataset_run: DatasetRun, partition: Partition) -> LoadReceipt | PartitionFailure:
    """Take one partition through its stages; a failure is returned, so that the others go on.

    This is no task: a task around the stages would be one transaction of Prefect's, and a failed load
    would roll back the cached results of the stages before it.
    """
    run = dataset_run
    # The keys of all rows are made as the rows are; what they are compared with is the dataset's.
    spec = run.spec if partition.deletes_up_to is None else run.spec.keys_only()
    stage = "ingestion"
    if run.called_off.is_set():
        return _failure(partition, "flow", ConfigError("not tried: the run was called off"))
    try:
        work = ingestion_work(run.environment, spec, partition, run.run)
        raw = refreshed_if_broken(ingest, run.environment, work)(
            work, run.environment, spec, partition
        )
        stage = "transformation"
        snapshots = run.snapshots
        if any(lookup.api for lookup in spec.enrich):
            snapshots = {**snapshots, **ask_apis(work, run.environment, spec, raw)}
        work = transformation_work(run.environment, spec, partition, raw, snapshots, run.run)
        clean = refreshed_if_broken(transform, run.environment, work)(
            work, run.environment, spec, raw, snapshots
        )
        stage = "loading"
        return load(
            work, run.environment, run.spec, run.lookups, partition, clean, run.fence, run.purpose
        )
    except Exception as error:  # the one place where a partition's failure becomes a value
        if isinstance(classify(error), HOPELESS):
            run.called_off.set()
        return _failure(partition, stage, error)


def _failure(partition: Partition, stage: str, error: Exception) -> PartitionFailure:
    known = classify(error, stage)
    log.error(
        "partition.failed",
        partition=partition.label,
        stage=stage,
        kind=known.kind,
        error=str(known),
    )
    return PartitionFailure(
        label=partition.label,
        fingerprint=partition.fingerprint,
        stage=stage,
        error=type(known).__name__,
        message=str(known),
        kind=known.kind,
        exit_code=known.exit_code,
        findings=known.findings if isinstance(known, GateFailed) else (),
    )
