"""``prefect.yaml`` as this project uses it: which keys there may be, and what fills its placeholders.

Prefect ignores what it does not know. This model does not, and it leaves out what bootstrap has no
use for: images are built in CI, and automations are in ``deployments/automations``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.utilities.templating import (
    Placeholder,
    PlaceholderType,
    find_placeholders,
)
from pydantic import BaseModel, ConfigDict, Field

from tasks.documents import Document, read_yaml

FILE = "prefect.yaml"
VARIABLE_PREFIX = "prefect.variables."
DEPLOY_VARIABLES = {
    "DPP_VERSION": "version of the code; bootstrap takes it from git, else from the package",
    "DPP_HOME": "folder of the project where flows run; bootstrap takes the one it runs in",
    "DPP_IMAGE": "image of the jobs, with tag or digest; the release workflow sets it",
}
"""What placeholders ``{{ $NAME }}`` may name without being set when the file is linted as a whole."""
_BRACES = re.compile(r"\{\{.*?\}\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScheduleEntry(_Strict):
    """When a deployment runs by itself: exactly one of cron, interval and rrule."""

    slug: str = Field(pattern=r"^[a-z0-9-]+$", description="By it a schedule is known again.")
    timezone: str = Field(description="Of the IANA database.")
    cron: str | None = None
    interval: float | None = Field(None, gt=0, description="Seconds.")
    rrule: str | None = None
    anchor_date: str | None = None
    day_or: bool | None = None
    active: bool | str = True
    parameters: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyEntry(_Strict):
    """How many runs of a deployment there may be, and what becomes of one more."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(None, ge=60, le=86_400)


class WorkPoolEntry(_Strict):
    """The pool, and what its jobs get."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class DeploymentEntry(_Strict):
    """One deployment: a flow in an environment."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)+$", description="<flow>-<environment>.")
    entrypoint: str = Field(pattern=r"^[\w/]+\.py:\w+$", description="flows/<file>.py:<function>.")
    description: str = Field(min_length=1, description="For people, in the UI.")
    version: str
    tags: list[str] = Field(min_length=1)
    work_pool: WorkPoolEntry
    parameters: dict[str, Any] = Field(default_factory=dict)
    enforce_parameter_schema: bool = True
    concurrency_limit: ConcurrencyEntry | int | None = None
    schedules: list[ScheduleEntry] = Field(default_factory=list)
    paused: bool = False
    pull: list[dict[str, dict[str, Any]]] | None = Field(None, min_length=1)


class PrefectFile(_Strict):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str | None = None
    prefect_version: str | None = Field(None, alias="prefect-version")
    definitions: dict[str, Any] = Field(default_factory=dict, description="Anchors; nothing else.")
    pull: list[dict[str, dict[str, Any]]] | None = Field(None, min_length=1)
    deployments: list[DeploymentEntry] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A placeholder that Prefect would replace with nothing, or leave as it is.

    Attributes:
        text: The placeholder.
        reason: What is wrong about it.
    """

    text: str
    reason: str


def read_prefect_file(root: Path) -> Document:
    """Read the file of a project; where it is wrong is for ``dpp lint`` to say."""
    return read_yaml(root / FILE)


def unfilled(
    template: str, variables: Mapping[str, str], prefect_variables: Mapping[str, Any]
) -> list[Unfilled]:
    """Return the placeholders of a text that nothing fills."""
    known = {placeholder.full_match for placeholder in find_placeholders(template)}
    found = [
        Unfilled(text, "is no placeholder that Prefect knows")
        for text in _BRACES.findall(template)
        if text not in known
    ]
    for placeholder in sorted(find_placeholders(template)):
        reason = _why_unfilled(placeholder, variables, prefect_variables)
        if reason:
            found.append(Unfilled(placeholder.full_match, reason))
    return found


def _why_unfilled(
    placeholder: Placeholder, variables: Mapping[str, str], prefect_variables: Mapping[str, Any]
) -> str | None:
    match placeholder.type:
        case PlaceholderType.ENV_VAR:
            name = placeholder.name.removeprefix("$")
            return None if variables.get(name) else f"the environment variable {name} is not set"
        case PlaceholderType.VARIABLE:
            name = placeholder.name.removeprefix(VARIABLE_PREFIX)
            if name in prefect_variables:
                return None
            return f"the environment declares no variable {name!r}"
        case PlaceholderType.BLOCK_DOCUMENT:
            return (
                "the block would be stored in the deployment in plain text; "
                "name the block, and load it in a task"
            )
        case _:
            return "names the output of a build step, and there is none"


def fill(value: Any, variables: Mapping[str, str], prefect_variables: Mapping[str, Any]) -> Any:
    """Replace the placeholders of a value, and of all within it; what nothing fills stays.

    As with Prefect, a text that is one placeholder of a Prefect variable gets its type.
    """
    values = {f"${name}": text for name, text in variables.items()}
    values |= {f"{VARIABLE_PREFIX}{name}": given for name, given in prefect_variables.items()}
    return _fill(value, values)


def _fill(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _fill(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, values) for each in value]
    if not isinstance(value, str):
        return value
    for placeholder in find_placeholders(value):
        if placeholder.name not in values:
            continue
        given = values[placeholder.name]
        if value == placeholder.full_match:
            return given
        value = value.replace(placeholder.full_match, str(given))
    return value


def environment_of(deployment: str, known: Collection[str]) -> str | None:
    """Return the environment that a deployment's name ends with, None if there is none."""
    fitting = [name for name in known if deployment.endswith(f"-{name}")]
    return max(fitting, key=len) if fitting else None


def flow_of(deployment: str, environment: str) -> str:
    """Return what the name of a deployment says before its environment."""
    return deployment.removesuffix(f"-{environment}")
