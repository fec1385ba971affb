"""Opens what a command works on: environment, datasets, connections, and the servers of dev."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.console import starting, stderr
from cli.prefect_process import drain_prefect, quiet_prefect
from tasks.catalog import Catalog
from tasks.environments import environment_catalog, load_environment
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

if TYPE_CHECKING:
    from tasks.connections import Connections


def open_project() -> tuple[Environment, Catalog]:
    """Read the environment and its dataset files."""
    environment = load_environment()
    return environment, environment_catalog(environment)


def chosen(catalog: Catalog, names: Iterable[str]) -> list[str]:
    """Return the named datasets, all if none is named; each is known."""
    picked = list(names) or sorted(catalog.datasets)
    return [catalog[name].name for name in picked]


@contextmanager
def connections(
    environment: Environment,
    catalog: Catalog,
    names: Iterable[str],
    *,
    sources: bool,
    blocks: Iterable[str] = (),
) -> Iterator[Connections]:
    """Open connections for a command that runs no flow.

    In dev the embedded servers are started as needed; the Prefect server only for blocks of the user.
    """
    if not environment.embedded:
        _require_prefect_url()
        from tasks.connections import Connections

        with Connections(environment) as opened:
            yield opened
        return
    from cli.local import local_servers, save_blocks

    with local_servers(environment, catalog, names, starting, blocks) as local:
        prefect = sources and bool(local.blocks_of_the_user)
        local.start(prefect=prefect, sources=sources)
        from tasks.connections import Connections, load_from_prefect

        if prefect:
            save_blocks(local.blocks(sources=True))
        load = load_from_prefect if prefect else local.load_block
        with Connections(environment, load) as opened:
            yield opened
        if prefect:
            drain_prefect()


@contextmanager
def prefect_ready(
    environment: Environment, catalog: Catalog, names: Iterable[str]
) -> Iterator[str]:
    """Make flows runnable in this process; gives the URL of the Prefect API.

    In dev that starts a Prefect server and the other servers unless they run, and says so.
    """
    if not environment.embedded:
        yield _require_prefect_url()
        drain_prefect()
        return
    from cli.local import local_servers, save_blocks

    with local_servers(environment, catalog, names, starting) as local:
        with stderr.status("starting PostgreSQL, Prefect and the sources …"):
            local.start(prefect=True, sources=True)
            save_blocks(local.blocks(sources=True))
        try:
            yield local.stack.prefect_api_url
        finally:
            drain_prefect()


def _require_prefect_url() -> str:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise ConfigError(
            "PREFECT_API_URL is not set, and this environment has no server of its own",
            "export PREFECT_API_URL=https://prefect.example.org/api, or use DPP_ENV=dev",
        )
    quiet_prefect()
    return url
