"""A Prefect server with its UI, and a worker that runs what the UI asks for."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

from embedded.postgres import SUPERUSER, ensure_database
from embedded.supervision import LOCALHOST, Component, Ports

UI_PORT = 4200
DATABASE = "prefect"
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}


def prefect_server_component(
    local: Path, postgres_port: int, password: str, encryption_key: str
) -> Component:
    """Describe the server; its database is one of the embedded PostgreSQL's.

    SQLite would do for one user, but makes single runs wait for seconds while others write.
    """
    home = local / "prefect"

    def environment(ports: Ports) -> dict[str, str]:
        url = f"postgresql+asyncpg://{SUPERUSER}:{password}@{LOCALHOST}:{postgres_port}/{DATABASE}"
        return {
            **QUIET,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
            "PREFECT_SERVER_ENCRYPTION_KEY": encryption_key,
            "PREFECT_UI_API_URL": f"{api_url(ports)}",
            "PREFECT_SERVER_API_HOST": LOCALHOST,
            "PREFECT_SERVER_API_PORT": str(ports["prefect"]),
        }

    def prepare() -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        ensure_database(postgres_port, password, DATABASE)

    return Component(
        name="prefect_server",
        ports={"prefect": UI_PORT},
        command=lambda ports: [
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            str(home),
            "--factory",
            "prefect.server.api.server:create_app",
            "--host",
            LOCALHOST,
            "--port",
            str(ports["prefect"]),
            "--timeout-keep-alive",
            "5",
            "--log-level",
            "warning",
        ],
        environment=environment,
        ready=server_answers,
        prepare=prepare,
        start_seconds=180,
        stop_seconds=15,
        needs=("postgres",),
    )


def api_url(ports: Ports) -> str:
    """Return the URL of the server's API."""
    return f"http://{LOCALHOST}:{ports['prefect']}/api"


def server_answers(ports: Ports) -> bool:
    """Tell whether the server is up and has its database."""
    try:
        with urllib.request.urlopen(f"{api_url(ports)}/ready", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
