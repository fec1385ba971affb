"""The deployments of an environment, as ``prefect.yaml`` says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from deployments.bootstrap.plan import Content, Present
from deployments.lint.flows import load_flow
from deployments.prefect_file import (
    ConcurrencyEntry,
    DeploymentEntry,
    ScheduleEntry,
    environment_of,
    fill,
    read_prefect_file,
)
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

_SCHEDULES: TypeAdapter[Any] = TypeAdapter(CronSchedule | IntervalSchedule | RRuleSchedule)
_AS_THEY_ARE = (
    "version", "tags", "description", "entrypoint", "parameters", "enforce_parameter_schema",
)  # fmt: skip


class Deployments:
    """The deployments of an environment.

    Args:
        client: The server.
        environment: Whose deployments.
        root: Folder of the project.
        variables: Fill the placeholders of the file.
        known: Names of all environments.
    """

    label: ClassVar[str] = "deployment"

    def __init__(
        self,
        client: SyncPrefectClient,
        environment: Environment,
        root: Path,
        variables: Mapping[str, str],
        known: Collection[str],
    ) -> None:
        self._client = client
        document = read_prefect_file(root).content
        pull = document.get("pull")
        self._flows: dict[str, str] = {}
        self._declared: dict[str, dict[str, Any]] = {}
        for raw in document["deployments"]:
            filled = fill({"pull": pull, **raw}, variables, environment.variables)
            entry = DeploymentEntry.model_validate(filled)
            if environment_of(entry.name, known) == environment.name:
                flow = load_flow(root, entry.entrypoint)
                if isinstance(flow, str):
                    raise ConfigError(f"prefect.yaml: {entry.name}: {flow}")
                name = f"{flow.name}/{entry.name}"
                self._flows[name] = flow.name
                schema = parameter_schema(flow).model_dump(mode="json", exclude_unset=True)
                self._declared[name] = {**_content(entry), "parameter_openapi_schema": schema}

    def declared(self) -> Mapping[str, Content]:
        """Return the deployments, by ``flow/deployment``."""
        return self._declared

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the deployments that the server has."""
        found = {}
        for name in names:
            there = self._read(name)
            if there is not None:
                found[name] = Present(str(there.id), _content_of(there))
        return found

    def _read(self, name: str) -> DeploymentResponse | None:
        try:
            return self._client.read_deployment_by_name(name)
        except ObjectNotFound:
            return None

    def create(self, name: str) -> str:
        """Create a deployment, and its flow if there is none."""
        content = dict(self._declared[name])
        schedules = [*map(_schedule, content.pop("schedules").items())]
        flow_id = self._client.create_flow_from_name(self._flows[name])
        made = self._client.create_deployment(
            flow_id=flow_id, name=name.partition("/")[2], schedules=schedules, **content
        )
        return str(made)

    def change(self, name: str, present: Present, keys: Collection[str]) -> None:
        """Update the keys that differ; the deployment keeps its id, and so does a schedule its slug."""
        content = dict(self._declared[name])
        wanted = content.pop("schedules")
        changed = {key: content[key] for key in keys if key != "schedules"}
        if "schedules" in keys:
            changed["schedules"] = [
                each.model_dump(mode="json", exclude_unset=True)
                for each in map(_schedule, wanted.items())
            ]
            self._remove_schedules(name, set(wanted))
        pool = {key: content[key] for key in ("work_pool_name", "work_queue_name")}
        self._client.update_deployment(UUID(present.id), DeploymentUpdate(**{**pool, **changed}))

    def _remove_schedules(self, name: str, wanted: set[str]) -> None:
        """Delete schedules that are no longer declared; an update leaves them."""
        there = self._client.read_deployment_by_name(name)
        for schedule in there.schedules:
            if schedule.slug not in wanted:
                self._client.delete_deployment_schedule(there.id, schedule.id)

    def remove(self, _name: str, present: Present) -> None:
        """Delete a deployment; its flow and its runs stay."""
        self._client.delete_deployment(UUID(present.id))


def _content(entry: DeploymentEntry) -> dict[str, Any]:
    limit = entry.concurrency_limit
    options = None
    if isinstance(limit, ConcurrencyEntry):
        options = limit.model_dump(exclude={"limit"}, exclude_none=True)
        limit = limit.limit
    content: dict[str, Any] = {key: getattr(entry, key) for key in _AS_THEY_ARE}
    content |= {
        "work_pool_name": entry.work_pool.name,
        "work_queue_name": entry.work_pool.work_queue_name or "default",
        "job_variables": entry.work_pool.job_variables,
        "pull_steps": entry.pull,
        "concurrency_limit": limit,
        "concurrency_options": options,
        "schedules": {each.slug: _of_entry(each) for each in entry.schedules},
    }
    if "paused" in entry.model_fields_set:  # else whether it is paused is left to people
        content["paused"] = entry.paused
    return content


def _of_entry(entry: ScheduleEntry) -> dict[str, Any]:
    given = entry.model_dump(
        include={"cron", "rrule", "timezone", "anchor_date", "day_or"}, exclude_none=True
    )
    if entry.interval is not None:
        given["interval"] = timedelta(seconds=entry.interval)
    schedule = _SCHEDULES.validate_python(given)
    return {
        "schedule": schedule.model_dump(mode="json"),
        "active": bool(entry.active),
        "parameters": entry.parameters,
    }


def _schedule(named: tuple[str, dict[str, Any]]) -> DeploymentScheduleCreate:
    slug, content = named
    return DeploymentScheduleCreate(
        slug=slug,
        schedule=_SCHEDULES.validate_python(content["schedule"]),
        active=content["active"],
        parameters=content["parameters"],
    )


def _content_of(there: DeploymentResponse) -> dict[str, Any]:
    limit = there.global_concurrency_limit
    options = there.concurrency_options
    return {
        **{key: getattr(there, key) for key in _AS_THEY_ARE},
        "paused": there.paused,
        "work_pool_name": there.work_pool_name,
        "work_queue_name": there.work_queue_name,
        "job_variables": there.job_variables,
        "pull_steps": there.pull_steps,
        "parameter_openapi_schema": there.parameter_openapi_schema,
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": (
            options.model_dump(mode="json", exclude_none=True) if options else None
        ),
        "schedules": {str(each.slug or each.id): _of_schedule(each) for each in there.schedules},
    }


def _of_schedule(there: DeploymentSchedule) -> dict[str, Any]:
    return {
        "schedule": there.schedule.model_dump(mode="json"),
        "active": there.active,
        "parameters": there.parameters,
    }
