"""The job template of a work pool."""

from __future__ import annotations

import importlib.util
from typing import Any

from prefect.workers.process import ProcessWorker

from tasks.model.environment import WorkPool

JOB_TEMPLATES = "deployments.kubernetes.job_template"


def base_job_template(pool: WorkPool) -> dict[str, Any]:
    """Return the base job template of a pool.

    Raises:
        ConfigError: There is no such template.
    """
    if pool.type == "process":
        return ProcessWorker.get_default_base_job_template()
    from deployments.kubernetes.job_template import job_template

    assert pool.job_template is not None
    template: dict[str, Any] = job_template(pool.job_template)
    return template


def job_variables_of(pool: WorkPool) -> set[str]:
    """Return the variables that jobs of a pool take."""
    properties: dict[str, Any] = base_job_template(pool)["variables"]["properties"]
    return set(properties)
