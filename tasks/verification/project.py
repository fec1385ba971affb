"""The checks that read sources, with the connectors that an environment opens."""

from __future__ import annotations

import random
from datetime import datetime

from blocks.lake import Lake
from tasks.catalog import Catalog
from tasks.connections import Connections
from tasks.ingestion.ingest import limits_of
from tasks.ingestion.registry import connector_for
from tasks.loading.checks import Check
from tasks.lookups.look_up import take_lookups
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.manifest import LakeFile
from tasks.stages import make_scratch, scratch_root
from tasks.verification.determinism import determinism_check
from tasks.verification.remake import Remade, Workshop, remake_files
from tasks.verification.source import check_source


def read_again(spec: DatasetSpec) -> DatasetSpec:
    """Return a dataset whose windows are read one by one, each in a snapshot of its own."""
    if not isinstance(spec.source, DatabaseSource):
        return spec
    source = spec.source.model_copy(update={"snapshot": "none"})
    return spec.model_copy(update={"source": source})


def source_checks(
    environment: Environment, spec: DatasetSpec, connections: Connections, since: datetime | None
) -> list[Check]:
    """Read the source of a dataset again, and compare it with the lake.

    Args:
        environment: The settings.
        spec: The dataset.
        connections: Opens the source.
        since: Leave out loads before this moment.
    """
    scratch = make_scratch(scratch_root(environment))
    connector = connector_for(read_again(spec), connections, limits_of(environment), scratch)
    return check_source(
        connections.warehouse(),
        connections.lake(),
        spec,
        connector,
        scratch,
        since=since,
        protection=connections.protection(spec),
    )


def workshop_of(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, connections: Connections
) -> Workshop:
    """Return what it takes to do the stages of a dataset again."""
    scratch = make_scratch(scratch_root(environment) / "again")

    def snapshots(lake: Lake) -> dict[str, LakeFile]:
        lookups = catalog.lookups_of(spec)
        return take_lookups(environment, connections, spec, lookups, lake, scratch)

    return Workshop(
        spec=spec,
        lake=connections.lake(),
        connector=connector_for(read_again(spec), connections, limits_of(environment), scratch),
        snapshots=snapshots,
        scratch=scratch,
        memory_bytes=environment.memory_budget // environment.concurrency,
        protection=connections.protection(spec),
    )


def remake_lake(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, connections: Connections
) -> list[Remade]:
    """Make again what the lake lacks of a dataset, from its source.

    Raises:
        ContractBroken: It cannot be made as it was.
    """
    workshop = workshop_of(environment, catalog, spec, connections)
    return remake_files(connections.warehouse(), workshop, environment.retention_days)


def transformed_again(
    environment: Environment, catalog: Catalog, spec: DatasetSpec, connections: Connections
) -> Check:
    """Transform a random load of a dataset again, in a dry run, and compare."""
    workshop = workshop_of(environment, catalog, spec, connections)
    return determinism_check(connections.warehouse(), workshop, random.Random())  # noqa: S311
