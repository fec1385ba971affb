"""The dev environment at work: servers up, blocks saved, Prefect addressed; all undone at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr

from cli.prefect_process import address_prefect
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack
from embedded.supervision import EmbeddedServerError
from tasks.catalog import Catalog
from tasks.environments import project_root
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, SourceUnavailable

WAREHOUSE_DATABASE = "warehouse"
OnEvent = Callable[[str, str], None]


class LocalServers:
    """The embedded servers, as far as some datasets need them.

    Args:
        stack: The servers.
        environment: The dev environment.
        named: The blocks of the sources that are worked on.
    """

    def __init__(self, stack: EmbeddedStack, environment: Environment, named: set[str]) -> None:
        from demo.servers import SERVERS

        self.stack = stack
        self._environment = environment
        self.source_blocks = named & SERVERS.keys()
        self.blocks_of_the_user = named - SERVERS.keys()
        """Blocks that only the Prefect server has."""
        self._servers = {server for name in self.source_blocks for server in SERVERS[name]}

    def start(self, *, prefect: bool, sources: bool) -> None:
        """Start the servers and fill the demo's sources, unless they are up and filled."""
        wanted = {"postgres", *(self._servers if sources else ())}
        if prefect:
            wanted.add("prefect_server")
        try:
            self.stack.start(*sorted(wanted))
            address = self.stack.postgres
            ensure_database(address.port, address.password, WAREHOUSE_DATABASE)
        except EmbeddedServerError as error:
            raise SourceUnavailable(str(error)) from None
        if prefect:
            address_prefect(self.stack.prefect_api_url, self.stack.local / "prefect")
        if sources and self.source_blocks:
            from demo.sources import fill

            fill(self.stack, self.source_blocks)

    def blocks(self, *, sources: bool) -> dict[str, Any]:
        """Return the blocks of the environment by name, with today's addresses."""
        from blocks.object_store import LakeStorage
        from blocks.warehouse import WarehouseCredentials

        address = self.stack.postgres
        blocks: dict[str, Any] = {
            self._environment.warehouse_block: WarehouseCredentials(
                host=address.host,
                port=address.port,
                database=WAREHOUSE_DATABASE,
                username=address.user,
                password=SecretStr(address.password),
                pool_size=2 * self._environment.concurrency + 2,
            ),
            self._environment.lake_block: LakeStorage(uri=f"file://{self.stack.local / 'lake'}"),
        }
        if sources:
            from demo.sources import source_blocks

            blocks |= source_blocks(self.stack, self.source_blocks)
        return blocks

    def load_block(self, block_class: type[Any], name: str) -> Any:
        """Give a block without asking the Prefect server; for commands that need none."""
        block = self.blocks(sources=name in self.source_blocks).get(name)
        if isinstance(block, block_class):
            return block
        raise ConfigError(
            f"no block {name!r} of type {block_class.get_block_type_slug()!r} in the dev environment",
            "create it in the UI: dpp up",
        )


def with_dependencies(catalog: Catalog, names: Iterable[str]) -> set[str]:
    """Return datasets with those that they look up, and those that these look up."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += catalog[name].dependencies
    return found


@contextmanager
def local_servers(
    environment: Environment,
    catalog: Catalog,
    names: Iterable[str],
    on_event: OnEvent,
    blocks: Iterable[str] = (),
) -> Iterator[LocalServers]:
    """Become a user of the embedded servers; the last user's end stops them.

    Args:
        environment: The dev environment.
        catalog: All datasets.
        names: Those that are worked on.
        on_event: Is told of servers that are started.
        blocks: Blocks of sources that no dataset has yet.
    """
    from demo.servers import weather_component
    from embedded.secrets import load_secrets

    root = project_root()
    of_datasets = (
        getattr(catalog[name].source, "block", None) for name in with_dependencies(catalog, names)
    )
    named = {str(block) for block in of_datasets if block}.union(blocks)
    weather = weather_component(load_secrets(root / ".local").api_key)
    with EmbeddedStack(root, on_event, extra=[weather]) as stack:
        yield LocalServers(stack, environment, named)


def save_blocks(blocks: dict[str, Any]) -> None:
    """Save blocks on the Prefect server, in place of those of the same name that differ."""
    from blocks.content import save_if_changed

    for name, block in blocks.items():
        save_if_changed(block, name)


def ui_url(api_url: str) -> str:
    """Return the address of the UI that belongs to an API."""
    return api_url.removesuffix("/api")
