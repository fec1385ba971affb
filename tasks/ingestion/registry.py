"""Finds the connector for a source, and hands it the clients that its block opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.environments import project_root
from tasks.ingestion.connector import Connector, ConnectorContext, ConnectorPlugin, PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.ingestion.connectors.files import FilesConnector
from tasks.ingestion.connectors.rest import RestConnector
from tasks.ingestion.connectors.s3 import S3Connector
from tasks.ingestion.http.guard import HostGuard, Tell, tell_nobody
from tasks.ingestion.http.host_stores import shared_hosts
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.plugins import load_plugin
from tasks.model.rest_source import RestSource
from tasks.model.source import FilesSource, S3Source

if TYPE_CHECKING:
    from tasks.connections import Connections


def connector_for(
    spec: DatasetSpec,
    connections: Connections,
    limits: PlanLimits,
    scratch: Path,
    tell: Tell = tell_nobody,
) -> Connector:
    """Return the connector of a dataset's source, connected.

    Args:
        spec: The dataset.
        connections: Opens what the source's block names.
        limits: How the source is cut.
        scratch: Folder for unfinished files.
        tell: Is told when the circuit breaker of a host changes.
    """
    source, columns = spec.source, len(spec.columns)
    if spec.load.whole_objects:
        limits = limits.whole_objects()
    if isinstance(source, FilesSource):
        return FilesConnector(spec.name, source, project_root(), limits, columns)
    if isinstance(source, RestSource):
        guard = host_guard(connections, tell)
        client = connections.rest_client(source.block)
        return RestConnector(spec.name, source, client, limits, guard)
    if isinstance(source, DatabaseSource):
        engine = connections.database(source.block)
        settled = spec.load.mode == "append"
        return DatabaseConnector(
            spec.name, source, engine, limits, key=spec.source_key, settled=settled
        )
    if isinstance(source, S3Source):
        store = connections.object_store(source)
        return S3Connector(spec.name, source, store, scratch, limits, columns)
    plugin: type[ConnectorPlugin] = load_plugin(source.kind)
    context = ConnectorContext(connections, limits, scratch)
    return plugin.connect(spec, source.declared, context)


def host_guard(connections: Connections, tell: Tell) -> HostGuard:
    """Return the guard of the hosts of APIs; its state is that of all processes."""
    return HostGuard(shared_hosts(connections.redis_url(), connections.warehouse), tell)
