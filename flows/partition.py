"""One partition: ingestion, transformation, loading."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

import structlog

from tasks.ingestion.ingest import ingest, ingestion_work
from tasks.ingestion.packing import label_of
from tasks.loading.load import load, load_all, not_loaded_yet
from tasks.lookups.look_up import ask_apis
from tasks.model.account import Account
from tasks.model.classify import classify, raised_in
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.environment import Environment
from tasks.model.errors import (
    CapacityExhausted,
    ConfigError,
    CredentialsRejected,
    ErrorKind,
    ExitCode,
    GateFailed,
    LoadConflict,
    PlanOutdated,
)
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.model.report import LoadReceipt, LoadStatus, PartitionFailure, RowCounts
from tasks.model.request import Purpose
from tasks.stages import Work, as_is, refreshed_if_broken
from tasks.stopping import given_up
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A partition whose clean rows are in the lake.

    Attributes:
        partition: The partition.
        work: What the transformation was asked for; it names the manifest.
        manifest: Its clean rows.
    """

    partition: Partition
    work: Work
    manifest: Manifest


def prepare_partition(run: DatasetRun, partition: Partition) -> Prepared | PartitionFailure:
    """Take one partition through ingestion and transformation; a failure is returned.

    This is no task: a task around the stages would be one transaction of Prefect's, and a failed load
    would roll back the cached results of the stages before it.
    """
    # The keys of all rows are made as the rows are; what they are compared with is the dataset's.
    spec = run.spec if partition.deletes_up_to is None else run.spec.keys_only()
    stage = "ingestion"
    if run.called_off.is_set():
        return _not_tried(partition)
    try:
        work = ingestion_work(run.environment, spec, partition, run.run)
        raw = refreshed_if_broken(ingest, run.environment, work)(
            work, as_is(run.environment), as_is(spec), as_is(partition)
        )
        if given_up():
            return _not_tried(partition)
        stage = "transformation"
        snapshots = run.snapshots
        if any(lookup.api for lookup in spec.enrich):
            snapshots = {
                **snapshots,
                **ask_apis(work, as_is(run.environment), as_is(spec), as_is(raw)),
            }
        work = transformation_work(run.environment, spec, partition, raw, snapshots, run.run)
        clean = refreshed_if_broken(transform, run.environment, work)(
            work, as_is(run.environment), as_is(spec), as_is(raw), as_is(snapshots)
        )
    except Exception as error:  # the one place where a partition's failure becomes a value
        return _failed(run, partition, stage, error)
    return Prepared(partition, work, clean)


def run_partition(run: DatasetRun, partition: Partition) -> LoadReceipt | PartitionFailure:
    """Take one partition through its stages; a failure is returned, so that the others go on."""
    made = prepare_partition(run, partition)
    if isinstance(made, PartitionFailure):
        return made
    if given_up():
        return _not_tried(partition)
    try:
        return load(
            made.work,
            as_is(run.environment),
            as_is(run.spec),
            as_is(run.lookups),
            as_is(partition),
            as_is(made.manifest),
            run.fence,
            run.purpose,
        )
    except PlanOutdated as error:
        return _what_is_left(run, partition, error)
    except Exception as error:  # as above
        return _failed(run, partition, "loading", error)


def _what_is_left(
    run: DatasetRun, partition: Partition, error: PlanOutdated
) -> LoadReceipt | PartitionFailure:
    """Load what other runs have not loaded of a partition meanwhile; it becomes less each time."""
    try:
        known, items = not_loaded_yet(run.environment, run.spec, partition)
    except Exception as failure:  # as above
        return _failed(run, partition, "loading", failure)
    if len(items) == len(partition.items):
        return _failed(run, partition, "loading", error)
    log.info("partition.planned_again", partition=partition.label, left=len(items))
    if items:
        changes = {"items": items, "label": label_of(items), "planned_after": known}
        return run_partition(run, partition.model_copy(update=changes))
    return LoadReceipt(
        dataset=run.spec.name,
        fingerprint=partition.fingerprint,
        load_id=known,
        status=LoadStatus.ALREADY_LOADED,
        counts=RowCounts(),
        seconds=0,
    )


def load_together(
    run: DatasetRun, prepared: list[Prepared]
) -> list[LoadReceipt | PartitionFailure]:
    """Publish all partitions of a run at once; a failure is that of all of them."""
    if run.called_off.is_set() or given_up():
        return []
    try:
        return list(
            load_all(
                as_is([one.work for one in prepared]),
                as_is(run.environment),
                run.spec,
                as_is(run.lookups),
                as_is([one.partition for one in prepared]),
                as_is([one.manifest for one in prepared]),
                run.fence,
                run.purpose,
            )
        )
    except Exception as error:  # as above
        whole = prepared[0].partition.model_copy(
            update={"label": f"all {len(prepared)} partitions"}
        )
        return [_failed(run, whole, "loading", error)]


def stopped(spec: DatasetSpec, partitions: int, account: Account) -> PartitionFailure:
    """Say how far a run was that was told to stop: it did not do what it was asked for."""
    text = f"stopped by a signal when {account.loaded} of {partitions} partitions were loaded"
    log.warning("run.stopped", dataset=spec.name, partitions=partitions, loaded=account.loaded)
    return PartitionFailure(
        label=spec.name,
        fingerprint="",
        stage="flow",
        error="Stopped",
        message=f"{text}; run it again: it goes on with those that are left",
        kind=ErrorKind.TRANSIENT,
        exit_code=ExitCode.RUN_FAILED,
    )


def _not_tried(partition: Partition) -> PartitionFailure:
    return _failure(partition, "flow", ConfigError("not tried: the run was called off"))


def _failed(
    run: DatasetRun, partition: Partition, stage: str, error: Exception
) -> PartitionFailure:
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
    log.debug("partition.failed", partition=partition.label, raised_in=raised_in(error))
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
