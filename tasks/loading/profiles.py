"""The history of profiles in the warehouse, and the learned gate that reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.job import Load
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.anomaly import Finding
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import GateFailed
from tasks.model.gates import FailedGate
from tasks.model.manifest import Manifest
from tasks.model.profile import Profile
from tasks.model.value import Value
from tasks.quality.detect import Observation, judge, observe


def check_history(engine: Engine, load: Load) -> tuple[Finding, ...]:
    """Judge a partition by what was loaded when its run began, if the dataset file asks for it.

    Partitions of one run are no history of each other: they are loaded side by side, and what is
    found must not depend on which of them is first. Nothing is locked meanwhile.

    Returns:
        What is unusual about it.

    Raises:
        GateFailed: It is, and the dataset file says ``action: fail``.
    """
    spec, manifest, anomaly = load.spec, load.manifest, load.spec.quality.anomaly
    if anomaly is None or manifest.profile is None or not load.is_described:
        return ()
    today = observe(anomaly, manifest.profile, manifest.created_at)
    findings = judge(anomaly, _history(engine, load, today, anomaly.history), today)
    failed = [finding for finding in findings if finding.severity == "fail"]
    if failed:
        error = GateFailed(
            f"{spec.name}: gate failed: anomaly: {'; '.join(one.message for one in failed)}",
            "nothing of the partition was published; if the data are right, "
            "set quality.anomaly.action: warn and run again",
        )
        error.findings = tuple(failed)
        error.failed = tuple(
            FailedGate(f"anomaly {' '.join(filter(None, (one.metric, one.column)))}", one.message)
            for one in failed
        )
        raise error
    return findings


def _history(engine: Engine, load: Load, today: Observation, most: int) -> list[Observation]:
    asked = {
        "dataset": load.spec.name,
        "fingerprint": load.partition.fingerprint,
        "purpose": load.purpose,
        "before": datetime.fromtimestamp(today.at, UTC),
        "most": most,
    }
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("profile_history"), asked)
        rows = cursor.fetchall()
    return [
        Observation(at.timestamp(), lag, Profile.model_validate(profile))
        for at, lag, profile in rows
    ]


def insert_profile(
    cursor: Cursor,
    load_id: int,
    spec: DatasetSpec,
    manifest: Manifest,
    findings: tuple[Finding, ...],
) -> None:
    """Write the profile of a load, in its transaction."""
    if manifest.profile is None:
        return
    seen = observe(spec.quality.anomaly, manifest.profile, manifest.created_at)
    shown = [one.model_dump(mode="json", exclude={"history"}) for one in findings]
    cursor.execute(
        query("insert_profile"),
        {
            "load_id": load_id,
            "dataset": spec.name,
            "at": datetime.fromtimestamp(seen.at, UTC),
            "lag_seconds": seen.lag,
            "rows": manifest.profile.rows,
            "profile": psycopg2.extras.Json(manifest.profile.model_dump(mode="json")),
            "findings": psycopg2.extras.Json(shown),
        },
    )


class StoredProfile(Value):
    """A profile as the warehouse keeps it."""

    load_id: int
    label: str
    at: datetime
    profile: Profile
    findings: tuple[Finding, ...]


def latest_profile(engine: Engine, dataset: str) -> StoredProfile | None:
    """Return the profile of the partition that was loaded last, None if there is none."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("latest_profile"), {"dataset": dataset})
        row: tuple[Any, ...] | None = cursor.fetchone()
    names = list(StoredProfile.model_fields)
    return StoredProfile.model_validate(dict(zip(names, row, strict=True))) if row else None
