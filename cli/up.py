"""``dpp up``: the Prefect UI, a worker and the dev deployments on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading

from cli.bootstrap import by_key, deploy
from cli.console import console, starting, stderr
from cli.context import open_project
from cli.local import local_servers, ui_url
from cli.prefect_process import SETTINGS, drain_prefect
from embedded.supervision import EmbeddedServerError
from tasks.environments import project_root
from tasks.model.errors import ConfigError, SourceUnavailable


def serve() -> None:
    """Start everything, deploy, and wait for Ctrl-C or SIGTERM.

    Raises:
        ConfigError: The environment has servers of its own, or prefect.yaml cannot be deployed.
        SourceUnavailable: A server did not start.
    """
    environment, catalog = open_project()
    if not environment.embedded:
        raise ConfigError(
            f"environment {environment.name} has servers of its own", "use DPP_ENV=dev for dpp up"
        )
    with local_servers(environment, catalog, sorted(catalog.datasets), starting) as local:
        with stderr.status("starting PostgreSQL, Prefect, the sources and a worker …"):
            local.start(prefect=True, sources=True)
            deploy(environment, by_key(local.blocks(sources=True)))
            drain_prefect()
            try:
                local.stack.start_worker(
                    environment.work_pool.name, _worker_variables(environment.name)
                )
            except EmbeddedServerError as error:
                raise SourceUnavailable(str(error)) from None
        address = local.stack.postgres
        console.print(
            f"\n[bold]Prefect UI[/]  {ui_url(local.stack.prefect_api_url)}\n"
            f"[bold]PostgreSQL[/]  {address.host}:{address.port}, database warehouse, user "
            f"{address.user}, password in .local/secrets.json\n"
            f"deployments dataset-{environment.name}, backfill-{environment.name}, "
            f"replay-{environment.name}, "
            f"daily-{environment.name} and hourly-{environment.name} can be run from the UI. "
            "Ctrl-C stops everything.",
            highlight=False,
            soft_wrap=True,
        )
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
        stderr.print("[dim]stopping …[/]")


def _worker_variables(environment: str) -> dict[str, str]:
    return {**SETTINGS, "DPP_ENV": environment, "DPP_HOME": str(project_root())}
