"""The stage as Prefect tasks: ``open_run`` once a run, ``load`` per partition, then the index."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from psycopg2 import sql

from tasks.connections import Connections
from tasks.environments import code_version
from tasks.loading.copies import copy_quietly, refuse_unrebuilt
from tasks.loading.gates import notable_quarantine
from tasks.loading.ledger import ensure_ledger, open_dataset
from tasks.loading.ledger_state import last_load, source_state
from tasks.loading.maintenance import Maintained, build_missing, maintain
from tasks.loading.ownership import loaded_meanwhile
from tasks.loading.publish import Load, load_partition
from tasks.loading.schema import existing_columns, target
from tasks.loading.session import session
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.environment import Environment
from tasks.model.errors import GateFailed
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition, SourceItem
from tasks.model.report import LoadReceipt, LoadStatus
from tasks.model.request import Purpose, SourceState
from tasks.reporting.events import (
    MOST_CHANGES,
    FailedGateFound,
    PartitionLoaded,
    QuarantineThreshold,
    SchemaChanged,
    emit,
    never_raises,
    shortened,
)
from tasks.reporting.events import GateFailed as GateFailedEvent
from tasks.stages import RETRY, Work, stage_context

STAGE = "loading"


@task(name="open_run", task_run_name="open {spec.name}", cache_policy=NO_CACHE, **RETRY)
def open_run(
    environment: Environment, spec: DatasetSpec, run: str, purpose: Purpose
) -> tuple[int, SourceState]:
    """Make this run the owner of the dataset.

    Returns:
        The fence under which the run may publish, and what the ledger knows of the source.
    """
    connections = Connections(environment)
    engine = connections.warehouse()
    ensure_ledger(engine)
    lake = connections.lake()
    copy_quietly(engine, lake, wait=True)  # what a run before was killed before it did
    refuse_unrebuilt(engine, lake, spec)
    return open_dataset(engine, spec.name, run, purpose), source_state(engine, spec.name)


@task(name="plan_again", task_run_name="plan {spec.name} again", cache_policy=NO_CACHE, **RETRY)
def not_loaded_yet(
    environment: Environment, spec: DatasetSpec, partition: Partition
) -> tuple[int, tuple[SourceItem, ...]]:
    """Return the items of a partition that no other run loaded, and the last load that is known."""
    engine = Connections(environment).warehouse()
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        known = last_load(cursor, spec.name)
        gone = {item.identity for item in loaded_meanwhile(cursor, partition)}
    return known, tuple(item for item in partition.items if item.identity not in gone)


@task(
    name="load",
    task_run_name="load {work.label}",
    cache_policy=NO_CACHE,  # the ledger knows what was loaded
    **RETRY,
)
def load(
    work: Work,
    environment: Environment,
    spec: DatasetSpec,
    lookups: dict[str, LookedUp],
    partition: Partition,
    manifest: Manifest,
    fence: int,
    purpose: Purpose,
) -> LoadReceipt:
    """Publish one partition in one transaction, together with its ledger row."""
    connections = Connections(environment)
    asked = _job(work, spec, lookups, partition, manifest, fence, purpose)
    with stage_context(STAGE, work, environment) as scratch:
        try:
            receipt = load_partition(connections.warehouse(), connections.lake(), scratch, asked)
        except GateFailed as error:
            tell_of_refusal(environment.name, asked, error)
            raise
    tell_of_load(environment.name, asked, receipt)
    copy_quietly(connections.warehouse(), connections.lake(), wait=False)
    return receipt


@task(name="load_all", task_run_name="load {spec.name}", cache_policy=NO_CACHE, **RETRY)
def load_all(
    works: list[Work],
    environment: Environment,
    spec: DatasetSpec,
    lookups: dict[str, LookedUp],
    partitions: list[Partition],
    manifests: list[Manifest],
    fence: int,
    purpose: Purpose,
) -> list[LoadReceipt]:
    """Publish all partitions of a run in one transaction, together with their ledger rows."""
    connections = Connections(environment)
    jobs = [
        _job(work, spec, lookups, partition, manifest, fence, purpose)
        for work, partition, manifest in zip(works, partitions, manifests, strict=True)
    ]
    with stage_context(STAGE, works[0], environment) as scratch:
        receipts = load_whole(
            connections.warehouse(),
            connections.lake(),
            scratch,
            jobs,
            on_refusal=partial(tell_of_refusal, environment.name),
        )
    for job, receipt in zip(jobs, receipts, strict=True):
        tell_of_load(environment.name, job, receipt)
    return receipts


def _job(
    work: Work,
    spec: DatasetSpec,
    lookups: dict[str, LookedUp],
    partition: Partition,
    manifest: Manifest,
    fence: int,
    purpose: Purpose,
) -> Load:
    return Load(
        spec=spec,
        lookups=lookups,
        partition=partition,
        manifest=manifest,
        manifest_key=work.manifest_key,
        run=work.run,
        fence=fence,
        code_version=code_version(),
        purpose=purpose,
    )


@never_raises
def tell_of_load(environment: str, load: Load, receipt: LoadReceipt) -> None:
    """Tell Prefect what was committed, what was altered for it, and if much of it was refused."""
    if receipt.status is not LoadStatus.LOADED:
        return
    named = _named(environment, load)
    emit(
        PartitionLoaded(
            **named, load_id=receipt.load_id, counts=receipt.counts, seconds=receipt.seconds
        )
    )
    tell_of_changes(environment, receipt)
    if limit := notable_quarantine(load.spec.quality.quarantine, load.manifest):
        emit(_threshold(named, load.manifest, limit, published=True))


def tell_of_changes(environment: str, receipt: LoadReceipt) -> None:
    """Tell Prefect that a load altered its table, if it did."""
    if receipt.schema_changes:
        emit(
            SchemaChanged(
                environment=environment,
                dataset=receipt.dataset,
                load_id=receipt.load_id,
                changes=receipt.schema_changes[:MOST_CHANGES],
            )
        )


@never_raises
def tell_of_refusal(environment: str, load: Load, error: GateFailed) -> None:
    """Tell Prefect that gates refused a partition: names and counts, never a value of a row."""
    named = _named(environment, load)
    emit(
        GateFailedEvent(
            **named,
            manifest_key=load.manifest_key,
            rows=load.manifest.rows,
            gates=tuple(
                FailedGateFound(gate=shortened(failed.gate), found=shortened(failed.found))
                for failed in error.failed
            ),
        )
    )
    for failed in error.failed:
        if failed.gate.startswith("quarantine"):
            limit = shortened(f"{failed.gate}: {failed.found}")
            emit(_threshold(named, load.manifest, limit, published=False))
            break


def _named(environment: str, load: Load) -> dict[str, Any]:
    return {
        "environment": environment,
        "dataset": load.spec.name,
        "run": load.run,
        "partition": shortened(load.partition.label),
        "fingerprint": load.partition.fingerprint,
    }


def _threshold(
    named: dict[str, Any], manifest: Manifest, limit: str, *, published: bool
) -> QuarantineThreshold:
    return QuarantineThreshold(
        **named,
        read=manifest.rows_read,
        refused=manifest.rows_quarantined,
        limit=limit,
        published=published,
    )


@task(name="index", task_run_name="index {spec.name}", cache_policy=NO_CACHE, **RETRY)
def build_index(environment: Environment, spec: DatasetSpec) -> list[str]:
    """Build the indexes of the dataset's table that are not there."""
    return build_missing(Connections(environment).warehouse_itself(), spec)


@task(name="maintain", task_run_name="maintain {spec.name}", cache_policy=NO_CACHE, **RETRY)
def maintain_table(environment: Environment, spec: DatasetSpec, run: str) -> Maintained:
    """Make partitions ahead, drop those past their retention, build indexes that are missing."""
    engine = Connections(environment).warehouse_itself()
    ensure_ledger(engine)
    return maintain(engine, spec, run)


def close_run(environment: Environment) -> None:
    """Copy into the lake what the run wrote into the ledger."""
    connections = Connections(environment)
    copy_quietly(connections.warehouse(), connections.lake(), wait=True)


def count_rows(environment: Environment, spec: DatasetSpec) -> int | None:
    """Return the number of rows in the dataset's table, None if there is no table."""
    engine = Connections(environment).warehouse()
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if not existing_columns(cursor, spec):
            return None
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(target(spec)))
        row = cursor.fetchone()
        return int(row[0]) if row else None
