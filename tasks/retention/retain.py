"""Retention as Prefect tasks: ``erase_of_dataset`` each, ``erase_shared`` and ``erase_runs`` once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from tasks.connections import Connections
from tasks.loading.ledger import ensure_ledger
from tasks.loading.parallel import drop_left_tables
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.value import Value
from tasks.retention.erase import Erased, erase, old_entries, old_lookups, summary
from tasks.retention.rows import VacuumHint, erase_rows, old_answers, old_rows, vacuum_hints
from tasks.stages import RETRY, sweep_scratch
from tasks.stopping import stop_asked

LOADING_FLOWS = ("dataset", "backfill", "replay", "shard")
OUR_FLOWS = (*LOADING_FLOWS, "daily", "hourly", "listen", "maintain")
UNDER_WAY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED)
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
LONGEST_RUN = timedelta(days=7)
"""A run that began earlier and never ended is one whose process is gone."""
PAGE = 100
log = structlog.get_logger("dpp.retention")


class Retained(Value):
    """What was erased, or would be, and what a person should look at."""

    erased: tuple[Erased, ...] = ()
    skipped: tuple[str, ...] = ()
    """Datasets of which nothing was erased, and why."""
    hints: tuple[VacuumHint, ...] = ()


def cutoff(environment: Environment) -> datetime:
    """Return what is past its retention now: what is older than this."""
    return datetime.now(UTC) - timedelta(days=environment.retention_days)


@task(name="erase_of_dataset", task_run_name="erase of {spec.name}", cache_policy=NO_CACHE, **RETRY)
def erase_of_dataset(
    environment: Environment,
    spec: DatasetSpec,
    datasets: list[str],
    actor: str,
    *,
    dry_run: bool,
) -> Retained:
    """Erase what of a dataset is past its retention: files of the lake, and rows about it.

    Not while a run of it is under way, which may be about to use old files again.
    """
    connections = Connections(environment)
    engine, lake = connections.warehouse(), connections.lake()
    ensure_ledger(engine)
    if run := run_under_way(spec.name):
        return Retained(skipped=(f"{spec.name}: run {run} is under way",))
    since = cutoff(environment)
    found = old_entries(engine, lake, spec, since)
    if lookups := old_lookups(lake, spec, datasets, since):
        found["lookups"] = lookups
    if dry_run:
        return Retained(erased=(*summary(spec.name, found), *old_rows(engine, spec, since)))
    gone = erase(engine, lake, spec, found, since, actor)
    return Retained(erased=(*gone, *erase_rows(engine, spec, since, actor)))


@task(name="erase_shared", task_run_name="erase what is shared", cache_policy=NO_CACHE, **RETRY)
def erase_shared(environment: Environment, tables: list[str], *, dry_run: bool) -> Retained:
    """Erase what is of no dataset: answers of APIs, files of results, what crashes left behind."""
    engine = Connections(environment).warehouse()
    ensure_ledger(engine)
    since = cutoff(environment)
    answers = old_answers(engine, since, erase=not dry_run)
    results = list(_old_results(since))
    if not dry_run:
        drop_left_tables(engine)  # staging tables of loads that were killed
        sweep_scratch(environment)
        for path in results:
            path.unlink(missing_ok=True)
    found = {"answers of APIs, and their hosts": answers, "cached results": len(results)}
    return Retained(
        erased=tuple(
            Erased(dataset="*", what=what, count=count) for what, count in found.items() if count
        ),
        hints=tuple(vacuum_hints(engine, tables)),
    )


@task(name="erase_runs", task_run_name="erase runs", cache_policy=NO_CACHE, **RETRY)
def erase_runs(environment: Environment, *, dry_run: bool) -> Retained:
    """Erase flow runs of Prefect that ended before the retention, with their logs and artifacts."""
    since = cutoff(environment)
    only = FlowRunFilter(
        end_time=FlowRunFilterEndTime(before_=since),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ENDED))),
    )
    ours = FlowFilter(name=FlowFilterName(any_=list(OUR_FLOWS)))
    count = 0
    with get_client(sync_client=True) as client:
        while not stop_asked():
            offset = count if dry_run else 0
            page = client.read_flow_runs(
                flow_filter=ours, flow_run_filter=only, limit=PAGE, offset=offset
            )
            count += len(page)
            if not dry_run:
                for run in page:
                    _delete(client, run)
            if len(page) < PAGE:
                break
    return Retained(erased=(Erased(dataset="*", what="flow runs", count=count),) if count else ())


def run_under_way(dataset: str) -> str | None:
    """Return the name of a run that loads a dataset now, if there is one."""
    only = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY)))
    )
    ours = FlowFilter(name=FlowFilterName(any_=list(LOADING_FLOWS)))
    earliest = datetime.now(UTC) - LONGEST_RUN
    with get_client(sync_client=True) as client:
        offset = 0
        while page := client.read_flow_runs(
            flow_filter=ours, flow_run_filter=only, limit=PAGE, offset=offset
        ):
            for run in page:
                parameters = run.parameters.get("parameters")
                asked = parameters.get("dataset") if isinstance(parameters, dict) else None
                if asked == dataset and (run.start_time is None or run.start_time > earliest):
                    return run.name
            offset += len(page)
    return None


def _delete(client: SyncPrefectClient, run: FlowRun) -> None:
    try:
        client.delete_flow_run(run.id)
    except ObjectNotFound:
        log.debug("retention.run_was_gone", run=run.name)


def _old_results(since: datetime) -> Iterator[Path]:
    """Yield files of results on this disk; those in a bucket are for the bucket's lifecycle rule."""
    folder = Path(PREFECT_LOCAL_STORAGE_PATH.value()) / "dpp"
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and path.stat().st_mtime < time.mktime(since.timetuple()):
            yield path
