"""One deployment of ``prefect.yaml``: is it what its environment and its flow say?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.lint.findings import values
from deployments.lint.flows import load_flow, wrong_parameters
from deployments.lint.schedules import wrong_schedules
from deployments.lint.secrets import plain_secrets
from deployments.prefect_file import DeploymentEntry, fill, flow_of, unfilled
from deployments.work_pools import deadline_of, job_variables_of
from tasks.documents import Location
from tasks.model.environment import Environment

Wrong = Iterator[tuple[Location, str]]
WORKING_DIRECTORY = "prefect.deployments.steps.set_working_directory"
VERSION = "{{ $DPP_VERSION }}"
HOME = "{{ $DPP_HOME }}"
MINUTE = 60
_LABEL = re.compile(r"(?=.{1,63}$)[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LABEL_FORM = "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a deployment is judged by.

    Attributes:
        root: Folder of the project.
        variables: Environment variables that are set, or will be.
        pull: The steps for deployments that have none of their own.
    """

    root: Path
    variables: Mapping[str, str]
    pull: list[dict[str, dict[str, Any]]] | None


def wrong_deployment(raw: DeploymentEntry, environment: Environment, around: Surroundings) -> Wrong:
    """Yield what is wrong about a deployment, with the place below it."""
    filled = fill(raw.model_dump(), around.variables, environment.variables)
    entry = DeploymentEntry.model_validate(filled)
    yield from _wrong_pool(entry, environment)
    yield from _wrong_usual_time(entry, environment)
    yield from _wrong_names(raw, environment)
    yield from wrong_schedules(flow_of(entry.name, environment.name), entry.schedules, environment)
    if raw.pull is None and around.pull is None:
        yield ("pull",), f"missing; Prefect would store the folder of who deploys: write {_steps()}"
    if raw.pull is not None:
        for place, message in wrong_pull(raw.pull, around.variables):
            yield ("pull", *place), message
    flow = load_flow(around.root, entry.entrypoint)
    if isinstance(flow, str):
        yield ("entrypoint",), f"{entry.entrypoint}: {flow}"
    else:
        yield from wrong_parameters(flow, entry)


def _steps() -> str:
    return f"pull: [{WORKING_DIRECTORY}: {{directory: /app}}]"


def _wrong_names(entry: DeploymentEntry, environment: Environment) -> Wrong:
    if environment.name not in entry.tags:
        yield ("tags",), f"found {entry.tags}; {environment.name!r} must be among them"
    if entry.version != VERSION:
        yield (
            ("version",),
            f"found {entry.version!r}; allowed: {VERSION!r}, the version of the code",
        )
    if not entry.enforce_parameter_schema:
        yield (
            ("enforce_parameter_schema",),
            "false lets runs begin whose parameters are wrong; leave it out",
        )


def _wrong_pool(entry: DeploymentEntry, environment: Environment) -> Wrong:
    pool = environment.work_pool
    if entry.work_pool.name != pool.name:
        found = entry.work_pool.name
        message = f"found {found!r}; allowed: {pool.name!r}, the pool of {environment.name}"
        yield ("work_pool", "name"), message
        return
    place: Location = ("work_pool", "job_variables")
    given = entry.work_pool.job_variables
    known = job_variables_of(pool)
    for name in given if known is not None else ():
        if name not in (known or ()):
            close = difflib.get_close_matches(name, known or (), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(sorted(known or ()))
            yield (*place, name), f"the pool has no such variable{hint}; allowed: {allowed}"
    env = given.get("env")
    named = env.get("DPP_ENV") if isinstance(env, Mapping) else None
    if named != environment.name:
        yield (*place, "env", "DPP_ENV"), f"found {named!r}; allowed: {environment.name!r}"
    if pool.type == "kubernetes":
        yield from _wrong_labels(given.get("labels"), (*place, "labels"))
        yield from _wrong_image(given.get("image"), (*place, "image"))


def _wrong_usual_time(entry: DeploymentEntry, environment: Environment) -> Wrong:
    """Yield a usual time that no run reaches, since its job is ended before: nobody would be told."""
    flow = flow_of(entry.name, environment.name)
    usual = environment.alerts.usual_minutes.get(flow)
    given = entry.work_pool.job_variables.get("active_deadline_seconds")
    seconds = given if isinstance(given, int | float) else deadline_of(environment.work_pool)
    if usual is not None and seconds is not None and usual * MINUTE >= seconds:
        message = (
            f"jobs are ended after {seconds / MINUTE:g} minutes; alerts.usual_minutes.{flow} of "
            f"deployments/environments/{environment.name}.yaml is {usual:g}: it must be less, or "
            "nobody is told of a run that takes long"
        )
        yield ("work_pool", "job_variables", "active_deadline_seconds"), message


def _wrong_labels(labels: object, place: Location) -> Wrong:
    """Yield labels that Kubernetes would refuse; Prefect's worker makes others of them in silence."""
    for name, value in labels.items() if isinstance(labels, Mapping) else ():
        prefix, _, own = str(name).rpartition("/")
        if not _LABEL.fullmatch(own) or (prefix and not _PREFIX.fullmatch(prefix)):
            yield (*place, str(name)), f"allowed as a name: {_LABEL_FORM}, after a domain and '/'"
        if not isinstance(value, str):
            yield (*place, str(name)), f"found {value!r}; allowed: a text; put it in quotes"
        elif value and "{{" not in value and not _LABEL.fullmatch(value):
            yield (*place, str(name)), f"found {value!r}; allowed: {_LABEL_FORM}"


def _wrong_image(image: object, place: Location) -> Wrong:
    if not isinstance(image, str) or not image:
        yield place, "missing; a job of Kubernetes needs an image: write '{{ $DPP_IMAGE }}'"
    elif not image.startswith("{{"):
        tag = (
            image.rpartition("/")[2].partition("@")[2] or image.rpartition("/")[2].partition(":")[2]
        )
        if tag in ("", "latest"):
            yield place, f"found {image!r}; name a tag other than latest, or a digest"


def wrong_pull(steps: list[dict[str, dict[str, Any]]], variables: Mapping[str, str]) -> Wrong:
    """Yield what is wrong about pull steps: flows must run in an absolute folder."""
    folders = 0
    for position, step in enumerate(steps):
        for name, arguments in step.items():
            if name != WORKING_DIRECTORY:
                yield (position, name), f"unknown step; allowed: {WORKING_DIRECTORY}"
                continue
            folders += 1
            for argument in arguments:
                if argument != "directory":
                    yield (position, name, argument), "unknown key; allowed: directory"
            given = str(arguments.get("directory", ""))
            folder = given.replace(HOME, variables.get("DPP_HOME", "/"))
            if not folder.startswith("/"):
                yield (
                    (position, name, "directory"),
                    f"found {given!r}; allowed: an absolute folder, or '{HOME}'",
                )
    if folders != 1 and all(name == WORKING_DIRECTORY for step in steps for name in step):
        yield (), f"found {folders} folders; allowed: one"


def wrong_texts(node: object, around: Surroundings, names: Mapping[str, Any]) -> Wrong:
    """Yield placeholders that nothing fills, and secrets in plain text.

    Args:
        node: Where to look.
        around: The variables that are set.
        names: The Prefect variables of the environment.
    """
    for place, text in values(node):
        for each in unfilled(text, around.variables, names):
            yield place, f"{each.text} {_joined(each.reason)}"
    yield from plain_secrets(node)


def _joined(reason: str) -> str:
    return reason if reason.startswith(("is ", "names ")) else f"is filled by nothing: {reason}"
