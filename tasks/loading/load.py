"""The stage as Prefect tasks: ``open_run`` once a run, ``load`` per partition, then the index."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from psycopg2 import sql

from tasks.connections import Connections
from tasks.environments import code_version
from tasks.loading.ledger import ensure_ledger, open_dataset, session, source_state
from tasks.loading.maintenance import Maintained, build_missing, maintain
from tasks.loading.publish import Load, load_partition
from tasks.loading.schema import existing_columns, target
from tasks.loading.whole import load_whole
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.environment import Environment
from tasks.model.errors import GateFailed
from tasks.model.run import LoadReceipt, Manifest, Partition, Purpose, SourceState
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
    engine = Connections(environment).warehouse()
    ensure_ledger(engine)
    return open_dataset(engine, spec.name, run, purpose), source_state(engine, spec.name)


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
            emit_gate_event(asked, error)
            raise
    emit_schema_event(receipt)
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
            on_refusal=emit_gate_event,
        )
    for receipt in receipts:
        emit_schema_event(receipt)
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


def emit_schema_event(receipt: LoadReceipt) -> None:
    """Tell Prefect that a load altered its table, so that automations can react."""
    if receipt.schema_changes:
        emit_event(
            event="etl.schema.changed",
            resource={
                "prefect.resource.id": f"etl.dataset.{receipt.dataset}",
                "prefect.resource.name": receipt.dataset,
            },
            payload={
                "load_id": receipt.load_id,
                "changes": [change.model_dump() for change in receipt.schema_changes],
            },
        )


def emit_gate_event(load: Load, error: GateFailed) -> None:
    """Tell Prefect that gates refused a partition: names and counts, never a value of a row."""
    emit_event(
        event="etl.gate.failed",
        resource={
            "prefect.resource.id": f"etl.dataset.{load.spec.name}",
            "prefect.resource.name": load.spec.name,
        },
        payload={
            "partition": load.partition.label,
            "fingerprint": load.partition.fingerprint,
            "run": load.run,
            "manifest_key": load.manifest_key,
            "rows": load.manifest.rows,
            "gates": [{"gate": failed.gate, "found": failed.found} for failed in error.failed],
            "message": error.message,
        },
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


def count_rows(environment: Environment, spec: DatasetSpec) -> int | None:
    """Return the number of rows in the dataset's table, None if there is no table."""
    engine = Connections(environment).warehouse()
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if not existing_columns(cursor, spec):
            return None
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(target(spec)))
        row = cursor.fetchone()
        return int(row[0]) if row else None
