"""Plans what an environment needs on its Prefect server, and does it."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient

from deployments.bootstrap.automations import Automations
from deployments.bootstrap.blocks import Blocks, BlockTypes
from deployments.bootstrap.deployments import Deployments
from deployments.bootstrap.inventory import read_inventory, write_inventory
from deployments.bootstrap.kind import Kind, explained
from deployments.bootstrap.plan import Action, Present, Step, plan
from deployments.bootstrap.settings import Limits, Variables, WorkPools
from deployments.bootstrap.values import Values
from deployments.lint.environments import environment_names
from deployments.lint.lint import lint
from tasks.environments import code_version
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

_GIT_SECONDS = 10


def deploy_variables(root: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables, with the code's version and the project's folder in them."""
    given = {name: text for name, text in variables.items() if text}
    return {"DPP_HOME": str(root), "DPP_VERSION": git_version(root) or code_version(), **given}


def git_version(root: Path) -> str | None:
    """Return what git calls the code, e.g. v1.4.0 or v1.4.0-3-g1a2b3c4; None where there is no git."""
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["git", "-C", str(root), "describe", "--tags", "--always", "--dirty"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@dataclass
class Bootstrap:
    """One environment, and its server.

    Attributes:
        client: The server.
        environment: The environment.
        root: Folder of the project.
        variables: Environment variables, as ``deploy_variables`` gives them.
        given: Blocks that are made already, by ``<slug>/<name>``: those of dev's own servers.
    """

    client: SyncPrefectClient
    environment: Environment
    root: Path
    variables: Mapping[str, str]
    given: Mapping[str, Block] = field(default_factory=dict)
    _kinds: list[Kind] = field(init=False)
    _present: dict[str, Mapping[str, Present]] = field(init=False, default_factory=dict)
    _made: dict[str, dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        wrong = lint(self.root, self.variables, self.environment.name)
        if wrong:
            raise ConfigError("\n".join(str(each).replace(f"{self.root}/", "") for each in wrong))
        client, environment = self.client, self.environment
        blocks = environment.blocks
        self._kinds = [
            BlockTypes(client, {*blocks, *self.given}),
            Blocks(client, blocks, Values(self.variables), self.given),
            WorkPools(client, environment),
            Limits(client, environment),
            Variables(client, environment),
            Deployments(
                client, environment, self.root, self.variables, environment_names(self.root)
            ),
            Automations(
                client,
                environment,
                lambda: self._ids(Deployments.label, ()),
                lambda: self._ids(Blocks.label, environment.alerts.all_channels),
            ),
        ]

    def _ids(self, label: str, more: Iterable[str]) -> dict[str, uuid.UUID]:
        """Return the ids of what is declared; any id stands for what is still to be created."""
        (kind,) = (each for each in self._kinds if each.label == label)
        there = kind.present({*kind.declared(), *more})
        ids = {name: uuid.uuid5(uuid.NAMESPACE_OID, name) for name in kind.declared()}
        return {**ids, **{name: uuid.UUID(each.id) for name, each in there.items()}}

    def plan(self, *, prune: bool) -> list[Step]:
        """Return what would be done.

        Args:
            prune: Remove what earlier bootstraps made and is no longer declared.

        Raises:
            ConfigError: A file is wrong, or a value is missing.
            SourceUnavailable: The server does not answer.
        """
        steps: list[Step] = []
        with explained("reading what is there"):
            self._made = read_inventory(self.environment.name)
            for kind in self._kinds:
                declared = kind.declared()
                known = self._made.get(kind.label, {})
                there = kind.present({*declared, *known})
                self._present[kind.label] = there
                # Under another name than was asked for: ours as well, once too often.
                again = {name: each.id for name, each in there.items() if name not in declared}
                steps += plan(kind.label, declared, there, again | known, prune=prune)
        return steps

    def apply(self, steps: Iterable[Step]) -> None:
        """Do what was planned: create and change in order, then remove in the other order.

        Raises:
            ConfigError: The server refuses something; what was done before stays, and the next
                bootstrap goes on from there.
        """
        made: dict[str, dict[str, Any]] = {kind: dict(ids) for kind, ids in self._made.items()}
        kinds = {kind.label: kind for kind in self._kinds}
        todo = [*steps]
        try:
            for step in todo:
                with explained(f"{step.kind} {step.name}"):
                    there = self._present[step.kind].get(step.name)
                    if step.action is Action.CREATE:
                        made.setdefault(step.kind, {})[step.name] = kinds[step.kind].create(
                            step.name
                        )
                    elif step.action is Action.CHANGE and there is not None:
                        kinds[step.kind].change(step.name, there, step.keys)
                    if step.action in (Action.CHANGE, Action.KEEP) and there is not None:
                        made.setdefault(step.kind, {})[step.name] = there.id
            for step in reversed(todo):
                if step.action is Action.REMOVE:
                    with explained(f"{step.kind} {step.name}"):
                        kinds[step.kind].remove(step.name, self._present[step.kind][step.name])
                    made.get(step.kind, {}).pop(step.name, None)
        finally:
            self._remember(made)

    def _remember(self, made: dict[str, dict[str, str]]) -> None:
        made.pop(BlockTypes.label, None)
        if made != self._made:
            with explained("keeping the inventory"):
                write_inventory(self.environment.name, made)
