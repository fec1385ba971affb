"""Work pools, global concurrency limits and variables of an environment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound

from deployments.bootstrap.plan import Content, Present
from deployments.work_pools import base_job_template
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError


class WorkPools:
    """The work pool of an environment. Whether it is paused is left to people."""

    label: ClassVar[str] = "work pool"

    def __init__(self, client: SyncPrefectClient, environment: Environment) -> None:
        self._client = client
        self._pool = environment.work_pool
        self._description = f"Flow runs of {environment.name}."

    def declared(self) -> dict[str, Content]:
        """Return the pool as its job template and the environment say."""
        return {
            self._pool.name: {
                "type": self._pool.type,
                "description": self._description,
                "concurrency_limit": self._pool.concurrency_limit,
                "base_job_template": base_job_template(self._pool),
            }
        }

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the pools that the server has.

        Raises:
            ConfigError: The pool is there, and is of another type; that cannot be changed.
        """
        found = {}
        for name in names:
            try:
                pool = self._client.read_work_pool(name)
            except ObjectNotFound:
                continue
            if name == self._pool.name and pool.type != self._pool.type:
                raise ConfigError(
                    f"work pool {name!r} is of type {pool.type!r} on the server, and should be "
                    f"{self._pool.type!r}",
                    "Prefect cannot change the type of a pool: delete it, or give it another name",
                )
            keys = ("type", "description", "concurrency_limit", "base_job_template")
            found[name] = Present(str(pool.id), {key: getattr(pool, key) for key in keys})
        return found

    def create(self, name: str) -> str:
        """Create the pool."""
        content = self.declared()[name]
        return str(self._client.create_work_pool(WorkPoolCreate(name=name, **content)).id)

    def change(self, name: str, _present: Present, keys: Collection[str]) -> None:
        """Update the pool."""
        content = self.declared()[name]
        update = WorkPoolUpdate(**{key: content[key] for key in keys})
        self._client.update_work_pool(name, update)

    def remove(self, name: str, _present: Present) -> None:
        """Delete a pool."""
        self._client.delete_work_pool(name)


class Limits:
    """The global concurrency limits of an environment."""

    label: ClassVar[str] = "concurrency limit"

    def __init__(self, client: SyncPrefectClient, environment: Environment) -> None:
        self._client = client
        self._limits = environment.concurrency_limits

    def declared(self) -> dict[str, Content]:
        """Return the limits."""
        return {
            name: {**limit.model_dump(), "active": True} for name, limit in self._limits.items()
        }

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the limits that the server has."""
        found = {}
        for name in names:
            try:
                limit = self._client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                continue
            keys = ("limit", "slot_decay_per_second", "active")
            found[name] = Present(str(limit.id), {key: getattr(limit, key) for key in keys})
        return found

    def create(self, name: str) -> str:
        """Create a limit."""
        content = GlobalConcurrencyLimitCreate(name=name, **self.declared()[name])
        return str(self._client.create_global_concurrency_limit(content))

    def change(self, name: str, _present: Present, keys: Collection[str]) -> None:
        """Update a limit; who holds slots keeps them."""
        content = self.declared()[name]
        update = GlobalConcurrencyLimitUpdate(**{key: content[key] for key in keys})
        self._client.update_global_concurrency_limit(name, update)

    def remove(self, name: str, _present: Present) -> None:
        """Delete a limit."""
        self._client.delete_global_concurrency_limit_by_name(name)


class Variables:
    """The Prefect variables of an environment."""

    label: ClassVar[str] = "variable"

    def __init__(self, client: SyncPrefectClient, environment: Environment) -> None:
        self._client = client
        self._values: dict[str, Any] = environment.variables

    def declared(self) -> dict[str, Content]:
        """Return the variables."""
        return {name: {"value": value} for name, value in self._values.items()}

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the variables that the server has."""
        found = {}
        for name in names:
            variable = self._client.read_variable_by_name(name)
            if variable is not None:
                found[name] = Present(str(variable.id), {"value": variable.value})
        return found

    def create(self, name: str) -> str:
        """Create a variable."""
        made = self._client.create_variable(VariableCreate(name=name, value=self._values[name]))
        return str(made.id)

    def change(self, name: str, _present: Present, _keys: Collection[str]) -> None:
        """Update a variable."""
        self._client.update_variable(VariableUpdate(name=name, value=self._values[name]))

    def remove(self, name: str, _present: Present) -> None:
        """Delete a variable."""
        self._client.delete_variable_by_name(name)
