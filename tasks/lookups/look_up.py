"""Lookups as Prefect tasks: ``snapshot_lookups`` once a run, ``ask_apis`` once a partition."""

from __future__ import annotations

import uuid
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.lake import Lake
from tasks.connections import Connections
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.ingest import breaker_events, limits_of
from tasks.ingestion.registry import connector_for, host_guard
from tasks.lookups.answers import Answers
from tasks.lookups.api import LookupApiConnector, request_of
from tasks.lookups.keys import different_values
from tasks.lookups.rows import rows_of, take_rows
from tasks.lookups.snapshot import snapshot_table
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.environment import Environment
from tasks.model.lookup import Lookup, span
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.model.request import SourceState
from tasks.stages import RETRY, Work, stage_context
from tasks.transformation.enrich import lookup_columns


@task(
    name="snapshot_lookups",
    task_run_name="lookups of {spec.name}",
    cache_policy=NO_CACHE,
    **RETRY,
)
def snapshot_lookups(
    environment: Environment, spec: DatasetSpec, lookups: dict[str, LookedUp], run: str
) -> dict[str, LakeFile]:
    """Take what the dataset looks up, so that all of a run sees one state of it."""
    work = Work(environment.name, spec.name, "", "", "", run, "lookups")
    with (
        Connections(environment) as connections,
        stage_context("lookups", work, environment) as scratch,
    ):
        return take_lookups(environment, connections, spec, lookups, connections.lake(), scratch)


def take_lookups(
    environment: Environment,
    connections: Connections,
    spec: DatasetSpec,
    lookups: dict[str, LookedUp],
    lake: Lake,
    scratch: Path,
) -> dict[str, LakeFile]:
    """Put the rows that a dataset looks up into a lake; those of APIs come later."""
    taken: dict[str, LakeFile] = {}
    used = {lookup.lookup for lookup in spec.lookups}  # gates refer to tables as they are
    for name, looked_up in lookups.items():
        if name not in used:
            continue
        columns = lookup_columns(name, looked_up, [spec])
        if isinstance(looked_up, DatasetSpec) or looked_up.table:
            taken[name] = snapshot_table(
                connections.warehouse(), lake, scratch, name, looked_up, columns
            )
        elif looked_up.source:
            taken[name] = _read_source(
                environment, connections, spec.name, looked_up, columns, lake, scratch
            )
    return taken


def _read_source(
    environment: Environment,
    connections: Connections,
    owner: str,
    lookup: Lookup,
    columns: list[str],
    lake: Lake,
    scratch: Path,
) -> LakeFile:
    rows = rows_of(owner, lookup)
    limits = limits_of(environment)
    connector = connector_for(rows, connections, limits, scratch, breaker_events(environment))
    return take_rows(
        rows,
        columns,
        connector,
        connector.plan(SourceState()),
        lake,
        scratch,
        memory_bytes=environment.memory_budget,
        deadline_seconds=environment.stage_timeout,
    )


@task(name="ask_apis", task_run_name="lookups of {work.label}", cache_policy=NO_CACHE, **RETRY)
def ask_apis(
    work: Work, environment: Environment, spec: DatasetSpec, raw: Manifest
) -> dict[str, LakeFile]:
    """Ask the APIs that a dataset looks up for the keys that a partition has."""
    taken: dict[str, LakeFile] = {}
    with (
        Connections(environment) as connections,
        stage_context("lookups", work, environment) as scratch,
    ):
        for lookup in spec.enrich:
            if lookup.api:
                taken[lookup.lookup] = ask_api(environment, connections, spec, lookup, raw, scratch)
    return taken


def ask_api(
    environment: Environment,
    connections: Connections,
    spec: DatasetSpec,
    lookup: Lookup,
    raw: Manifest,
    scratch: Path,
) -> LakeFile:
    """Return the rows of one lookup for the keys of a partition."""
    api = lookup.api
    assert api is not None
    ((mine, theirs),) = lookup.by.items()
    memory_bytes = environment.memory_budget // environment.concurrency
    lake = connections.lake()
    keys = different_values(
        spec,
        raw,
        mine,
        lake,
        scratch,
        memory_bytes=memory_bytes,
        deadline_seconds=environment.stage_timeout,
    )
    guard = host_guard(connections, breaker_events(environment))
    reader = ApiReader(connections.rest_client(api.block), guard, allow_hosts=api.allow_hosts)
    answers = Answers(connections.warehouse(), request_of(api), span(api.expires))
    rows = rows_of(spec.name, lookup)
    connector = LookupApiConnector(
        lookup.lookup,
        api,
        lookup.columns[theirs].source_column(theirs),
        keys,
        reader,
        answers,
        limits_of(environment),
    )
    # Each time it is asked anew: which answers have expired is known only then.
    asking = Partition(dataset=rows.name, label=lookup.lookup, slice={"asked": uuid.uuid4().hex})
    return take_rows(
        rows,
        lookup_columns(lookup.lookup, lookup, [spec]),
        connector,
        [asking],
        lake,
        scratch,
        memory_bytes=memory_bytes,
        deadline_seconds=environment.stage_timeout,
    )
