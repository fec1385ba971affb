"""Manifests checked as an API server of Kubernetes does, by its own schemas, without one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import kubernetes_validate

VERSIONS = ("1.31", "1.37")
"""The oldest and the newest that the manifests are checked against."""


def check(manifest: Mapping[str, Any], *versions: str) -> None:
    """Refuse what the schema refuses: wrong types, missing and unknown fields, unknown kinds.

    Raises:
        kubernetes_validate.ValidationError: It breaks the schema.
        kubernetes_validate.SchemaNotFoundError: There is no such kind in this version.
    """
    for version in versions or VERSIONS:
        kubernetes_validate.validate(dict(manifest), version, strict=True)


def without_what_prefect_misplaces(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job without two fields of its pod that do not exist in Kubernetes.

    Prefect's worker refuses a job template without ``parallelism`` and ``completions`` in the pod;
    an API server drops them with a warning, since the worker does not ask for strict validation.
    """
    taken = copy.deepcopy(dict(job))
    pod = taken["spec"]["template"]["spec"]
    for field in ("parallelism", "completions"):
        if pod.get(field) == 1:
            del pod[field]
    return taken
