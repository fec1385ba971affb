"""The servers behind the demo's sources. Imports nothing of Prefect, whose address is not known yet."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

from embedded.supervision import LOCALHOST, Component, Ports

SERVERS = {
    "landing": ("object_store",),
    "weather": ("weather_api",),
    "operations": ("postgres",),
}
"""Block of a source → the embedded servers behind it."""


def weather_component(api_key: str) -> Component:
    """Describe the server of the weather API."""

    def ready(ports: Ports) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://{LOCALHOST}:{ports['http']}/healthz", timeout=2
            ) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except (urllib.error.URLError, OSError):
            return False

    return Component(
        name="weather_api",
        ports={"http": 0},
        command=lambda ports: [
            sys.executable,
            "-m",
            "demo.weather_api",
            "--port",
            str(ports["http"]),
        ],
        environment=lambda _ports: {"WEATHER_API_KEY": api_key},
        ready=ready,
    )
