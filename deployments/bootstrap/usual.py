"""How long the runs of a deployment usually take, learned from those that completed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from math import ceil
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

MOST_RUNS = 50
LEAST_RUNS = 10
"""With fewer completed runs nothing is learned."""
LONGER = 2
"""A run is longer than usual if it takes so many times what one run in twenty takes or more."""
_TAIL = 20
_STEPS = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440)
"""Minutes. Learned times are rounded up to one of them, so that one more run rarely changes them."""


def usual_time(seconds: Sequence[float]) -> timedelta | None:
    """Return the time after which a run takes longer than usual; None if too few are known.

    Args:
        seconds: How long runs took that completed.
    """
    if len(seconds) < LEAST_RUNS:
        return None
    longest_usual = sorted(seconds)[ceil(len(seconds) * (1 - 1 / _TAIL)) - 1]
    minutes = LONGER * longest_usual / 60
    return timedelta(minutes=next((step for step in _STEPS if step >= minutes), ceil(minutes)))


def learned_times(
    client: SyncPrefectClient, environment: str, flows: Iterable[str], ids: Mapping[str, UUID]
) -> dict[str, timedelta]:
    """Return the times that the last runs of an environment's deployments teach, by flow.

    Args:
        client: The server.
        environment: Name of the environment.
        flows: The flows to look at.
        ids: Id of each deployment, by ``flow/deployment``.
    """
    learned: dict[str, timedelta] = {}
    for flow in flows:
        deployment = ids.get(f"{flow}/{flow}-{environment}")
        if deployment is None:
            continue
        completed = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
            ),
            sort=FlowRunSort.END_TIME_DESC,
            limit=MOST_RUNS,
        )
        if time := usual_time([run.total_run_time.total_seconds() for run in completed]):
            learned[flow] = time
    return learned
