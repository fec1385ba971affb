"""The automations of an environment, upserted by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import AutomationSort
from prefect.events.schemas.automations import Automation, AutomationCore

from deployments.automations.catalog import automations
from deployments.bootstrap.plan import Content, Present
from deployments.bootstrap.usual import learned_times
from tasks.model.environment import Environment

_SETS = ("expect", "after", "for_each")
_PAGE = 200
_NO_CONTENT = frozenset({"id", "created", "updated", "owner_resource", "enabled", "name"})
Ids = Callable[[], Mapping[str, UUID]]


class Automations:
    """The automations of an environment. Whether one is enabled is left to people.

    Args:
        client: The server.
        environment: Whose automations.
        deployment_ids: Gives the ids of its deployments; of those that are not there yet, any.
        channel_ids: The same of its notification blocks.
    """

    label: ClassVar[str] = "automation"

    def __init__(
        self,
        client: SyncPrefectClient,
        environment: Environment,
        deployment_ids: Ids,
        channel_ids: Ids,
    ) -> None:
        self._client = client
        self._environment = environment
        self._deployment_ids = deployment_ids
        self._channel_ids = channel_ids
        self._with_ids: dict[str, AutomationCore] | None = None

    def _wanted(self) -> dict[str, AutomationCore]:
        environment, deployment_ids = self._environment, self._deployment_ids()
        flows = environment.alerts.usual_minutes
        made = automations(
            environment,
            deployment_ids,
            self._channel_ids(),
            usual=learned_times(self._client, environment.name, flows, deployment_ids),
        )
        return {each.name: each for each in made}

    def declared(self) -> dict[str, Content]:
        """Return the automations by name."""
        self._with_ids = None
        return {name: _content(each) for name, each in self._wanted().items()}

    def _of(self, name: str) -> AutomationCore:
        """Return an automation with the ids of deployments and blocks that are there by now."""
        if self._with_ids is None:
            self._with_ids = self._wanted()
        return self._with_ids[name]

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the automations that the server has; of several with one name the first.

        Later ones with our tags are there too, under their name and id: two bootstraps at once, or
        one that was asked again, made them, and each would alert once more.
        """
        found: dict[str, Present] = {}
        ours = {"etl", self._environment.name}
        for each in self._all():
            if each.name not in names:
                continue
            there = Present(str(each.id), _content(each))
            if found.setdefault(each.name, there) is not there and ours <= set(each.tags):
                found[f"{each.name} ({each.id})"] = there
        return found

    def _all(self) -> list[Automation]:
        found: list[Automation] = []
        while page := self._client.read_automations(
            sort=AutomationSort.CREATED_DESC,
            limit=_PAGE,
            offset=len(found),
        ):
            found += page
        return found[::-1]

    def create(self, name: str) -> str:
        """Create an automation."""
        return str(self._client.create_automation(self._of(name)))

    def change(self, name: str, present: Present, _keys: Collection[str]) -> None:
        """Replace an automation; its id stays, and it is enabled if it was."""
        there = self._client.read_automation(present.id)
        enabled = there.enabled if there else True
        wanted = self._of(name).model_copy(update={"enabled": enabled})
        # Every key counts as set, but for the one that the server does not take.
        whole = AutomationCore.model_validate(wanted.model_dump(exclude={"owner_resource"}))
        self._client.update_automation(UUID(present.id), whole)

    def remove(self, _name: str, present: Present) -> None:
        """Delete an automation."""
        self._client.delete_automation(UUID(present.id))


def _content(automation: AutomationCore) -> dict[str, Any]:
    dumped = AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json")
    return {key: _in_order(value) for key, value in dumped.items() if key not in _NO_CONTENT}


def _in_order(node: Any) -> Any:
    """Sort what has no order, and leave out the ids that the server gives to triggers."""
    if isinstance(node, dict):
        return {
            key: sorted(value) if key in _SETS and value else _in_order(value)
            for key, value in node.items()
            if key != "id"
        }
    return [_in_order(each) for each in node] if isinstance(node, list) else node
