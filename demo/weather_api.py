"""A REST API on loopback that serves the demo's hourly weather, and is as moody as real ones.

Run it as ``python -m demo.weather_api --port 8080``; the key it asks for is in ``WEATHER_API_KEY``.
Some requests are answered with 429 and ``Retry-After``, some with 503, the first time they are made.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import re
import zlib
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

from demo.nycflights import NULL, rows

PATH = "/v1/observations"
TEXT_COLUMNS = frozenset({"origin", "time_hour"})
MAX_PAGE_SIZE = 5000
MOODY_OF_HUNDRED = 7
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z?)?")


def record(row: dict[str, str]) -> str:
    """Write one observation as JSON; numbers keep the digits of the file."""
    fields = (
        f"{json.dumps(name)}:{json.dumps(text) if name in TEXT_COLUMNS else text}"
        if text != NULL
        else f"{json.dumps(name)}:null"
        for name, text in row.items()
    )
    return "{" + ",".join(fields) + "}"


@dataclass
class Observations:
    """All observations in the order of their time, and what was asked of them."""

    times: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def load(cls) -> Observations:
        """Read the weather of the package."""
        ordered = sorted(rows("weather"), key=lambda row: (row["time_hour"], row["origin"]))
        return cls([row["time_hour"] for row in ordered], [record(row) for row in ordered])

    def mood(self, request: str) -> int:
        """Return the status for a request: 429 or 503 for a few, the first time they come."""
        dice = zlib.crc32(request.encode()) % 100
        with self.lock:
            first = request not in self.asked
            self.asked.add(request)
            status = 200
            if first and dice < MOODY_OF_HUNDRED:
                status = 429
            elif first and dice < 2 * MOODY_OF_HUNDRED:
                status = 503
            self.answered[str(status)] += 1
            return status


class Handler(BaseHTTPRequestHandler):
    """Answers ``GET /v1/observations?from=&to=&page=&page_size=``."""

    protocol_version = "HTTP/1.1"
    observations: ClassVar[Observations]
    key: ClassVar[str]

    def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
        """Answer one request."""
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return self._answer(200, json.dumps({"status": "ok", **self.observations.answered}))
        if not hmac.compare_digest(self.headers.get("X-API-Key", ""), self.key):
            return self._answer(401, json.dumps({"message": "missing or unknown API key"}))
        if url.path != PATH:
            return self._answer(404, json.dumps({"message": "no such resource"}))
        status = self.observations.mood(self.path)
        if status == 429:  # noqa: PLR2004
            return self._answer(429, '{"message":"slow down"}', {"Retry-After": "1"})
        if status == 503:  # noqa: PLR2004
            return self._answer(503, '{"message":"in a moment"}')
        return self._observations(parse_qs(url.query))

    def _observations(self, query: dict[str, list[str]]) -> None:
        asked = {name: values[-1] for name, values in query.items()}
        low, high = asked.get("from", "0000-01-01"), asked.get("to", "9999-12-31")
        page, size = asked.get("page", "1"), asked.get("page_size", "1000")
        if not (_TIME.fullmatch(low) and _TIME.fullmatch(high)):
            return self._answer(400, '{"message":"from and to are days or UTC times"}')
        if not (page.isdigit() and size.isdigit() and 0 < int(size) <= MAX_PAGE_SIZE and int(page)):
            return self._answer(400, '{"message":"page counts from 1, page_size to 5000"}')
        api = self.observations
        first, last = bisect_left(api.times, low), bisect_left(api.times, high)
        total, pages = last - first, -(-(last - first) // int(size))
        start = first + (int(page) - 1) * int(size)
        data = ",".join(api.records[start : min(start + int(size), last)])
        following = "null"
        if int(page) < pages:
            asked["page"] = str(int(page) + 1)
            following = json.dumps(f"{PATH}?{urlencode(asked)}")
        return self._answer(
            200,
            f'{{"data":[{data}],"page":{page},"pages":{pages},"total":{total},"next":{following}}}',
        )

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server calls it
        """Write no access log."""


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    Handler.observations = Observations.load()
    Handler.key = os.environ["WEATHER_API_KEY"]
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
