"""Schedules: crons and time zones that exist, and that are those of the environment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from zoneinfo import available_timezones

from prefect.client.schemas.schedules import RRuleSchedule
from pydantic import ValidationError

from deployments.prefect_file import ScheduleEntry
from tasks.documents import Location
from tasks.model.environment import Environment

# What the server itself reads crons with; it comes with Prefect, and without types.
croniter: Any = import_module("prefect._vendor.croniter").croniter
CRON_FIELDS = 5
_NOW = datetime(2024, 1, 1, tzinfo=UTC)


def wrong_schedules(
    flow: str, entries: list[ScheduleEntry], environment: Environment
) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong about the schedules of a deployment, with the place below it.

    Args:
        flow: What the deployment's name says before its environment.
        entries: The schedules, filled.
        environment: Says when schedules run.
    """
    slugs: set[str] = set()
    for position, entry in enumerate(entries):
        place: Location = ("schedules", position)
        if entry.slug in slugs:
            yield (*place, "slug"), f"{entry.slug!r} is there twice"
        slugs.add(entry.slug)
        for key, message in _wrong_times(entry):
            yield (*place, key) if key else place, message
        if entry.slug == flow:
            yield from _differences(place, entry, flow, environment)
    if flow in environment.schedules and flow not in slugs:
        said = environment.schedules[flow]
        yield ("schedules",), f"no schedule with slug {flow!r}; {_file(environment)} says {said!r}"


def _differences(
    place: Location, entry: ScheduleEntry, flow: str, environment: Environment
) -> Iterator[tuple[Location, str]]:
    said = environment.schedules.get(flow)
    if said is None:
        known = ", ".join(sorted(environment.schedules)) or "none"
        yield place, f"{_file(environment)} has no schedule {flow!r}; there are: {known}"
    elif entry.cron != said:
        yield (*place, "cron"), f"found {entry.cron!r}; {_file(environment)} says {said!r}"
    if entry.timezone != environment.timezone and entry.timezone in available_timezones():
        yield (
            (*place, "timezone"),
            f"found {entry.timezone!r}; {_file(environment)} says {environment.timezone!r}",
        )


def _file(environment: Environment) -> str:
    return f"deployments/environments/{environment.name}.yaml"


def _wrong_times(entry: ScheduleEntry) -> Iterator[tuple[str, str]]:
    given = [key for key in ("cron", "interval", "rrule") if getattr(entry, key) is not None]
    if len(given) != 1:
        yield "", f"found {' and '.join(given) or 'none'} of cron, interval, rrule; allowed: one"
    if entry.timezone not in available_timezones():
        yield "timezone", f"{entry.timezone!r} is not a time zone of the IANA database"
    if entry.cron is not None and (message := wrong_cron(entry.cron)):
        yield "cron", message
    if entry.rrule is not None and (message := _wrong_rule(entry.rrule)):
        yield "rrule", message
    if isinstance(entry.active, str):
        yield "active", f"found {entry.active!r}; allowed: true, false"


def wrong_cron(cron: str) -> str | None:
    """Say what is wrong about a cron expression, None if nothing is."""
    if len(cron.split()) != CRON_FIELDS:
        return f"found {cron!r}; allowed: five fields, minute hour day month weekday"
    if not croniter.is_valid(cron):
        return f"{cron!r} is no cron expression"
    try:
        croniter(cron, _NOW).get_next(datetime)
    except ValueError:
        return f"{cron!r} never comes"
    return None


def _wrong_rule(rule: str) -> str | None:
    try:
        coming = RRuleSchedule(rrule=rule).to_rrule().after(_NOW.replace(tzinfo=None))
    except (ValidationError, ValueError, TypeError):
        return f"{rule!r} is no rrule"
    return None if coming else f"{rule!r} never comes"
