"""An HTTP server that answers as a test tells it to, against the protocol if it must.

Replies are written to the socket by hand, so that a length can lie, a chunk can be cut, and bytes can
come one a second. It listens on loopback, on a free port, in threads of the test's process.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True)
class Reply:
    """What is answered.

    Attributes:
        status: Status.
        body: Body, as it is sent.
        headers: Headers beside Content-Length.
        length: What Content-Length says; the truth, if not given.
        chunked: Send the body in one chunk instead.
        cut_chunk: Close the connection in the middle of that chunk.
        reset_after: Reset the connection after so many bytes of the body.
        drip: Seconds before each byte, the first of the head included.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    chunked: bool = False
    cut_chunk: bool = False
    reset_after: int | None = None
    drip: float = 0

    def written(self) -> bytes:
        headers = {"Content-Type": "application/json", **self.headers}
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            length = len(self.body) if self.length is None else self.length
            headers.setdefault("Content-Length", str(length))
        head = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if not self.chunked:
            return head.encode() + self.body
        chunk = f"{len(self.body):x}\r\n".encode() + self.body
        return head.encode() + (chunk[:-3] if self.cut_chunk else chunk + b"\r\n0\r\n\r\n")


Answering = Callable[[Asked, int], Reply]


def data(*ids: Any, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    """Reply with records that have these ids."""
    body = {"data": [{"id": number} for number in ids], **more}
    return Reply(200, json.dumps(body).encode(), headers or {})


class MisbehavingServer:
    """A server whose answers a test decides; it keeps what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        self.asked: list[Asked] = []
        self.answer: Answering = lambda _asked, _n: Reply(404)


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    written = reply.written()
    if reply.reset_after is not None:
        handler.wfile.write(written[: len(written) - len(reply.body) + reply.reset_after])
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
    elif reply.drip:
        for number in range(len(written)):
            time.sleep(reply.drip)
            handler.wfile.write(written[number : number + 1])
            handler.wfile.flush()
    else:
        handler.wfile.write(written)
    lies = reply.length is not None or reply.cut_chunk or reply.reset_after is not None
    handler.close_connection = lies or handler.close_connection


@contextmanager
def misbehaving_server() -> Iterator[MisbehavingServer]:
    """Start a server; it is gone at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            with suppress(OSError):  # a client that went away
                _send(self, made.answer(made.asked[-1], len(made.asked)))

        do_GET = do_POST = do_HEAD = _any  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            return

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    with Server(("127.0.0.1", 0), Handler) as server:
        made = MisbehavingServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
