"""An S3 server that misbehaves on demand: requests go through to a real one, unless a test says what.

It listens on loopback, on a free port, in threads of the test's process. The host that the client
signed is passed on as it is, so signatures stay right.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SKIPPED = frozenset({"connection", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def key(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def is_listing(self) -> bool:
        return "list-type" in self.query


@dataclass(frozen=True)
class Fault:
    """What is done instead.

    Attributes:
        status: Status of the answer.
        code: S3's code of the error.
        cut_after: Pass the request on, and break the connection after so many bytes of its answer.
    """

    status: int = 503
    code: str = "SlowDown"
    cut_after: int | None = None


@dataclass
class MisbehavingS3:
    """The proxy; ``decide`` gets each request and its number, from 1."""

    port: int
    decide: Callable[[Asked, int], Fault | None] = lambda _asked, _n: None
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def misbehaving_s3(upstream: str) -> Iterator[MisbehavingS3]:
    """Run a proxy in front of an S3 server."""
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers))
            made.asked.append(asked)
            fault = made.decide(asked, len(made.asked))
            with suppress(OSError):
                if fault is not None and fault.cut_after is None:
                    self._refuse(fault)
                else:
                    self._pass_on(body, fault.cut_after if fault else None)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815 - http.server's names

        def _refuse(self, fault: Fault) -> None:
            content = f"<Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
            self.send_response(fault.status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _pass_on(self, body: bytes, cut_after: int | None) -> None:
            upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
            upstream.request(self.command, self.path, body or None, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in SKIPPED:
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if cut_after is not None:
                self.wfile.write(content[:cut_after])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made = MisbehavingS3(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
