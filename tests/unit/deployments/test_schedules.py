"""Schedules of ``prefect.yaml`` and the flows that they start fit each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from deployments.lint.schedules import croniter
from deployments.prefect_file import PrefectFile, read_prefect_file
from flows.listen import ListenParameters

ROOT = Path(__file__).parents[3]
MARGIN = timedelta(seconds=45)
"""A process of Kubernetes needs a quarter of a minute to begin; the last messages and the end as much."""


@pytest.fixture(scope="module")
def prefect_file() -> PrefectFile:
    return PrefectFile.model_validate(read_prefect_file(ROOT).content)


def shortest_interval(cron: str) -> timedelta:
    times = croniter(cron, datetime(2026, 1, 1, tzinfo=UTC))
    coming = [times.get_next(datetime) for _ in range(200)]
    return min(after - before for before, after in pairwise(coming))


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_a_listener_has_ended_when_the_next_one_begins(
    prefect_file: PrefectFile, environment: str
) -> None:
    """One at a time: what took longer than the interval would pile up."""
    (found,) = (one for one in prefect_file.deployments if one.name == f"listen-{environment}")
    (schedule,) = found.schedules
    given = {**found.parameters, **schedule.parameters}.get("parameters", {})
    seconds = ListenParameters.model_validate(given).seconds
    assert schedule.cron
    assert timedelta(seconds=seconds) + MARGIN <= shortest_interval(schedule.cron)
