"""The automations of an environment, made from the documents of this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from prefect.events.schemas.automations import AutomationCore
from pydantic import BaseModel, ConfigDict

from deployments.work_pools import deadline_of
from tasks.catalog import Catalog
from tasks.documents import parse, read_yaml
from tasks.environments import environment_catalog
from tasks.model.environment import Environment, Severity
from tasks.model.errors import ConfigError

FOLDER = Path(__file__).parent
MINUTE = 60
BEFORE_DEADLINE = 0.9
"""Of what a job may take: a run that takes longer is told of, also where such times are usual."""
_PLACE = re.compile(r"\$\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Timing:
    """After which times the server acts.

    Attributes:
        no_heartbeat: A run that gives no sign of life for so long is dead; three heartbeats of
            Prefect's 180 seconds, so that a lost one does not kill it.
        pending: A process that takes longer to begin never will.
        late: A run that no worker takes for so long after its time is alerted of.
        once_in: A dataset or host is alerted of once in so long.
        given_back: A run that is started again several times within so long does not get on; three
            times what the largest job may take, since each start can take as long.
        quiet: Completions of a dataset within this time start its dependents once.
    """

    no_heartbeat: timedelta = timedelta(minutes=9)
    pending: timedelta = timedelta(minutes=15)
    late: timedelta = timedelta(minutes=10)
    once_in: timedelta = timedelta(hours=1)
    given_back: timedelta = timedelta(days=3)
    quiet: timedelta = timedelta(minutes=1)


A_LITTLE = timedelta(seconds=5)
"""So much clocks of pods may differ: what ended within the quiet time is seen by the run after it."""


class Alert(BaseModel):
    """What people are told; both texts are templates that the Prefect server fills in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Severity
    subject: str
    body: str


class AutomationDocument(BaseModel):
    """One entry of a document: an automation, or one for each dataset or deployment of a kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    each: Literal["environment", "dependent dataset", "deployment with a usual time"] = (
        "environment"
    )
    trigger: dict[str, Any]
    actions: tuple[dict[str, Any], ...] = ()
    alert: Alert | None = None


class Documents(BaseModel):
    """A file of this folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    automations: tuple[AutomationDocument, ...]


