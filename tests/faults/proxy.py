"""A TCP proxy in front of PostgreSQL that loses one COMMIT, cuts a COPY, or goes deaf."""

from __future__ import annotations

import select
import socket
import threading
from typing import Literal

from embedded.ports import LOCALHOST

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
PIECE = 65_536
LATE_SECONDS = 0.7
Fault = Literal["none", "request", "request_half_open", "request_late", "reply", "cut", "deaf"]


class LossyProxy:
    """Forwards connections to a server.

    ``fault`` decides what happens to the next COMMIT: ``request``, it never arrives; with
    ``request_half_open`` the server is not told that its client is gone; ``reply``, it arrives, and
    its answer is lost; ``request_late``, it arrives some time after its client was told that the
    connection is gone. These happen once.

    With ``cut`` half of what the client sends next arrives, and the connection ends, once. With
    ``deaf`` the connections that are open stay open, everything that a client sends is taken, and
    nothing is passed on any more, in either direction; with ``deaf_to_all`` neither for new ones.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault = "none"
        self.lost = 0
        self.deaf_to_all = False
        self._target = (LOCALHOST, port)
        self._listener = socket.create_server((LOCALHOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._half_open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()
        for left in self._half_open:
            left.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        keep_server = deaf = False
        try:
            while True:
                heard = [client] if deaf else [client, server]
                for ready in select.select(heard, [], [])[0]:
                    data = ready.recv(PIECE)
                    if not data:
                        return
                    if self.fault == "deaf" or deaf or self.deaf_to_all:
                        deaf, self.fault = True, "none"
                        continue  # taken, and that is all
                    if ready is client and self.fault == "cut":
                        self.fault = "none"
                        self.lost += 1
                        server.sendall(data[: len(data) // 2])
                        return
                    if ready is server:
                        client.sendall(data)
                    elif COMMIT in data and self.fault != "none":
                        keep_server = self._lose(data, server)
                        return
                    else:
                        server.sendall(data)
        except OSError:
            return
        finally:
            client.close()
            if not keep_server:
                server.close()

    def _lose(self, data: bytes, server: socket.socket) -> bool:
        fault, self.fault = self.fault, "none"
        self.lost += 1
        if fault == "reply":
            server.sendall(data)
            server.recv(PIECE)  # the server has answered; nobody will know
        elif fault in ("request_half_open", "request_late"):
            self._half_open.append(server)
            if fault == "request_late":
                threading.Timer(LATE_SECONDS, server.sendall, (data,)).start()
            return True
        return False
