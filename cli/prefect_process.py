"""Prefect in a process of ours: its settings before it is imported, and its last words at the end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.environments import project_root

SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "dpp",
}
"""Settings of every process of ours that runs flows."""
DRAIN_SECONDS = 10


def quiet_prefect() -> None:
    """Leave the terminal to our own lines; the UI gets Prefect's as well."""
    assert "prefect" not in sys.modules, "Prefect has read its settings already"
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ["DPP_HOME"] = str(project_root())


def address_prefect(api_url: str, home: Path) -> None:
    """Point this process at a Prefect server; must happen before Prefect is imported."""
    quiet_prefect()
    os.environ.update(PREFECT_API_URL=api_url, PREFECT_HOME=str(home))


def drain_prefect() -> None:
    """Send what Prefect still has to tell its server; it would wait for a server that is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=DRAIN_SECONDS)
