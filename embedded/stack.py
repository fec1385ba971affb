"""The embedded servers as one thing: started together, addressed by name, left together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from embedded.object_store import ACCESS_KEY, object_store_component
from embedded.postgres import SUPERUSER, postgres_component
from embedded.prefect_server import api_url, prefect_server_component
from embedded.secrets import EmbeddedSecrets, load_secrets
from embedded.supervision import LOCALHOST, Component, Supervisor

OnEvent = Callable[[str, str], None]


@dataclass(frozen=True)
class PostgresAddress:
    """Where the embedded PostgreSQL is."""

    port: int
    password: str = field(repr=False)
    host: str = LOCALHOST
    user: str = SUPERUSER


@dataclass(frozen=True)
class ObjectStoreAddress:
    """Where the embedded S3 server is."""

    endpoint_url: str
    secret_key: str = field(repr=False)
    access_key: str = ACCESS_KEY


class EmbeddedStack:
    """The servers below ``<root>/.local``, shared by all commands that run in this checkout.

    Args:
        root: Folder of the project.
        on_event: Is told (component, ``starting`` | ``ready`` | ``reused``).
        extra: Further components, for the sources of a demo.
    """

    def __init__(
        self,
        root: Path,
        on_event: OnEvent = lambda _component, _event: None,
        extra: Sequence[Component] = (),
    ) -> None:
        self.local = root / ".local"
        self.secrets: EmbeddedSecrets = load_secrets(self.local)
        self._supervisor = Supervisor(self.local)
        self._on_event = on_event
        self._extra = {component.name: component for component in extra}
        self._ports: dict[str, dict[str, int]] = {}

    def __enter__(self) -> Self:
        self._supervisor.join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._supervisor.leave()

    def start(self, *names: str) -> None:
        """Start the named components that do not run; independent ones at the same time.

        Raises:
            EmbeddedServerError: One of them did not become ready.
        """
        first = [name for name in names if name != "prefect_server"]
        if "prefect_server" in names and "postgres" not in (*first, *self._ports):
            first.insert(0, "postgres")
        with ThreadPoolExecutor(max_workers=4) as pool:
            started = {name: pool.submit(self._ensure, name) for name in first}
            if "prefect_server" in names:
                if "postgres" in started:
                    started["postgres"].result()
                self._ensure("prefect_server")
            for future in started.values():
                future.result()

    def _ensure(self, name: str) -> None:
        self._on_event(name, "starting")
        ports, is_new = self._supervisor.ensure(self._component(name))
        self._ports[name] = ports
        self._on_event(name, "ready" if is_new else "reused")

    def _component(self, name: str) -> Component:
        if name in self._extra:
            return self._extra[name]
        if name == "postgres":
            return postgres_component(self.local, self.secrets.warehouse_password)
        if name == "object_store":
            return object_store_component(self.local, self.secrets.s3_secret_key)
        if name == "prefect_server":
            return prefect_server_component(
                self.local,
                self.postgres.port,
                self.secrets.warehouse_password,
                self.secrets.prefect_encryption_key,
            )
        raise KeyError(name)

    def ports(self, name: str) -> dict[str, int]:
        """Return the ports of a component that was started."""
        return self._ports[name]

    @property
    def postgres(self) -> PostgresAddress:
        """Where the embedded PostgreSQL is."""
        return PostgresAddress(self._ports["postgres"]["postgres"], self.secrets.warehouse_password)

    @property
    def object_store(self) -> ObjectStoreAddress:
        """Where the embedded S3 server is."""
        port = self._ports["object_store"]["s3"]
        return ObjectStoreAddress(f"http://{LOCALHOST}:{port}", self.secrets.s3_secret_key)

    @property
    def prefect_api_url(self) -> str:
        """URL of the Prefect server's API."""
        return api_url(self._ports["prefect_server"])
