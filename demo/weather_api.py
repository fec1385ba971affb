"""A REST API on loopback that serves the demo's hourly weather, and is as moody as real ones.

Run it as ``python -m demo.weather_api --port 8080``; the key it asks for is in ``WEATHER_API_KEY``.
Some pages are answered with 429 and ``Retry-After``, some with 503, the first time they are asked.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from demo.observations import PATH, BadParameterError, Observations, Query


class Handler(BaseHTTPRequestHandler):
    """Answers ``GET /v1/observations?from=&to=&page=&page_size=`` and ``GET /healthz``."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True
    observations: ClassVar[Observations]
    key: ClassVar[bytes]

    def do_GET(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return self._answer(HTTPStatus.OK, json.dumps(self.observations.health()))
        if not hmac.compare_digest(self.headers.get("X-API-Key", "").encode(), self.key):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "missing or unknown API key")
        if url.path != PATH:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such resource")
        try:
            return self._observations(Query.parse(url.query))
        except BadParameterError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _observations(self, query: Query) -> None:
        match self.observations.admit(query):
            case HTTPStatus.TOO_MANY_REQUESTS as status:
                return self._refuse(status, "slow down", {"Retry-After": "1"})
            case HTTPStatus.SERVICE_UNAVAILABLE as status:
                return self._refuse(status, "in a moment")
            case status:
                return self._answer(status, self.observations.page(query))

    def _refuse(
        self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None
    ) -> None:
        self._answer(status, json.dumps({"message": message}), headers)

    def _answer(self, status: HTTPStatus, body: str, headers: dict[str, str] | None = None) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write no access log; errors are still written to stderr."""


class Server(ThreadingHTTPServer):
    """Serves each connection in a thread; listens on loopback only."""

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, but not a client that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(port: int, key: str) -> Server:
    """Return a server on 127.0.0.1 that listens; ``serve_forever`` starts to answer.

    Args:
        port: Its port; 0 takes a free one.
        key: What clients must send as ``X-API-Key``.
    """
    known = {"observations": Observations.load(), "key": key.encode()}
    return Server(("127.0.0.1", port), type("WeatherHandler", (Handler,), known))


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m demo.weather_api", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    key = os.environ.get("WEATHER_API_KEY")
    if not key:
        parser.error("the environment variable WEATHER_API_KEY is missing or empty")
    with make_server(port, key) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