@dataclass(frozen=True)
class _Maker:
    """Fills in the documents for one environment."""

    environment: Environment
    deployment_ids: Mapping[str, UUID]
    channels: Mapping[str, UUID]
    timing: Timing
    catalog: Catalog
    usual: Mapping[str, timedelta]
    values: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        timing = self.timing
        names = ("no_heartbeat", "pending", "late", "once_in", "given_back", "quiet")
        values: dict[str, object] = {name: getattr(timing, name) for name in names}
        values["environment"] = self.environment.name
        values["quiet_and_a_little"] = timing.quiet + A_LITTLE
        values["dataset_deployment"] = self.deployment("dataset")
        object.__setattr__(self, "values", values)

    def deployment(self, flow: str) -> str:
        """Return the id of this environment's deployment of a flow."""
        key = f"{flow}/{flow}-{self.environment.name}"
        if key not in self.deployment_ids:
            raise ConfigError(
                f"the automations of {self.environment.name} need the deployment {key!r}",
                "declare it in prefect.yaml, and deploy it first",
            )
        return str(self.deployment_ids[key])

    def made(self, document: AutomationDocument) -> Iterator[AutomationCore]:
        """Yield the automations that a document stands for."""
        if document.each == "environment":
            yield from self._automation(document, self.values, [{}])
        elif document.each == "dependent dataset":
            for spec in self.catalog.datasets.values():
                if spec.after:
                    values = {"dataset": spec.name, "upstream": " and ".join(spec.after)}
                    each = [{"upstream_dataset": name} for name in spec.after]
                    yield from self._automation(document, {**self.values, **values}, each)
        else:
            latest = self._latest()
            for flow, minutes in self.environment.alerts.usual_minutes.items():
                usual = self.usual.get(flow, timedelta(minutes=minutes))
                of_flow: dict[str, object] = {
                    "deployment": f"{flow}-{self.environment.name}",
                    "deployment_id": self.deployment(flow),
                    "usual": min(usual, latest),
                }
                yield from self._automation(document, {**self.values, **of_flow}, [{}])

    def _latest(self) -> timedelta:
        """Return the time after which nobody would be told any more: the job is about to be ended."""
        seconds = deadline_of(self.environment.work_pool)
        return timedelta.max if seconds is None else timedelta(seconds=seconds) * BEFORE_DEADLINE

    def _automation(
        self,
        document: AutomationDocument,
        values: Mapping[str, object],
        triggers: Sequence[Mapping[str, object]],
    ) -> Iterator[AutomationCore]:
        """Yield an automation, unless it would do nothing here."""
        actions = [_filled(dict(action), values) for action in document.actions]
        if document.alert is not None:
            actions += self._alerts(document.alert, values)
        if not actions:
            return
        filled = [_filled(document.trigger, {**values, **more}) for more in triggers]
        trigger = filled[0]
        if len(filled) > 1:
            trigger = {"type": "compound", "require": "all", "triggers": filled}
        yield AutomationCore.model_validate(
            {
                "name": f"{self.environment.name}: {_filled(document.name, values)}",
                "description": _filled(document.description, values),
                "tags": ["etl", self.environment.name],
                "trigger": trigger,
                "actions": actions,
            }
        )

    def _alerts(self, alert: Alert, values: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        subject = _filled(alert.subject, values)
        for channel in self.environment.alerts.channels(alert.severity):
            if channel not in self.channels:
                raise ConfigError(
                    f"alerts of {self.environment.name} go to block {channel!r}, which is not there",
                    "create it in the UI under Blocks, or with 'dpp bootstrap'",
                )
            yield {
                "type": "send-notification",
                "block_document_id": str(self.channels[channel]),
                "subject": f"[{self.environment.name}] {subject}",
                "body": _filled(alert.body, values),
            }


def _filled(node: Any, values: Mapping[str, object]) -> Any:
    """Put values in the places of a document; a text that is one place becomes the value itself."""
    if isinstance(node, Mapping):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_filled(value, values) for value in node]
    if not isinstance(node, str):
        return node
    if whole := _PLACE.fullmatch(node):
        return values[whole[1]]
    return _PLACE.sub(lambda place: _shown(values[place[1]]), node)


def _shown(value: object) -> str:
    if not isinstance(value, timedelta):
        return str(value)
    seconds = value.total_seconds()
    return f"{seconds / MINUTE:g} minutes" if seconds > MINUTE else f"{seconds:g} seconds"


def documents() -> list[AutomationDocument]:
    """Read the documents of this folder.

    Raises:
        ConfigError: One of them is wrong; says which line.
    """
    found: list[AutomationDocument] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        found += parse(read_yaml(path), Documents).automations
    return found


def automations(
    environment: Environment,
    deployment_ids: Mapping[str, UUID],
    channels: Mapping[str, UUID],
    *,
    timing: Timing = Timing(),
    catalog: Catalog | None = None,
    usual: Mapping[str, timedelta] = MappingProxyType({}),
) -> list[AutomationCore]:
    """Return the automations of an environment; their names are unique, and begin with its name.

    Args:
        environment: Names the channels of alerts, and the folder of datasets.
        deployment_ids: Id of each deployment, by ``flow/deployment``.
        channels: Id of each notification block that the environment names, by
            ``<block type slug>/<name>``.
        timing: After which times the server acts.
        catalog: The datasets; those of the environment without it.
        usual: Longest usual time of a run, by flow, as learned; for others that which the
            environment declares counts.

    Raises:
        ConfigError: A deployment or a channel is missing, or a document is wrong.
    """
    maker = _Maker(
        environment,
        deployment_ids,
        channels,
        timing,
        environment_catalog(environment) if catalog is None else catalog,
        usual,
    )
    return [made for document in documents() for made in maker.made(document)]
