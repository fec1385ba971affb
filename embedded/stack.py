"""The embedded servers as one thing: started together, addressed by name, left together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from embedded.component import Component
from embedded.object_store import ACCESS_KEY, object_store_component
from embedded.ports import LOCALHOST
from embedded.postgres import SUPERUSER, postgres_component
from embedded.prefect_server import (
    api_url,
    prefect_server_component,
    prefect_worker_component,
)
from embedded.secrets import EmbeddedSecrets, load_secrets
from embedded.supervision import Supervisor

OnEvent = Callable[[str, str], None]
BUILT_IN: dict[str, tuple[str, ...]] = {
    "postgres": (),
    "object_store": (),
    "prefect_server": ("postgres",),
}
"""Components that are always to be had → what each needs."""


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
        on_event: Is told (component, ``starting`` | ``ready`` | ``reused`` | ``stopped``), also
            from other threads.
        extra: Further components, for the sources of a demo.
    """

    def __init__(
        self,
        root: Path,
        on_event: OnEvent = lambda _component, _event: None,
        extra: Sequence[Component] = (),
    ) -> None:
        self.local = root.absolute() / ".local"
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
        self.close()

    def close(self) -> None:
        """Stop using the servers; if nobody else does, wait until they have stopped."""
        if self._supervisor.leave():
            for name in reversed(self._ports):
                self._on_event(name, "stopped")
        self._ports.clear()

    def start(self, *names: str) -> None:
        """Start the named components and what they need; independent ones at the same time.

        Args:
            names: ``postgres``, ``object_store``, ``prefect_server``, or the name of an extra one.

        Raises:
            EmbeddedServerError: One of them did not become ready.
            KeyError: There is no component of that name.
        """
        self._supervisor.join()
        pool = ThreadPoolExecutor(max_workers=8)  # each waits only for those submitted before it
        futures: dict[str, Future[None]] = {}
        try:
            for name in self._in_order(names):
                needs = [futures[need] for need in self._needs(name) if need in futures]
                futures[name] = pool.submit(self._ensure, name, needs)
            for future in as_completed(futures.values()):
                future.result()
        except BaseException:  # Ctrl-C too
            self._supervisor.cancel()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def start_worker(self, pool: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a worker that runs the flow runs of a work pool as processes of this machine.

        Args:
            pool: Name of the work pool; made if it is missing.
            environment: Variables for its flow runs. Read when the worker starts, not on reuse.
        """
        self.start("prefect_server")
        self._extra["prefect_worker"] = prefect_worker_component(
            self.local, self.prefect_api_url, pool, environment or {}
        )
        self.start("prefect_worker")

    def _needs(self, name: str) -> tuple[str, ...]:
        return self._extra[name].needs if name in self._extra else BUILT_IN[name]

    def _in_order(self, names: Iterable[str]) -> list[str]:
        ordered: list[str] = []
        for name in names:
            needs = [need for need in self._needs(name) if need not in self._ports]
            for each in (*self._in_order(needs), name):
                if each not in ordered:
                    ordered.append(each)
        return ordered

    def _ensure(self, name: str, needs: Sequence[Future[None]]) -> None:
        for need in needs:
            need.result()
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
        return prefect_server_component(
            self.local,
            self.postgres.port,
            self.secrets.warehouse_password,
            self.secrets.prefect_encryption_key,
        )

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
