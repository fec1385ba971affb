"""A Prefect server with its UI, and a worker that runs what the UI asks for."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from embedded.component import Component, Ports
from embedded.ports import LOCALHOST, http_answers
from embedded.postgres import SUPERUSER, ensure_database

UI_PORT = 4200
DATABASE = "prefect"
CANCELLING = "45"
"""Seconds; a run stops within 30, so what is still being cancelled then has no process that would."""
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""States of task runs are written together, each second; else each in a transaction of its own."""
# A shell that is set up for another server must not lead these two there.
INHERITED = ("PREFECT_",)


def prefect_server_component(
    local: Path, postgres_port: int, password: str, encryption_key: str
) -> Component:
    """Describe the server; its database is one of the embedded PostgreSQL's.

    With SQLite the first start takes 12 to 15 seconds, with PostgreSQL 7 to 8; later ones take 5
    with either. Uvicorn is what ``prefect server start`` starts, one process less.
    """
    home = local / "prefect"

    def environment(ports: Ports) -> dict[str, str]:
        url = f"postgresql+asyncpg://{SUPERUSER}:{password}@{LOCALHOST}:{postgres_port}/{DATABASE}"
        return {
            **QUIET,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
            "PREFECT_SERVER_ENCRYPTION_KEY": encryption_key,
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": CANCELLING,
            **RECORDER,
            "PREFECT_SERVER_UI_API_URL": api_url(ports),
            "PREFECT_UI_URL": f"http://{LOCALHOST}:{ports['prefect']}",
            "PREFECT_SERVER_API_HOST": LOCALHOST,
            "PREFECT_SERVER_API_PORT": str(ports["prefect"]),
        }

    def prepare() -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        ensure_database(postgres_port, password, DATABASE)

    def command(ports: Ports) -> list[str]:
        options = {
            "--host": LOCALHOST,
            "--port": str(ports["prefect"]),
            "--timeout-keep-alive": "5",
            "--timeout-graceful-shutdown": "3",  # a browser's open socket would hold it for ever
            "--log-level": "warning",
        }
        return [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *(part for option in options.items() for part in option),
        ]

    return Component(
        name="prefect_server",
        ports={"prefect": UI_PORT},
        command=command,
        environment=environment,
        drop_variables=INHERITED,
        ready=lambda ports: http_answers(f"{api_url(ports)}/ready"),
        prepare=prepare,
        start_seconds=180,
        stop_seconds=8,
        needs=("postgres",),
    )


def prefect_worker_component(
    local: Path, server_url: str, pool: str, environment: Mapping[str, str]
) -> Component:
    """Describe a worker that runs flows as processes, in the folder above ``local``.

    Args:
        local: The folder of the servers.
        server_url: URL of the Prefect server's API.
        pool: Its work pool; made, with type ``process``, if it is missing.
        environment: Variables for the flows.
    """
    worker = "embedded"

    def variables(ports: Ports) -> dict[str, str]:
        return {
            **QUIET,
            **environment,
            "PREFECT_HOME": str(local / "prefect"),
            "PREFECT_API_URL": server_url,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": LOCALHOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports["health"]),
        }

    def command(_ports: Ports) -> list[str]:
        options = ("--pool", pool, "--type", "process", "--name", worker, "--with-healthcheck")
        never_install = ("--install-policy", "never")
        return [sys.executable, "-m", "prefect", "worker", "start", *options, *never_install]

    def ready(ports: Ports) -> bool:
        # Its health is good from the first moment on; the server knows when it has come.
        return http_answers(f"http://{LOCALHOST}:{ports['health']}/health") and worker_is_online(
            server_url, pool, worker
        )

    return Component(
        name="prefect_worker",
        ports={"health": 0},
        command=command,
        environment=variables,
        drop_variables=INHERITED,
        ready=ready,
        start_seconds=120,
        stop_seconds=8,
        needs=("prefect_server",),
    )


def api_url(ports: Ports) -> str:
    """Return the URL of the server's API."""
    return f"http://{LOCALHOST}:{ports['prefect']}/api"


def worker_is_online(server_url: str, pool: str, worker: str) -> bool:
    """Tell whether the server has heard from a worker lately."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{server_url}/work_pools/{pool}/workers/filter",
        data=json.dumps({"limit": 50}).encode(),
        headers={"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=5) as answer:
            workers = json.load(answer)
    except (OSError, ValueError):
        return False
    return any(each["name"] == worker and each["status"] == "ONLINE" for each in workers)
