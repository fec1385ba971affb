"""Retention as Prefect tasks: ``erase_of_dataset`` each, ``erase_shared`` and ``erase_runs`` once."""

from __future__ import annotations

import shutil
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
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from sqlalchemy import Engine

from tasks.connections import Connections
from tasks.loading.audit import EVERY_DATASET, record
from tasks.loading.ledger import ensure_ledger
from tasks.loading.parallel import drop_left_tables
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.value import Value
from tasks.retention.erase import erase, old_entries, old_lookups, summary
from tasks.retention.plan import Erased, Of, Plan
from tasks.retention.rows import (
    ANSWERS,
    VacuumHint,
    erase_answers,
    erase_rows,
    old_answers,
    old_rows,
    vacuum_hints,
)
from tasks.stages import RETRY, left_scratch
from tasks.stopping import stop_asked

LOADING_FLOWS = ("dataset", "backfill", "replay", "shard")
OUR_FLOWS = (*LOADING_FLOWS, "daily", "hourly", "listen", "maintain")
UNDER_WAY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED)
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
LONGEST_RUN = timedelta(days=7)
"""A run that began earlier and never ended is one whose process is gone."""
PAGE = 100
RESULTS = "cached results"
SCRATCH = "folders of intermediate files"
STAGING = "staging tables"
log = structlog.get_logger("dpp.retention")


class Retained(Value):
    """What was erased, or will be, and what a person should look at."""

    erased: tuple[Erased, ...] = ()
    planned: tuple[Erased, ...] = ()
    """What is past its retention and still there: shown before it is erased for the first time."""
    skipped: tuple[str, ...] = ()
    """Datasets of which nothing was erased, and why."""
    hints: tuple[VacuumHint, ...] = ()


def cutoff(environment: Environment) -> datetime:
    """Return what is past its retention now: what is older than this."""
    return datetime.now(UTC) - timedelta(days=environment.retention_days)


def _plan(engine: Engine, environment: Environment, dataset: str, of: Of) -> Plan:
    return Plan(engine, dataset, of, environment.retention_days, str(flow_run.get_id()))


def _is_shown_only(plan: Plan, found: tuple[Erased, ...], actor: str, *, dry_run: bool) -> bool:
    """Tell whether what was found stays for now: it does unless a plan of it was shown before."""
    if dry_run or plan.was_shown():
        return dry_run
    plan.show(found, actor)
    log.warning("retention.planned", dataset=plan.dataset, of=plan.of, days=plan.days)
    return True


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

    Not while a run of it is under way, which may be about to use old files again; and the first time it
    is only shown.
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
    would_go = (*summary(spec.name, found), *old_rows(engine, spec, since))
    plan = _plan(engine, environment, spec.name, "files and rows")
    if not would_go or _is_shown_only(plan, would_go, actor, dry_run=dry_run):
        return Retained(planned=would_go)
    gone = erase(engine, lake, spec, found, since, actor)
    return Retained(erased=(*gone, *erase_rows(engine, spec, since, actor)))


@task(name="erase_shared", task_run_name="erase what is shared", cache_policy=NO_CACHE, **RETRY)
def erase_shared(
    environment: Environment, tables: list[str], actor: str, *, dry_run: bool
) -> Retained:
    """Erase what is of no dataset: answers of APIs, files of results, what crashes left behind."""
    engine = Connections(environment).warehouse()
    ensure_ledger(engine)
    since = cutoff(environment)
    hints = tuple(vacuum_hints(engine, tables))
    swept = () if dry_run else _swept(engine, environment, actor)
    results = list(_old_results(since))
    size = sum(path.stat().st_size for path in results)
    would_go = _of_none({ANSWERS: (old_answers(engine, since), 0), RESULTS: (len(results), size)})
    plan = _plan(engine, environment, EVERY_DATASET, "what is shared")
    if not would_go or _is_shown_only(plan, would_go, actor, dry_run=dry_run):
        return Retained(erased=swept, planned=would_go, hints=hints)
    answers = erase_answers(engine, since, actor, {RESULTS: {"files": len(results), "bytes": size}})
    for path in results:
        path.unlink(missing_ok=True)
    gone = _of_none({ANSWERS: (answers, 0), RESULTS: (len(results), size)})
    return Retained(erased=(*swept, *gone), hints=hints)


def _swept(engine: Engine, environment: Environment, actor: str) -> tuple[Erased, ...]:
    """Remove what processes that were killed left behind; no retention lets it stay."""
    tables = drop_left_tables(engine, actor)
    folders = left_scratch(environment)
    if folders:
        why, details = "their process is gone", {SCRATCH: len(folders)}
        _write(engine, "erase what is left behind", actor, why, details)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return _of_none({STAGING: (tables, 0), SCRATCH: (len(folders), 0)})


def _of_none(found: dict[str, tuple[int, int]]) -> tuple[Erased, ...]:
    """Return what is of no dataset, by its name: count and bytes of each."""
    return tuple(
        Erased(dataset=EVERY_DATASET, what=what, count=count, bytes=size)
        for what, (count, size) in found.items()
        if count
    )


def _write(engine: Engine, action: str, actor: str, reason: str, details: dict[str, int]) -> None:
    """Write a line of the audit about what is of no dataset."""
    with session(engine) as connection, connection.cursor() as cursor:
        record(cursor, EVERY_DATASET, action, actor=actor, reason=reason, details=details)


@task(name="erase_runs", task_run_name="erase runs", cache_policy=NO_CACHE, **RETRY)
def erase_runs(environment: Environment, actor: str, *, dry_run: bool) -> Retained:
    """Erase flow runs of Prefect that ended before the retention, with their logs and artifacts."""
    engine = Connections(environment).warehouse()
    ensure_ledger(engine)
    since = cutoff(environment)
    only = FlowRunFilter(
        end_time=FlowRunFilterEndTime(before_=since),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ENDED))),
    )
    ours = FlowFilter(name=FlowFilterName(any_=list(OUR_FLOWS)))
    with get_client(sync_client=True) as client:
        found = client.count_flow_runs(flow_filter=ours, flow_run_filter=only)
        would_go = _of_none({"flow runs": (found, 0)})
        plan = _plan(engine, environment, EVERY_DATASET, "flow runs")
        if not would_go or _is_shown_only(plan, would_go, actor, dry_run=dry_run):
            return Retained(planned=would_go)
        reason = f"ended before {since:%Y-%m-%d}"
        _write(engine, "erase flow runs", actor, reason, {"flow runs": found})
        gone = 0
        while not stop_asked():
            page = client.read_flow_runs(flow_filter=ours, flow_run_filter=only, limit=PAGE)
            for run in page:
                _delete(client, run)
            gone += len(page)
            if len(page) < PAGE:
                break
    return Retained(erased=_of_none({"flow runs": (gone, 0)}))


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
                begun = run.start_time or run.expected_start_time or run.created
                if asked == dataset and (begun is None or begun > earliest):
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
