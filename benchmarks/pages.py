"""A paginated JSON API of the same things, in a process of its own.

python -m benchmarks.pages FOLDER     serves the pages of a folder, and says its port first
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.sources import COLUMNS, row_of

PAGE_RECORDS = 1000


def prepare_api(_stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Write the pages that the API gives."""
    pages = int(500 * scale)
    dice = random.Random(5)
    size = 0
    for page in range(1, pages + 1):
        records = [
            dict(zip(COLUMNS, row_of((page - 1) * PAGE_RECORDS + n, dice), strict=True))
            | {"tags": ["a", n % 5]}
            for n in range(PAGE_RECORDS)
        ]
        content = json.dumps({"pages": pages, "data": records}).encode()
        (folder / f"{page}.json").write_bytes(content)
        size += len(content)
    return {"folder": str(folder), "pages": pages, "rows": pages * PAGE_RECORDS, "bytes": size}


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_GET(self) -> None:
        page = parse_qs(urlsplit(self.path).query).get("page", ["1"])[0]
        path = self.folder / f"{int(page)}.json"
        content = path.read_bytes() if path.is_file() else b'{"data": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve_pages(folder: str) -> None:
    """Serve the pages of a folder until the process is ended; says its port first."""
    _Pages.folder = Path(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextmanager
def api(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the API in a process of its own, so that it takes no time from a contender's."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pages", job["folder"]],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield {**job, "base_url": base, "path": "/things", "url": f"{base}/things"}
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    serve_pages(sys.argv[1])
