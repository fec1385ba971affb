"""The job template of a work pool."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from prefect.workers.process import ProcessWorker

from deployments.kubernetes.job_template import job_template
from tasks.model.environment import WorkPool


def base_job_template(pool: WorkPool) -> dict[str, Any]:
    """Return the base job template of a pool, a new one."""
    return deepcopy(_template(pool.job_template))


@cache
def _template(size: str | None) -> dict[str, Any]:
    return ProcessWorker.get_default_base_job_template() if size is None else job_template(size)


def job_variables_of(pool: WorkPool) -> set[str]:
    """Return the variables that jobs of a pool take."""
    properties: dict[str, Any] = base_job_template(pool)["variables"]["properties"]
    return set(properties)


def deadline_of(pool: WorkPool) -> int | None:
    """Return the seconds after which Kubernetes ends a job of a pool; None if nothing does."""
    properties: dict[str, Any] = base_job_template(pool)["variables"]["properties"]
    seconds: int | None = properties.get("active_deadline_seconds", {}).get("default")
    return seconds
