"""The checks that read sources, with the connectors that an environment opens."""

from __future__ import annotations

from datetime import datetime

from tasks.connections import Connections
from tasks.ingestion.ingest import limits_of
from tasks.ingestion.registry import connector_for
from tasks.loading.checks import Check
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.stages import scratch_root
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
    scratch = scratch_root(environment)
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
