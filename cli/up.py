"""``dpp up``: the Prefect UI, a worker and the dev deployments on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from cli.console import console, starting, stderr
from cli.context import open_project
from cli.local import local_servers, save_blocks, ui_url
from cli.prefect_process import SETTINGS, drain_prefect
from embedded.supervision import EmbeddedServerError
from tasks.environments import code_version, project_root
from tasks.model.errors import ConfigError, SourceUnavailable

LINES_SHOWN = 5


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
            save_blocks(local.blocks(sources=True))
            drain_prefect()
            _deploy(environment.name)
            try:
                local.stack.start_worker(environment.name, _worker_variables(environment.name))
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


def _deploy(environment: str) -> None:
    """Create the work pool and the deployments of one environment on the local server."""
    variables = {
        **os.environ, **_worker_variables(environment), "DPP_VERSION": code_version(),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }  # fmt: skip
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for arguments in (
        ["work-pool", "create", environment, "--type", "process", "--overwrite"],
        ["deploy", "--name", f"*-{environment}"],
    ):
        done = subprocess.run(  # noqa: S603 - our own command
            [*prefect, *arguments],
            cwd=project_root(),
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise ConfigError(
                f"prefect {' '.join(arguments)} failed: " + " ".join(said[-LINES_SHOWN:])
            )
