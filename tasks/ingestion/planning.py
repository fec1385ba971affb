"""What a run takes on: what is new, what is missing in a span of time, or all of it again."""

from __future__ import annotations

from typing import Any

from tasks.ingestion.connector import Connector
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.load import ReplaceLoad
from tasks.model.partition import Partition
from tasks.model.request import RunRequest, SourceState
from tasks.model.source import FilesSource, S3Source
from tasks.model.value import json_digest


def plan_partitions(
    connector: Connector,
    spec: DatasetSpec,
    state: SourceState,
    request: RunRequest,
    run_id: str,
) -> list[Partition]:
    """Return the partitions that a run is asked for, without those that the ledger has.

    Args:
        connector: Plans what its source has.
        spec: The dataset.
        state: What the ledger knows.
        request: What the run is asked for.
        run_id: Names what is loaded again, so that a run that is tried again goes on where it was.

    Raises:
        ConfigError: The dataset would hold rows twice, or its source knows no time.
        PipelineError: What the source says.
    """
    check_request(spec, request)
    if isinstance(spec.load, ReplaceLoad):
        return _plan_whole(connector, state, request, run_id)
    known = SourceState(last_load=state.last_load) if request.refresh else state
    asked = {"window": request.window, "objects": request.objects}
    planned = connector.plan(known.model_copy(update=asked))
    changes: dict[str, object] = {}
    if not request.refresh:
        changes["planned_after"] = state.last_load or 0
    if request.window is not None:
        changes["state"] = {}  # the next live run goes on where the last one was
    if request.refresh:
        changes["refresh"] = run_id
    planned = [partition.model_copy(update=changes) for partition in planned]
    return [partition for partition in planned if partition.fingerprint not in state.fingerprints]


def _plan_whole(
    connector: Connector, state: SourceState, request: RunRequest, run_id: str
) -> list[Partition]:
    """Return all that the source has, if that is not what replaced the table last.

    The partitions are named after the content that they are a part of and the load before it: a run
    that is tried again goes on with what was prepared of them, and a source that goes back to an
    older content replaces the newer one.
    """
    planned = connector.plan(SourceState())
    content = _digest(sorted(partition.fingerprint for partition in planned))
    if not request.refresh and state.latest.get("content") == content:
        return []
    generation = _digest([content, state.last_load, run_id if request.refresh else None])
    named = {"content": content, "generation": generation}
    return [
        partition.model_copy(update={"refresh": generation, "state": {**partition.state, **named}})
        for partition in planned
    ]


def _digest(content: list[Any]) -> str:
    return json_digest(content)


def check_request(spec: DatasetSpec, request: RunRequest) -> None:
    """Refuse what would load rows twice.

    Raises:
        ConfigError: It would.
    """
    if request.objects:
        _check_objects(spec)
    if request.window is not None and isinstance(spec.load, ReplaceLoad):
        raise ConfigError(
            f"{spec.name}: load mode 'replace' loads the whole source, not a span of its time",
            f"run it: dpp run {spec.name} --refresh; or use mode 'merge' with a key",
        )
    if spec.load.mode != "append":
        return
    if request.refresh:
        raise ConfigError(
            f"{spec.name}: load mode 'append' would hold each row twice after it is loaded again",
            "use mode 'merge' with a key; or empty the table and its ledger, and run",
        )
    if request.window is not None and isinstance(spec.source, DatabaseSource):
        raise ConfigError(
            f"{spec.name}: rows of a span of time may be loaded already, and load mode 'append' "
            "would hold them twice",
            "use mode 'merge' with a key",
        )


def _check_objects(spec: DatasetSpec) -> None:
    if not isinstance(spec.source, FilesSource | S3Source):
        raise ConfigError(
            f"{spec.name}: a source of kind {spec.source.kind!r} has no objects that could be named",
            "run it without objects",
        )
    if isinstance(spec.load, ReplaceLoad):
        raise ConfigError(
            f"{spec.name}: load mode 'replace' loads the whole source, not single objects",
            "run it without objects; or use mode 'merge' with a key",
        )


def replaces_newer_rows(spec: DatasetSpec, request: RunRequest) -> bool:
    """Tell whether older rows of a span can replace newer ones of the same key."""
    return request.window is not None and spec.load.mode == "merge" and spec.cursor is None
