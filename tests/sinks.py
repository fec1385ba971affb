"""Where the alerts of a test arrive: a web hook and a mail server, on this machine only."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass(frozen=True)
class Told:
    """One alert that arrived."""

    subject: str
    body: str
    to: str
    at: float = field(default_factory=time.monotonic)


class Sinks:
    """All that arrived, in order."""

    def __init__(self) -> None:
        self.hooks: list[Told] = []
        self.mails: list[Told] = []
        self.hook_port = 0
        self.mail_port = 0

    def hook(self, subject: str) -> Told | None:
        """Return the first alert of the web hook with a subject like that."""
        return next((told for told in self.hooks if subject in told.subject), None)

    def mail(self, subject: str) -> Told | None:
        """Return the first e-mail with a subject like that."""
        return next((told for told in self.mails if subject in told.subject), None)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Take a mail, as aiosmtpd asks for it."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        text = mail.get_body(("plain",))
        body = text.get_content() if text else ""
        self.mails.append(Told(str(mail["subject"]), body, ",".join(envelope.rcpt_tos)))
        return "250 OK"


@contextmanager
def sinks() -> Iterator[Sinks]:
    """Start both servers."""
    made = Sinks()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            told = json.loads(content)
            title = told.get("title") or told.get("payload", {}).get("summary", "")
            made.hooks.append(Told(title, told.get("message") or json.dumps(told), self.path))
            self.send_response(202)
            self.end_headers()
            self.wfile.write(b'{"status": "success"}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    made.hook_port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made.mail_port = probe.getsockname()[1]
    mail = Controller(made, hostname="127.0.0.1", port=made.mail_port)
    mail.start()
    try:
        yield made
    finally:
        mail.stop()
        server.shutdown()
        server.server_close()
